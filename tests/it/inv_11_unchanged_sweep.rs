//! Invariant 11: an unchanged sweep is cheap, and an interrupted one resumes.
//!
//! Promises: invariant 11

mod resume;
mod unchanged;
