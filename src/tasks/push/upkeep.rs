//! Upkeep: copies of settled tokens and of erased data leave the file and its WAL while nothing else is to be done.

use std::time::Duration;

use super::{Pusher, Run};
use crate::store::{readers, wipe};

/// How soon wiping is tried again after a reader prevented it, and how often it is done while intents are sent without a pause.
pub(super) const WIPE_EVERY: Duration = Duration::from_secs(10);

/// How soon it is tried again after it failed otherwise: a full disk does not pass within seconds.
const AFTER_FAILURE: Duration = Duration::from_secs(15 * 60);

/// How many times as long as it took nothing is wiped afterwards: on a large database other writers get 19 parts of the time in 20.
const REST: u32 = 19;

/// Attempts in a row that fail before that is reported: a short query of another program is no news.
const REPORTED_FAILURES: u32 = 2;

/// When a run wipes again.
#[derive(Debug)]
pub(super) struct Schedule {
    /// When it last tried, by the steady clock.
    tried_at: Duration,
    /// Not before then does it try again.
    not_before: Duration,
    failures: u32,
}

impl Schedule {
    pub(super) fn new(now: Duration) -> Self {
        Self { tried_at: now, not_before: now, failures: 0 }
    }

    /// Whether to try now; `is_quiet` if no attempt at an intent is under way.
    pub(super) fn is_due(&self, now: Duration, is_quiet: bool) -> bool {
        now >= self.not_before && (is_quiet || now.saturating_sub(self.tried_at) >= WIPE_EVERY)
    }

    /// How long until the next try, if that is fixed.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        self.not_before.checked_sub(now).filter(|wait| !wait.is_zero())
    }
}

impl<R> Pusher<R> {
    /// Wipes what is left, until `stop`. A failure is reported and tried again.
    pub(super) async fn wipe(&self, run: &mut Run, stop: impl Future<Output = ()>) {
        let began = self.clock.elapsed();
        let wiped = self.store.wipe_unless(stop).await;
        let now = self.clock.elapsed();
        let schedule = &mut run.wiping;
        schedule.tried_at = now;
        let (wait, why) = match wiped {
            Ok(None) => (Duration::ZERO, None),
            Ok(Some(true)) => {
                schedule.failures = 0;
                ((now - began) * REST, None)
            }
            Ok(Some(false)) => (WIPE_EVERY, Some(readers::sentence(self.store.path()))),
            Err(e) if e.is_busy() => (WIPE_EVERY, Some(e.to_string())),
            Err(e) => (AFTER_FAILURE, Some(e.to_string())),
        };
        schedule.not_before = now + wait;
        let Some(why) = why else { return };
        schedule.failures = schedule.failures.saturating_add(1);
        if schedule.failures != REPORTED_FAILURES && wait != AFTER_FAILURE {
            return;
        }
        tracing::warn!("copies of settled payment tokens or erased data are left in the database: {why}");
        // The lock of another writer must not delay a stop.
        if self.stop.is_cancelled() {
            return;
        }
        if let Err(e) = self.store.write(wipe::note_blocked).await {
            tracing::debug!("not noted: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_is_due_when_quiet_and_every_ten_seconds_under_load() {
        let mut schedule = Schedule::new(Duration::from_secs(100));
        let at = Duration::from_secs;
        assert!(schedule.is_due(at(100), true));
        assert!(!schedule.is_due(at(109), false) && schedule.is_due(at(110), false));
        schedule.not_before = at(130);
        assert!(!schedule.is_due(at(129), true) && schedule.is_due(at(130), true));
        assert_eq!((schedule.wait(at(120)), schedule.wait(at(130))), (Some(at(10)), None));
    }
}
