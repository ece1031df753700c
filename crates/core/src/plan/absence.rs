//! Absence: what a sweep does about the customers that it did not list, decided one answer at a time.
//!
//! A list can leave a customer out for many reasons, and only one of them is that it is gone. So a
//! live customer that no round of a sweep has listed is a *suspect*: it is requested by itself. It is
//! recorded as deleted only if that answer says that it is gone **and**, after it and within a minute,
//! a *canary* answers: a customer that the sweep did list. The canary shows that the API tells the
//! truth about this account at that moment.
//!
//! ```text
//!   suspects ─▶ up to the limit ────────────────▶ each is requested
//!            └▶ more ─▶ a sample ─▶ all gone ───▶ all are held for an operator
//!                                └▶ one exists ─▶ the list is imprecise: as many as the budget allows are requested
//! ```
//!
//! [`AbsencePlan`] says which of these applies. [`AbsenceCheck`] then yields one [`AbsenceStep`] after the
//! other and takes the answers; it never waits and never does I/O.
//!
//! Imprecision must not switch the guard off: where suspects exceeded the limit within a day, the
//! deletions of that day count together ([`room`]).

mod check;

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use crate::CustomerId;
use crate::format::count;

pub use check::AbsenceCheck;

/// CANARY_WITHIN controls how far apart a suspect's 404 and the canary's 200 may be.
pub const CANARY_WITHIN: Duration = Duration::from_secs(60);

/// CANARIES controls how many canaries are tried before the deletions that wait for one are held.
pub const CANARIES: usize = 3;

/// SAMPLE controls how many suspects are requested where there are too many to request each.
pub const SAMPLE: usize = 20;

/// COUNTED_FOR controls for how long suspects above the limit make the deletions of several sweeps count together.
pub const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Returns how many suspects a sweep may settle by itself: the larger of a count and a share of the customers that were live
/// before it.
pub fn limit(live_before: u64, max_count: u64, max_percent: u32) -> u64 {
    let share = u128::from(live_before) * u128::from(max_percent) / 100;
    max_count.max(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Returns how many deletions a sweep may record by itself: all that are proven, unless the list was seen to be imprecise within
/// [`COUNTED_FOR`]. `recorded` is how many were recorded in that time.
pub fn room(limit: u64, is_imprecise: bool, recorded: u64) -> u64 {
    if is_imprecise { limit.saturating_sub(recorded) } else { u64::MAX }
}

/// Whether a canary that answered at `answered_at` proves a 404 that was requested at `requested_at`, both by a steady clock.
pub fn is_within(requested_at: Duration, answered_at: Duration) -> bool {
    answered_at.saturating_sub(requested_at) <= CANARY_WITHIN
}

/// Why a deletion is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// More customers were missing than a sweep may settle by itself: they wait for an operator.
    TooMany,
    /// The API said that the customer is gone while no canary answered: the next sweep requests it again, and may record it.
    Unproven,
    /// The database was restored from a backup: every deletion waits for an operator, however few there are. As long as any of
    /// them waits, later ones do too.
    Restored,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::TooMany, Self::Unproven, Self::Restored];

    /// The reasons for which only an operator's decision releases a deletion.
    pub const FOR_AN_OPERATOR: [Self; 2] = [Self::TooMany, Self::Restored];

    /// The word in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Unproven => "unproven",
            Self::Restored => "restored",
        }
    }

    /// The reason in words.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::TooMany => "more customers are missing than a sweep may delete by itself",
            Self::Unproven => "no listed customer answered to confirm it",
            Self::Restored => "the database was restored from a backup",
        }
    }
}

/// How the hold of a customer's deletion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// The customer is gone, and recorded as deleted, by a pass or by our own push.
    Deleted,
    /// It answered, or was listed again.
    Alive,
}

/// What a sweep may do about proven deletions by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePolicy {
    /// Record them.
    Record,
    /// Hold them all: the database was restored, and an operator has not yet decided about what the list lacks.
    Hold,
}

