//! The status of the mirror, read from the database alone. `status`, the service manager, alerts
//! and metrics show it. What needs an operator is a list of [`Attention`].

mod attention;
mod events;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::{Cadence, Config};
use crate::store::file::{readers, wipe};
use crate::store::log::list_state::ListState;
use crate::store::log::{busy_fields, holds, unreadable};
use crate::store::outbox::{engine, rows};
use crate::store::read::{self, Record};
use crate::store::state::{account, alerts, slowed};
use crate::store::{self, Conn, Instance, Reader, StoreError};
use crate::tasks::spool;
use komoju_core::attention::Wipe;
use komoju_core::format::{duration, grouped};
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::{Attention, PassKind, ReducedRate, Severity, time};

pub use events::EventsStatus;

/// CLOCKS_DIFFER controls how far in the future the end of the last sweep may be before the mirror
/// counts as stale.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(60);

/// A request for a fresh status. It is answered when the status is published.
pub type StatusRequest = oneshot::Sender<()>;

/// MOST_UNREADABLE controls how many unreadable customers are named.
const MOST_UNREADABLE: usize = 100;

/// MOST_REJECTED controls up to how many refused files are counted.
const MOST_REJECTED: usize = 1000;

/// The status of the mirror, as `status --json` prints it (docs/status.md).
#[derive(Debug, Serialize)]
pub struct Status {
    /// The process that works on the database, and since when; null if there is none.
    pub instance: Option<String>,
    /// Since when and why the daemon cannot use the database and waits; null otherwise.
    pub database_trouble: Option<String>,
    /// The one row of `mirror_info`.
    pub mirror: Record,
    /// Seconds since the last complete sweep ended; null if there is none.
    pub last_sweep_age_s: Option<i64>,
    /// Whether that is longer ago than three periods of `inbound.sweep_cron`.
    pub stale: bool,
    /// The pass that runs now, with `last_page`.
    pub running: Option<Record>,
    /// Seconds that the running pass may still take; null while that is unknown.
    pub time_left_s: Option<i64>,
    /// The last sweep that is over, however it ended.
    pub last_sweep: Option<Record>,
    /// The last probe that is over, however it ended.
    pub last_probe: Option<Record>,
    /// Until when the API asked the daemon to wait; null when that time is over.
    pub throttled_until: Option<String>,
    /// How much the requests are slowed down because the API refused some; null at the configured
    /// rate.
    pub slowed: Option<ReducedRate>,
    /// Since when the API refuses the key.
    pub key_refused_since: Option<String>,
    /// Since when all work waits because the key reads another account.
    pub account_stopped_since: Option<String>,
    /// When the database was restored from a backup; null after a whole sweep has held the
    /// deletions that the backup lacks.
    pub restored_at: Option<String>,
    /// The rest of erased data and payment tokens, which the daemon or the next `sync` removes.
    #[serde(flatten)]
    pub wipe: Wipe,
    /// How many customers are unreadable.
    pub unreadable: u64,
    /// How many of them are new since the complete sweep before the last one.
    pub unreadable_new: u64,
    /// Up to 100 of them: rows of the view `unreadable_customers`, new ones first.
    pub unreadable_customers: Vec<Record>,
    /// Fields that changed in many customers in the last complete sweep.
    pub busy_fields: Vec<Record>,
    /// How precise KOMOJU's list is, and how far its reads lag.
    pub list: ListState,
    /// How events are followed, and how many changes they reported.
    pub events: EventsStatus,
    /// Deletions that wait for an operator.
    pub held_deletions: u64,
    /// Deletions that an operator approved and that no answer has proven yet.
    pub approved_deletions: u64,
    /// Deletions that an operator rejected, of customers that were not seen since.
    pub rejected_deletions: u64,
    /// The intents by state; all states are named.
    pub intents: BTreeMap<&'static str, Intents>,
    /// Delete intents that wait for an operator because there are too many of them.
    pub held_deletes: u64,
    /// Whether anything is pushed and accepted, as of the last start of `run` or `sync`.
    pub outbound_enabled: bool,
    /// The files in `outbound.spool_dir` while pushing is switched off. Otherwise the daemon takes
    /// them, and this is empty.
    pub spool_files: Vec<String>,
    /// How many refused files are in `rejected` below `outbound.spool_dir`, counted up to 1,000.
    /// They are removed after 30 days.
    pub rejected_files: usize,
    /// The files in `outbound.spool_dir` that will not be taken, and why no file is taken if that
    /// is so.
    pub spool: spool::Overview,
    /// The conditions that need an operator or a report. Those that stop all work are first.
    #[serde(skip)]
    pub attention: Vec<Attention>,
    /// When the daemon observed this, by the steady clock; zero elsewhere.
    #[serde(skip)]
    pub observed_at: Duration,
}

