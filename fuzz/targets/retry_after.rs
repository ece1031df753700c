//! Reads a `Retry-After`, and on a second line the server's `Date`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::retry_after(bytes));
