//! The outcome of an attempt, and the wait before the next attempt.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::intent::lifecycle::OutcomeStatus;
use crate::remote::PushedCustomer;
use crate::remote::error::ApiError;

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptOutcome {
    /// The intent took effect.
    TookEffect {
        /// The customer afterwards, as far as an answer showed it.
        customer: PushedCustomer,
        /// The HTTP status of the push's answer; `None` if the effect was found by reading.
        status: Option<u16>,
    },
    /// The API refused the push permanently.
    Rejected(ApiError),
    /// The API has no such customer. For a delete that may be the wanted state.
    NotFound(ApiError),
    /// Another attempt follows.
    Retry(RetryPlan),
    /// An operator must decide.
    Park {
        /// The reason, and what to do.
        reason: String,
        /// The data that the operator needs.
        detail: Option<Value>,
    },
}

/// Why and when an intent is attempted again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPlan {
    /// What happened.
    pub why: String,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Whether this attempt may have taken effect.
    pub outcome: OutcomeStatus,
    /// When the next attempt is due; `None`: at once.
    pub at: Option<Timestamp>,
    /// The obstacle that also stops other intents.
    pub obstacle: Obstacle,
}

/// What an answer says about all requests, not only about this intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing.
    None,
    /// The API refused the key.
    KeyRefused,
    /// The API asks to wait.
    Throttled {
        /// The time until which to wait; `None` if it is not known.
        until: Option<Timestamp>,
    },
}

impl RetryPlan {
    /// A retry at `at` without an answer and without an obstacle.
    pub fn at(at: Option<Timestamp>, outcome: OutcomeStatus, why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None, outcome, at, obstacle: Obstacle::None }
    }
}

impl AttemptOutcome {
    /// The outcome of an attempt that sent nothing and is due again at `at`.
    pub fn not_sent(why: &str, at: Option<Timestamp>) -> Self {
        Self::Retry(RetryPlan::at(at, OutcomeStatus::Known, format!("nothing was sent: {why}")))
    }

    /// The outcome of an attempt that leaves the decision to an operator.
    pub fn park(reason: impl Into<String>, detail: Option<Value>) -> Self {
        Self::Park { reason: reason.into(), detail }
    }
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TookEffect { status: Some(status), .. } => write!(f, "done: answered HTTP {status}"),
            Self::TookEffect { status: None, .. } => f.write_str("done: it had taken effect already"),
            Self::Rejected(api_error) => write!(f, "reject: {api_error}"),
            Self::NotFound(api_error) => write!(f, "the customer does not exist: {api_error}"),
            Self::Retry(RetryPlan { why, at: Some(at), .. }) => write!(f, "try again at {at:.0}: {why}"),
            Self::Retry(RetryPlan { why, at: None, .. }) => write!(f, "try again at once: {why}"),
            Self::Park { reason, .. } => write!(f, "park: {reason}"),
        }
    }
}

/// Returns the wait after this number of attempts: 1 s, doubling to 15 minutes. `jitter` from 0 to
/// 1 changes it by at most a fifth.
pub fn attempt_wait(attempts: u32, jitter: f64) -> Duration {
    let doubled = 1_u64 << attempts.saturating_sub(1).min(20);
    Duration::from_secs(doubled.min(15 * 60)).mul_f64(0.8 + 0.4 * jitter)
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
        let api_error = ApiError { status: 422, code: Some("bad".to_owned()), message: None, param: None };
        let later = |at| AttemptOutcome::Retry(RetryPlan::at(at, OutcomeStatus::Unknown, "no answer"));
        let effect = |status| AttemptOutcome::TookEffect { customer: PushedCustomer::None, status };
        let cases = [
            (effect(Some(200)), "done: answered HTTP 200"),
            (effect(None), "done: it had taken effect already"),
            (AttemptOutcome::Rejected(api_error.clone()), "reject: HTTP 422 bad"),
            (AttemptOutcome::NotFound(api_error), "the customer does not exist: HTTP 422 bad"),
            (later(Some(Timestamp::UNIX_EPOCH)), "try again at 1970-01-01T00:00:00Z: no answer"),
            (later(None), "try again at once: no answer"),
            (AttemptOutcome::not_sent("locked", None), "try again at once: nothing was sent: locked"),
            (AttemptOutcome::park("look", None), "park: look"),
        ];
        for (outcome, sentence) in cases {
            assert_eq!(outcome.to_string(), sentence);
        }
    }
}
