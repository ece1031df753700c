//! What outlives a process beside the log: the account, the last confirmed time, the learned rate, and sent alerts.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod slowed;
