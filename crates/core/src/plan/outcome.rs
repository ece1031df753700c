//! The outcome of an attempt, and how long an intent waits for the next one.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::intent::lifecycle::Outcome;
use crate::remote::PushedCustomer;
use crate::remote::error::ApiError;

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptOutcome {
    /// The intent took effect. The customer is as an answer showed it. `status` is the HTTP status
    /// of the push's answer; `None` where the effect was found by reading.
    TookEffect {
        /// The customer afterwards, as far as it was shown.
        customer: PushedCustomer,
        /// The HTTP status of the push.
        status: Option<u16>,
    },
    /// The API refused the push permanently.
    Rejected(ApiError),
    /// The API has no such customer. For a delete that may be the wanted state.
    NotFound(ApiError),
    /// Another attempt follows.
    Later(Later),
    /// An operator decides.
    Park {
        /// Why, and what to do.
        reason: String,
        /// What the operator needs to decide.
        detail: Option<Value>,
    },
}

/// Why and when an intent is attempted again.
#[derive(Clone, Debug, PartialEq)]
pub struct Later {
    /// What happened.
    pub why: String,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Whether this attempt may have taken effect.
    pub outcome: Outcome,
    /// When the next attempt is due; `None`: at once.
    pub at: Option<Timestamp>,
    /// What also stops other intents.
    pub obstacle: Obstacle,
}

/// What an answer says about every request, not only about this intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing.
    None,
    /// The API refused the key.
    KeyRefused,
    /// The API asks to wait.
    Throttled {
        /// Until then, where that is known.
        until: Option<Timestamp>,
    },
}

impl Later {
    /// Another attempt at `at`, without an answer and without an obstacle.
    pub fn at(at: Option<Timestamp>, outcome: Outcome, why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None, outcome, at, obstacle: Obstacle::None }
    }
}

impl AttemptOutcome {
    /// An attempt that sent nothing and is due again at `at`.
    pub fn not_sent(why: &str, at: Option<Timestamp>) -> Self {
        Self::Later(Later::at(at, Outcome::Known, format!("nothing was sent: {why}")))
    }

    /// An attempt that leaves the decision to an operator.
    pub fn park(reason: impl Into<String>, detail: Option<Value>) -> Self {
        Self::Park { reason: reason.into(), detail }
    }
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TookEffect { status: Some(status), .. } => write!(f, "done: answered HTTP {status}"),
            Self::TookEffect { status: None, .. } => f.write_str("done: it had taken effect already"),
            Self::Rejected(told) => write!(f, "reject: {told}"),
            Self::NotFound(told) => write!(f, "the customer does not exist: {told}"),
            Self::Later(Later { why, at: Some(at), .. }) => write!(f, "try again at {at:.0}: {why}"),
            Self::Later(Later { why, at: None, .. }) => write!(f, "try again at once: {why}"),
            Self::Park { reason, .. } => write!(f, "park: {reason}"),
        }
    }
}

/// Returns how long an intent waits after so many attempts: 1 s, doubled up to 15 minutes. `jitter`
/// from 0 to 1 changes that by at most a fifth.
pub fn attempt_wait(attempts: u32, jitter: f64) -> Duration {
    let doubled = 1_u64 << attempts.saturating_sub(1).min(20);
    Duration::from_secs(doubled.min(15 * 60)).mul_f64(0.8 + 0.4 * jitter)
}

/// After how long since its first attempt a create's key is no longer counted on: KOMOJU remembers it for up to 24 hours.
pub const KEY_GOOD_FOR: SignedDuration = SignedDuration::from_hours(20);

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
    fn attempts_wait_from_a_second_to_a_quarter_of_an_hour() {
        let waits: Vec<u64> = [1, 2, 3, 10, 11, 90].map(|n| attempt_wait(n, 0.5).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 512, 900, 900]);
        assert_eq!(
            (attempt_wait(1, 0.0), attempt_wait(1, 1.0)),
            (Duration::from_millis(800), Duration::from_millis(1200))
        );
    }

    #[test]
    fn outcome_prints_one_sentence() {
        let told = ApiError { status: 422, code: Some("bad".to_owned()), message: None, param: None };
        let later = |at| AttemptOutcome::Later(Later::at(at, Outcome::Unknown, "no answer"));
        let effect = |status| AttemptOutcome::TookEffect { customer: PushedCustomer::None, status };
        let cases = [
            (effect(Some(200)), "done: answered HTTP 200"),
            (effect(None), "done: it had taken effect already"),
            (AttemptOutcome::Rejected(told.clone()), "reject: HTTP 422 bad"),
            (AttemptOutcome::NotFound(told), "the customer does not exist: HTTP 422 bad"),
            (later(Some(Timestamp::UNIX_EPOCH)), "try again at 1970-01-01T00:00:00Z: no answer"),
            (later(None), "try again at once: no answer"),
            (AttemptOutcome::not_sent("locked", None), "try again at once: nothing was sent: locked"),
            (AttemptOutcome::park("look", None), "park: look"),
        ];
        for (outcome, sentence) in cases {
            assert_eq!(outcome.to_string(), sentence);
        }
    }

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
