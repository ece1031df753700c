//! State that survives a restart and is not in the log: account, last confirmed time, learned
//! request rate, and sent alerts.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod events;
pub mod slowed;
