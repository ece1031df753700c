//! Reads that lag behind writes: for how long, and what is known of a customer's recent past.

use jiff::{SignedDuration, Timestamp};

use super::{ChangeKind, Origin};

/// How long reads may lag behind writes; zero where they never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistency(pub SignedDuration);

impl Consistency {
    /// So many seconds.
    pub fn seconds(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds.into()))
    }

    /// When a read is certain to show what was true at `at`.
    pub fn after(self, at: Timestamp) -> Timestamp {
        at.checked_add(self.0).unwrap_or(Timestamp::MAX)
    }

    /// Whether a read that was requested at `requested_at` may show an older state than the one of `at`.
    pub fn may_be_behind(self, at: Timestamp, requested_at: Timestamp) -> bool {
        !self.0.is_zero() && requested_at <= self.after(at)
    }
}

/// One entry of a customer's log, and the state that it replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentChange {
    /// What it records.
    pub kind: ChangeKind,
    /// How that became known.
    pub origin: Origin,
    /// When it was committed.
    pub at: Timestamp,
    /// The body that it replaced; `None` where the customer was not there.
    pub replaced: Option<String>,
}

/// Why a read is not applied, and when the customer is requested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredRead {
    /// When the next read of it is certain to be no older.
    pub until: Timestamp,
    /// Whether the read shows a state that the log has replaced.
    pub is_replaced: bool,
    /// How far the read was behind, at least; `None` where that is not known.
    pub lag: Option<SignedDuration>,
}
