//! An error answer: three digits, its HTTP status, and its body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::error(bytes));
