//! When an intent is attempted again, and whether the same attempt may be repeated.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::intent::lifecycle::Outcome;

/// After how long since its first attempt a create's key is no longer counted on: KOMOJU remembers it for up to 24 hours.
pub const KEY_GOOD_FOR: SignedDuration = SignedDuration::from_hours(20);

/// After how long an intent that was attempted so many times is attempted again: 1 s, doubling to 15 minutes, spread by a fifth
/// either way by `jitter` from 0 to 1.
pub fn attempt_wait(attempts: u32, jitter: f64) -> Duration {
    let doubled = 1_u64 << attempts.saturating_sub(1).min(20);
    Duration::from_secs(doubled.min(15 * 60)).mul_f64(0.8 + 0.4 * jitter)
}

/// What the clocks say of a create's first attempt.
#[derive(Clone, Copy, Debug)]
pub struct FirstAttempt {
    /// When it began, by the wall clock.
    pub at: Timestamp,
    /// The wall clock now.
    pub now: Timestamp,
    /// How long ago it is by the server's clock.
    pub server: Option<SignedDuration>,
    /// How long ago it is by a clock that nobody sets, where that runs since.
    pub same_boot: Option<Duration>,
}

/// Whether the same key may still be counted on, by the clock that went furthest. A wall clock that stands before the first attempt
/// says nothing, so it counts as past.
pub fn key_is_good(first: FirstAttempt) -> bool {
    let ours = first.now.duration_since(first.at);
    let same_boot = first.same_boot.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
    let oldest = [Some(ours), first.server, same_boot].into_iter().flatten().max().unwrap_or(ours);
    !ours.is_negative() && oldest < KEY_GOOD_FOR
}

/// What a list request says of the key with which a write was answered with a JSON 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// The API answered the list: the key reads customers.
    Accepted,
    /// The API refused the list too.
    Refused,
    /// No answer, or one that comes from in front of the API.
    Unanswered,
}

/// What a JSON 403 on a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The key is refused: nothing more is sent with it.
    KeyRefused,
    /// Only this write is refused: the intent is rejected.
    Rejected,
    /// Whether the key is refused is not known: the write is tried again later.
    AskAgain,
    /// The write is refused, but an earlier attempt may have created the customer: an operator decides.
    Unknown,
}

/// Decides what a JSON 403 on a write means. `before` is whether the outcome of an earlier attempt is known.
///
/// The API checks permissions before it looks at the idempotency key. So the 403 says nothing about an earlier create with that key,
/// and a rejected create would get a new key with its next retry.
pub fn after_forbidden(key: KeyCheck, before: Outcome, is_create: bool) -> Forbidden {
    match (key, before) {
        (KeyCheck::Refused, _) => Forbidden::KeyRefused,
        (KeyCheck::Unanswered, _) => Forbidden::AskAgain,
        (KeyCheck::Accepted, Outcome::Unknown) if is_create => Forbidden::Unknown,
        (KeyCheck::Accepted, _) => Forbidden::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_write_is_rejected_only_where_the_list_is_answered() {
        use Outcome::{Known, Unknown};
        let cases = [
            (KeyCheck::Accepted, Known, true, Forbidden::Rejected),
            (KeyCheck::Accepted, Known, false, Forbidden::Rejected),
            (KeyCheck::Accepted, Unknown, false, Forbidden::Rejected),
            (KeyCheck::Accepted, Unknown, true, Forbidden::Unknown),
            (KeyCheck::Refused, Known, false, Forbidden::KeyRefused),
            (KeyCheck::Refused, Unknown, true, Forbidden::KeyRefused),
            (KeyCheck::Unanswered, Known, false, Forbidden::AskAgain),
            (KeyCheck::Unanswered, Unknown, true, Forbidden::AskAgain),
        ];
        for (key, before, is_create, expected) in cases {
            let decided = after_forbidden(key, before, is_create);
            assert_eq!(decided, expected, "{key:?} {before:?} create: {is_create}");
        }
    }

    #[test]
    fn attempts_wait_from_a_second_to_a_quarter_of_an_hour() {
        let waits: Vec<u64> = [1, 2, 3, 10, 11, 90].map(|n| attempt_wait(n, 0.5).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 512, 900, 900]);
        assert_eq!(
            (attempt_wait(1, 0.0), attempt_wait(1, 1.0)),
            (Duration::from_millis(800), Duration::from_millis(1200))
        );
    }

    #[test]
    fn a_key_is_good_for_twenty_hours_by_the_clock_that_went_furthest() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = |minutes: i64| at + SignedDuration::from_mins(minutes);
        let boot = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let cases = [
            (later(0), None, None, true),
            (later(19 * 60 + 59), None, None, true),
            (later(20 * 60), None, None, false),
            (later(20 * 60 + 1), None, None, false),
            (later(24 * 60 + 1), None, None, false),
            (later(-1), None, None, false),
            (later(1), Some(SignedDuration::from_mins(20 * 60 + 1)), None, false),
            (later(1), Some(SignedDuration::from_mins(-600)), None, true),
            (later(1), None, boot(20 * 60 + 1), false),
            (later(1), Some(SignedDuration::from_mins(1)), boot(19 * 60), true),
        ];
        for (now, server, same_boot, good) in cases {
            let first = FirstAttempt { at, now, server, same_boot };
            assert_eq!(key_is_good(first), good, "{first:?}");
        }
    }
}
