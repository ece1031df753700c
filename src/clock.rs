//! The clocks. All other code takes the time from a [`Clock`], so that tests can stop it, make it
//! jump or run it backwards. A lint (`clippy.toml`) refuses the standard library's clocks
//! elsewhere.
//!
//! The wall clock of a machine may be wrong for a while, in either direction. The daemon and `sync`
//! therefore use a [`TrustedClock`], which follows the wall clock only as far as the clock of this
//! boot confirms it.

mod trusted;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use trusted::{ConfirmedTime, TrustedClock};

/// The future of [`Clock::sleep`].
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A wall clock, a steady clock and a sleep.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock's time, for stamps. It may jump either way.
    fn now(&self) -> Timestamp;
    /// Returns the time since a fixed moment of this process, by a steady clock, for durations.
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> Sleep<'_>;
    /// Returns the id of this boot of the machine and its uptime, sleep included. Processes of one
    /// boot can compare them.
    fn boot(&self) -> Option<(String, Duration)>;

    /// Returns a clock that cannot be set and that counts sleep, where the system has one. It is
    /// compared with the wall clock.
    fn uptime(&self) -> Duration {
        self.boot().map_or_else(|| self.elapsed(), |(_, up)| up)
    }

    /// Returns the machine's wall clock even where [`Clock::now`] does not follow it. File systems
    /// stamp files with it.
    fn machine_time(&self) -> Timestamp {
        self.now()
    }

    /// Returns for how long the time of [`Clock::now`] has been confirmed. A step that cannot be
    /// undone requires [`BEFORE_EXPIRY`].
    fn confirmed_for(&self) -> Duration {
        Duration::MAX
    }

    /// Returns the time for a later process to start with, if a step that cannot be undone may
    /// follow from it.
    fn confirmed_time(&self) -> Option<ConfirmedTime> {
        None
    }

    /// Compares with the server's clock, the `Date` of an answer.
    fn compare(&self, _reference: Timestamp) {}

    /// Whether a step that cannot be undone may follow from an age by [`Clock::now`].
    fn may_expire(&self) -> bool {
        self.confirmed_for() >= BEFORE_EXPIRY
    }
}

/// BEFORE_EXPIRY controls for how long the wall clock must be confirmed before an age by it parks
/// an intent or removes a record. Such periods are a day or longer, so one more hour does no harm.
pub const BEFORE_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// BEFORE_SENDING controls for how long the wall clock must be confirmed before an intent is sent
/// because its `not_before` has passed.
pub const BEFORE_SENDING: Duration = trusted::STEADY;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Returns a clock. Its [`Clock::elapsed`] counts from now.
    #[expect(clippy::disallowed_methods, reason = "all other code takes the time from here")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Returns the same as a trait object.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "all other code takes the time from here")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn boot(&self) -> Option<(String, Duration)> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some((boot.trim().to_owned(), self.uptime()))
    }

    fn uptime(&self) -> Duration {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(up).unwrap_or_default()
    }
}

/// A clock that only [`ManualClock::advance`] and sleeps move. A sleep ends at once.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Returns a clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Locks both clocks.
    fn lock(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.0 = state.0.checked_add(by).unwrap_or(Timestamp::MAX);
        state.1 += by;
    }

    /// Sets the wall clock, as an operator or a time server does. The steady clock is unchanged.
    pub fn set_wall(&self, now: Timestamp) {
        self.lock().0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn elapsed(&self) -> Duration {
        self.lock().1
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.advance(duration);
        Box::pin(tokio::task::yield_now())
    }

    fn boot(&self) -> Option<(String, Duration)> {
        Some(("manual".to_owned(), self.elapsed()))
    }
}
