//! Decides what a sweep does about the customers that it did not list, one answer at a time.
//!
//! A list can omit a customer for many reasons; a deletion is only one of them. A *suspect* is a
//! live customer that no round of a sweep listed. It is requested by its id, and recorded as
//! deleted only if two conditions hold. Its own answer says that it is gone. Within a minute after
//! that, a *canary* answers: a customer that the sweep did list. The canary shows that the API
//! answers correctly for this account at that moment.
//!
//! ```text
//!   suspects ─▶ up to the limit ────────────────▶ each is requested
//!            └▶ more ─▶ a sample ─▶ all gone ───▶ all are held for an operator
//!                                └▶ one exists ─▶ the list is imprecise: as many as the budget allows are requested
//! ```
//!
//! [`AbsencePlan`] chooses one of these cases. [`AbsenceCheck`] then yields one [`AbsenceStep`] at
//! a time and takes its answer. It never waits and never does I/O.
//!
//! An imprecise list must not disable the limit. If suspects exceeded the limit within a day, the
//! deletions of that day are counted together ([`room`]).

mod check;

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use crate::CustomerId;
use crate::format::count;

pub use check::AbsenceCheck;

/// CANARY_WITHIN controls the maximum time between a suspect's 404 and the canary's 200.
pub const CANARY_WITHIN: Duration = Duration::from_secs(60);

/// CANARIES controls how many canaries are tried before unproven deletions are held.
pub const CANARIES: usize = 3;

/// SAMPLE controls how many suspects are requested if they exceed the limit.
pub const SAMPLE: usize = 20;

/// COUNTED_FOR controls how long the deletions of several sweeps are counted together after
/// suspects exceeded the limit.
pub const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Returns how many suspects a sweep may decide by itself. This is the larger of a count and a
/// percentage of the customers that were live before the sweep.
pub fn limit(live_before: u64, max_count: u64, max_percent: u32) -> u64 {
    let share = u128::from(live_before) * u128::from(max_percent) / 100;
    max_count.max(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Returns how many deletions a sweep may record by itself. There is no maximum unless the list was
/// imprecise within [`COUNTED_FOR`]. `recorded` is the number of deletions recorded in that time.
pub fn room(limit: u64, is_imprecise: bool, recorded: u64) -> u64 {
    if is_imprecise { limit.saturating_sub(recorded) } else { u64::MAX }
}

/// Whether a canary that answered at `answered_at` proves a 404 that was requested at
/// `requested_at`. Both times are by a steady clock.
pub fn is_within(requested_at: Duration, answered_at: Duration) -> bool {
    answered_at.saturating_sub(requested_at) <= CANARY_WITHIN
}

/// Why a deletion is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// More customers are missing than a sweep may decide by itself. An operator must decide.
    TooMany,
    /// The API said that the customer is gone, but no canary answered. The next sweep requests the
    /// customer again and may record the deletion.
    Unproven,
    /// The database was restored from a backup. Every deletion needs an operator, whatever the
    /// number. While one of them is held, later deletions are held too.
    Restored,
}

impl HoldReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::TooMany, Self::Unproven, Self::Restored];

    /// The reasons for which only an operator's decision releases a deletion.
    pub const FOR_AN_OPERATOR: [Self; 2] = [Self::TooMany, Self::Restored];

    /// Returns the name in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Unproven => "unproven",
            Self::Restored => "restored",
        }
    }

    /// Returns the reason as text.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::TooMany => "more customers are missing than a sweep may delete by itself",
            Self::Unproven => "no listed customer answered to confirm it",
            Self::Restored => "the database was restored from a backup",
        }
    }
}

/// How the hold of a customer's deletion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// The customer is gone. A pass or our own push recorded its deletion.
    Deleted,
    /// The customer answered, or was listed again.
    Alive,
}

/// What a sweep may do by itself with proven deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePolicy {
    /// Record them.
    Record,
    /// Hold them all. The database was restored, and an operator has not decided about the missing
    /// customers yet.
    Hold,
}

impl DeletePolicy {
    fn room(self, room: u64) -> u64 {
        match self {
            Self::Record => room,
            Self::Hold => 0,
        }
    }

    /// Returns the reason for holding deletions above the limit.
    fn reason_for_excess(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::TooMany,
            Self::Hold => HoldReason::Restored,
        }
    }

    /// Returns the reason for holding a deletion that no canary confirmed.
    fn reason_for_unproven(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::Unproven,
            Self::Hold => HoldReason::Restored,
        }
    }
}

/// What a sweep does with its suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsencePlan {
    /// There are no suspects.
    Nothing,
    /// Each suspect is requested.
    RequestEach {
        /// The number of suspects.
        suspects: u64,
    },
    /// Suspects exceed the limit: a sample is requested first.
    RequestSample {
        /// The number of suspects.
        suspects: u64,
        /// The number of suspects that a sweep may decide by itself.
        limit: u64,
    },
}

impl AbsencePlan {
    /// Chooses the plan. `left_to_push` is the number of missing customers that have an open push
    /// of ours. They are not suspects, but count towards the limit.
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

/// The answer to a request for one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// The customer exists and is readable.
    Exists,
    /// The customer exists, but is unreadable. It proves nothing about other customers.
    Unreadable,
    /// The API says that the customer is gone.
    Gone,
    /// There was no usable answer.
    Unclear,
    /// The customer was not requested, because it is no longer live in the mirror.
    NotLive,
}

/// The customers that may serve as a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canaries {
    /// One of these must answer. They are tried in this order, repeatedly.
    Among(Vec<CustomerId>),
    /// None is left, and an operator approved that. No canary is needed.
    NoneLeft,
}

/// The next action of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceStep {
    /// Request the customer in this row of the mirror, then call [`AbsenceCheck::answered`].
    Lookup(i64),
    /// Request this canary, then call [`AbsenceCheck::canary_answered`].
    Canary(CustomerId),
    /// Record these rows as deleted, at most `room` of them, then call [`AbsenceCheck::recorded`].
    Record {
        /// The rows whose customers are proven gone.
        rows: Vec<i64>,
        /// The maximum number of deletions to record.
        room: u64,
    },
    /// Note that the list omits customers that exist, then call [`AbsenceCheck::set_room`].
    NoteImprecise {
        /// The number of suspects.
        suspects: u64,
    },
    /// The check is finished: take the [`AbsenceFindings`].
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

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbsenceFindings {
    /// The deletions to hold: rows and reason.
    pub held: Vec<(Vec<i64>, HoldReason)>,
    /// The number of customers that are neither verified, held nor recorded.
    pub unverified: u64,
    /// Whether no canary answered, so that nothing can be proven at the moment.
    pub lacks_canary: bool,
}

#[cfg(test)]
mod tests;
