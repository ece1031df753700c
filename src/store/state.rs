//! State that survives a restart and is not in the log: account, last confirmed time, learned
//! request rate, sent alerts, and how far the event list is read.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod events;
pub mod slowed;
