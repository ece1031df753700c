//! Reads a configuration, and the same text as a cron expression.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::config(bytes));
