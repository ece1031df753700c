//! A wall clock that is trusted only as far as the clock of this boot confirms it.
//!
//! ```text
//!   machine's wall clock ─▶ equal to the last trusted time plus uptime? ─ yes ─▶ now
//!                                   │ no
//!                                   ▼
//!              has held for STEADY, or the server's clock confirms it? ─ yes ─▶ now, from here on
//!                                   │ no
//!                                   ▼
//!                        the last trusted time plus uptime
//! ```
//!
//! Invariants:
//! - A wall clock that is wrong for less than [`STEADY`] changes nothing, whatever it shows and
//!   however often it jumps.
//! - A wall clock that was set for good is followed after that time.
//! - If the server's clock agrees with exactly one of the two times, that time is used at once, and
//!   as long as it agrees. So an outage of the time service has no effect while the API answers. A
//!   machine that starts with a wrong clock is right as soon as its time service is.
//!
//! A process starts with the time that an earlier process has confirmed ([`ConfirmedTime`]). In the
//! same boot, the time is computed from it. In another boot, the time is never before it. Without
//! one, the process starts with the machine's wall clock, unconfirmed.
//!
//! These designs were rejected:
//! - Trusting the server's clock alone. An edge server may answer with a wrong `Date`.
//! - Changing the stamps of rows after a step. The change log is append-only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{BEFORE_EXPIRY, Clock, Sleep};

/// STEADY controls for how long a wall clock that was set must show its new time before it is
/// followed. A time service that corrects a clock does so within minutes.
pub(super) const STEADY: Duration = Duration::from_secs(10 * 60);

/// TOLERANCE controls how far two clocks may differ and still count as equal. Time services move a
/// clock by less without setting it.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// FOLLOW_EVERY controls how often the trusted time moves to the wall clock within the tolerance.
/// So a slow drift is followed, and many small jumps change the time by at most two seconds a
/// minute.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);

/// SERVER_AGREES controls how far the server's clock may be away from a time that it confirms. Its
/// `Date` may be wrong by more than ten minutes; what depends on it has periods of a day or longer.
const SERVER_AGREES: SignedDuration = SignedDuration::from_hours(1);

/// MOST_AGE controls how old a confirmed time of this boot may be where the wall clock contradicts
/// it. Commands that run for less than [`STEADY`] each would otherwise never follow a clock that
/// was set for good.
const MOST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A time that was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedTime {
    /// The time.
    pub time: Timestamp,
    /// The boot in which it held.
    pub boot: String,
    /// The uptime at which it held.
    pub up: Duration,
}

/// A time, and the uptime at which it held.
#[derive(Clone, Copy, Debug)]
struct Fix {
    time: Timestamp,
    up: Duration,
}

impl Fix {
    /// Returns the time at another uptime.
    fn at(self, up: Duration) -> Timestamp {
        let passed = SignedDuration::try_from(up.saturating_sub(self.up)).unwrap_or(SignedDuration::MAX);
        self.time.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Whether `time` at the uptime `up` is equal to this time within a tolerance.
    fn shows(self, time: Timestamp, up: Duration, within: SignedDuration) -> bool {
        time.duration_since(self.at(up)).abs() <= within
    }
}

/// The trusted time and its evidence. It is pure: each call passes the values of the clocks.
#[derive(Debug)]
struct Reckoning {
    trusted: Fix,
    /// The first and the last uptime at which the wall clock agreed with the trusted time.
    agreed: (Duration, Duration),
    /// Another time that the wall clock shows, and the uptime since which it does.
    candidate: Option<Fix>,
    /// The newest time of the server's clock.
    server: Option<Fix>,
}

impl Reckoning {
    /// Starts with the wall clock, unconfirmed.
    fn new(wall: Timestamp, up: Duration) -> Self {
        Self { trusted: Fix { time: wall, up }, agreed: (up, up), candidate: None, server: None }
    }

    /// Starts with the time that an earlier process has confirmed, where it is better than the wall
    /// clock.
    fn with(known: Option<&ConfirmedTime>, boot: Option<&str>, wall: Timestamp, up: Duration) -> Self {
        let Some(known) = known else { return Self::new(wall, up) };
        let fix = Fix { time: known.time, up: known.up };
        if boot != Some(known.boot.as_str()) {
            // Time does not run backwards while a machine is off.
            return Self::new(wall.max(known.time), up);
        }
        if up.saturating_sub(known.up) < MOST_AGE || fix.shows(wall, up, TOLERANCE) {
            let agreed = (known.up.saturating_sub(BEFORE_EXPIRY), known.up);
            return Self { agreed, ..Self::new(fix.time, fix.up) };
        }
        Self::new(wall, up)
    }

