//! The pass loop: a sweep at each tick and after a failed one, a probe between them, one pass at a
//! time.
//!
//! The loop waits for what is due ([`Due`]), does it, and enters the result in its [`Schedule`],
//! which is pure.

use std::time::Duration;

use tokio::sync::Notify;

use super::App;
use crate::heartbeat;
use crate::store::StoreError;
use crate::tasks::pull::{Failure, Report};
use komoju_core::PassKind;
use komoju_core::plan::retry;

/// EXTRA_SWEEP_EVERY controls how often the loop starts a sweep between two ticks. Such a sweep is
/// wanted if a push did not find its customer, or if more events arrived than are followed. Many
/// such reasons at once need one sweep only.
const EXTRA_SWEEP_EVERY: Duration = Duration::from_secs(15 * 60);

/// RECHECK_AFTER_BUSY controls how soon customers are requested again if another program kept the
/// database locked.
const RECHECK_AFTER_BUSY: Duration = Duration::from_secs(10);

/// LONGEST_RECHECK_WAIT controls how often the loop checks whether customers are due to be
/// requested again: a push may have added some.
const LONGEST_RECHECK_WAIT: Duration = Duration::from_secs(60);

/// RETRY_REFUSED_KEY_AFTER controls how often a refused key is tried again.
const RETRY_REFUSED_KEY_AFTER: Duration = Duration::from_secs(15 * 60);

impl App {
    /// Runs each pass that is due, until the work with this key stops.
    pub(super) async fn run_passes(&self, sweep_due: &Notify, probe_due: &Notify) -> Result<(), StoreError> {
        let mut schedule = Schedule::default();
        loop {
            let idle = heartbeat::idle();
            let due = self.next_due(&schedule, sweep_due, probe_due).await;
            drop(idle);
            let kind = match due {
                Due::Stop => return Ok(()),
                Due::Pass(kind) => kind,
                Due::ExtraSweep if schedule.allows_extra_sweep(self.clock.elapsed()) => PassKind::Sweep,
                // It is due when the time has passed.
                Due::ExtraSweep => continue,
                Due::Recheck => {
                    let wait = self.recheck().await?;
                    schedule.recheck_at = self.clock.elapsed() + wait;
                    continue;
                }
                Due::RefusedKey => {
                    schedule.wait_for_key(self.clock.elapsed());
                    continue;
                }
            };
            let ended = self.run_pass(kind).await?;
            let next_wait = schedule.record(kind, ended, self.clock.elapsed(), rand::random());
            if let Some(wait) = next_wait {
                let wait_s = wait.as_secs();
                tracing::info!(wait_s, "retrying the sweep in {wait_s} s");
            }
        }
    }

    /// Waits for what is due next. With a refused key, only the retry and the stop are due.
    async fn next_due(&self, schedule: &Schedule, sweep_due: &Notify, probe_due: &Notify) -> Due {
        let has_key = schedule.has_key();
        tokio::select! {
            biased;
            () = self.round.cancelled() => Due::Stop,
            () = self.sleep_until(schedule.retry_at()) => Due::Pass(PassKind::Sweep),
            () = sweep_due.notified(), if has_key => Due::Pass(PassKind::Sweep),
            () = self.signals.extra_sweep.notified(), if has_key => Due::ExtraSweep,
            () = probe_due.notified(), if has_key => Due::Pass(PassKind::Probe),
            () = self.sleep_until(schedule.extra_sweep_due), if has_key => Due::ExtraSweep,
            () = self.sleep_until(Some(schedule.recheck_at)), if has_key => Due::Recheck,
            () = self.signals.refused.notified() => Due::RefusedKey,
        }
    }

    /// Requests the customers that are due to be requested again. Returns when to check next.
    async fn recheck(&self) -> Result<Duration, StoreError> {
        let next = match self.pull.recheck().await {
            Ok(next) => next,
            Err(e) if e.is_busy() => Some(RECHECK_AFTER_BUSY),
            Err(e) => return Err(e),
        };
        Ok(next.unwrap_or(LONGEST_RECHECK_WAIT).min(LONGEST_RECHECK_WAIT))
    }

    /// Runs one pass, logs its result, and wakes the pusher: the pass may have found that the key
    /// is accepted.
    async fn run_pass(&self, kind: PassKind) -> Result<PassEnd, StoreError> {
        let passed = self.pass(kind).await;
        self.first_pass.notify_one();
        self.signals.wake.notify_one();
        match passed {
            Ok(None) => Ok(PassEnd::NotDue),
            Ok(Some(report)) => {
                log(&report);
                Ok(match report.failure {
                    Some(Failure::KeyRefused(_)) => PassEnd::KeyRefused,
                    // An operator decides about another account. The next tick checks the decision.
                    Some(Failure::Stopped | Failure::OtherAccount) | None => PassEnd::Done,
                    Some(_) => PassEnd::Failed,
                })
            }
            Err(e) if e.is_busy() => {
                tracing::error!("{kind} failed: {e}; retrying");
                Ok(PassEnd::Failed)
            }
            Err(e) => Err(e),
        }
    }
}

/// What the loop does next.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// It ends.
    Stop,
    /// It runs a pass: a tick, or a retry.
    Pass(PassKind),
    /// It runs a sweep between two ticks, if [`EXTRA_SWEEP_EVERY`] allows it.
    ExtraSweep,
    /// It requests single customers again.
    Recheck,
    /// It waits, because a push met a refused key.
    RefusedKey,
}

/// How a pass ended, as far as the schedule depends on it.
#[derive(Clone, Copy, Debug)]
enum PassEnd {
    /// There was nothing to do: a probe before the first complete sweep.
    NotDue,
    /// It ended, and no retry is needed.
    Done,
    /// It failed, and a retry may succeed.
    Failed,
    /// The API refused the key.
    KeyRefused,
}

