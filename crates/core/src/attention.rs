//! What needs an operator, or keeps the mirror from being current: one value for each condition.
//!
//! `status`, `doctor`, alerts, `/readyz`, metrics and the service manager's line render these
//! values. A condition has one sentence, here; a renderer adds a label or a subject, and never
//! words it again.
//!
//! A database that cannot be opened is an error and no condition: the process that meets it ends.

mod sentence;

use serde::Serialize;

use crate::PassKind;

/// A condition that needs an operator or is worth a report, with the data that its sentence needs.
///
/// [`Display`](std::fmt::Display) gives the sentence without its full stop: what is so, and what to
/// do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attention {
    /// The daemon cannot use the database, and waits for that to pass: `since TIME: WHY`.
    DatabaseUnusable(String),
    /// The API refuses the key.
    KeyRefused {
        /// When it first refused the key.
        since: String,
        /// Whether a process works on the database: only the daemon retries by itself.
        has_daemon: bool,
    },
    /// The key reads another account, and everything is stopped since this time.
    AccountStopped(String),
    /// Erased data or payment tokens are still in the database's files.
    UnfinishedWipe(Wipe),
    /// Deletions are held; `oldest` is the number of a hold.
    HeldDeletions(Waiting),
    /// Delete intents are held, because there are too many of them.
    HeldDeletes(Waiting),
    /// Intents are parked.
    ParkedIntents(Waiting),
    /// The API shows customers in a form that cannot be mirrored.
    UnreadableCustomers {
        /// How many there are.
        count: u64,
        /// How many of them fewer than two complete sweeps have found.
        new: u64,
    },
    /// The last pass of a kind ended with an error.
    FailedPass {
        /// Its kind.
        kind: PassKind,
        /// Its number.
        id: i64,
        /// Its outcome's word.
        outcome: String,
        /// Why it ended.
        error: String,
    },
    /// The last sweep neither listed nor verified every customer.
    PartialSweep {
        /// Its number.
        id: i64,
        /// How many customers it could not verify; 0: the list was not read to its end.
        unverified: u64,
    },
    /// Page 2 of the list repeated page 1.
    PageIgnored,
    /// No sweep is complete, or the last complete one is older than three periods.
    StaleMirror {
        /// When the last complete sweep ended.
        last_sweep_at: Option<String>,
        /// Whether the running daemon had the time for a sweep. Other processes do not know.
        is_overdue: bool,
    },
    /// The list contradicts itself, or customers that it leaves out answer.
    ImpreciseList {
        /// What is imprecise about it, a phrase each.
        phrases: Vec<String>,
        /// How many customers that are not listed were verified by single requests.
        verified: u64,
        /// How many seconds ago the last of them was verified.
        verified_ago_s: i64,
        /// How many of them three sweeps in a row did not list.
        long_unlisted: u64,
    },
    /// Customers answer, and three sweeps in a row did not list them.
    LongUnlisted {
        /// How many there are.
        count: u64,
        /// The id of one of them.
        first: String,
    },
    /// A read showed a state older than `inbound.consistency_s`.
    LagExceeded {
        /// When that was seen last.
        at: String,
        /// The setting.
        consistency_s: u32,
    },
    /// The event list cannot be read.
    EventsOff {
        /// Since when.
        since: String,
        /// Why; masked.
        reason: String,
    },
    /// Customers that events name are not requested for now.
    HintsPaused {
        /// Until when.
        until: String,
        /// Why.
        reason: String,
    },
    /// KOMOJU's events report none of our own pushes.
    PushesUnreported {
        /// How many pushes there were.
        pushes: u64,
    },
    /// No file is taken from the spool directory: why, with the command that helps.
    SpoolBlocked(String),
    /// A file in the spool directory will not be taken.
    StuckFile {
        /// Its name.
        name: String,
        /// Why, as a predicate, with what to do.
        why: String,
    },
    /// The file with this name was refused.
    RefusedFile(String),
    /// The daemon has not looked at the database since it started.
    Unobserved,
    /// The daemon could not read the database for long.
    DatabaseLocked {
        /// For how many seconds.
        for_s: u64,
    },
}

/// Things that wait for an operator's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many there are.
    pub count: u64,
    /// Names the one that waits longest.
    pub oldest: Option<String>,
}

