//! State that survives a restart and is not in the log: the account, the last confirmed time, the
//! learned request rate, and the alerts that were sent.

pub mod account;
pub mod alerts;
pub mod clock;
pub mod slowed;
