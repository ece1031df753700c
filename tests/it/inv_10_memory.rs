//! Invariant 10: memory does not grow with the number of customers but for a few bytes each.
//!
//! Promises: invariant 10

mod customers;
mod files;
