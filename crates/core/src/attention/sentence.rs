//! The sentence of each condition, and its short form.

use std::fmt;

use super::{Attention, PendingItems, Wipe};
use crate::PassKind;
use crate::format::{count, duration, grouped};

impl Attention {
    /// Returns a short form for a line that lists many conditions; `None` where such a line omits
    /// the condition.
    pub fn brief(&self) -> Option<String> {
        Some(match self {
            Self::DatabaseUnusable(trouble) => format!("the database cannot be used {trouble}"),
            Self::KeyRefused { since, .. } => format!("key refused since {since}"),
            Self::AccountStopped(since) => format!("stopped since {since}: the key reads another account"),
            Self::UnfinishedWipe(wipe) if !wipe.needs_operator() => return None,
            Self::UnfinishedWipe(Wipe { erasure: true, .. }) => "erasure unfinished".to_owned(),
            Self::UnfinishedWipe(_) => "wiping of tokens unfinished".to_owned(),
            Self::HeldDeletions(waiting) => count(waiting.count, "held deletion"),
            Self::HeldDeletes(waiting) => count(waiting.count, "held delete intent"),
            Self::ParkedIntents(waiting) => count(waiting.count, "parked intent"),
            Self::UnreadableCustomers { count: n, new: 0 } => count(*n, "unreadable customer"),
            Self::UnreadableCustomers { new, .. } => count(*new, "new unreadable customer"),
            Self::FailedPass { kind: PassKind::Sweep, .. } => self.to_string(),
            Self::PartialSweep { id, .. } => format!("sweep {id} {self}"),
            Self::PageIgnored => "the API may ignore `page`".to_owned(),
            Self::StaleMirror { last_sweep_at: Some(at), .. } => format!("stale: last complete sweep {at}"),
            Self::StaleMirror { .. } => "no complete sweep yet".to_owned(),
            _ => return None,
        })
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseUnusable(trouble) => {
                write!(f, "the database cannot be used {trouble}; the daemon retries by itself")
            }
            Self::KeyRefused { since, has_daemon } => refused(f, since, *has_daemon),
            Self::AccountStopped(since) => stopped(f, since),
            Self::UnfinishedWipe(wipe) => wipe.fmt(f),
            Self::HeldDeletions(waiting) => held_deletions(f, waiting),
            Self::HeldDeletes(waiting) => held_deletes(f, waiting),
            Self::ParkedIntents(waiting) => parked(f, waiting),
            Self::UnreadableCustomers { count: n, .. } => write!(
                f,
                "{}: the mirror keeps their last known state; ask KOMOJU's support to correct them",
                count(*n, "unreadable customer")
            ),
            Self::FailedPass { kind, id, outcome, error } => {
                write!(f, "{} {id} {outcome}: {error}", kind.word())
            }
            Self::PartialSweep { unverified, .. } => partial(f, *unverified),
            Self::StaleMirror { last_sweep_at, is_overdue } => {
                stale(f, last_sweep_at.as_deref(), *is_overdue)
            }
            Self::PageIgnored
            | Self::ImpreciseList { .. }
            | Self::LongUnlisted { .. }
            | Self::LagExceeded { .. } => self.list(f),
            Self::EventsOff { since, reason } => write!(
                f,
                "the event list could not be read since {since}: {reason}; changes are found by sweeps and probes meanwhile"
            ),
            Self::HintsPaused { until, reason } => {
                write!(f, "customers that events name are not requested until {until}: {reason}")
            }
            Self::PushesUnreported { pushes } => write!(
                f,
                "none of {} in the last day was reported as an event: in KOMOJU's dashboard, subscribe a webhook to customer.* \
                 (docs/operations.md)",
                pushes_of(*pushes)
            ),
            Self::SpoolBlocked(why) => write!(f, "no file is taken: {why}"),
            Self::StuckFile { name, why } => write!(f, "{name} in outbound.spool_dir: it {why}"),
            Self::RefusedFile(name) => write!(
                f,
                "{name}: rejected/{name}.error in outbound.spool_dir gives the reason; correct the file and drop it \
                 again, or remove both"
            ),
            Self::Unobserved => f.write_str("the daemon has just started and has not read the database yet"),
            Self::DatabaseLocked { for_s } => {
                write!(f, "the database could not be read for {for_s} s: another program keeps it locked")
            }
        }
    }
}

fn refused(f: &mut fmt::Formatter<'_>, since: &str, has_daemon: bool) -> fmt::Result {
    let next = if has_daemon {
        " and restart the service; the daemon retries every 15 minutes"
    } else {
        "; no daemon runs: the next `komoju-sync sync` or `komoju-sync run` retries"
    };
    write!(
        f,
        "the API refuses the key since {since}, so nothing is read or pushed: install the right secret key{next}"
    )
}

fn partial(f: &mut fmt::Formatter<'_>, unverified: u64) -> fmt::Result {
    let were = if unverified == 1 { "was" } else { "were" };
    match unverified {
        0 => f.write_str("partial: the list was not read to its end"),
        n => write!(f, "partial: {} {were} neither listed nor verified", count(n, "customer")),
    }
}

