//! Reads an error answer: its HTTP status as three digits, then its body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::error(bytes));
