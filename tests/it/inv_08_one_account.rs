//! Invariant 8: the database belongs to one account.
//!
//! Promises: invariant 8

mod creates;
mod key;
