//! The tasks of the daemon: pull, push, the spool and the event list.
//!
//! A task needs no input except its settings, and is safe to run again at any time. It reads, plans
//! (`komoju_core::plan`, pure), applies the plan in transactions and reports. The caller wakes it;
//! a task never schedules itself.

pub mod events;
mod in_flight;
pub mod pull;
pub mod push;
pub mod spool;

pub use in_flight::InFlightPushes;
