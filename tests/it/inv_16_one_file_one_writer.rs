//! Invariant 16: one file, one writer.
//!
//! Promises: invariant 16

mod displaced;
mod start;
