//! Reads a page of the customers list, or one customer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| komoju_sync::checks::page(bytes));
