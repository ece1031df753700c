//! Alerts: runs `alerts.command` when something needs an operator, or when the mirror was not
//! renewed for long (docs/alerts.md).
//!
//! ```text
//!   status changed ─▶ record new conditions, delete cleared ones ─▶ is a kind due? ─▶ run, record it as reported
//! ```
//!
//! Invariants:
//! - Each condition is reported once until it clears, restarts included, and at least once: it is
//!   recorded as reported only after the program has succeeded.
//! - More of a reported kind is reported at most once an hour, so that a thousand parked intents
//!   cause a handful of runs.
//! - One program runs at a time, for half a minute at most, and blocks nothing else.
//! - Nothing is written while nothing changes, and nothing is read without a command.

mod child;
mod note;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Cadence, Config};
use crate::daemon::status::Status;
use crate::metrics;
use crate::secret::{Masker, SecretKey};
use crate::store::state::alerts::{self, PendingAlert, Staleness};
use crate::store::{Store, StoreError};
use komoju_core::{Attention, Severity, time};

use note::AlertOrigin;

/// MORE_OF_THE_SAME controls how often a growing condition is reported again.
const MORE_OF_THE_SAME: SignedDuration = SignedDuration::from_hours(1);

/// FIRST_RETRY controls how soon a failed run is retried at first …
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// … and, after doubling, at last.
const LAST_RETRY: Duration = Duration::from_secs(60 * 60);

/// AFTER_BUSY controls how soon a round is retried if another program keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(5);

/// Runs the command for each condition that an alert reports.
pub struct Alerts {
    command: Vec<String>,
    database: PathBuf,
    host: Option<String>,
    sweep_cron: Cadence,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    masker: Masker,
    stop: CancellationToken,
}

/// What a round knows of earlier rounds.
#[derive(Default)]
struct RoundState {
    /// The database records no condition.
    nothing_noted: bool,
    /// The kinds for which the last run failed.
    retries: HashMap<String, AlertRetry>,
}

/// When a failed run may be retried, by the steady clock, and how long the wait after that is.
#[derive(Clone, Copy)]
struct AlertRetry {
    at: Duration,
    wait: Duration,
}

