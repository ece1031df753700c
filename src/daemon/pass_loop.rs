//! The passes: a sweep at each tick and when one failed, a probe between them, one pass at a time.

use std::time::Duration;

use tokio::sync::Notify;

use super::App;
use crate::heartbeat;
use crate::store::StoreError;
use crate::tasks::pull::{Failure, Report};
use komoju_core::PassKind;
use komoju_core::plan::retry;

/// How soon after a sweep that was made because an update met nobody another one is made for that reason.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);

/// After how long customers are requested again where another program kept the database busy.
const RECHECK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How often it is looked whether customers are to be requested again.
const LONGEST_RECHECK_WAIT: Duration = Duration::from_secs(60);

/// How often a refused key is tried again.
const ASK_AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(15 * 60);

impl App {
    /// Makes a pass at each tick, until told to stop.
    pub(super) async fn answer_ticks(
        &self,
        sweep_due: &Notify,
        probe_due: &Notify,
    ) -> Result<(), StoreError> {
        let mut failures = 0;
        let mut plan = Plan::Cadence;
        let mut looked_at: Option<Duration> = None;
        let mut recheck_at = Some(Duration::ZERO);
        loop {
            let answers_ticks = !matches!(plan, Plan::Refused { .. });
            let resting = heartbeat::idle();
            let kind = tokio::select! {
                biased;
                () = self.round.cancelled() => return Ok(()),
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
                () = self.sleep_until(recheck_at), if answers_ticks => {
                    let next = match self.pull.recheck().await {
                        Ok(next) => next,
                        Err(e) if e.is_busy() => Some(RECHECK_AGAIN_AFTER),
                        Err(e) => return Err(e),
                    };
                    // A push may have customers requested again.
                    let next = next.unwrap_or(LONGEST_RECHECK_WAIT).min(LONGEST_RECHECK_WAIT);
                    recheck_at = Some(self.clock.elapsed() + next);
                    continue;
                }
                () = self.signals.refused.notified() => {
                    plan = Plan::Refused { again_at: self.clock.elapsed() + ASK_AGAIN_AFTER_REFUSAL };
                    continue;
                }
            };
            drop(resting);
            let passed = self.pass(kind).await;
            // The pass may have left customers out.
            recheck_at = Some(self.clock.elapsed());
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
