//! Notifications to the service manager: readiness, the status line, the stop, and the watchdog.
//!
//! Without `$NOTIFY_SOCKET` and `$WATCHDOG_USEC` nothing is sent.

use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::App;
use super::trouble::Trouble;
use crate::clock::Clock;
use crate::heartbeat::{HeartbeatSample, Stalled, Watchdog};
use crate::store::sibling;

/// FIRST_CONTACT controls how long the daemon waits for the first answer before it reports
/// readiness without one. An outage of KOMOJU is no failed start; the status line names it.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// ALLOWANCE controls how long a loop may make no progress, in addition to the time of one request.
/// The slowest rate limit, the turns of the other shares, and the longest wait between two tries
/// fit into it.
const ALLOWANCE: Duration = Duration::from_secs(180);

/// The loops that must make progress, as messages name them.
pub(super) const LOOPS: [&str; 5] = [
    "reading KOMOJU's customers",
    "pushing intents",
    "taking files",
    "reading events",
    "requesting customers that events name",
];

/// CHECK_EVERY controls how often the heartbeats are checked without a watchdog.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// SLOWEST_DISK controls how many bytes a second a working disk writes at least. SQLite copies and
/// empties whole files without a tick.
const SLOWEST_DISK: u64 = 4 << 20;

/// NOTIFICATIONS controls how many times the watchdog is notified within its timeout, so that one
/// late notification is not a failure.
const NOTIFICATIONS: u32 = 3;

impl App {
    /// Notifies the manager when the daemon is ready, and then of each new status line. Never ends.
    pub(super) async fn notify_manager(&self) {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            self.round.run_until_cancelled(self.notify_statuses()).await;
        }
        std::future::pending().await
    }

    /// Sends readiness, then each status line that differs from the last one.
    async fn notify_statuses(&self) {
        notify(&[NotifyState::Status("sending the first request to KOMOJU")]);
        let mut statuses = self.statuses();
        let mut shown = tokio::select! {
            () = self.remote.first_answer() => "KOMOJU answered; reading customers".to_owned(),
            // The result of the pass is in the database, and so in the next status line.
            () = self.first_pass.notified() => "the first pass has ended".to_owned(),
            () = self.clock.sleep(FIRST_CONTACT) => {
                let why = self.remote.last_failure().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("KOMOJU has not answered yet{why}; retrying")
            }
        };
        notify(&[NotifyState::Ready, NotifyState::Status(&shown)]);
        let mut troubles = self.trouble.subscribe();
        loop {
            let line = statuses.borrow_and_update().as_ref().map(|status| status.line());
            let trouble = troubles.borrow_and_update().as_ref().map(Trouble::attention);
            let line = trouble.and_then(|trouble| trouble.brief()).or(line);
            if let Some(line) = line.filter(|line| *line != shown) {
                notify(&[NotifyState::Status(&line)]);
                shown = line;
            }
            let changed = tokio::select! {
                changed = statuses.changed() => changed,
                changed = troubles.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Checks the heartbeats again and again. Notifies the manager's watchdog while all loops make
    /// progress, and publishes the result as [`App::health`]. Never ends.
    pub(super) async fn check_heartbeats(&self) {
        let watchdog = sd_notify::watchdog_enabled();
        let every = watchdog.map_or(CHECK_EVERY, |within| within / NOTIFICATIONS);
        let loops = Watchdog::new(self.request_timeout + ALLOWANCE);
        let sample = || (self.samples(), self.remote.is_paused());
        check_repeatedly(&*self.clock, every, loops, sample, |stalled| {
            if stalled.is_none() && watchdog.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
            self.health.send_replace((self.clock.elapsed(), stalled));
        })
        .await;
    }

    /// Returns the heartbeats of the loops and of the writer at this moment.
    fn samples(&self) -> Vec<HeartbeatSample> {
        let bytes = ["", "-wal"]
            .map(|suffix| std::fs::metadata(sibling(&self.database, suffix)).map_or(0, |file| file.len()));
        let grace = Duration::from_secs(bytes.iter().sum::<u64>() / SLOWEST_DISK);
        let writing = HeartbeatSample { extra: grace, ..self.store.heartbeat().sample() };
        self.heartbeats.iter().map(|heartbeat| heartbeat.sample()).chain([writing]).collect()
    }
}

/// Notifies the manager that the daemon stops.
pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Runs `work` to its end, and calls `announce` once when `stop` is cancelled. The signal may
/// arrive while `work` is polled, which may end it in the same poll; `announce` is called
/// afterwards then.
pub(super) async fn announcing_stop<T>(
    stop: &CancellationToken,
    announce: impl FnOnce(),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            announce();
            work.await
        }
        ended = &mut work => {
            if stop.is_cancelled() {
                announce();
            }
            ended
        }
    }
}

