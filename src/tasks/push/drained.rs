//! The result of a drain.

use std::fmt;

/// What a drain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Attempts made.
    pub attempts: u64,
    /// Intents that are done.
    pub done: u64,
    /// That were rejected.
    pub rejected: u64,
    /// That wait for another attempt.
    pub waiting: u64,
    /// That are parked.
    pub parked: u64,
    /// Whether the key was refused: then nothing more was tried.
    pub key_refused: bool,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, rejected, waiting, parked, .. } = self;
        write!(f, "{done} done")?;
        for (count, what) in
            [(rejected, "rejected"), (waiting, "wait for another attempt"), (parked, "parked")]
        {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