impl DeletePolicy {
    fn room(self, room: u64) -> u64 {
        match self {
            Self::Record => room,
            Self::Hold => 0,
        }
    }

    /// Why a deletion is held that would be recorded were there fewer.
    fn reason_for_excess(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::TooMany,
            Self::Hold => HoldReason::Restored,
        }
    }

    /// Why a deletion is held whose 404 no canary confirmed.
    fn reason_for_unproven(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::Unproven,
            Self::Hold => HoldReason::Restored,
        }
    }
}

/// What a sweep does about its suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsencePlan {
    /// There are none.
    Nothing,
    /// Each suspect is requested.
    RequestEach {
        /// How many there are.
        suspects: u64,
    },
    /// Suspects exceed the limit: some are requested first.
    RequestSample {
        /// How many there are.
        suspects: u64,
        /// How many a sweep may settle by itself.
        limit: u64,
    },
}

impl AbsencePlan {
    /// Chooses the plan. `left_to_push` is how many more customers are missing and are left to an open push of ours: they count
    /// towards the limit.
    pub fn new(suspects: u64, left_to_push: u64, limit: u64) -> Self {
        match suspects {
            0 => Self::Nothing,
            _ if suspects.saturating_add(left_to_push) <= limit => Self::RequestEach { suspects },
            _ => Self::RequestSample { suspects, limit },
        }
    }
}

impl fmt::Display for AbsencePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => f.write_str("no customer is missing"),
            Self::RequestEach { suspects } => {
                write!(f, "{} missing: request each", count(suspects, "customer"))
            }
            Self::RequestSample { suspects, limit } => write!(
                f,
                "{} missing, more than the limit of {limit}: request a sample of {}",
                count(suspects, "customer"),
                suspects.min(SAMPLE as u64)
            ),
        }
    }
}

/// What a request for one customer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// The customer exists and can be read.
    Exists,
    /// The customer exists, and what is shown of it cannot be read: it proves nothing about other customers.
    Unreadable,
    /// The API says that the customer is gone.
    Gone,
    /// No usable answer.
    Unclear,
    /// Not requested: the mirror does not have the customer as live any more.
    NotLive,
}

/// Which customers may serve as a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canaries {
    /// One of these must answer; they are tried in this order, round and round.
    Among(Vec<CustomerId>),
    /// None is left, and an operator has approved that: nothing needs to answer.
    NoneLeft,
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceStep {
    /// Request the customer in this row of the mirror, then call [`AbsenceCheck::answered`].
    Lookup(i64),
    /// Request this canary, then call [`AbsenceCheck::canary_answered`].
    Canary(CustomerId),
    /// Record these rows as deleted, at most `room` of them, then call [`AbsenceCheck::recorded`].
    Record {
        /// Proven gone.
        rows: Vec<i64>,
        /// How many may be recorded.
        room: u64,
    },
    /// Note that the list leaves out customers that exist, then call [`AbsenceCheck::set_room`].
    NoteImprecise {
        /// How many customers it left out.
        suspects: u64,
    },
    /// Nothing: take the [`AbsenceFindings`].
    Finish,
}

impl fmt::Display for AbsenceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(row) => write!(f, "request the missing customer in row {row}"),
            Self::Canary(id) => write!(f, "request {id}, which was listed, to confirm the answers before"),
            Self::Record { rows, .. } => {
                write!(f, "record {} as deleted", count(rows.len() as u64, "customer"))
            }
            Self::NoteImprecise { .. } => f.write_str("note that the list leaves out customers that exist"),
            Self::Finish => f.write_str("finish"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbsenceFindings {
    /// Deletions to hold: rows, and why.
    pub held: Vec<(Vec<i64>, HoldReason)>,
    /// How many customers are neither verified, held nor recorded.
    pub unverified: u64,
    /// Whether no canary answered: nothing can be proven at the moment.
    pub lacks_canary: bool,
}

#[cfg(test)]
mod tests;