fn stale(f: &mut fmt::Formatter<'_>, last_sweep_at: Option<&str>, is_overdue: bool) -> fmt::Result {
    match (last_sweep_at, is_overdue) {
        (Some(at), true) => write!(
            f,
            "no sweep was complete since {at}, which is more than three periods ago: `komoju-sync status` shows \
             what failed"
        ),
        (Some(at), false) => write!(
            f,
            "the last complete sweep ended at {at}, longer ago than three periods of inbound.sweep_cron: see \
             `komoju-sync status`"
        ),
        (None, true) => f.write_str(
            "no sweep was complete yet, after more than three periods: `komoju-sync status` shows what failed",
        ),
        (None, false) => {
            f.write_str("no sweep is complete yet: `komoju-sync status` shows the progress of the first one")
        }
    }
}

fn stopped(f: &mut fmt::Formatter<'_>, since: &str) -> fmt::Result {
    write!(
        f,
        "everything is stopped since {since}, because the key reads another account: run `komoju-sync account \
         show`; install the right key again, or run `komoju-sync account accept`"
    )
}

fn held_deletions(f: &mut fmt::Formatter<'_>, waiting: &PendingItems) -> fmt::Result {
    write!(
        f,
        "{} {} for an operator: see `komoju-sync deletions list`, then run `komoju-sync deletions approve` or \
         `reject`",
        count(waiting.count, "deletion"),
        waiting.verb()
    )
}

fn held_deletes(f: &mut fmt::Formatter<'_>, waiting: &PendingItems) -> fmt::Result {
    write!(
        f,
        "{} {} for an operator, because more are open or were sent within an hour than \
         outbound.hold_deletes_over allows: see `komoju-sync intent plan`, then run `komoju-sync intent approve`, \
         or `cancel` the wrong ones",
        count(waiting.count, "delete intent"),
        waiting.verb()
    )
}

fn parked(f: &mut fmt::Formatter<'_>, waiting: &PendingItems) -> fmt::Result {
    write!(
        f,
        "{} {} parked and {} for an operator: `komoju-sync intent list --state parked` and `komoju-sync intent show \
         ID` show why; then run `komoju-sync intent retry ID` or `cancel ID`",
        count(waiting.count, "intent"),
        if waiting.count == 1 { "is" } else { "are" },
        waiting.verb()
    )
}

impl PendingItems {
    fn verb(&self) -> &'static str {
        if self.count == 1 { "waits" } else { "wait" }
    }
}

impl Attention {
    /// Writes the sentences about the list and its reads.
    fn list(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImpreciseList { phrases, verified, verified_ago_s, long_unlisted } => {
                let ago = duration(*verified_ago_s);
                let mut parts = phrases.join(", ");
                if !parts.is_empty() && *verified > 0 {
                    parts += "; ";
                }
                parts += &match *verified {
                    0 => String::new(),
                    1 => format!("1 customer is verified by a single request, {ago} ago"),
                    n => format!(
                        "{} are verified by single requests, the last {ago} ago",
                        count(n, "customer")
                    ),
                };
                let is_imprecise = !phrases.is_empty() || *long_unlisted > 0;
                write!(f, "{}{parts}", if is_imprecise { "imprecise: " } else { "" })
            }
            Self::LongUnlisted { count: 0 | 1, first } => {
                write!(f, "1 customer answers and was not listed for three sweeps: {first}")
            }
            Self::LongUnlisted { count: n, first } => {
                let (customers, more) = (count(*n, "customer"), n - 1);
                write!(
                    f,
                    "{customers} answer and were not listed for three sweeps: {first} (and {more} more)"
                )
            }
            Self::LagExceeded { at, consistency_s } => write!(
                f,
                "reads may lag longer than inbound.consistency_s ({consistency_s} s), last seen at {at}: raise it"
            ),
            _ => f.write_str(
                "there may be more customers than are listed: ask KOMOJU, and see `komoju-sync doctor`",
            ),
        }
    }
}

impl fmt::Display for Wipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.erasure, self.tokens) {
            (true, true) => "erased data and payment tokens of settled intents",
            (true, false) => "erased data",
            _ => "payment tokens of settled intents",
        };
        write!(f, "{what} are still in the database file or its WAL")?;
        if let Some(at) = &self.since {
            write!(f, " since {at}")?;
        }
        match (self.readers.as_slice(), self.has_daemon) {
            ([], false) => f.write_str("; `komoju-sync sync` or the daemon removes them"),
            ([], true) if self.is_blocked => f.write_str(
                "; the daemon could not remove them yet: a process of another user reads the database, or the log says why",
            ),
            ([], true) => f.write_str("; the daemon removes them"),
            (readers, _) => write!(
                f,
                "; {} {} an old state of the database: end that transaction or program",
                readers.join(" and "),
                if readers.len() == 1 { "reads" } else { "read" }
            ),
        }
    }
}

/// Names a number of pushes: the plural of "push" is irregular.
fn pushes_of(n: u64) -> String {
    if n == 1 { "1 push".to_owned() } else { format!("{} pushes", grouped(n)) }
}
