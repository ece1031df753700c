//! All metrics, by name, kind and help, and the calls that record them.
//!
//! The calls go through a facade. Without `http.listen` no recorder is installed, and a call costs
//! almost nothing. Gauges are set only when `/metrics` is requested (`http`).
//!
//! Invariants:
//! - Each name begins with `komoju_sync_` and is in [`ALL`]. docs/metrics.md has the same list.
//! - Each label has a fixed set of values, so that the memory for series is bounded. No label is
//!   taken from a text from outside.
//! - Histograms have fixed buckets. [`MetricsRecorder::tidy`] must be called regularly, because
//!   single values are kept until then.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use komoju_core::intent::lifecycle::IntentState;
use komoju_core::{Origin, PassKind, PassOutcome, Tally};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// A number that only rises, from zero at each start.
    Counter,
    /// The present value.
    Gauge,
    /// A distribution over these buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its meaning in one sentence.
    pub help: &'static str,
}

/// The buckets of requests and of waits for the limiter, in seconds.
const SHORT: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The buckets of passes, in seconds.
const LONG: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $kind:expr, $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: $kind, help: $help }),*];
    };
}

metrics! {
    UP = "komoju_sync_up", MetricKind::Gauge, "Always 1: the process answers.";
    BUILD_INFO = "komoju_sync_build_info", MetricKind::Gauge, "Always 1; the labels are the versions of the program and of its SQLite.";
    START_TIME = "komoju_sync_process_start_time_seconds", MetricKind::Gauge, "When the process started, in seconds since 1970.";
    READY = "komoju_sync_ready", MetricKind::Gauge, "1 while /readyz answers 200, otherwise 0.";
    SWEEP_TIMESTAMP = "komoju_sync_last_complete_sweep_timestamp_seconds", MetricKind::Gauge, "When the last complete sweep ended, in seconds since 1970; 0 while there is none.";
    MIRROR_AGE = "komoju_sync_mirror_age_seconds", MetricKind::Gauge, "Seconds since the last complete sweep ended; since 1970 while there is none.";
    MIRROR_STALE = "komoju_sync_mirror_stale", MetricKind::Gauge, "1 when no complete sweep exists or the last is older than three periods of inbound.sweep_cron.";
    CUSTOMERS = "komoju_sync_customers", MetricKind::Gauge, "Customers in the mirror, live and deleted ones.";
    CHANGES = "komoju_sync_changes_total", MetricKind::Counter, "Recorded changes, by kind and origin.";
    PASS_DURATION = "komoju_sync_pass_duration_seconds", MetricKind::Histogram(LONG), "How long passes took, by their kind and outcome.";
    REQUESTS = "komoju_sync_requests_total", MetricKind::Counter, "Requests sent to the API, by call and result.";
    REQUEST_DURATION = "komoju_sync_request_duration_seconds", MetricKind::Histogram(SHORT), "How long requests took from sending to the end of the answer.";
    RETRIES = "komoju_sync_retries_total", MetricKind::Counter, "Reads that were retried within a pass, and intents that were attempted again.";
    LIMITER_WAIT = "komoju_sync_limiter_wait_seconds", MetricKind::Histogram(SHORT), "How long requests waited for rate_limit, for a pause that the API asked for, and for each other.";
    THROTTLED_UNTIL = "komoju_sync_throttled_until_timestamp_seconds", MetricKind::Gauge, "Until when the API asked for a wait, in seconds since 1970; 0 when that time is over.";
    KEY_REFUSED = "komoju_sync_key_refused", MetricKind::Gauge, "1 while the API refuses the key.";
    ACCOUNT_STOPPED = "komoju_sync_account_stopped", MetricKind::Gauge, "1 while all work waits because the key reads another account.";
    UNREADABLE = "komoju_sync_unreadable_customers", MetricKind::Gauge, "Customers that the API shows in a form that cannot be read; at most 1000 are counted.";
    BUSY_FIELD = "komoju_sync_busy_field_customers", MetricKind::Gauge, "The number of customers in which the most frequently changed field changed in the last complete sweep; 0 if no field changed in a quarter of them.";
    LIST_IMPRECISE = "komoju_sync_list_imprecise", MetricKind::Gauge, "1 while the list of customers is imprecise, as the last sweep that read it to its end found it.";
    UNLISTED = "komoju_sync_unlisted_customers", MetricKind::Gauge, "Live customers that the list leaves out and that answer to a single request.";
    LONGEST_LAG = "komoju_sync_longest_lag_seconds", MetricKind::Gauge, "The longest lag of a read behind a write that was measured, in seconds; 0 while there is none.";
    EVENTS_OFF = "komoju_sync_events_off", MetricKind::Gauge, "1 while the event list cannot be read.";
    OPEN_HINTS = "komoju_sync_open_hints", MetricKind::Gauge, "Customers that events name and that are not requested yet.";
    FOUND_CHANGES = "komoju_sync_found_changes", MetricKind::Gauge, "Changes of the last seven days that were found at KOMOJU, those that an event reported and those that none did.";
    HELD_DELETIONS = "komoju_sync_held_deletions", MetricKind::Gauge, "Deletions that wait for an operator.";
    HELD_DELETES = "komoju_sync_held_delete_intents", MetricKind::Gauge, "Delete intents that wait for an operator because there are too many of them.";
    UNFINISHED_WIPES = "komoju_sync_unfinished_wipes", MetricKind::Gauge, "1 while the database file or its WAL may still hold erased data, or payment tokens of settled intents.";
    INTENTS = "komoju_sync_intents", MetricKind::Gauge, "Intents by state.";
    OLDEST_INTENT = "komoju_sync_oldest_intent_age_seconds", MetricKind::Gauge, "Seconds since the oldest intent in each open state was accepted; 0 where there is none.";
    ATTEMPTS = "komoju_sync_attempts_total", MetricKind::Counter, "Attempts at intents, by the state that they led to.";
    SPOOL_FILES = "komoju_sync_spool_files", MetricKind::Gauge, "Files in outbound.spool_dir: those that wait to be taken and those that were rejected, each counted up to 10000.";
    ALERT_RUNS = "komoju_sync_alert_runs_total", MetricKind::Counter, "Runs of alerts.command, by how they ended.";
    WEBHOOKS = "komoju_sync_webhooks_total", MetricKind::Counter, "Requests at webhook.listen with the right path and method, by result.";
    DATABASE_SIZE = "komoju_sync_database_size_bytes", MetricKind::Gauge, "Size of the database without its WAL.";
    WAL_SIZE = "komoju_sync_wal_size_bytes", MetricKind::Gauge, "Size of the database's WAL.";
    DISK_FREE = "komoju_sync_database_disk_free_bytes", MetricKind::Gauge, "Free bytes for the service's user on the file system of the database.";
}