/// Checks the heartbeats at each interval, logs a loop that begins to stall, and passes the result
/// to `report`. `sample` returns the heartbeats, and whether the remote has asked all loops to
/// wait.
async fn check_repeatedly(
    clock: &dyn Clock,
    every: Duration,
    mut watchdog: Watchdog,
    sample: impl Fn() -> (Vec<HeartbeatSample>, bool),
    mut report: impl FnMut(Option<Stalled>),
) {
    let mut logged = None;
    loop {
        let (samples, is_excused) = sample();
        let stalled = watchdog.check(clock.elapsed(), &samples, is_excused).err();
        if let Some(stalled) = stalled.filter(|stalled| logged != Some(stalled.name)) {
            tracing::error!(
                "{stalled}; the watchdog is no longer notified, so that systemd restarts the service"
            );
        }
        logged = stalled.map(|stalled| stalled.name);
        report(stalled);
        clock.sleep(every).await;
    }
}

/// START_TAKES_LONGER controls how much longer the manager waits for a start that waits for the
/// database. Each try extends the time again.
const START_TAKES_LONGER: Duration = Duration::from_secs(60);

/// Notifies the manager why the start takes longer.
pub fn notify_waiting(why: &str) {
    let longer = u32::try_from(START_TAKES_LONGER.as_micros()).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::ExtendTimeoutUsec(longer),
        NotifyState::Status(&format!("not started yet: {why}")),
    ]);
}

/// Sends these states to the manager. A manager that does not listen is no reason to stop.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not notified: {e}");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::heartbeat::Heartbeat;

    #[tokio::test]
    async fn stalled_loop_ends_watchdog_notifications_and_an_outage_does_not() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let [stalls, others @ ..] = ["one", "two", "three", "four"].map(Heartbeat::of);
        let notified = AtomicU32::new(0);
        let (within, allowance) = (Duration::from_secs(180), Duration::from_secs(120));
        let sample = || {
            // An outage: each of the other loops retries, and so ticks.
            others.iter().for_each(|heartbeat| heartbeat.tick());
            let samples = std::iter::once(&stalls).chain(&others);
            (samples.map(|heartbeat| heartbeat.sample()).collect(), false)
        };
        let (every, watchdog) = (within / NOTIFICATIONS, Watchdog::new(allowance));
        let mut checking = Box::pin(check_repeatedly(&clock, every, watchdog, sample, |stalled| {
            notified.fetch_add(u32::from(stalled.is_none()), Ordering::Relaxed);
        }));
        let mut after = async |checks: u32| {
            for _ in 0..checks {
                let _ = futures_util::poll!(&mut checking);
            }
            notified.load(Ordering::Relaxed)
        };
        assert_eq!(after(10).await, 3, "at 0, 60 and 120 s");
        stalls.tick();
        assert_eq!(after(10).await, 6, "the loop made progress again");
        let _idle = stalls.idle();
        assert_eq!(after(10).await, 16, "an idle loop does not stall");
    }

    #[tokio::test]
    async fn stop_is_announced_once_whenever_the_signal_arrives() {
        let announced = Cell::new(0);
        let announce = || announced.set(announced.get() + 1);

        let stop = CancellationToken::new();
        let in_the_same_poll = async { stop.cancel() };
        announcing_stop(&stop, announce, in_the_same_poll).await;
        assert_eq!(
            announced.take(),
            1,
            "the signal arrives while the work is polled, and ends it in that poll"
        );

        let stop = CancellationToken::new();
        let at_a_safe_point = async {
            stop.cancel();
            tokio::task::yield_now().await;
            announced.get()
        };
        assert_eq!(announcing_stop(&stop, announce, at_a_safe_point).await, 1, "before the work ends");
        assert_eq!(announced.take(), 1);

        announcing_stop(&CancellationToken::new(), announce, async {}).await;
        assert_eq!(announced.take(), 0, "the work failed");
    }
}