/// What is due besides the ticks. All moments are by the steady clock.
#[derive(Debug, Default)]
struct Schedule {
    next: NextSweep,
    /// The sweeps in a row that failed.
    failures: u32,
    /// When the last extra sweep began.
    extra_sweep_at: Option<Duration>,
    /// When an extra sweep is due that was wanted too soon after the last one.
    extra_sweep_due: Option<Duration>,
    /// When single customers are requested again; at the start at once.
    recheck_at: Duration,
}

/// The next sweep.
#[derive(Clone, Copy, Debug, Default)]
enum NextSweep {
    /// At the next tick.
    #[default]
    AtTick,
    /// A failed sweep is retried at this moment, or at an earlier tick.
    Retry(Duration),
    /// The key is refused: no pass before this moment, also at ticks.
    RetryKey(Duration),
}

impl Schedule {
    /// Whether passes run at their ticks.
    fn has_key(&self) -> bool {
        !matches!(self.next, NextSweep::RetryKey(_))
    }

    /// Returns when a sweep is due without a tick.
    fn retry_at(&self) -> Option<Duration> {
        match self.next {
            NextSweep::AtTick => None,
            NextSweep::Retry(at) | NextSweep::RetryKey(at) => Some(at),
        }
    }

    /// Returns whether an extra sweep may begin now, and records it if so.
    fn allows_extra_sweep(&mut self, now: Duration) -> bool {
        let is_allowed = self.extra_sweep_at.is_none_or(|at| now.saturating_sub(at) >= EXTRA_SWEEP_EVERY);
        match is_allowed {
            true => (self.extra_sweep_at, self.extra_sweep_due) = (Some(now), None),
            false => self.extra_sweep_due = self.extra_sweep_at.map(|at| at + EXTRA_SWEEP_EVERY),
        }
        is_allowed
    }

    /// Leaves out all passes until the key is tried again.
    fn wait_for_key(&mut self, now: Duration) {
        self.next = NextSweep::RetryKey(now + RETRY_REFUSED_KEY_AFTER);
    }

    /// Records how a pass ended at `now`. Returns the wait before the sweep is retried, if it is.
    fn record(&mut self, kind: PassKind, ended: PassEnd, now: Duration, jitter: f64) -> Option<Duration> {
        // The pass may have left customers out.
        self.recheck_at = now;
        if kind == PassKind::Sweep {
            self.extra_sweep_due = None;
        }
        match (kind, ended) {
            (_, PassEnd::KeyRefused) => self.wait_for_key(now),
            (PassKind::Sweep, PassEnd::Failed) => {
                self.failures += 1;
                let wait = retry::pass_wait(self.failures, jitter);
                self.next = NextSweep::Retry(now + wait);
                return Some(wait);
            }
            (PassKind::Sweep, PassEnd::Done) => {
                self.failures = 0;
                self.next = NextSweep::AtTick;
            }
            // A failed probe needs no retry: the next one follows soon.
            (PassKind::Probe, _) | (PassKind::Sweep, PassEnd::NotDue) => {}
        }
        None
    }
}

/// Logs a pass at the level that its result needs.
fn log(report: &Report) {
    let sentence = report.sentence();
    match &report.failure {
        Some(Failure::Stopped) => tracing::info!("{sentence}"),
        Some(_) => tracing::error!("{sentence}"),
        None if report.held > 0 && report.kind == PassKind::Sweep => tracing::warn!("{sentence}"),
        // A probe runs each minute. One that changes nothing is no information.
        None if report.kind == PassKind::Probe && report.tally.changes() == 0 => {
            tracing::debug!("{sentence}")
        }
        None => tracing::info!("{sentence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn failed_sweep_is_retried_later_each_time_until_one_is_done() {
        let mut schedule = Schedule::default();
        let first = schedule.record(PassKind::Sweep, PassEnd::Failed, NOW, 0.5).unwrap();
        assert_eq!(schedule.retry_at(), Some(NOW + first));
        let second = schedule.record(PassKind::Sweep, PassEnd::Failed, NOW, 0.5).unwrap();
        assert!(second > first, "{first:?} {second:?}");
        assert_eq!(schedule.record(PassKind::Probe, PassEnd::Failed, NOW, 0.5), None);
        assert_eq!(schedule.retry_at(), Some(NOW + second), "a probe changes nothing");
        assert_eq!(schedule.record(PassKind::Sweep, PassEnd::Done, NOW, 0.5), None);
        assert_eq!(schedule.retry_at(), None);
    }

    #[test]
    fn refused_key_leaves_out_ticks_until_it_is_tried_again() {
        let mut schedule = Schedule::default();
        schedule.record(PassKind::Probe, PassEnd::KeyRefused, NOW, 0.5);
        assert!(!schedule.has_key());
        assert_eq!(schedule.retry_at(), Some(NOW + RETRY_REFUSED_KEY_AFTER));
        schedule.record(PassKind::Sweep, PassEnd::Done, NOW, 0.5);
        assert!(schedule.has_key());
    }

    #[test]
    fn extra_sweep_is_allowed_once_in_a_quarter_of_an_hour() {
        let mut schedule = Schedule::default();
        let allowed = [0, 1, 899, 900, 901].map(|s| schedule.allows_extra_sweep(Duration::from_secs(s)));
        assert_eq!(allowed, [true, false, false, true, false]);
        assert_eq!(schedule.extra_sweep_due, Some(Duration::from_secs(1800)), "the wish is remembered");
        schedule.record(PassKind::Sweep, PassEnd::Done, NOW, 0.5);
        assert_eq!(schedule.extra_sweep_due, None, "a sweep at its tick fulfils it");
    }
}
