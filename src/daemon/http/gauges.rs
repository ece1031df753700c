//! The values of the gauges, from the last status and the sizes of files.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::Config;
use crate::daemon::status::{Intents, Status};
use crate::metrics::{self, set, set_of};
use crate::store::sibling;
use crate::tasks::spool;
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::time;

/// MOST_FILES controls up to how many files of a directory are counted.
const MOST_FILES: usize = 10_000;

/// The gauges that show the count of a condition, each with the key of the condition.
const OF_ATTENTION: [(&str, &str); 6] = [
    (metrics::MIRROR_STALE, "stale_mirror"),
    (metrics::KEY_REFUSED, "key_refused"),
    (metrics::ACCOUNT_STOPPED, "account_stopped"),
    (metrics::UNREADABLE, "unreadable_customers"),
    (metrics::HELD_DELETIONS, "held_deletions"),
    (metrics::HELD_DELETES, "held_deletes"),
];

/// The paths from which the gauges take sizes and counts.
pub(super) struct Gauges {
    /// The file with links resolved, because the WAL is next to the target.
    database: PathBuf,
    spool_dir: PathBuf,
}

impl Gauges {
    /// Returns the gauges for a configuration.
    pub(super) fn new(config: &Config) -> Self {
        let database = &config.database.path;
        let database = fs::canonicalize(database).unwrap_or_else(|_| database.clone());
        Self { database, spool_dir: config.outbound.spool_dir.clone() }
    }

    /// Sets all gauges.
    pub(super) fn set(&self, status: Option<&Status>, is_ready: bool, now: Timestamp) {
        set(metrics::READY, one_if(is_ready));
        // Read by name only: opening and closing the file would release the locks of this process.
        set(metrics::DATABASE_SIZE, size(&self.database));
        set(metrics::WAL_SIZE, size(&sibling(&self.database, "-wal")));
        set(metrics::DISK_FREE, free(&self.database));
        let (waiting, rejected) = spool::count_files(&self.spool_dir, MOST_FILES);
        set_of(metrics::SPOOL_FILES, "state", "waiting", waiting as f64);
        set_of(metrics::SPOOL_FILES, "state", "rejected", rejected as f64);
        if let Some(status) = status {
            set_status(status, now);
        }
    }
}

/// Sets the gauges that a status decides.
fn set_status(status: &Status, now: Timestamp) {
    let swept_at = status.mirror.text("last_sweep_at").and_then(time::read).map_or(0.0, seconds);
    set(metrics::SWEEP_TIMESTAMP, swept_at);
    // After a clock was set back the age is zero, not negative.
    set(metrics::MIRROR_AGE, (seconds(now) - swept_at).max(0.0));
    for (gauge, key) in OF_ATTENTION {
        set(gauge, status.count_of(key) as f64);
    }
    for state in ["live", "deleted"] {
        set_of(metrics::CUSTOMERS, "state", state, status.mirror.number(state) as f64);
    }
    let throttled = status.throttled_until.as_deref().and_then(time::read).filter(|until| *until > now);
    set(metrics::THROTTLED_UNTIL, throttled.map_or(0.0, seconds));
    let busiest = status.busy_fields.first().map_or(0, |field| field.number("customers"));
    set(metrics::BUSY_FIELD, busiest as f64);
    set(metrics::LIST_IMPRECISE, one_if(status.list.is_imprecise()));
    set(metrics::UNLISTED, status.list.verified as f64);
    set(metrics::LONGEST_LAG, status.list.longest_lag_s.unwrap_or(0.0));
    set(metrics::EVENTS_OFF, status.count_of("events_off") as f64);
    set(metrics::OPEN_HINTS, status.events.open_hints as f64);
    set_of(metrics::FOUND_CHANGES, "event", "reported", status.events.reported as f64);
    set_of(metrics::FOUND_CHANGES, "event", "none", status.events.missed() as f64);
    set_of(metrics::UNFINISHED_WIPES, "of", "erasure", one_if(status.wipe.erasure));
    set_of(metrics::UNFINISHED_WIPES, "of", "tokens", one_if(status.wipe.tokens));
    for state in IntentState::ALL {
        let intents = status.intents.get(state.word());
        set_of(metrics::INTENTS, "state", state.word(), intents.map_or(0, Intents::count) as f64);
        if !state.is_settled() {
            let oldest = match intents {
                Some(Intents::Open { oldest_created_at: Some(at), .. }) => time::read(at),
                _ => None,
            };
            let age = oldest.map_or(0.0, |at| (seconds(now) - seconds(at)).max(0.0));
            set_of(metrics::OLDEST_INTENT, "state", state.word(), age);
        }
    }
}

/// Returns a time in seconds since 1970.
fn seconds(moment: Timestamp) -> f64 {
    moment.as_millisecond() as f64 / 1000.0
}

/// Returns 1 for true and 0 for false.
fn one_if(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// Returns the size of a file in bytes; 0 if there is none.
fn size(path: &Path) -> f64 {
    fs::metadata(path).map_or(0.0, |file| file.len() as f64)
}

/// Returns the free bytes of a file system, as far as this user may use them.
fn free(path: &Path) -> f64 {
    rustix::fs::statvfs(path).map_or(0.0, |disk| disk.f_bavail as f64 * disk.f_frsize as f64)
}
