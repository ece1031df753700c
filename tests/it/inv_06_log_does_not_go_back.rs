//! Invariant 6: the log does not go back.
//!
//! Promises: invariant 6

mod in_flight;
mod lag;
