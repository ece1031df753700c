//! What the service manager is told: that the daemon is ready, how things stand, that it gets on.
//!
//! Where no manager asked for it (`$NOTIFY_SOCKET`, `$WATCHDOG_USEC`) nothing is told.

use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::App;
use super::trouble::Trouble;
use crate::clock::Clock;
use crate::heartbeat::{Reading, Stalled, Watchdog};
use crate::store::beside;

/// How long the remote may be silent before the daemon counts as ready all the same: it works, and says that it has no answer yet.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// How long a loop may do nothing besides what one request may take: the slowest rate limit, its turn, and the longest wait between
/// two tries fit in.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is looked who gets on where no watchdog asks.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How many bytes the slowest disk takes in a second that counts as one that works: SQLite copies and empties its files in silence.
const SLOWEST_DISK: u64 = 4 << 20;

/// How often the watchdog is fed while its time runs once: one late turn starves nobody.
const FEEDS: u32 = 3;

impl App {
    /// Tells the manager when the daemon is ready, and then how things stand whenever that changes. Never ends.
    pub(super) async fn tell_manager(&self) {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            self.round.run_until_cancelled(self.tell_standings()).await;
        }
        std::future::pending().await
    }

    async fn tell_standings(&self) {
        tell(&[NotifyState::Status("asking KOMOJU for the first time")]);
        let mut standings = self.standings();
        let mut told = tokio::select! {
            () = self.remote.first_answer() => "KOMOJU answers; reading".to_owned(),
            // How it ended is in the database, and so in the lines below.
            () = self.first_pass.notified() => "the first pass is over".to_owned(),
            () = self.clock.sleep(FIRST_CONTACT) => {
                let why = self.remote.last_failure().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("KOMOJU has not answered yet{why}; it is asked again and again")
            }
        };
        tell(&[NotifyState::Ready, NotifyState::Status(&told)]);
        let mut troubles = self.trouble.subscribe();
        loop {
            let line = standings.borrow_and_update().as_ref().map(|standing| standing.line());
            let trouble = troubles.borrow_and_update().as_ref().map(Trouble::attention);
            let line = trouble.and_then(|trouble| trouble.brief()).or(line);
            if let Some(line) = line.filter(|line| *line != told) {
                tell(&[NotifyState::Status(&line)]);
                told = line;
            }
            let changed = tokio::select! {
                changed = standings.changed() => changed,
                changed = troubles.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Looks again and again whether each loop gets on: feeds the manager's watchdog as long as they do, and tells [`App::health`].
    /// Never ends.
    pub(super) async fn watch_pulses(&self) {
        let watchdog = sd_notify::watchdog_enabled();
        let every = watchdog.map_or(LOOK_EVERY, |within| within / FEEDS);
        let vigil = Watchdog::new(self.request_timeout + PATIENCE);
        let look = || (self.readings(), self.remote.is_paused());
        watch_over(&*self.clock, every, vigil, look, |stall| {
            if stall.is_none() && watchdog.is_some() {
                tell(&[NotifyState::Watchdog]);
            }
            self.health.send_replace((self.clock.elapsed(), stall));
        })
        .await;
    }

    fn readings(&self) -> [Reading; 4] {
        let [pulling, pushing, files] = &self.pulses;
        let bytes = ["", "-wal"]
            .map(|suffix| std::fs::metadata(beside(&self.database, suffix)).map_or(0, |file| file.len()));
        let grace = Duration::from_secs(bytes.iter().sum::<u64>() / SLOWEST_DISK);
        let writing = Reading { extra: grace, ..self.store.pulse().reading() };
        [pulling.reading(), pushing.reading(), files.reading(), writing]
    }
}

/// Tells the manager of the stop.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Runs `work` to its end, and calls `tell` once when `stop` is cancelled. The signal may arrive while `work` is polled, which may end it
/// in the same turn; then `tell` is called after the end.
pub(super) async fn announcing_stop<T>(
    stop: &CancellationToken,
    tell: impl FnOnce(),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            tell();
            work.await
        }
        ended = &mut work => {
            if stop.is_cancelled() {
                tell();
            }
            ended
        }
    }
}

/// Looks again and again who gets on, and whether the remote asked everybody to wait; `tell` hears who does not.
async fn watch_over(
    clock: &dyn Clock,
    every: Duration,
    mut vigil: Watchdog,
    look: impl Fn() -> ([Reading; 4], bool),
    mut tell: impl FnMut(Option<Stalled>),
) {
    let mut stalled = None;
    loop {
        let (readings, is_excused) = look();
        let stall = vigil.look(clock.elapsed(), &readings, is_excused).err();
        if let Some(stall) = stall.filter(|stall| stalled != Some(stall.name)) {
            tracing::error!("{stall}: the watchdog is fed no more, so that the service is restarted");
        }
        stalled = stall.map(|stall| stall.name);
        tell(stall);
        clock.sleep(every).await;
    }
}

/// Controls how much longer the manager waits for a start that waits for the database: each try says so again.
const START_TAKES_LONGER: Duration = Duration::from_secs(60);

/// Tells the manager why the start takes longer.
pub fn tell_waiting(why: &str) {
    let longer = u32::try_from(START_TAKES_LONGER.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(longer), NotifyState::Status(&format!("not started yet: {why}"))]);
}

fn tell(news: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to stop.
    if let Err(e) = sd_notify::notify(news) {
        tracing::debug!("the service manager was not told: {e}");
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
    async fn a_loop_that_hangs_starves_the_watchdog_and_an_outage_does_not() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let [hangs, others @ ..] = ["one", "two", "three", "four"].map(Heartbeat::of);
        let eaten = AtomicU32::new(0);
        let (within, patience) = (Duration::from_secs(180), Duration::from_secs(120));
        let look = || {
            // An outage: each of the others asks again and again.
            others.iter().for_each(|pulse| pulse.tick());
            let [a, b, c] = &others;
            ([hangs.reading(), a.reading(), b.reading(), c.reading()], false)
        };
        let mut feeding =
            Box::pin(watch_over(&clock, within / FEEDS, Watchdog::new(patience), look, |stall| {
                eaten.fetch_add(u32::from(stall.is_none()), Ordering::Relaxed);
            }));
        let mut turns = async |turns: u32| {
            for _ in 0..turns {
                let _ = futures_util::poll!(&mut feeding);
            }
            eaten.load(Ordering::Relaxed)
        };
        assert_eq!(turns(10).await, 3, "at 0, 60 and 120 s");
        hangs.tick();
        assert_eq!(turns(10).await, 6, "it got on after all");
        let _rest = hangs.idle();
        assert_eq!(turns(10).await, 16, "who has nothing to do hangs nowhere");
    }

    #[tokio::test]
    async fn stop_is_announced_once_whenever_the_signal_arrives() {
        let told = Cell::new(0);
        let tell = || told.set(told.get() + 1);

        let stop = CancellationToken::new();
        let in_the_same_turn = async { stop.cancel() };
        announcing_stop(&stop, tell, in_the_same_turn).await;
        assert_eq!(told.take(), 1, "the signal arrives while the work is polled, and ends it in that turn");

        let stop = CancellationToken::new();
        let at_a_safe_point = async {
            stop.cancel();
            tokio::task::yield_now().await;
            told.get()
        };
        assert_eq!(announcing_stop(&stop, tell, at_a_safe_point).await, 1, "it is told before the work ends");
        assert_eq!(told.take(), 1);

        announcing_stop(&CancellationToken::new(), tell, async {}).await;
        assert_eq!(told.take(), 0, "the work failed");
    }
}