/// The values of the label `call`.
pub const CALLS: [&str; 6] = ["list", "show", "events", "create", "update", "delete"];

/// The values of the label `answer`: the result of a request.
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

/// The values of the label `outcome` of [`ALERT_RUNS`].
const ALERT_ENDS: [&str; 2] = ["told", "failed"];

/// The result of a request at `webhook.listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookResult {
    /// An event about a customer; its hint is stored, or was stored before.
    Received,
    /// A body that nothing follows from: a ping, an event of another type, or no event.
    Ignored,
    /// Its signature is missing or wrong.
    Refused,
    /// It was answered 503.
    Busy,
}

impl WebhookResult {
    /// All results.
    const ALL: [Self; 4] = [Self::Received, Self::Ignored, Self::Refused, Self::Busy];

    /// Returns the value of the label `result`.
    fn word(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Busy => "busy",
        }
    }
}

/// The origins of changes that this process records.
const ORIGINS: [Origin; 5] = [Origin::Sweep, Origin::Probe, Origin::Event, Origin::Lookup, Origin::Intent];

/// The states of an intent after an attempt.
const AFTER_ATTEMPT: [IntentState; 4] =
    [IntentState::Done, IntentState::Rejected, IntentState::Waiting, IntentState::Parked];

/// Records a pass that has ended.
pub fn pass(kind: PassKind, outcome: PassOutcome, took: Duration) {
    histogram!(PASS_DURATION, "kind" => kind.word(), "outcome" => outcome.word()).record(took.as_secs_f64());
}