/// The intents in one state.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Intents {
    /// In a state that is not final.
    Open {
        /// How many.
        count: u64,
        /// The id of the one that was accepted first.
        oldest: Option<String>,
        /// When that was.
        oldest_created_at: Option<String>,
        /// The reason for its state.
        oldest_reason: Option<String>,
    },
    /// In a final state.
    Settled {
        /// How many.
        count: u64,
    },
}

impl Intents {
    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        match self {
            Self::Open { count, .. } | Self::Settled { count } => *count,
        }
    }
}

impl Status {
    /// Reads the status from one snapshot of the database. `config` says how old a mirror may be.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read(reader: &Reader, config: &Config, now: Timestamp) -> Result<Self, StoreError> {
        reader.in_snapshot(|conn| Self::in_view(conn, config, now))
    }

    /// Reads the status within a transaction of the caller.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn in_view(reader: &Conn, config: &Config, now: Timestamp) -> Result<Self, StoreError> {
        let mirror = read::mirror_info(reader)?;
        let swept_at = mirror.text("last_sweep_at").and_then(time::read);
        let (refused, throttled) = read::obstacles(reader)?;
        let holder = Instance::holder(&config.database.path)?;
        let (instance, database_trouble) =
            holder.map_or((None, None), |holder| (Some(holder.name), holder.trouble));
        // An open pass without a process was interrupted. The next start closes it.
        let running = instance.as_ref().and(read::running_pass(reader)?);
        let outbound_enabled = engine::is_enabled(reader)?;
        // A running daemon records whether it takes files. Without one, examine the directory.
        let problem = instance.as_ref().map(|_| store::outbox::spool::problem(reader)).transpose()?;
        let spool = spool::Overview::read(&config.outbound.spool_dir, &config.database.path, problem);
        let left = wipe::backlog(reader)?;
        let mut status = Self {
            attention: Vec::new(),
            observed_at: Duration::ZERO,
            spool,
            wipe: Wipe {
                erasure: left.erasure,
                tokens: left.tokens,
                is_blocked: left.is_blocked,
                readers: if left.is_any() { readers::of(&config.database.path) } else { Vec::new() },
                since: left.since,
                has_daemon: instance.is_some(),
            },
            intents: count_intents(reader)?,
            held_deletes: engine::held_deletes(reader)?,
            outbound_enabled,
            rejected_files: spool::count_files(&config.outbound.spool_dir, MOST_REJECTED).1,
            spool_files: if outbound_enabled {
                Vec::new()
            } else {
                spool::waiting_files(&config.outbound.spool_dir)
            },
            last_sweep_age_s: swept_at.map(|at| now.as_second() - at.as_second()),
            stale: swept_at.is_none_or(|at| is_stale(at, &config.inbound.sweep_cron, now)),
            time_left_s: running.as_ref().and_then(|pass| time_left(pass, now)),
            running,
            instance,
            database_trouble,
            mirror,
            last_sweep: read::last_pass(reader, PassKind::Sweep)?,
            last_probe: read::last_pass(reader, PassKind::Probe)?,
            throttled_until: throttled.filter(|until| time::pause_until(until, now).is_some()),
            slowed: slowed::get(reader)?.and_then(|text| ReducedRate::from_text(&text, now)),
            key_refused_since: refused,
            restored_at: holds::restored_at(reader)?,
            account_stopped_since: account::load(reader)?
                .and_then(|account| account.stopped)
                .map(|(_, at)| at),
            unreadable: unreadable::count(reader)?,
            unreadable_new: unreadable::count_new(reader)?,
            unreadable_customers: unreadable::first(reader, MOST_UNREADABLE)?,
            busy_fields: busy_fields::all(reader)?,
            list: ListState::read(reader, now)?,
            events: EventsStatus::read(reader, config, now)?,
            held_deletions: holds::held_count(reader)?,
            approved_deletions: holds::approved_count(reader)?,
            rejected_deletions: holds::rejected_count(reader)?,
        };
        let oldest = attention::OldestHeldIds {
            hold: alerts::oldest_hold(reader)?.map(|hold| hold.to_string()),
            held_delete: alerts::oldest_held_delete(reader)?,
        };
        status.attention = attention::of(&status, oldest, config.inbound.consistency_s, now);
        Ok(status)
    }

    /// Returns how many intents are in a state.
    pub fn count_in(&self, state: IntentState) -> u64 {
        self.intents.get(state.word()).map_or(0, Intents::count)
    }

    /// Returns the highest severity of all conditions.
    pub fn severity(&self) -> Severity {
        self.attention.iter().map(Attention::severity).max().unwrap_or(Severity::Note)
    }

    /// Returns the count of the condition with this key; 0 if there is no such condition.
    pub fn count_of(&self, key: &str) -> u64 {
        self.attention.iter().filter(|attention| attention.key() == key).map(Attention::count).sum()
    }

    /// Returns the whole status in one line, with the conditions first. The line contains times and
    /// no ages, so it stays true while nothing changes.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = self.attention.iter().filter_map(Attention::brief).collect();
        if let Some(at) = self.mirror.text("last_sweep_at").filter(|_| !self.stale) {
            parts.push(format!("last complete sweep {at}"));
        }
        parts.push(format!("{} live", grouped(u64::try_from(self.mirror.number("live")).unwrap_or(0))));
        for state in [IntentState::Queued, IntentState::Sending, IntentState::Waiting] {
            match self.count_in(state) {
                0 => {}
                n => parts.push(format!("{} {state}", grouped(n))),
            }
        }
        if let Some(until) = &self.throttled_until {
            parts.push(format!("the API asked us to wait until {until}"));
        }
        if let Some(pass) = &self.running {
            let [kind, pages, of] = ["kind", "pages", "last_page"].map(|name| pass.get(name).to_string());
            let kind = kind.trim_matches('"');
            let left = self.time_left_s.map(|left| format!(", about {} left", duration(left)));
            parts.push(match of.as_str() {
                "0" => format!("{kind} begins"),
                _ => format!("{kind} at page {pages} of {of}{}", left.unwrap_or_default()),
            });
        }
        parts.join("; ")
    }
}