impl Alerts {
    /// Returns alerts by the configured command, or none without one.
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        key: &SecretKey,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Option<Self> {
        let command = config.alerts.command.clone()?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Some(Self {
            command,
            database: config.database.path.clone(),
            host: host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()),
            sweep_cron: config.inbound.sweep_cron.clone(),
            store,
            clock,
            masker: Masker::new(Some(key)),
            stop,
        })
    }

    /// Reports what `statuses` show. Returns only errors of the database; after a stop it runs
    /// nothing.
    pub async fn serve(
        &self,
        mut statuses: watch::Receiver<Option<Arc<Status>>>,
    ) -> Result<Infallible, StoreError> {
        let started = self.clock.elapsed();
        let mut rounds = RoundState::default();
        let mut next_in = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => std::future::pending().await,
                changed = statuses.changed() => if changed.is_err() { std::future::pending().await },
                () = self.sleep(next_in) => {}
            }
            let Some(status) = statuses.borrow_and_update().clone() else { continue };
            next_in = match self.round(&status, started, &mut rounds).await {
                Ok(next_in) => next_in,
                Err(e) if e.is_busy() => {
                    tracing::error!("alerts are not sent yet: {e}; retrying");
                    Some(AFTER_BUSY)
                }
                Err(e) => return Err(e),
            };
        }
    }

    /// Sends the alert that the database cannot be used, which it cannot record. Returns the time
    /// until the next try if this one failed.
    pub async fn report_database(&self, since: &str, trouble: &str) -> Option<Duration> {
        let attention = Attention::DatabaseUnusable(self.masker.text(trouble));
        let untold = PendingAlert {
            kind: attention.key().to_owned(),
            count: 1,
            new: 1,
            noticed_at: since.to_owned(),
            last_sent_at: None,
        };
        match self.run(&attention, &untold).await? {
            Ok(()) => None,
            Err(why) => {
                tracing::error!(
                    "alert not delivered ({attention}): alerts.command {why}. Run the command by hand as the service's user \
                     (docs/alerts.md)"
                );
                Some(FIRST_RETRY)
            }
        }
    }

    /// Runs the command for a condition. Returns none if the stop is first.
    async fn run(&self, attention: &Attention, untold: &PendingAlert) -> Option<Result<(), String>> {
        let origin = AlertOrigin { database: &self.database, host: self.host.as_deref() };
        let note = note::note(attention, untold, &origin, self.clock.now());
        let ran = child::run(&self.command, &note, &*self.clock, &self.stop, &self.masker).await?;
        metrics::alert_run(ran.is_ok());
        if ran.is_ok() {
            tracing::info!(alert = attention.key(), "alert delivered: {attention}");
        }
        Some(ran)
    }

    /// Sleeps for this time, or without end.
    async fn sleep(&self, wait: Option<Duration>) {
        match wait {
            Some(wait) => self.clock.sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    /// Records the conditions of a status, and reports what is due. Returns when the next round is
    /// due without a change.
    async fn round(
        &self,
        status: &Status,
        started: Duration,
        rounds: &mut RoundState,
    ) -> Result<Option<Duration>, StoreError> {
        // Computed from the present time, because the wall clock may have been corrected since the
        // start.
        let (now, runs_for) = (self.clock.now(), self.clock.elapsed().saturating_sub(started));
        let started = now.checked_sub(runs_for).unwrap_or(Timestamp::MIN);
        let staleness = staleness(status, &self.sweep_cron, started, now);
        if rounds.nothing_noted && status.severity() == Severity::Note {
            return Ok(None);
        }
        let noted = self.store.read(move |conn| alerts::is_noted(conn, staleness)).await?;
        if !noted {
            let at = time::written(self.clock.now());
            self.store.write(move |tx| alerts::note(tx, staleness, &at)).await?;
        }
        let (untold, is_empty) =
            self.store.read(|conn| Ok((alerts::pending(conn)?, alerts::is_empty(conn)?))).await?;
        rounds.nothing_noted = is_empty;
        rounds.retries.retain(|kind, _| untold.iter().any(|untold| untold.kind == *kind));
        let mut next_in: Option<Duration> = None;
        for untold in untold {
            let wait = self.report(status, untold, rounds).await?;
            next_in = next_in.into_iter().chain(wait).min();
        }
        Ok(next_in)
    }

    /// Reports one kind if it is due. Returns when it will be due otherwise.
    async fn report(
        &self,
        status: &Status,
        untold: PendingAlert,
        rounds: &mut RoundState,
    ) -> Result<Option<Duration>, StoreError> {
        let retry = rounds.retries.get(&untold.kind).copied();
        let retry = retry.unwrap_or(AlertRetry { at: Duration::ZERO, wait: FIRST_RETRY });
        let due_in = self.due_in(&untold, retry);
        if !due_in.is_zero() {
            return Ok(Some(due_in));
        }
        // The observation may be older than the record; the next one, in a few seconds, shows both.
        let Some(attention) = condition(status, &untold.kind) else { return Ok(None) };
        match self.run(&attention, &untold).await {
            None => Ok(None),
            Some(Ok(())) => {
                rounds.retries.remove(&untold.kind);
                let at = time::written(self.clock.now());
                self.store.write(move |tx| alerts::note_sent(tx, &untold.kind, &at)).await?;
                Ok(None)
            }
            Some(Err(why)) => {
                let wait = retry.wait;
                tracing::error!(
                    alert = untold.kind,
                    retry_s = wait.as_secs(),
                    "alert not delivered ({attention}): alerts.command {why}; retrying. To see what is wrong, run the command by \
                     hand as the service's user, with a JSON object on standard input (docs/alerts.md)",
                );
                let at = self.clock.elapsed().saturating_add(wait);
                let next = AlertRetry { at, wait: wait.saturating_mul(2).min(LAST_RETRY) };
                rounds.retries.insert(untold.kind, next);
                Ok(Some(wait))
            }
        }
    }

    /// Returns the time until a kind may be reported: an hour after its last report, and not before
    /// its retry.
    fn due_in(&self, untold: &PendingAlert, retry: AlertRetry) -> Duration {
        let last_told = untold.last_sent_at.as_deref().and_then(time::read);
        let passed = last_told.map(|at| self.clock.now().duration_since(at));
        // A negative time means that the clock was set back since the last report.
        let passed = passed.filter(|passed| !passed.is_negative());
        let left = passed.map(|passed| MORE_OF_THE_SAME - passed).unwrap_or_default();
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => left,
            _ => retry.at.saturating_sub(self.clock.elapsed()),
        }
    }
}

/// Returns the condition of this kind. An alert about a stale mirror is due only after this daemon
/// had the time for a sweep. So its sentence says that the sweep is overdue.
fn condition(status: &Status, kind: &str) -> Option<Attention> {
    let mut found = status.attention.iter().find(|attention| attention.key() == kind)?.clone();
    if let Attention::StaleMirror { is_overdue, .. } = &mut found {
        *is_overdue = true;
    }
    Some(found)
}