/// Counts recorded changes.
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

/// Records a request by a word of [`CALLS`] and a word of [`ANSWERS`].
pub fn request(call: &'static str, answer: &'static str, took: Duration) {
    counter!(REQUESTS, "call" => call, "answer" => answer).increment(1);
    histogram!(REQUEST_DURATION, "call" => call).record(took.as_secs_f64());
}

/// Records how long a request waited for the limiter.
pub fn limiter_wait(share: &'static str, waited: Duration) {
    histogram!(LIMITER_WAIT, "share" => share).record(waited.as_secs_f64());
}

/// Counts a read that is retried.
pub fn read_again() {
    counter!(RETRIES, "of" => "read").increment(1);
}

/// Counts an intent that is attempted again.
pub fn attempted_again() {
    counter!(RETRIES, "of" => "intent").increment(1);
}

/// Counts an attempt by the state that it led to.
pub fn attempt(led_to: IntentState) {
    counter!(ATTEMPTS, "state" => led_to.word()).increment(1);
}

/// Counts a run of `alerts.command`.
pub fn alert_run(is_success: bool) {
    let [told, failed] = ALERT_ENDS;
    counter!(ALERT_RUNS, "outcome" => if is_success { told } else { failed }).increment(1);
}

/// Counts a request at `webhook.listen`.
pub fn webhook(result: WebhookResult) {
    counter!(WEBHOOKS, "result" => result.word()).increment(1);
}

/// Sets a gauge without labels.
pub fn set(name: &'static str, value: f64) {
    gauge!(name).set(value);
}

/// Sets a gauge where its label has this value.
pub fn set_of(name: &'static str, label: &'static str, word: &'static str, value: f64) {
    gauge!(name, label => word).set(value);
}

/// The recorder of all metrics; one for each process.
#[derive(Clone)]
pub struct MetricsRecorder(PrometheusHandle);

/// The recorder of this process, once it is installed.
static RECORDER: OnceLock<MetricsRecorder> = OnceLock::new();

impl MetricsRecorder {
    /// Begins to record, and returns the recorder. A second call returns the same one.
    pub fn install(sqlite_version: &'static str) -> Self {
        let installed = RECORDER.get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            for metric in ALL {
                if let MetricKind::Histogram(buckets) = metric.kind {
                    let matcher = Matcher::Full(metric.name.to_owned());
                    builder = builder
                        .set_buckets_for_metric(matcher, buckets)
                        .expect("it fails only without buckets, and each histogram has some");
                }
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // This fails if another recorder is installed, and only this function installs one.
            let _ = metrics::set_global_recorder(recorder);
            for metric in ALL {
                match metric.kind {
                    MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
                    MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                    MetricKind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
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

    /// Returns all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts the recorded values into their buckets. Each single value is kept until then.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// Creates each series with zero. A query would miss the first increment of a series that begins
/// with it.
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
        for outcome in [
            PassOutcome::Complete,
            PassOutcome::Held,
            PassOutcome::Partial,
            PassOutcome::Failed,
            PassOutcome::Interrupted,
        ] {
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
    for result in WebhookResult::ALL {
        counter!(WEBHOOKS, "result" => result.word()).increment(0);
    }
    for end in ALERT_ENDS {
        counter!(ALERT_RUNS, "outcome" => end).increment(0);
    }
}
