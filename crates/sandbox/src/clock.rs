//! The sandbox's clock: it follows the system clock or is stopped, and a test can move it.
//!
//! Only this clock decides `created_at`, the `Date` header and the age of an idempotency key. It is
//! not the daemon's clock, so that a test can make the two differ.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The time of the sandbox.
#[derive(Debug, Clone)]
pub(crate) enum SandboxClock {
    /// The system's time plus an offset.
    Running {
        /// How far this clock is ahead of the system's; negative: behind.
        ahead: SignedDuration,
    },
    /// A time that only moves change, so that a run can be repeated exactly.
    Still {
        /// The time.
        at: Timestamp,
    },
}

impl SandboxClock {
    /// Returns a clock that is stopped at `at`, or that follows the system's.
    pub(crate) fn new(at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => Self::Still { at },
            None => Self::Running { ahead: SignedDuration::ZERO },
        }
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> Timestamp {
        match *self {
            Self::Running { ahead } => moved(system_now(), ahead),
            Self::Still { at } => at,
        }
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&mut self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.set(moved(self.now(), by));
    }

    /// Sets the clock, also back. A running clock continues from there.
    pub(crate) fn set(&mut self, to: Timestamp) {
        match self {
            Self::Running { ahead } => *ahead = to.duration_since(system_now()),
            Self::Still { at } => *at = to,
        }
    }
}

/// Adds a duration to a time, within the bounds of the type.
pub(crate) fn moved(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sandbox represents another machine, which has its own clock"
)]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_clock_changes_only_by_moves() {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut clock = SandboxClock::new(Some(start));
        assert_eq!(clock.now(), start);

        clock.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(clock.now().to_string(), "2026-01-03T03:04:05Z");

        clock.set("2020-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(clock.now().to_string(), "2020-01-01T00:00:00Z");
    }

    #[test]
    fn running_clock_continues_from_the_time_it_was_set_to() {
        let mut clock = SandboxClock::new(None);
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        clock.set(past);
        let now = clock.now();
        assert!(now >= past && now < moved(past, SignedDuration::from_secs(60)));
    }

    #[test]
    fn advance_past_the_last_time_ends_at_the_last_time() {
        let mut clock = SandboxClock::new(Some(Timestamp::MAX));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