/// Returns whether the mirror is stale although this daemon had the time for a sweep. It had the
/// time if one of its sweeps failed, or if it has run for three periods. So there is no alert
/// during the first sweep after a long pause, or during the first sweep ever. An API that cannot be
/// reached is an alert.
fn staleness(status: &Status, sweep_cron: &Cadence, started: Timestamp, now: Timestamp) -> Staleness {
    if !status.stale {
        return Staleness::Fresh;
    }
    let was_swept = status.mirror.text("last_sweep_at").is_some();
    if !was_swept && status.running.is_some() {
        return Staleness::Stale;
    }
    let failed_here = status.last_sweep.as_ref().is_some_and(|sweep| {
        let ended = sweep.text("finished_at").and_then(time::read);
        matches!(sweep.text("outcome"), Some("failed" | "partial"))
            && ended.is_some_and(|ended| ended >= started)
    });
    let ran_long = sweep_cron.nth_after(started, 3).is_some_and(|tick| tick < now);
    if ran_long || (was_swept && failed_here) { Staleness::Overdue } else { Staleness::Stale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Sleep, SystemClock};
    use crate::store::Reader;
    use std::os::unix::fs::PermissionsExt as _;

    /// A clock a hundred times as fast as the machine's.
    struct FastClock(SystemClock);

    impl Clock for FastClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH.saturating_add(self.elapsed()).unwrap()
        }

        fn elapsed(&self) -> Duration {
            self.0.elapsed() * 100
        }

        fn sleep(&self, duration: Duration) -> Sleep<'_> {
            self.0.sleep(duration / 100)
        }

        fn boot(&self) -> Option<(String, Duration)> {
            None
        }
    }

    /// Runs this script for a refused key, for `time` by the fast clock. Returns when each run
    /// began, in seconds of the machine's clock.
    async fn runs(script: &str, time: Duration) -> Vec<f64> {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let store = Arc::new(Store::open(&at("komoju.db")).unwrap());
        let refused = |tx: &crate::store::Tx<'_>| {
            crate::store::log::passes::note_refused(tx, "1970-01-01T00:00:00.000Z")
        };
        store.write(refused).await.unwrap();
        let program = at("notify");
        let text = format!("#!/bin/sh\ndate +%s.%N >> '{}'\n{script}\n", at("runs").display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config::default();
        config.database.path = at("komoju.db");
        config.alerts.command = Some(vec![program.to_str().unwrap().to_owned()]);
        let clock: Arc<dyn Clock> = Arc::new(FastClock(SystemClock::new()));
        let key = SecretKey::parse("sk_test_0123456789").unwrap();
        let stop = CancellationToken::new();
        let alerts = Alerts::new(&config, store, &key, Arc::clone(&clock), stop).unwrap();
        let status = Status::read(&Reader::open(&at("komoju.db")).unwrap(), &config, clock.now()).unwrap();
        let statuses = watch::Sender::new(None);
        let receiver = statuses.subscribe();
        statuses.send_replace(Some(Arc::new(status)));
        tokio::select! {
            ended = alerts.serve(receiver) => panic!("{ended:?}"),
            () = clock.sleep(time) => {}
        }
        let runs = std::fs::read_to_string(at("runs")).unwrap_or_default();
        runs.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn failed_run_is_retried_after_a_minute_doubling() {
        let began = runs("exit 1", Duration::from_secs(500)).await;
        // After 60, 120 and 240 seconds, a hundred times as fast. A slow machine is later, never
        // earlier.
        assert!((2..=4).contains(&began.len()), "{began:?}");
        for (pair, least) in began.windows(2).zip([0.6, 1.2, 2.4]) {
            assert!(pair[1] - pair[0] >= least - 0.05, "{began:?}");
        }
    }

    #[tokio::test]
    async fn successful_run_is_not_repeated_whatever_the_program_does_with_its_pipes() {
        for script in [
            "",
            // The program does not read its input, writes much output, closes its pipes, or leaves
            // a process that keeps the output open.
            "exec 0<&-; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2",
            "exec 0<&- 1>&- 2>&-; sleep 0.1",
            "sleep 60 & exit 0",
        ] {
            assert_eq!(runs(script, Duration::from_secs(300)).await.len(), 1, "{script}");
        }
    }

    #[tokio::test]
    async fn program_that_does_not_end_is_killed_after_half_a_minute() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("pid");
        let script = format!("trap '' TERM; sleep 60 & echo $! > '{}'; sleep 60", file.display());
        let began = runs(&script, Duration::from_secs(60)).await;
        assert_eq!(began.len(), 1, "the run has failed, and its retry waits for a minute from its end");
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}
