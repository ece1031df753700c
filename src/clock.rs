//! The time, owned here and asked for nowhere else.
//!
//! Every decision that depends on time takes it from a [`Clock`], so that tests can hold it still, make it jump or run
//! backwards. A lint (`clippy.toml`) refuses the standard library's clocks everywhere else.
//!
//! The wall clock of a machine may be wrong for a while, in either direction. The daemon and `sync` therefore work with a
//! [`TrustedClock`], which follows the wall clock only as far as the clock of this boot confirms it.

mod trusted;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use trusted::{Known, TrustedClock};

/// What a [`Clock::sleep`] returns.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A wall clock, a steady clock and a way to wait.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: what is written down. It may jump either way.
    fn now(&self) -> Timestamp;
    /// A steady clock: time since some fixed moment of this process. For durations.
    fn elapsed(&self) -> Duration;
    /// Waits that long.
    fn sleep(&self, duration: Duration) -> Sleep<'_>;
    /// Which boot of the machine this is, and how long it lasts already, sleep included: comparable between processes of one boot.
    fn boot(&self) -> Option<(String, Duration)>;

    /// A clock that cannot be set and that counts sleep, where the system offers one. For the comparison with the wall clock.
    fn uptime(&self) -> Duration {
        self.boot().map_or_else(|| self.elapsed(), |(_, up)| up)
    }

    /// The machine's wall clock as it is, even where [`Clock::now`] does not follow it. File systems stamp files with it.
    fn machine_time(&self) -> Timestamp {
        self.now()
    }

    /// For how long the time that [`Clock::now`] returns has been confirmed. A step that cannot be undone asks for
    /// [`BEFORE_EXPIRY`].
    fn confirmed_for(&self) -> Duration {
        Duration::MAX
    }

    /// What a later process can start with: the time, where a step that cannot be undone may follow from it.
    fn known(&self) -> Option<Known> {
        None
    }

    /// Takes another clock's reading into account: the `Date` of an answer.
    fn compare(&self, _reference: Timestamp) {}

    /// Whether a step that cannot be undone may follow from an age by [`Clock::now`].
    fn may_expire(&self) -> bool {
        self.confirmed_for() >= BEFORE_EXPIRY
    }
}

/// BEFORE_EXPIRY controls for how long the wall clock must be confirmed before an age by it parks an intent or removes a
/// record. The periods that end in this way are a day or longer, so one more hour does no harm.
pub const BEFORE_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// BEFORE_SENDING controls for how long the wall clock must be confirmed before an intent is sent because its `not_before`
/// has passed.
pub const BEFORE_SENDING: Duration = trusted::STEADY;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::elapsed`] counts from now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// The same, behind the trait.
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
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
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

/// A clock that moves only when told; a sleep moves it and is over at once.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Lets time pass: both clocks move forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = state.0.checked_add(by).unwrap_or(Timestamp::MAX);
        state.1 += by;
    }

    /// Sets the wall clock, as an operator or a time server would; the steady clock stays.
    pub fn set_wall(&self, now: Timestamp) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.advance(duration);
        Box::pin(tokio::task::yield_now())
    }

    fn boot(&self) -> Option<(String, Duration)> {
        Some(("manual".to_owned(), self.elapsed()))
    }
}
