//! When a pass is due: the scheduler's ticks, and a timer that replaces the ticks that it loses.
//!
//! The scheduler counts by the wall clock. If that clock jumps ahead and back between two of its
//! checks, the next tick is in the wrong year. So each tick also has a deadline by the steady
//! clock. If the tick does not occur by then, the pass is due and the scheduler is restarted.
//!
//! Invariant: no error and no clock ends the ticks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::App;
use crate::clock::Clock;
use crate::config::{Cadence, Config};

/// COMPARE_EVERY controls how often the wall clock is compared with the steady one.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// CLOCK_IS_SET controls how far the wall clock may move against the steady one between two
/// comparisons. A greater difference is no drift: the clock was set.
const CLOCK_IS_SET: SignedDuration = SignedDuration::from_secs(10);

/// GRACE controls how late a tick may be before it counts as lost. The scheduler checks every half
/// second.
const GRACE: Duration = Duration::from_secs(5);

/// NEXT_TICK_UNKNOWN controls the wait if no clock shows a time that has a next tick.
const NEXT_TICK_UNKNOWN: Duration = Duration::from_secs(60);

/// A cron expression, and what its ticks notify.
struct Ticks<'a> {
    cron: &'a Cadence,
    due: &'a Arc<Notify>,
    /// Notified by the scheduler only.
    ticked: Arc<Notify>,
}

/// Why the scheduler is restarted.
enum Restart {
    /// The wall clock was set, by this much.
    Set(SignedDuration),
    /// A tick did not occur.
    Lost,
    /// The trusted clock of the daemon was corrected.
    Corrected,
}

impl App {
    /// Notifies `sweep_due` and `probe_due` at each tick. Notifications during a pass count as one,
    /// which is answered after the pass.
    pub(super) async fn keep_cadence(
        &self,
        config: &Config,
        sweep_due: &Arc<Notify>,
        probe_due: &Arc<Notify>,
    ) -> Infallible {
        let ticks = |cron, due| Ticks { cron, due, ticked: Arc::default() };
        let inbound = &config.inbound;
        let (sweeps, probes) = (ticks(&inbound.sweep_cron, sweep_due), ticks(&inbound.probe_cron, probe_due));
        let clock = &*self.clock;
        loop {
            let scheduler = start(&[&sweeps, &probes])
                .await
                .map_err(|e| tracing::warn!("the scheduler does not start: {e}; passes run up to 5 s late"))
                .ok();
            let restart = tokio::select! {
                by = until_set(clock, || clock.machine_time()) => Restart::Set(by),
                _ = until_set(clock, || clock.now()) => Restart::Corrected,
                () = sweeps.until_lost(clock) => Restart::Lost,
                () = probes.until_lost(clock) => Restart::Lost,
            };
            if let Some(mut scheduler) = scheduler
                && let Err(e) = scheduler.shutdown().await
            {
                tracing::debug!("the scheduler did not stop cleanly: {e}");
            }
            match restart {
                Restart::Set(by) => tracing::warn!(
                    "the clock of this machine was set by {} s; the daemon uses the new time after ten minutes, or as soon \
                     as KOMOJU's clock confirms it",
                    by.as_secs()
                ),
                Restart::Corrected => sweep_due.notify_one(),
                Restart::Lost => tracing::debug!("the scheduler lost a tick"),
            }
        }
    }
}

impl Ticks<'_> {
    /// Waits until a tick does not occur by its deadline, and notifies in its place.
    async fn until_lost(&self, clock: &dyn Clock) {
        loop {
            let wait =
                [clock.machine_time(), clock.now()].into_iter().find_map(|now| self.cron.wait_from(now));
            tokio::select! {
                () = self.ticked.notified() => {}
                () = clock.sleep(wait.unwrap_or(NEXT_TICK_UNKNOWN) + GRACE) => {
                    self.due.notify_one();
                    return;
                }
            }
        }
    }
}

/// Waits until a clock is set, and returns by how much, forward or back.
async fn until_set(clock: &dyn Clock, shown: impl Fn() -> Timestamp) -> SignedDuration {
    let offset = || {
        let steady = SignedDuration::try_from(clock.uptime()).unwrap_or_default();
        shown().duration_since(Timestamp::UNIX_EPOCH).saturating_sub(steady)
    };
    let mut last = offset();
    loop {
        clock.sleep(COMPARE_EVERY).await;
        let now = offset();
        let by = now.saturating_sub(last);
        if by.abs() > CLOCK_IS_SET {
            return by;
        }
        last = now;
    }
}

/// Starts a scheduler for these ticks.
async fn start(all: &[&Ticks<'_>]) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for ticks in all {
        let (due, ticked) = (Arc::clone(ticks.due), Arc::clone(&ticks.ticked));
        let job = Job::new(ticks.cron.text(), move |_, _| {
            ticked.notify_one();
            due.notify_one();
        });
        scheduler.add(job?).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::{ManualClock, TrustedClock};

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()))
    }

    #[tokio::test]
    async fn set_clock_is_noticed_and_passing_time_is_not() {
        for hours in [-9, 24 * 365] {
            let clock = clock();
            let mut set = pin!(until_set(&*clock, || clock.machine_time()));
            for _ in 0..100 {
                assert!(futures_util::poll!(&mut set).is_pending());
            }
            clock.set_wall(clock.now() + SignedDuration::from_hours(hours));
            let Poll::Ready(by) = futures_util::poll!(&mut set) else { panic!("not noticed") };
            assert_eq!(by, SignedDuration::from_hours(hours));
        }
    }

    #[tokio::test]
    async fn tick_lost_by_the_scheduler_is_replaced_by_the_steady_clock() {
        for years in [-30, 0, 1, 7900] {
            let machine = clock();
            let trusted = TrustedClock::over(machine.clone(), None);
            let cron = Cadence::parse("0 */15 * * * *").unwrap();
            let due = Arc::<Notify>::default();
            let ticks = Ticks { cron: &cron, due: &due, ticked: Arc::default() };
            // The clock is wrong while the next tick is computed, and right again before it is due.
            let right = machine.now();
            machine.set_wall(right + SignedDuration::from_hours(years * 365 * 24));
            let mut lost = pin!(ticks.until_lost(&*trusted));
            assert!(futures_util::poll!(&mut lost).is_pending());
            machine.set_wall(right + SignedDuration::try_from(machine.elapsed()).unwrap());
            lost.await;
            assert!(due.notified().now_or_never().is_some(), "{years}");
            let waited = machine.elapsed();
            assert!(waited <= Duration::from_secs(15 * 60) + GRACE, "{years}: {waited:?}");
        }
    }

    #[tokio::test]
    async fn tick_that_occurs_is_not_lost() {
        let clock = clock();
        let cron = Cadence::parse("0 */15 * * * *").unwrap();
        let due = Arc::<Notify>::default();
        let ticks = Ticks { cron: &cron, due: &due, ticked: Arc::default() };
        for _ in 0..3 {
            ticks.ticked.notify_one();
            let mut lost = pin!(ticks.until_lost(&*clock));
            assert!(futures_util::poll!(&mut lost).is_pending());
        }
        assert!(due.notified().now_or_never().is_none());
    }
}
