//! When a pass is due: the scheduler's ticks, and a net that catches those that it loses.
//!
//! The scheduler counts by the wall clock. A clock that jumps ahead and back between two of its looks leaves its next tick in
//! the wrong year. So each tick is also expected by the steady clock: where it does not come, the pass is due all the same and
//! the scheduler is started again. Invariant: no error and no clock ends the ticks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::App;
use crate::clock::Clock;
use crate::config::{Cadence, Config};

/// LOOK_EVERY controls how often the wall clock is compared with the steady one.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// CLOCK_IS_SET controls how far the wall clock may move against the steady one between two looks: more is no drift.
const CLOCK_IS_SET: SignedDuration = SignedDuration::from_secs(10);

/// GRACE controls how late a tick may be before it counts as lost. The scheduler looks every half second.
const GRACE: Duration = Duration::from_secs(5);

/// NEXT_TICK_UNKNOWN controls how long to wait where no clock shows a time with a next tick.
const NEXT_TICK_UNKNOWN: Duration = Duration::from_secs(60);

/// A cron expression, and what its ticks notify.
struct Ticks<'a> {
    cron: &'a Cadence,
    due: &'a Arc<Notify>,
    /// Notified by the scheduler only.
    ticked: Arc<Notify>,
}

/// Why the scheduler is started again.
enum Restart {
    /// The wall clock was set.
    Set(SignedDuration),
    /// A tick did not come.
    Lost,
    /// The time that the daemon goes by was corrected.
    Corrected,
}

impl App {
    /// Notifies when a sweep and a probe are due. A notification only leaves a note; one that is left while a pass runs is
    /// answered once, after it.
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
                .map_err(|e| tracing::warn!("the scheduler does not start: {e}; passes are made without it"))
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
                    "the clock of this machine was set by {} s; the daemon follows it once it has kept the new time for ten \
                     minutes, or KOMOJU's clock agrees with it",
                    by.as_secs()
                ),
                Restart::Corrected => sweep_due.notify_one(),
                Restart::Lost => tracing::debug!("the scheduler lost a tick"),
            }
        }
    }
}

impl Ticks<'_> {
    /// Returns when a tick did not come in time; then what it notifies is notified.
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

/// Returns by how much a clock was set, forward or back.
async fn until_set(clock: &dyn Clock, shown: impl Fn() -> Timestamp) -> SignedDuration {
    let offset = || {
        let steady = SignedDuration::try_from(clock.uptime()).unwrap_or_default();
        shown().duration_since(Timestamp::UNIX_EPOCH).saturating_sub(steady)
    };
    let mut last = offset();
    loop {
        clock.sleep(LOOK_EVERY).await;
        let now = offset();
        let by = now.saturating_sub(last);
        if by.abs() > CLOCK_IS_SET {
            return by;
        }
        last = now;
    }
}

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
    async fn clock_that_is_set_is_noticed_and_time_that_passes_is_not() {
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
    async fn tick_that_the_scheduler_loses_is_made_up_for_by_the_steady_clock() {
        for years in [-30, 0, 1, 7900] {
            let machine = clock();
            let trusted = TrustedClock::over(machine.clone(), None);
            let cron = Cadence::parse("0 */15 * * * *").unwrap();
            let due = Arc::<Notify>::default();
            let ticks = Ticks { cron: &cron, due: &due, ticked: Arc::default() };
            // The clock is wrong while the next tick is reckoned, and right again before it comes.
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
    async fn tick_that_comes_is_not_lost() {
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
