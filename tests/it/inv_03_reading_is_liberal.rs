//! Invariant 3: reading is liberal, conclusions are strict.
//!
//! Promises: invariant 3

mod histories;
mod pages;
mod report;
mod walk;
