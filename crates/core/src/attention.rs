//! Conditions that need an operator, or that keep the mirror from being current. Each condition is
//! one value of [`Attention`].
//!
//! `status`, `doctor`, alerts, `/readyz`, metrics and the service manager's status line render
//! these values. The sentence of each condition is defined here only. A renderer may add a label or
//! a subject, but never rephrases the sentence.
//!
//! A database that cannot be opened is an error, not a condition: the process that finds it exits.

mod sentence;

use serde::Serialize;

use crate::PassKind;

/// A condition that needs an operator or is worth a report, with the data for its sentence.
///
/// [`Display`](std::fmt::Display) gives the sentence without its full stop: what is wrong, and what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attention {
    /// The daemon cannot use the database, and retries until it can. The text is `since TIME: WHY`.
    DatabaseUnusable(String),
    /// The API refuses the key.
    KeyRefused {
        /// When the API first refused the key.
        since: String,
        /// Whether a process holds the database. Only the daemon retries by itself.
        has_daemon: bool,
    },
    /// The key reads another account. Everything is stopped since this time.
    AccountStopped(String),
    /// Erased data or payment tokens are still in the database's files.
    UnfinishedWipe(Wipe),
    /// Deletions are held; `oldest` is the number of the oldest hold.
    HeldDeletions(PendingItems),
    /// Delete intents are held, because there are more than the limit.
    HeldDeletes(PendingItems),
    /// Intents are parked.
    ParkedIntents(PendingItems),
    /// The API shows customers in a form that cannot be mirrored.
    UnreadableCustomers {
        /// The number of these customers.
        count: u64,
        /// How many of them were found by fewer than two complete sweeps.
        new: u64,
    },
    /// The last pass of this kind failed.
    FailedPass {
        /// The kind of the pass.
        kind: PassKind,
        /// The number of the pass.
        id: i64,
        /// The outcome of the pass, as text.
        outcome: String,
        /// The error of the pass.
        error: String,
    },
    /// The last sweep neither listed nor verified every customer.
    PartialSweep {
        /// The number of the sweep.
        id: i64,
        /// The number of customers that the sweep could not verify. 0: the list was not read to its
        /// end.
        unverified: u64,
    },
    /// Page 2 of the list repeated page 1: the API may ignore `page`.
    PageIgnored,
    /// No sweep is complete, or the last complete one is older than three periods.
    StaleMirror {
        /// When the last complete sweep ended.
        last_sweep_at: Option<String>,
        /// Whether the running daemon had enough time for a sweep. Other processes do not know
        /// this.
        is_overdue: bool,
    },
    /// The list contradicts itself, or omits customers that exist.
    ImpreciseList {
        /// What is imprecise about the list; one phrase each.
        phrases: Vec<String>,
        /// The number of unlisted customers that single requests verified.
        verified: u64,
        /// The number of seconds since the last of them was verified.
        verified_ago_s: i64,
        /// How many of them three sweeps in a row did not list.
        long_unlisted: u64,
    },
    /// Customers exist that three sweeps in a row did not list.
    LongUnlisted {
        /// The number of these customers.
        count: u64,
        /// The id of one of them.
        first: String,
    },
    /// A read showed a state older than `inbound.consistency_s`.
    LagExceeded {
        /// When such a read was last seen.
        at: String,
        /// The value of `inbound.consistency_s`.
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
    /// No file is taken from the spool directory. The text gives the reason and the command that
    /// helps.
    SpoolBlocked(String),
    /// A file in the spool directory will not be taken.
    StuckFile {
        /// The name of the file.
        name: String,
        /// The reason as a predicate, and what to do.
        why: String,
    },
    /// The file with this name was refused.
    RefusedFile(String),
    /// The daemon has not read the database since it started.
    Unobserved,
    /// The daemon could not read the database for a long time.
    DatabaseLocked {
        /// The duration in seconds.
        for_s: u64,
    },
}

/// Items that need an operator's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingItems {
    /// The number of items.
    pub count: u64,
    /// The name of the item that has waited longest.
    pub oldest: Option<String>,
}

/// Copies of erased data and of settled payment tokens that are not removed yet. Serializes as keys
/// of `status --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wipe {
    /// Whether the database file or its WAL may still hold erased data.
    #[serde(rename = "erasure_unfinished")]
    pub erasure: bool,
    /// Whether the database file or its WAL may still hold payment tokens of settled intents.
    #[serde(rename = "tokens_unfinished")]
    pub tokens: bool,
    /// When the older of these two conditions began.
    #[serde(rename = "wipe_unfinished_since")]
    pub since: Option<String>,
    /// Whether two attempts in a row failed to remove the copies.
    #[serde(rename = "wipe_blocked")]
    pub is_blocked: bool,
    /// The processes that read the database now, as `name (process N)`. Their reads prevent the
    /// removal.
    #[serde(rename = "wipe_blocked_by")]
    pub readers: Vec<String>,
    /// Whether a process holds the database. That process removes the copies.
    #[serde(skip)]
    pub has_daemon: bool,
}

/// The severity of a condition, least severe first. The order decides which exit code is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No decision is needed.
    Note,
    /// An operator must decide.
    NeedsOperator,
    /// The command that reports the condition fails.
    Failed,
    /// The API refuses the key.
    KeyRefused,
}

impl Severity {
    /// Returns the exit code that the contract defines.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Note => 0,
            Self::NeedsOperator => 3,
            Self::Failed => 1,
            Self::KeyRefused => 4,
        }
    }
}

impl Wipe {
    /// Whether an operator must act. Each unfinished erasure needs an operator. Unwiped tokens do
    /// only if their removal is blocked or no process is running to remove them.
    pub fn needs_operator(&self) -> bool {
        self.erasure || (self.tokens && (self.is_blocked || !self.has_daemon))
    }
}

impl Attention {
    /// Returns the stable name of the condition in alerts and metrics.
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

    /// Returns the severity.
    pub fn severity(&self) -> Severity {
        match self {
            Self::KeyRefused { .. } => Severity::KeyRefused,
            Self::DatabaseUnusable(_) | Self::StaleMirror { .. } => Severity::Failed,
            Self::UnfinishedWipe(wipe) if wipe.needs_operator() => Severity::NeedsOperator,
            Self::UnreadableCustomers { new: 1.., .. }
            | Self::AccountStopped(_)
            | Self::HeldDeletions(_)
            | Self::HeldDeletes(_)
            | Self::ParkedIntents(_)
            | Self::PageIgnored => Severity::NeedsOperator,
            _ => Severity::Note,
        }
    }

    /// Whether readers cannot rely on the mirror during the condition. The sentence of such a
    /// condition contains no text from outside the program.
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

    /// Returns when the condition began, where that time is known.
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

    /// Returns the number of items that the condition concerns; 1 where it does not concern items.
    pub fn count(&self) -> u64 {
        match self {
            Self::UnreadableCustomers { count, .. } => *count,
            _ => self.waiting().map_or(1, |waiting| waiting.count),
        }
    }

    /// Returns the items that need an operator's decision, for the conditions that have such items.
    pub fn waiting(&self) -> Option<&PendingItems> {
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