/// Whether a sweep that ended at `at` is too old. An end in the future means that a clock was set
/// back, so the age is not known.
fn is_stale(at: Timestamp, sweep_cron: &Cadence, now: Timestamp) -> bool {
    at.duration_since(now) > CLOCKS_DIFFER || sweep_cron.nth_after(at, 3).is_some_and(|tick| tick < now)
}

/// Counts the intents in each state.
fn count_intents(reader: &Conn) -> Result<BTreeMap<&'static str, Intents>, StoreError> {
    let open = rows::count_open(reader)?;
    let settled = rows::count_settled(reader)?;
    let of = |state: IntentState| match state.is_settled() {
        true => Intents::Settled {
            count: settled.iter().find(|(word, _)| word == state.word()).map_or(0, |(_, count)| *count),
        },
        false => {
            let counted = open.iter().find(|counted| counted.state == state.word());
            Intents::Open {
                count: counted.map_or(0, |counted| counted.count),
                oldest: counted.map(|counted| counted.oldest.clone()),
                oldest_created_at: counted.map(|counted| counted.oldest_created_at.clone()),
                oldest_reason: counted.and_then(|counted| counted.oldest_reason.clone()),
            }
        }
    };
    Ok(IntentState::ALL.into_iter().map(|state| (state.word(), of(state))).collect())
}

/// Returns how many seconds the running pass may still take, where that can be estimated.
fn time_left(pass: &Record, now: Timestamp) -> Option<i64> {
    // Use the speed of this process only. A pass that was resumed was idle between two processes.
    let (pages, last_page) = (pass.number("pages"), pass.number("last_page"));
    let done = pages - pass.number("since_pages");
    let began = pass.text("since_at").and_then(time::read)?;
    let spent = now.as_millisecond() - began.as_millisecond();
    (done > 0 && last_page >= pages && spent >= 0).then(|| spent * (last_page - pages) / done / 1000)
}
