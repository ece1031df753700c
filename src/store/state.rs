//! State that survives a restart beside the log: account, last confirmed time, learned rate, sent alerts.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod events;
pub mod slowed;
