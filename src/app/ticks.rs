//! The cadence: a sweep at each tick and when one failed, a probe between them, one pass at a time.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::{App, AppError};
use crate::clock::Clock;
use crate::config::Config;
use crate::model::PassKind;
use crate::pulse;
use crate::reconcile::retry;
use crate::store::StoreError;
use crate::tasks::pull::{Failure, Report};

/// How soon after a sweep that was made because an update met nobody another one is made for that reason.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);

/// How often a refused key is tried again.
const ASK_AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(15 * 60);

/// How often it is looked whether the wall clock was set.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_secs(20);

/// How far the wall clock may go against the steady one between two looks: more is no drift.
const CLOCK_IS_SET: SignedDuration = SignedDuration::from_secs(10);

impl App {
    /// Says when a sweep and a probe are due. A tick only leaves a note; one that comes while a pass runs is answered once, after it.
    /// The cadence counts by the wall clock, and would wait until a clock that was set back has caught up: so it begins anew then,
    /// with a sweep. Ends only by an error.
    pub(super) async fn keep_cadence(
        &self,
        config: &Config,
        sweep_due: &Arc<Notify>,
        probe_due: &Arc<Notify>,
    ) -> Result<(), AppError> {
        loop {
            let mut cadence = start_cadence(config, sweep_due, probe_due).await?;
            let by = until_the_clock_is_set(&*self.clock).await;
            if let Err(e) = cadence.shutdown().await {
                tracing::debug!("the cadence did not stop cleanly: {e}");
            }
            tracing::warn!(
                "the clock of this machine was set by {} s; everything is read anew",
                by.as_secs()
            );
            sweep_due.notify_one();
        }
    }

    /// Makes a pass at each tick, until told to stop.
    pub(super) async fn answer_ticks(
        &self,
        sweep_due: &Notify,
        probe_due: &Notify,
    ) -> Result<(), StoreError> {
        let mut failures = 0;
        let mut plan = Plan::Cadence;
        let mut looked_at: Option<Duration> = None;
        loop {
            let answers_ticks = !matches!(plan, Plan::Refused { .. });
            let resting = pulse::resting();
            let kind = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = self.sleep_until(plan.again_at()) => PassKind::Sweep,
                () = sweep_due.notified(), if answers_ticks => PassKind::Sweep,
                () = self.signals.look.notified(), if answers_ticks => {
                    // Many at once are one, and a storm of them is no reason to read all the time.
                    let now = self.clock.elapsed();
                    if looked_at.is_some_and(|at| now.saturating_sub(at) < LOOK_AGAIN_AFTER) {
                        continue;
                    }
                    looked_at = Some(now);
                    PassKind::Sweep
                }
                () = probe_due.notified(), if answers_ticks => PassKind::Probe,
                () = self.signals.refused.notified() => {
                    plan = Plan::Refused { again_at: self.clock.elapsed() + ASK_AGAIN_AFTER_REFUSAL };
                    continue;
                }
            };
            drop(resting);
            let passed = self.pass(kind).await;
            self.first_pass.notify_one();
            // A key that was bound, or is accepted again, lets intents go.
            self.signals.wake.notify_one();
            let failed = match passed {
                Ok(None) => continue,
                Ok(Some(report)) => {
                    log(&report);
                    match report.failure {
                        Some(Failure::KeyRefused(_)) => {
                            plan = Plan::Refused { again_at: self.clock.elapsed() + ASK_AGAIN_AFTER_REFUSAL };
                            continue;
                        }
                        // A person decides about these; the next tick looks whether they have.
                        Some(Failure::Stopped | Failure::OtherAccount) | None => false,
                        Some(_) => true,
                    }
                }
                Err(e) if e.is_busy() => {
                    tracing::error!("{kind} failed: {e}; it is tried again");
                    true
                }
                Err(e) => return Err(e),
            };
            plan = match (kind, failed) {
                (PassKind::Sweep, true) => {
                    failures += 1;
                    let wait = retry::pass_wait(failures, rand::random());
                    tracing::info!(
                        wait_s = wait.as_secs(),
                        "the sweep is tried again in {} s",
                        wait.as_secs()
                    );
                    Plan::Again { at: self.clock.elapsed() + wait }
                }
                (PassKind::Sweep, false) => {
                    failures = 0;
                    Plan::Cadence
                }
                // The next probe comes soon enough.
                (PassKind::Probe, _) => plan,
            };
        }
    }
}

/// By how much, forward or back.
async fn until_the_clock_is_set(clock: &dyn Clock) -> SignedDuration {
    let offset = || {
        let steady = SignedDuration::try_from(clock.elapsed()).unwrap_or_default();
        clock.now().duration_since(Timestamp::UNIX_EPOCH).saturating_sub(steady)
    };
    let mut last = offset();
    loop {
        clock.sleep(LOOK_AT_CLOCK_EVERY).await;
        let now = offset();
        let by = now.saturating_sub(last);
        if by.abs() > CLOCK_IS_SET {
            return by;
        }
        last = now;
    }
}

async fn start_cadence(
    config: &Config,
    sweep_due: &Arc<Notify>,
    probe_due: &Arc<Notify>,
) -> Result<JobScheduler, JobSchedulerError> {
    let cadence = JobScheduler::new().await?;
    for (cron, due) in [(&config.inbound.sweep_cron, sweep_due), (&config.inbound.probe_cron, probe_due)] {
        let due = Arc::clone(due);
        cadence.add(Job::new(cron.text(), move |_, _| due.notify_one())?).await?;
    }
    cadence.start().await?;
    Ok(cadence)
}

/// What the daemon waits for besides the cadence's ticks; moments are the steady clock's.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Nothing.
    Cadence,
    /// A failed sweep is made again then.
    Again { at: Duration },
    /// The key is refused: ticks are left out until then.
    Refused { again_at: Duration },
}

impl Plan {
    fn again_at(self) -> Option<Duration> {
        match self {
            Self::Cadence => None,
            Self::Again { at } | Self::Refused { again_at: at } => Some(at),
        }
    }
}

/// One line for what a person needs to know.
fn log(report: &Report) {
    let sentence = report.sentence();
    match &report.failure {
        Some(Failure::Stopped) => tracing::info!("{sentence}"),
        Some(_) => tracing::error!("{sentence}"),
        None if report.held > 0 && report.kind == PassKind::Sweep => tracing::warn!("{sentence}"),
        // What happens every minute and changes nothing is no news.
        None if report.kind == PassKind::Probe && report.tally.changes() == 0 => {
            tracing::debug!("{sentence}")
        }
        None => tracing::info!("{sentence}"),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn a_clock_that_is_set_is_noticed_and_time_that_passes_is_not() {
        for hours in [-9, 24 * 365] {
            let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
            let mut set = pin!(until_the_clock_is_set(&clock));
            for _ in 0..100 {
                assert!(futures_util::poll!(&mut set).is_pending());
            }
            clock.set_wall(clock.now() + SignedDuration::from_hours(hours));
            let Poll::Ready(by) = futures_util::poll!(&mut set) else { panic!("not noticed") };
            assert_eq!(by, SignedDuration::from_hours(hours));
        }
    }
}
