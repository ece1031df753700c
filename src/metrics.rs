//! What is measured: every metric that there is, by name, kind and help, and the calls that count.
//!
//! The calls go through a facade: where nobody asks for metrics (`[http] listen` is not set) no recorder is there, and each costs
//! next to nothing. Values of gauges are set when they are asked for (`http`), never in between.
//!
//! Invariants: every name begins with `komoju_sync_` and is in [`ALL`], and docs/metrics.md has the same list; every label is one
//! of a fixed set of words, so that the memory this takes has a bound whatever happens; no label is taken from a text of anybody
//! else's. Histograms have fixed buckets, and [`Recorder::tidy`] keeps what waits to be sorted into them short.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use komoju_core::intent::lifecycle::State;
use komoju_core::{Origin, Outcome, PassKind, Tally};

/// Which kind of metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only rises, from zero at each start.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How many were how large, in these buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// Seconds of a request or of a wait for the limit.
const SHORT: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds of a pass.
const LONG: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $kind:expr, $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: $kind, help: $help }),*];
    };
}

metrics! {
    UP = "komoju_sync_up", Kind::Gauge, "Always 1: the process answers.";
    BUILD_INFO = "komoju_sync_build_info", Kind::Gauge, "Always 1; the labels tell the versions of the program and of its SQLite.";
    START_TIME = "komoju_sync_process_start_time_seconds", Kind::Gauge, "When the process started, in seconds since 1970.";
    READY = "komoju_sync_ready", Kind::Gauge, "1 while /readyz answers 200, otherwise 0.";
    SWEEP_TIMESTAMP = "komoju_sync_last_complete_sweep_timestamp_seconds", Kind::Gauge, "When the last complete sweep ended, in seconds since 1970; 0 while there is none.";
    MIRROR_AGE = "komoju_sync_mirror_age_seconds", Kind::Gauge, "Seconds since the last complete sweep ended; since 1970 while there is none.";
    MIRROR_STALE = "komoju_sync_mirror_stale", Kind::Gauge, "1 when no complete sweep exists or the last is older than three periods of inbound.sweep_cron.";
    CUSTOMERS = "komoju_sync_customers", Kind::Gauge, "Customers in the mirror, live and deleted ones.";
    CHANGES = "komoju_sync_changes_total", Kind::Counter, "Changes recorded, by what happened and by how it became known.";
    PASS_DURATION = "komoju_sync_pass_duration_seconds", Kind::Histogram(LONG), "How long passes took, by their kind and outcome.";
    REQUESTS = "komoju_sync_requests_total", Kind::Counter, "Requests sent to the API, by call and by what came of them.";
    REQUEST_DURATION = "komoju_sync_request_duration_seconds", Kind::Histogram(SHORT), "How long requests took from sending to the end of the answer.";
    RETRIES = "komoju_sync_retries_total", Kind::Counter, "Reads that were asked again within a pass, and intents that were attempted again.";
    LIMITER_WAIT = "komoju_sync_limiter_wait_seconds", Kind::Histogram(SHORT), "How long requests waited for rate_limit, for a pause that the API asked for, and for each other.";
    THROTTLED_UNTIL = "komoju_sync_throttled_until_timestamp_seconds", Kind::Gauge, "Until when the API asked us to wait, in seconds since 1970; 0 when that is over.";
    KEY_REFUSED = "komoju_sync_key_refused", Kind::Gauge, "1 while the API refuses the key.";
    ACCOUNT_STOPPED = "komoju_sync_account_stopped", Kind::Gauge, "1 while everything waits because the key reads another account.";
    UNREADABLE = "komoju_sync_unreadable_customers", Kind::Gauge, "Customers that the API shows in a form that cannot be read; at most 1000 are counted.";
    BUSY_FIELD = "komoju_sync_busy_field_customers", Kind::Gauge, "In how many customers one field changed in the last complete sweep, of the field that changed in the most; 0 where none changed in a quarter of them.";
    LIST_IMPRECISE = "komoju_sync_list_imprecise", Kind::Gauge, "1 while the list of customers is imprecise, as the last sweep that read it to its end found it.";
    UNLISTED = "komoju_sync_unlisted_customers", Kind::Gauge, "Live customers that the list leaves out and that answer when they are requested one by one.";
    LONGEST_LAG = "komoju_sync_longest_lag_seconds", Kind::Gauge, "The longest lag of a read behind a write that was measured, in seconds; 0 while there is none.";
    HELD_DELETIONS = "komoju_sync_held_deletions", Kind::Gauge, "Deletions that wait for an operator.";
    HELD_DELETES = "komoju_sync_held_delete_intents", Kind::Gauge, "Delete intents that wait for an operator because there are too many of them.";
    UNFINISHED_WIPES = "komoju_sync_unfinished_wipes", Kind::Gauge, "1 while the database file or its WAL may still hold erased data, or payment tokens of settled intents.";
    INTENTS = "komoju_sync_intents", Kind::Gauge, "Intents by state.";
    OLDEST_INTENT = "komoju_sync_oldest_intent_age_seconds", Kind::Gauge, "Seconds since the oldest intent in each open state was accepted; 0 where there is none.";
    ATTEMPTS = "komoju_sync_attempts_total", Kind::Counter, "Attempts at intents, by the state that they led to.";
    SPOOL_FILES = "komoju_sync_spool_files", Kind::Gauge, "Files in outbound.spool_dir: those that wait to be taken and those that were rejected, each counted up to 10000.";
    ALERT_RUNS = "komoju_sync_alert_runs_total", Kind::Counter, "Runs of alerts.command, by how they ended.";
    DATABASE_SIZE = "komoju_sync_database_size_bytes", Kind::Gauge, "Size of the database without its WAL.";
    WAL_SIZE = "komoju_sync_wal_size_bytes", Kind::Gauge, "Size of the database's WAL.";
    DISK_FREE = "komoju_sync_database_disk_free_bytes", Kind::Gauge, "What is left for the service's user on the file system of the database.";
}

