//! Reads that lag behind writes: the maximum lag, and a customer's recent changes.

use jiff::{SignedDuration, Timestamp};

use super::{ChangeKind, Origin};

/// How long reads may lag behind writes; zero if they never lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistency(pub SignedDuration);

impl Consistency {
    /// Creates it from a number of seconds.
    pub fn seconds(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds.into()))
    }

    /// Returns the time from which every read shows the state of `at` or a newer one.
    pub fn after(self, at: Timestamp) -> Timestamp {
        at.checked_add(self.0).unwrap_or(Timestamp::MAX)
    }

    /// Whether a read requested at `requested_at` may show a state older than that of `at`.
    pub fn may_be_behind(self, at: Timestamp, requested_at: Timestamp) -> bool {
        !self.0.is_zero() && requested_at <= self.after(at)
    }
}

/// One entry of a customer's log, and the state that it replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentChange {
    /// What the entry records.
    pub kind: ChangeKind,
    /// How the change became known.
    pub origin: Origin,
    /// When the entry was committed.
    pub at: Timestamp,
    /// The body that the entry replaced; `None` if the customer did not exist.
    pub replaced: Option<String>,
}

/// A read that is not applied, and when the customer is requested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredRead {
    /// The time from which a read of the customer is new enough.
    pub until: Timestamp,
    /// Whether the read shows a state that the log has replaced.
    pub is_replaced: bool,
    /// The minimum lag of the read; `None` if it is not known.
    pub lag: Option<SignedDuration>,
}
