//! Heartbeats: whether the daemon's loops make progress. They feed the service manager's watchdog.
//!
//! A loop runs within [`Heartbeat::drive`]. Code that runs in it, wherever it is, calls [`tick`] at
//! each step. While there is nothing to do, or while another loop does the work (the writer has its
//! own heartbeat), the loop is [`idle`]. An outage of the remote is no stall: each request ticks
//! when it begins and when it fails. Outside such a loop these functions do nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

tokio::task_local! {
    static HEARTBEAT: Arc<Heartbeat>;
}

/// One [`Idle`] in a heartbeat's state. The bits below it count ticks.
const IDLE: u64 = 1 << 48;

/// The heartbeat of one loop.
#[derive(Debug)]
pub struct Heartbeat {
    name: &'static str,
    /// The number of [`Idle`] values times [`IDLE`], plus the number of ticks.
    state: AtomicU64,
}

/// A sample of a heartbeat at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatSample {
    /// The loop's name in messages.
    pub name: &'static str,
    /// How many ticks there were.
    pub ticks: u64,
    /// Whether the loop has nothing to do.
    pub is_idle: bool,
    /// How much longer than other loops it may take without a tick.
    pub extra: Duration,
}

impl Heartbeat {
    /// Returns the heartbeat of the loop with this name in messages.
    pub fn of(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, state: AtomicU64::new(0) })
    }

    /// Runs the loop.
    pub async fn drive<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        HEARTBEAT.scope(Arc::clone(self), work).await
    }

    /// Records progress.
    pub fn tick(&self) {
        self.state.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks the loop as idle until the value is dropped.
    pub fn idle(self: &Arc<Self>) -> Idle {
        self.state.fetch_add(IDLE, Ordering::Relaxed);
        Idle(Some(Arc::clone(self)))
    }

    /// Returns the heartbeat at this moment.
    pub fn sample(&self) -> HeartbeatSample {
        let state = self.state.load(Ordering::Relaxed);
        HeartbeatSample {
            name: self.name,
            ticks: state % IDLE,
            is_idle: state >= IDLE,
            extra: Duration::ZERO,
        }
    }
}

/// A loop that has nothing to do. The end of it is a tick.
#[derive(Debug)]
#[must_use]
pub struct Idle(Option<Arc<Heartbeat>>);

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(heartbeat) = &self.0 {
            heartbeat.state.fetch_sub(IDLE - 1, Ordering::Relaxed);
        }
    }
}

/// Records progress of the loop that runs this code.
pub fn tick() {
    let _ = HEARTBEAT.try_with(|heartbeat| heartbeat.tick());
}

/// Marks the loop that runs this code as idle until the value is dropped.
pub fn idle() -> Idle {
    HEARTBEAT.try_with(Heartbeat::idle).unwrap_or(Idle(None))
}

/// When the heartbeats were last checked, by the steady clock, and the loop that had stalled then.
pub type Health = (Duration, Option<Stalled>);

/// Finds the loops that make no progress.
#[derive(Debug)]
pub struct Watchdog {
    allowance: Duration,
    /// The last sample of each loop, and when the loop last made progress.
    seen: Vec<(HeartbeatSample, Duration)>,
}

/// A loop that makes no progress, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} has made no progress for {} s", .stalled.as_secs())]
pub struct Stalled {
    /// The loop's name.
    pub name: &'static str,
    /// For how long.
    pub stalled: Duration,
}

impl Watchdog {
    /// Returns a watchdog for loops that tick at least this often while they have something to do.
    pub fn new(allowance: Duration) -> Self {
        Self { allowance, seen: Vec::new() }
    }

    /// Checks all loops; `now` is from a steady clock. With `is_excused` each loop counts as making
    /// progress, because the remote has asked every loop to wait.
    ///
    /// # Errors
    /// The loop that has stalled for the longest time.
    pub fn check(
        &mut self,
        now: Duration,
        samples: &[HeartbeatSample],
        is_excused: bool,
    ) -> Result<(), Stalled> {
        let stalled = samples.iter().filter_map(|sample| {
            let stalled = now.saturating_sub(self.progress(now, *sample, is_excused));
            (stalled > self.allowance + sample.extra).then_some(Stalled { name: sample.name, stalled })
        });
        // Of two that are equal, report the first one.
        stalled.reduce(|one, other| if other.stalled > one.stalled { other } else { one }).map_or(Ok(()), Err)
    }

    /// Records a sample and returns when its loop last made progress.
    fn progress(&mut self, now: Duration, sample: HeartbeatSample, is_excused: bool) -> Duration {
        let Some((last, since)) = self.seen.iter_mut().find(|(last, _)| last.name == sample.name) else {
            self.seen.push((sample, now));
            return now;
        };
        if last.ticks != sample.ticks || sample.is_idle || is_excused {
            *since = now;
        }
        *last = sample;
        *since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Duration = Duration::from_secs(60);

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn busy_loop_without_ticks_stalls_and_idle_loop_does_not() {
        let (busy, idle) = (Heartbeat::of("pushing"), Heartbeat::of("reading"));
        let (outer, inner) = (idle.idle(), idle.idle());
        let mut watchdog = Watchdog::new(ALLOWANCE);
        let mut check = |at| watchdog.check(after(at), &[busy.sample(), idle.sample()], false);
        assert_eq!(check(0), Ok(()));
        drop(inner);
        assert_eq!(check(60), Ok(()), "the allowance is not over");
        assert_eq!(check(61), Err(Stalled { name: "pushing", stalled: after(61) }));
        busy.tick();
        assert_eq!(check(62), Ok(()), "it made progress");
        drop(outer);
        busy.tick();
        assert_eq!(check(100), Ok(()));
        busy.tick();
        let stalled = Stalled { name: "reading", stalled: after(61) };
        assert_eq!(check(161), Err(stalled), "it was idle until some moment between 62 and 100");
    }

    #[test]
    fn loop_with_extra_time_stalls_later() {
        let mut watchdog = Watchdog::new(ALLOWANCE);
        let sample = HeartbeatSample { extra: after(100), ..Heartbeat::of("writing").sample() };
        assert_eq!(watchdog.check(after(0), &[sample], false), Ok(()));
        assert_eq!(watchdog.check(after(160), &[sample], false), Ok(()));
        assert!(watchdog.check(after(161), &[sample], false).is_err());
    }

    #[test]
    fn loop_does_not_stall_while_the_remote_asks_to_wait() {
        let heartbeat = Heartbeat::of("reading");
        let mut watchdog = Watchdog::new(ALLOWANCE);
        for at in [0, 100, 200] {
            assert_eq!(watchdog.check(after(at), &[heartbeat.sample()], true), Ok(()));
        }
        assert_eq!(watchdog.check(after(260), &[heartbeat.sample()], false), Ok(()));
        assert!(watchdog.check(after(261), &[heartbeat.sample()], false).is_err());
    }

    #[tokio::test]
    async fn tick_belongs_to_the_loop_that_runs_the_code() {
        let (one, other) = (Heartbeat::of("one"), Heartbeat::of("other"));
        tokio::join!(
            one.drive(async {
                tick();
                let _idle = idle();
                tokio::task::yield_now().await;
                assert!(one.sample().is_idle && !other.sample().is_idle);
            }),
            other.drive(async { tokio::task::yield_now().await })
        );
        let sample = one.sample();
        assert_eq!((sample.ticks, sample.is_idle), (2, false), "its tick, and the end of its idle time");
        assert_eq!(other.sample().ticks, 0);
        tick();
        drop(idle());
    }
}
