//! Invariant 9: the secret key and tokens never reach a log, a text, an argument, a backup, a
//! receipt or a settled row.
//!
//! Promises: invariant 9

mod canaries;
mod messages;
mod tokens;
mod wiping;
