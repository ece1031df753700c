//! Owns the sandbox's clock: it runs with the system clock or stands still, and can be moved.
//!
//! Only this clock decides `created_at`, the `Date` header and the age of an idempotency key. It is
//! not the daemon's clock, so that a test can set the two apart.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What time it is at the sandbox.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The system's time plus an offset.
    Running {
        /// How far this clock is ahead of the system's; negative when it is behind.
        ahead: SignedDuration,
    },
    /// Stands still between moves, so that runs can be repeated to the byte.
    Still {
        /// The time shown.
        at: Timestamp,
    },
}

impl Clock {
    /// A clock that stands still at `at`, or runs with the system's.
    pub(crate) fn new(at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => Self::Still { at },
            None => Self::Running { ahead: SignedDuration::ZERO },
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match *self {
            Self::Running { ahead } => moved(system_now(), ahead),
            Self::Still { at } => at,
        }
    }

    /// Moves forward.
    pub(crate) fn advance(&mut self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.set(moved(self.now(), by));
    }

    /// Moves to any time, also backwards; a running clock goes on running from there.
    pub(crate) fn set(&mut self, to: Timestamp) {
        match self {
            Self::Running { ahead } => *ahead = to.duration_since(system_now()),
            Self::Still { at } => *at = to,
        }
    }
}

/// Stays at the end of time rather than wrap.
pub(crate) fn moved(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sandbox stands for another machine, which has a clock of its own"
)]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_still_clock_moves_only_when_told() {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut clock = Clock::new(Some(start));
        assert_eq!(clock.now(), start);

        clock.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(clock.now().to_string(), "2026-01-03T03:04:05Z");

        clock.set("2020-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(clock.now().to_string(), "2020-01-01T00:00:00Z");
    }

    #[test]
    fn a_running_clock_keeps_running_from_where_it_was_set() {
        let mut clock = Clock::new(None);
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        clock.set(past);
        let now = clock.now();
        assert!(now >= past && now < moved(past, SignedDuration::from_secs(60)));
    }

    #[test]
    fn advancing_past_the_end_of_time_stays_there() {
        let mut clock = Clock::new(Some(Timestamp::MAX));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