/// A request's call, as a label.
pub const CALLS: [&str; 5] = ["list", "show", "create", "update", "delete"];

/// What came of a request, as a label.
pub const ANSWERS: [&str; 9] = [
    "ok",
    "not_found",
    "throttled",
    "key_refused",
    "rejected",
    "unexpected",
    "unusable",
    "unreachable",
    "abandoned",
];

/// How [`ALERT_RUNS`] ended, as a label.
const ALERT_ENDS: [&str; 2] = ["told", "failed"];

const ORIGINS: [Origin; 4] = [Origin::Sweep, Origin::Probe, Origin::Lookup, Origin::Intent];

/// Where an attempt can lead.
const AFTER_ATTEMPT: [State; 4] = [State::Done, State::Rejected, State::Waiting, State::Parked];

/// A pass ended.
pub fn pass(kind: PassKind, outcome: Outcome, took: Duration) {
    histogram!(PASS_DURATION, "kind" => kind.word(), "outcome" => outcome.word()).record(took.as_secs_f64());
}

/// Changes were recorded.
pub fn changes(origin: Origin, recorded: &Tally) {
    let Tally { created, updated, deleted, restored, .. } = *recorded;
    for (kind, n) in
        [("created", created), ("updated", updated), ("deleted", deleted), ("restored", restored)]
    {
        if n > 0 {
            counter!(CHANGES, "kind" => kind, "origin" => origin.word()).increment(n);
        }
    }
}

/// A request was sent, and this came of it: words of [`CALLS`] and [`ANSWERS`].
pub fn request(call: &'static str, answer: &'static str, took: Duration) {
    counter!(REQUESTS, "call" => call, "answer" => answer).increment(1);
    histogram!(REQUEST_DURATION, "call" => call).record(took.as_secs_f64());
}

/// A request was let through after this wait.
pub fn limiter_wait(share: &'static str, waited: Duration) {
    histogram!(LIMITER_WAIT, "share" => share).record(waited.as_secs_f64());
}

/// A read is asked again.
pub fn read_again() {
    counter!(RETRIES, "of" => "read").increment(1);
}

/// An intent is attempted again.
pub fn attempted_again() {
    counter!(RETRIES, "of" => "intent").increment(1);
}

/// An attempt led to this state.
pub fn attempt(led_to: State) {
    counter!(ATTEMPTS, "state" => led_to.word()).increment(1);
}

/// `alerts.command` was run.
pub fn alert_run(was_told: bool) {
    let [told, failed] = ALERT_ENDS;
    counter!(ALERT_RUNS, "outcome" => if was_told { told } else { failed }).increment(1);
}

/// A gauge without labels is this now.
pub fn set(name: &'static str, value: f64) {
    gauge!(name).set(value);
}

/// A gauge is this now, where its label is this word.
pub fn set_of(name: &'static str, label: &'static str, word: &'static str, value: f64) {
    gauge!(name, label => word).set(value);
}

/// What counts; one a process.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

static RECORDER: OnceLock<Recorder> = OnceLock::new();

impl Recorder {
    /// Begins to count. Whoever asks again gets the same.
    pub fn install(sqlite_version: &'static str) -> Self {
        let installed = RECORDER.get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            for metric in ALL {
                if let Kind::Histogram(buckets) = metric.kind {
                    let matcher = Matcher::Full(metric.name.to_owned());
                    // It fails without buckets only.
                    builder = builder
                        .set_buckets_for_metric(matcher, buckets)
                        .expect("each histogram has buckets, which a test says");
                }
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // It fails where another one is installed, and nobody else here does that.
            let _ = metrics::set_global_recorder(recorder);
            for metric in ALL {
                match metric.kind {
                    Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                    Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                    Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
                }
            }
            set(UP, 1.0);
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "sqlite_version" => sqlite_version)
                .set(1.0);
            begin_at_zero();
            Self(handle)
        });
        installed.clone()
    }

    /// All of it in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts what was recorded into its buckets. Until then each single value is kept: call it now and then.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// Whoever watches a counter misses its first increment where the series begins with it.
fn begin_at_zero() {
    for call in CALLS {
        let _ = histogram!(REQUEST_DURATION, "call" => call);
        for answer in ANSWERS {
            counter!(REQUESTS, "call" => call, "answer" => answer).increment(0);
        }
    }
    for origin in ORIGINS {
        for kind in ["created", "updated", "deleted", "restored"] {
            counter!(CHANGES, "kind" => kind, "origin" => origin.word()).increment(0);
        }
    }
    for kind in [PassKind::Sweep, PassKind::Probe] {
        for outcome in
            [Outcome::Complete, Outcome::Held, Outcome::Partial, Outcome::Failed, Outcome::Interrupted]
        {
            let _ = histogram!(PASS_DURATION, "kind" => kind.word(), "outcome" => outcome.word());
        }
    }
    for share in ["read", "write"] {
        let _ = histogram!(LIMITER_WAIT, "share" => share);
    }
    for of in ["read", "intent"] {
        counter!(RETRIES, "of" => of).increment(0);
    }
    for state in AFTER_ATTEMPT {
        counter!(ATTEMPTS, "state" => state.word()).increment(0);
    }
    for end in ALERT_ENDS {
        counter!(ALERT_RUNS, "outcome" => end).increment(0);
    }
}
