//! The work: one pass each, taking no input beyond its settings, safe to run again at any time.
//!
//! A pass reads, plans (`komoju_core::plan`, pure), applies (one transaction a page) and reports. It is woken from outside and never
//! schedules itself.

mod echoes;
pub mod events;
pub mod pull;
pub mod push;
pub mod spool;

pub use echoes::Echoes;
