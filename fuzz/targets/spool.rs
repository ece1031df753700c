//! Reads a file of the spool directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::spool(bytes));
