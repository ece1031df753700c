//! Wipes copies of settled tokens and of erased data from the database file and its WAL. Wiping
//! runs while no attempt is in flight, and every 10 seconds under load.

use std::time::Duration;

use super::Pusher;
use crate::store::file::{readers, wipe};

/// WIPE_EVERY controls how soon wiping is retried after a reader prevented it, and how often it
/// runs while intents are sent without a pause.
const WIPE_EVERY: Duration = Duration::from_secs(10);

/// AFTER_FAILURE controls how soon wiping is retried after another failure. A full disk does not
/// recover within seconds.
const AFTER_FAILURE: Duration = Duration::from_secs(15 * 60);

/// WIPE_PAUSE controls the pause after wiping, as a multiple of its duration. On a large database
/// other writers get 95 % of the time.
const WIPE_PAUSE: u32 = 19;

/// REPORTED_FAILURES controls after how many failures in a row one is logged. A short query of
/// another program causes a single failure, which needs no action.
const REPORTED_FAILURES: u32 = 2;

/// The schedule of wiping.
#[derive(Debug)]
pub(super) struct WipeSchedule {
    /// When it last tried, by the steady clock.
    tried_at: Duration,
    /// The earliest time of the next try.
    not_before: Duration,
    /// Whether something may be left: a commit came too early for another try, or the last try
    /// failed.
    is_wanted: bool,
    failures: u32,
    /// Whether a failure since the last success was logged.
    is_logged: bool,
    /// Whether it was noted in the database.
    is_noted: bool,
}

impl WipeSchedule {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            tried_at: now,
            not_before: now,
            is_wanted: false,
            failures: 0,
            is_logged: false,
            is_noted: false,
        }
    }

    fn succeed(&mut self) {
        (self.is_wanted, self.failures, self.is_logged, self.is_noted) = (false, 0, false, false);
    }

    /// Counts a failure after which wiping waits for `wait`. Returns whether to log it now.
    fn fail(&mut self, wait: Duration) -> bool {
        self.is_wanted = true;
        self.failures = self.failures.saturating_add(1);
        let is_reported = self.failures >= REPORTED_FAILURES || wait == AFTER_FAILURE;
        is_reported && !std::mem::replace(&mut self.is_logged, true)
    }

    /// Returns whether the failure must still be noted in the database.
    fn is_to_be_noted(&self) -> bool {
        self.is_logged && !self.is_noted
    }

    /// Returns whether to wipe now. If not, remembers that a later try is wanted. `is_quiet` says
    /// that no attempt is in flight.
    pub(super) fn is_due(&mut self, now: Duration, is_quiet: bool) -> bool {
        let is_due = now >= self.not_before && (is_quiet || now.saturating_sub(self.tried_at) >= WIPE_EVERY);
        self.is_wanted |= !is_due;
        is_due
    }

    /// Returns the time until the next try. `None` if no try is wanted since the last success, so
    /// that an idle daemon sleeps.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        self.not_before.checked_sub(now).filter(|wait| self.is_wanted && !wait.is_zero())
    }
}

/// Returns how long wiping pauses after a success that took this long.
fn pause_after(took: Duration) -> Duration {
    took * WIPE_PAUSE
}

impl<R> Pusher<R> {
    /// Wipes what is left, until `stop`. A failure is logged and retried later.
    pub(super) async fn wipe(&self, schedule: &mut WipeSchedule, stop: impl Future<Output = ()>) {
        let began = self.clock.elapsed();
        let wiped = self.store.wipe_unless(stop).await;
        let now = self.clock.elapsed();
        schedule.tried_at = now;
        let (wait, why) = match wiped {
            Ok(None) => (Duration::ZERO, None),
            Ok(Some(true)) => {
                schedule.succeed();
                (pause_after(now - began), None)
            }
            Ok(Some(false)) => (WIPE_EVERY, Some(readers::sentence(self.store.path()))),
            Err(e) if e.is_busy() => (WIPE_EVERY, Some(e.to_string())),
            Err(e) => (AFTER_FAILURE, Some(e.to_string())),
        };
        schedule.not_before = now + wait;
        let Some(why) = why else { return };
        if schedule.fail(wait) {
            tracing::warn!("copies of settled payment tokens or erased data are left in the database: {why}");
        }
        // The lock of another writer must not delay a stop.
        if !schedule.is_to_be_noted() || self.stop.is_cancelled() {
            return;
        }
        match self.store.write(wipe::note_blocked).await {
            Ok(()) => schedule.is_noted = true,
            Err(e) => tracing::debug!("not noted: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_takes_a_twentieth_of_the_time() {
        let took = Duration::from_secs(2);
        assert_eq!(took + pause_after(took), took * 20);
    }

    #[test]
    fn wiping_is_due_when_quiet_and_every_ten_seconds_under_load() {
        let mut schedule = WipeSchedule::new(Duration::from_secs(100));
        let at = Duration::from_secs;
        assert!(schedule.is_due(at(100), true));
        assert!(!schedule.is_due(at(109), false) && schedule.is_due(at(110), false));
        schedule.not_before = at(130);
        assert!(!schedule.is_due(at(129), true) && schedule.is_due(at(130), true));
        assert_eq!((schedule.wait(at(120)), schedule.wait(at(130))), (Some(at(10)), None));
    }

    #[test]
    fn wait_is_none_after_a_success_until_another_try_is_wanted() {
        let at = Duration::from_secs;
        let mut schedule = WipeSchedule::new(at(100));
        assert!(schedule.is_due(at(100), true));
        schedule.succeed();
        schedule.not_before = at(119);
        assert_eq!(schedule.wait(at(101)), None, "an idle daemon has no reason to wake");
        assert!(!schedule.is_due(at(105), true), "a commit comes too early");
        assert_eq!(schedule.wait(at(105)), Some(at(14)));
        schedule.succeed();
        schedule.fail(WIPE_EVERY);
        assert_eq!(schedule.wait(at(105)), Some(at(14)), "a failure is retried");
    }

    #[test]
    fn failure_is_logged_once_and_noted_until_that_succeeds() {
        let mut schedule = WipeSchedule::new(Duration::ZERO);
        let mut fail = |wait, is_noted| {
            schedule.is_noted |= is_noted;
            (schedule.fail(wait), schedule.is_to_be_noted())
        };
        assert_eq!(fail(WIPE_EVERY, false), (false, false), "a short query of another program");
        assert_eq!(fail(WIPE_EVERY, false), (true, true));
        assert_eq!(fail(WIPE_EVERY, false), (false, true), "the note failed");
        assert_eq!(fail(WIPE_EVERY, true), (false, false));
        schedule.succeed();
        assert_eq!((schedule.fail(AFTER_FAILURE), schedule.is_to_be_noted()), (true, true));
    }
}