    /// Compares with the wall clock and returns the trusted time.
    fn observe(&mut self, wall: Timestamp, up: Duration) -> Timestamp {
        if self.trusted.shows(wall, up, TOLERANCE) {
            self.candidate = None;
            self.agreed.1 = up;
            if up.saturating_sub(self.trusted.up) >= FOLLOW_EVERY {
                self.trusted = Fix { time: wall, up };
            }
            return wall;
        }
        let expected = self.trusted.at(up);
        let candidate = match self.candidate {
            Some(candidate) if candidate.shows(wall, up, TOLERANCE) => candidate,
            _ => Fix { time: wall, up },
        };
        self.candidate = Some(candidate);
        let is_followed = match (self.is_confirmed(wall, up), self.is_confirmed(expected, up)) {
            (true, false) => true,
            (false, true) => false,
            _ => up.saturating_sub(candidate.up) >= STEADY,
        };
        if !is_followed {
            return expected;
        }
        let by = wall.duration_since(expected).as_secs();
        tracing::warn!(
            "the clock of this machine was set by {by} s; the daemon uses the new time from now on"
        );
        *self = Self { agreed: (candidate.up, up), server: self.server, ..Self::new(wall, up) };
        wall
    }

    /// Whether the server's clock agrees with this time.
    fn is_confirmed(&self, time: Timestamp, up: Duration) -> bool {
        self.server.is_some_and(|server| server.shows(time, up, SERVER_AGREES))
    }

    /// Returns for how long the trusted time has been confirmed; without end if the server agrees.
    fn confirmed_for(&self, up: Duration) -> Duration {
        if self.is_confirmed(self.trusted.at(up), up) {
            return Duration::MAX;
        }
        self.agreed.1.saturating_sub(self.agreed.0)
    }
}

/// A clock that shows the trusted time as its wall clock.
pub struct TrustedClock {
    machine: Arc<dyn Clock>,
    reckoning: Mutex<Reckoning>,
}

impl TrustedClock {
    /// Returns a clock that starts with the time that an earlier process has confirmed, or with the
    /// machine's wall clock.
    pub fn over(machine: Arc<dyn Clock>, known: Option<&ConfirmedTime>) -> Arc<Self> {
        let boot = machine.boot().map(|(boot, _)| boot);
        let reckoning = Reckoning::with(known, boot.as_deref(), machine.now(), machine.uptime());
        Arc::new(Self { machine, reckoning: Mutex::new(reckoning) })
    }

    /// Calls `with` with the locked state and the uptime.
    fn reckon<T>(&self, with: impl FnOnce(&mut Reckoning, Duration) -> T) -> T {
        let mut reckoning = self.reckoning.lock().unwrap_or_else(PoisonError::into_inner);
        let up = self.machine.uptime();
        with(&mut reckoning, up)
    }
}

impl Clock for TrustedClock {
    fn now(&self) -> Timestamp {
        self.reckon(|reckoning, up| reckoning.observe(self.machine.now(), up))
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.machine.sleep(duration)
    }

    fn boot(&self) -> Option<(String, Duration)> {
        self.machine.boot()
    }

    fn uptime(&self) -> Duration {
        self.machine.uptime()
    }

    fn machine_time(&self) -> Timestamp {
        self.machine.machine_time()
    }

    fn confirmed_for(&self) -> Duration {
        self.now();
        self.reckon(|reckoning, up| reckoning.confirmed_for(up))
    }

    fn confirmed_time(&self) -> Option<ConfirmedTime> {
        let ((boot, up), time) = (self.boot()?, self.now());
        self.may_expire().then_some(ConfirmedTime { time, boot, up })
    }

