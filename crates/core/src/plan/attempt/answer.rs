//! What the answer to a push means.

use super::{AttemptFacts, Sent, Step, later, park};
use crate::CustomerId;
use crate::intent::lifecycle::Outcome;
use crate::plan::outcome::{AttemptOutcome, Later, Obstacle};
use crate::remote::error::{ApiError, Cause, Class, RemoteError};
use crate::remote::{Left, Push, PushError, Pushed, PushedCustomer, Shown};

/// Returns the next step after the answer to a push.
pub(super) fn next(facts: &AttemptFacts, sent: &Sent) -> Step {
    match &sent.answer {
        Ok(Pushed::Took { customer, status }) => took_effect(facts, &sent.push, customer, *status),
        Ok(Pushed::NotFound { told }) => Step::Finish(AttemptOutcome::NotFound(told.clone())),
        Err(PushError { error, left }) => match &error.cause {
            Cause::Rejected(told) if told.status == 403 => forbidden(facts, told, error),
            Cause::Rejected(told) => Step::Finish(AttemptOutcome::Rejected(told.clone())),
            cause => later(facts.after_error(error, outcome_of(*left, cause))),
        },
    }
}

/// Whether a push that failed may have taken effect.
fn outcome_of(left: Left, cause: &Cause) -> Outcome {
    match (left, cause) {
        // The API refused it before it did anything. A 503 with a Retry-After may come from a
        // gateway, after the push took effect.
        (Left::Nothing, _) | (_, Cause::KeyRefused(_)) => Outcome::Known,
        (_, Cause::Throttled(told)) if told.status == 429 => Outcome::Known,
        (Left::Perhaps, _) => Outcome::Unknown,
    }
}

/// A 2xx. The mirror learns the customer that the answer shows.
fn took_effect(facts: &AttemptFacts, push: &Push, customer: &PushedCustomer, status: u16) -> Step {
    let done = |customer: PushedCustomer| {
        Step::Finish(AttemptOutcome::TookEffect { customer, status: Some(status) })
    };
    match (push, customer) {
        (_, PushedCustomer::Shown(_)) | (Push::Delete { .. }, _) => done(customer.clone()),
        (Push::Create { .. }, PushedCustomer::Unreadable(bad)) if bad.id.is_some() => done(customer.clone()),
        (Push::Create { .. }, unknown) => later(without_id(facts, unknown, status)),
        // A read may lag behind the push itself, so the customer is requested later.
        (Push::Update { .. }, PushedCustomer::None) if !facts.consistency.0.is_zero() => {
            done(PushedCustomer::None)
        }
        (Push::Update { id, .. }, _) => match afterwards(facts, id) {
            Ok(customer) => done(customer),
            Err(step) => step,
        },
    }
}

/// A create whose answer does not show the customer's id. Sent again under its key, it is answered
/// with the same customer.
fn without_id(facts: &AttemptFacts, answered: &PushedCustomer, status: u16) -> Later {
    let reason = match answered {
        PushedCustomer::Unreadable(bad) => format!(" ({})", bad.reason),
        PushedCustomer::Shown(_) | PushedCustomer::None => String::new(),
    };
    let why = format!("POST /customers: answered HTTP {status} without a customer that can be read{reason}");
    let at = facts.retry_at(std::time::Duration::ZERO);
    Later { status: Some(status), ..Later::at(at, Outcome::Unknown, why) }
}

/// The customer after an update whose answer shows none that can be read. Where it cannot be
/// requested either, the update is sent again.
fn afterwards(facts: &AttemptFacts, id: &CustomerId) -> Result<PushedCustomer, Step> {
    let Some(reading) = facts.reading_of(id) else { return Err(Step::ReadCustomer(id.clone())) };
    match &reading.result {
        Ok(Shown::Found(customer)) => Ok(PushedCustomer::Shown(customer.clone())),
        // Its id shows that the API answers, and not a server in front of it.
        Ok(Shown::Unreadable(bad)) if bad.id.is_some() => Ok(PushedCustomer::Unreadable(bad.clone())),
        Ok(Shown::Unreadable(bad)) => {
            Err(later(facts.after_unreadable(&reading.call, bad, Outcome::Unknown)))
        }
        Ok(Shown::NotFound) => Ok(PushedCustomer::None),
        Err(error) => Err(later(facts.after_error(error, Outcome::Unknown))),
    }
}

/// What a list request says of the key with which a push was answered with a JSON 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyCheck {
    /// The API answered the list: the key reads customers.
    Accepted,
    /// The API refused the list too.
    Refused,
    /// No answer, or one that comes from in front of the API.
    Unanswered,
}

fn key_check(listed: Result<(), &RemoteError>) -> KeyCheck {
    // No answer, and a redirect, come from in front of the API, though they are not retried.
    if listed.is_err_and(|e| matches!(e.cause, Cause::Unreachable { .. } | Cause::Redirected { .. })) {
        return KeyCheck::Unanswered;
    }
    match listed.map_err(RemoteError::class) {
        Ok(()) | Err(Class::Rejected | Class::Corrupt) => KeyCheck::Accepted,
        Err(Class::Auth) => KeyCheck::Refused,
        Err(Class::Transient | Class::Throttled) => KeyCheck::Unanswered,
    }
}

/// A JSON 403 on a push: one list request with the same key shows whether the key is refused, or
/// only this push.
///
/// The API checks permissions before it looks at the idempotency key. So the 403 says nothing about
/// an earlier create with that key, and a rejected create would get a new key with its next retry.
fn forbidden(facts: &AttemptFacts, told: &ApiError, error: &RemoteError) -> Step {
    let Some(listed) = &facts.key_check else { return Step::CheckKey };
    let status = Some(told.status);
    match (key_check(listed.as_ref().copied()), listed) {
        (KeyCheck::Refused, _) => {
            let why = format!("{error}; the list is refused too, so the API refused the key");
            let obstacle = Obstacle::KeyRefused;
            later(Later { status, obstacle, ..Later::at(None, Outcome::Known, why) })
        }
        (KeyCheck::Unanswered, Err(list)) => {
            let again = facts.after_error(list, Outcome::Known);
            let why = format!("{error}; whether the key is refused is not known: {}", again.why);
            later(Later { why, status, ..again })
        }
        _ if facts.open.is_create() && facts.open.may_have_taken_effect() => park(
            format!(
                "{error}; an earlier attempt may have taken effect: look for the customer at KOMOJU, then cancel this intent, or \
                 retry it (`komoju-sync intent retry`: the same request with the same key)"
            ),
            None,
        ),
        _ => Step::Finish(AttemptOutcome::Rejected(told.clone())),
    }
}