/// Copies of erased data and settled payment tokens that are not removed yet. Serialises as keys of
/// `status --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wipe {
    /// Whether the database file or its WAL may still hold erased data.
    #[serde(rename = "erasure_unfinished")]
    pub erasure: bool,
    /// Whether they may still hold payment tokens of settled intents.
    #[serde(rename = "tokens_unfinished")]
    pub tokens: bool,
    /// Since when one of the two is so.
    #[serde(rename = "wipe_unfinished_since")]
    pub since: Option<String>,
    /// Whether two attempts in a row could not remove them.
    #[serde(rename = "wipe_blocked")]
    pub is_blocked: bool,
    /// The processes that read the database now and so prevent it, as `name (process N)`.
    #[serde(rename = "wipe_blocked_by")]
    pub readers: Vec<String>,
    /// Whether a process works on the database, which removes them.
    #[serde(skip)]
    pub has_daemon: bool,
}

/// How grave a condition is, lightest first: the order in which exit codes win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It needs no decision.
    Note,
    /// It needs an operator.
    Waits,
    /// It fails the command that reports it.
    Failed,
    /// The API refuses the key.
    KeyRefused,
}

impl Severity {
    /// The exit code of the contract.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Note => 0,
            Self::Waits => 3,
            Self::Failed => 1,
            Self::KeyRefused => 4,
        }
    }
}

impl Wipe {
    /// Whether it needs an operator: each unfinished erasure does. Tokens are removed within
    /// moments; they need an operator if that is blocked, or if no process is there to do it.
    pub fn needs_operator(&self) -> bool {
        self.erasure || (self.tokens && (self.is_blocked || !self.has_daemon))
    }
}

impl Attention {
    /// A word that stays what it is: alerts and metrics name the condition by it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::DatabaseUnusable(_) => "database_unusable",
            Self::KeyRefused { .. } => "key_refused",
            Self::AccountStopped(_) => "account_stopped",
            Self::UnfinishedWipe(_) => "unfinished_wipe",
            Self::HeldDeletions(_) => "held_deletions",
            Self::HeldDeletes(_) => "held_deletes",
            Self::ParkedIntents(_) => "parked_intents",
            Self::UnreadableCustomers { .. } => "unreadable_customers",
            Self::FailedPass { .. } => "failed_pass",
            Self::PartialSweep { .. } => "partial_sweep",
            Self::PageIgnored => "page_ignored",
            Self::StaleMirror { .. } => "stale_mirror",
            Self::ImpreciseList { .. } => "imprecise_list",
            Self::LongUnlisted { .. } => "long_unlisted",
            Self::LagExceeded { .. } => "lag_exceeded",
            Self::EventsOff { .. } => "events_off",
            Self::HintsPaused { .. } => "hints_paused",
            Self::PushesUnreported { .. } => "pushes_unreported",
            Self::SpoolBlocked(_) => "spool_blocked",
            Self::StuckFile { .. } => "stuck_file",
            Self::RefusedFile(_) => "refused_file",
            Self::Unobserved => "unobserved",
            Self::DatabaseLocked { .. } => "database_locked",
        }
    }

    /// How grave it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::KeyRefused { .. } => Severity::KeyRefused,
            Self::DatabaseUnusable(_) | Self::StaleMirror { .. } => Severity::Failed,
            Self::UnfinishedWipe(wipe) if wipe.needs_operator() => Severity::Waits,
            Self::UnreadableCustomers { new: 1.., .. }
            | Self::AccountStopped(_)
            | Self::HeldDeletions(_)
            | Self::HeldDeletes(_)
            | Self::ParkedIntents(_)
            | Self::PageIgnored => Severity::Waits,
            _ => Severity::Note,
        }
    }

    /// Whether readers cannot rely on the mirror meanwhile. The sentence of such a condition holds
    /// no text from outside.
    pub fn makes_unready(&self) -> bool {
        matches!(
            self,
            Self::KeyRefused { .. }
                | Self::AccountStopped(_)
                | Self::StaleMirror { .. }
                | Self::Unobserved
                | Self::DatabaseLocked { .. }
        )
    }

    /// Since when, where the condition has a time of its own.
    pub fn since(&self) -> Option<&str> {
        match self {
            Self::KeyRefused { since, .. } | Self::AccountStopped(since) | Self::EventsOff { since, .. } => {
                Some(since)
            }
            Self::UnfinishedWipe(wipe) => wipe.since.as_deref(),
            Self::StaleMirror { last_sweep_at, .. } => last_sweep_at.as_deref(),
            _ => None,
        }
    }

    /// How many things the condition is about; 1 where it is not about things.
    pub fn count(&self) -> u64 {
        match self {
            Self::UnreadableCustomers { count, .. } => *count,
            _ => self.waiting().map_or(1, |waiting| waiting.count),
        }
    }

    /// What waits for an operator's decision, where the condition is about such things.
    pub fn waiting(&self) -> Option<&Waiting> {
        match self {
            Self::HeldDeletions(waiting) | Self::HeldDeletes(waiting) | Self::ParkedIntents(waiting) => {
                Some(waiting)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