    fn compare(&self, reference: Timestamp) {
        self.reckon(|reckoning, up| reckoning.server = Some(Fix { time: reference, up }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::ManualClock;
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// Returns the clock of a machine, and the trusted clock over it.
    fn clocks() -> (Arc<ManualClock>, Arc<TrustedClock>) {
        let machine = Arc::new(ManualClock::at(start()));
        let trusted = TrustedClock::over(machine.clone(), None);
        (machine, trusted)
    }

    /// Moves the clock in small steps, and reads the time after each.
    fn pass(machine: &ManualClock, clock: &TrustedClock, time: Duration) {
        let end = machine.elapsed() + time;
        while machine.elapsed() < end {
            machine.advance(Duration::from_secs(10));
            clock.now();
        }
    }

    fn set_by(machine: &ManualClock, by: SignedDuration) {
        machine.set_wall(machine.now() + by);
    }

    #[test]
    fn wall_clock_that_is_wrong_for_less_than_ten_minutes_changes_nothing() {
        for by in [YEAR, -YEAR, HOUR, -HOUR, SignedDuration::from_secs(3)] {
            let (machine, clock) = clocks();
            set_by(&machine, by);
            assert_eq!(clock.now(), start(), "{by}");
            pass(&machine, &clock, Duration::from_secs(590));
            assert_eq!(clock.now(), start() + SignedDuration::from_secs(590), "{by}");
            set_by(&machine, -by);
            pass(&machine, &clock, Duration::from_secs(60));
            assert_eq!(clock.now(), start() + SignedDuration::from_secs(650), "{by}");
        }
    }

    #[test]
    fn wall_clock_that_flaps_is_never_followed() {
        let (machine, clock) = clocks();
        for _ in 0..20 {
            set_by(&machine, YEAR);
            pass(&machine, &clock, Duration::from_secs(300));
            set_by(&machine, YEAR);
            pass(&machine, &clock, Duration::from_secs(300));
        }
        assert_eq!(clock.now(), start() + SignedDuration::from_secs(20 * 600));
    }

    #[test]
    fn wall_clock_that_was_set_for_good_is_followed_and_confirmed_later() {
        for by in [YEAR, -YEAR] {
            let (machine, clock) = clocks();
            pass(&machine, &clock, BEFORE_EXPIRY);
            assert!(clock.may_expire());
            set_by(&machine, by);
            pass(&machine, &clock, STEADY + Duration::from_secs(10));
            assert_eq!(clock.now(), machine.now());
            assert!(!clock.may_expire(), "only ten minutes confirm the new time");
            pass(&machine, &clock, BEFORE_EXPIRY);
            assert!(clock.may_expire());
        }
    }

    #[test]
    fn start_confirms_nothing_before_time_has_passed() {
        let (machine, clock) = clocks();
        assert!(!clock.may_expire());
        pass(&machine, &clock, BEFORE_EXPIRY - Duration::from_secs(10));
        assert!(!clock.may_expire());
        pass(&machine, &clock, Duration::from_secs(10));
        assert!(clock.may_expire());
    }

    #[test]
    fn time_between_two_observations_confirms_nothing() {
        let (machine, clock) = clocks();
        machine.advance(BEFORE_EXPIRY * 2);
        set_by(&machine, YEAR);
        assert!(!clock.may_expire(), "at the only observation the clocks disagree");
    }

    #[test]
    fn server_confirms_the_time_at_once_if_its_clock_agrees() {
        for (ahead, confirms) in [(HOUR, true), (-HOUR, true), (HOUR * 2, false), (-YEAR, false)] {
            let (_machine, clock) = clocks();
            clock.compare(start() + ahead);
            assert_eq!(clock.may_expire(), confirms, "{ahead}");
        }
    }

    #[test]
    fn server_decides_between_two_times() {
        let (machine, clock) = clocks();
        clock.compare(start());
        set_by(&machine, YEAR);
        pass(&machine, &clock, Duration::from_secs(24 * 60 * 60));
        assert_eq!(clock.now(), start() + HOUR * 24, "the server agrees with the trusted time");
        assert!(clock.may_expire());

        let machine = Arc::new(ManualClock::at(start() - YEAR));
        let clock = TrustedClock::over(machine.clone(), None);
        clock.compare(start());
        assert!(!clock.may_expire());
        machine.set_wall(start());
        assert_eq!(clock.now(), start(), "the server agrees with the corrected time");
        assert!(clock.may_expire());
    }

    #[test]
    fn slow_drift_is_followed_and_fast_drift_is_not() {
        for (drift_ms, is_followed) in [(100, true), (5000, false)] {
            let (machine, clock) = clocks();
            for _ in 0..360 {
                machine.advance(Duration::from_secs(10));
                set_by(&machine, SignedDuration::from_millis(drift_ms));
                clock.now();
            }
            assert_eq!(clock.now() == machine.now(), is_followed, "{drift_ms} ms in 10 s");
        }
    }

    #[test]
    fn restart_under_a_wrong_clock_uses_the_confirmed_time() {
        for by in [YEAR, -YEAR] {
            let (machine, clock) = clocks();
            assert_eq!(clock.confirmed_time(), None, "nothing is confirmed");
            pass(&machine, &clock, BEFORE_EXPIRY);
            let known = clock.confirmed_time().unwrap();
            let right = machine.now();
            set_by(&machine, by);
            let clock = TrustedClock::over(machine.clone(), Some(&known));
            assert_eq!(clock.now(), right, "{by}");
            assert!(clock.may_expire());

            let next_boot = ConfirmedTime { boot: "another".to_owned(), ..known };
            let clock = TrustedClock::over(machine.clone(), Some(&next_boot));
            assert_eq!(clock.now(), machine.now().max(right), "{by}");
            assert!(!clock.may_expire());
        }
    }

    #[test]
    fn clock_that_was_set_for_good_is_followed_by_short_commands_after_a_day() {
        let (machine, clock) = clocks();
        pass(&machine, &clock, BEFORE_EXPIRY);
        let known = clock.confirmed_time();
        set_by(&machine, -YEAR);
        machine.advance(MOST_AGE - Duration::from_secs(1));
        assert_ne!(TrustedClock::over(machine.clone(), known.as_ref()).now(), machine.now());
        machine.advance(Duration::from_secs(1));
        assert_eq!(TrustedClock::over(machine.clone(), known.as_ref()).now(), machine.now());
    }
}
