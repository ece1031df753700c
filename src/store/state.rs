//! State that survives a restart and is not in the log. It has the account, the last confirmed
//! time, the learned request rate, the sent alerts, and how far the event list is read.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod events;
pub mod slowed;
