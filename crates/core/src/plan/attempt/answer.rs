//! Interprets the answer to a push.

use super::{AttemptFacts, AttemptStep, SentPush, park, retry};
use crate::CustomerId;
use crate::intent::lifecycle::OutcomeStatus;
use crate::plan::outcome::{AttemptOutcome, Obstacle, RetryPlan};
use crate::remote::error::{ApiError, ErrorCause, ErrorClass, RemoteError};
use crate::remote::{BytesSent, CustomerAnswer, PushAnswer, PushError, PushRequest, PushedCustomer};

/// Returns the next step after the answer to a push.
pub(super) fn next(facts: &AttemptFacts, sent: &SentPush) -> AttemptStep {
    match &sent.answer {
        Ok(PushAnswer::Applied { customer, status }) => took_effect(facts, &sent.push, customer, *status),
        Ok(PushAnswer::NotFound { error: api_error }) => {
            AttemptStep::Finish(AttemptOutcome::NotFound(api_error.clone()))
        }
        Err(PushError { error, bytes_sent }) => match &error.cause {
            ErrorCause::Rejected(api_error) if api_error.status == 403 => forbidden(facts, api_error, error),
            ErrorCause::Rejected(api_error) => {
                AttemptStep::Finish(AttemptOutcome::Rejected(api_error.clone()))
            }
            cause => retry(facts.after_error(error, outcome_of(*bytes_sent, cause))),
        },
    }
}

/// Whether a push that failed may have taken effect.
fn outcome_of(bytes_sent: BytesSent, cause: &ErrorCause) -> OutcomeStatus {
    match (bytes_sent, cause) {
        // The API refused it before any effect. This does not include a 503 with a Retry-After,
        // which may come from a gateway after the push took effect.
        (BytesSent::None, _) | (_, ErrorCause::KeyRefused(_)) => OutcomeStatus::Known,
        (_, ErrorCause::Throttled(api_error)) if api_error.status == 429 => OutcomeStatus::Known,
        (BytesSent::Maybe, _) => OutcomeStatus::Unknown,
    }
}

/// Handles a 2xx. The mirror gets the customer that the answer shows.
fn took_effect(
    facts: &AttemptFacts,
    push: &PushRequest,
    customer: &PushedCustomer,
    status: u16,
) -> AttemptStep {
    let done = |customer: PushedCustomer| {
        AttemptStep::Finish(AttemptOutcome::TookEffect { customer, status: Some(status) })
    };
    match (push, customer) {
        (_, PushedCustomer::Shown(_)) | (PushRequest::Delete { .. }, _) => done(customer.clone()),
        (PushRequest::Create { .. }, PushedCustomer::Unreadable(bad)) if bad.id.is_some() => {
            done(customer.clone())
        }
        (PushRequest::Create { .. }, unknown) => retry(retry_without_id(facts, unknown, status)),
        // A read may lag behind the push itself, so the customer is requested later.
        (PushRequest::Update { .. }, PushedCustomer::None) if !facts.consistency.0.is_zero() => {
            done(PushedCustomer::None)
        }
        (PushRequest::Update { id, .. }, _) => match updated_customer(facts, id) {
            Ok(customer) => done(customer),
            Err(step) => step,
        },
    }
}

/// Retries a create whose answer shows no customer id. Under the same key the API answers with the
/// same customer.
fn retry_without_id(facts: &AttemptFacts, answered: &PushedCustomer, status: u16) -> RetryPlan {
    let reason = match answered {
        PushedCustomer::Unreadable(bad) => format!(" ({})", bad.reason),
        PushedCustomer::Shown(_) | PushedCustomer::None => String::new(),
    };
    let why = format!("POST /customers: answered HTTP {status} without a customer that can be read{reason}");
    let at = facts.retry_at(std::time::Duration::ZERO);
    RetryPlan { status: Some(status), ..RetryPlan::at(at, OutcomeStatus::Unknown, why) }
}

/// Returns the customer after an update whose answer shows no readable customer. If the customer
/// cannot be requested either, the update is sent again.
fn updated_customer(facts: &AttemptFacts, id: &CustomerId) -> Result<PushedCustomer, AttemptStep> {
    let Some(reading) = facts.reading_of(id) else { return Err(AttemptStep::ReadCustomer(id.clone())) };
    match &reading.result {
        Ok(CustomerAnswer::Found(customer)) => Ok(PushedCustomer::Shown(customer.clone())),
        // The id proves that the API answered, and not a server in front of it.
        Ok(CustomerAnswer::Unreadable(bad)) if bad.id.is_some() => {
            Ok(PushedCustomer::Unreadable(bad.clone()))
        }
        Ok(CustomerAnswer::Unreadable(bad)) => {
            Err(retry(facts.after_unreadable(&reading.call, bad, OutcomeStatus::Unknown)))
        }
        Ok(CustomerAnswer::NotFound) => Ok(PushedCustomer::None),
        Err(error) => Err(retry(facts.after_error(error, OutcomeStatus::Unknown))),
    }
}

/// The result of the list request after a JSON 403 on a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyCheck {
    /// The API answered the list, so the key reads customers.
    Accepted,
    /// The API refused the list too.
    Refused,
    /// There was no answer, or only one from a server in front of the API.
    Unanswered,
}

fn key_check(listed: Result<(), &RemoteError>) -> KeyCheck {
    // No answer, or a redirect, comes from in front of the API, though the error is not retried.
    if listed
        .is_err_and(|e| matches!(e.cause, ErrorCause::Unreachable { .. } | ErrorCause::Redirected { .. }))
    {
        return KeyCheck::Unanswered;
    }
    match listed.map_err(RemoteError::class) {
        Ok(()) | Err(ErrorClass::Rejected | ErrorClass::Corrupt) => KeyCheck::Accepted,
        Err(ErrorClass::Auth) => KeyCheck::Refused,
        Err(ErrorClass::Transient | ErrorClass::Throttled) => KeyCheck::Unanswered,
    }
}

/// Handles a JSON 403 on a push. One list request with the same key shows whether the key is
/// refused, or only this push.
///
/// The API checks permissions before it looks at the idempotency key. So the 403 says nothing about
/// an earlier create with that key. If such a create were rejected, its next retry would get a new
/// key.
fn forbidden(facts: &AttemptFacts, api_error: &ApiError, error: &RemoteError) -> AttemptStep {
    let Some(listed) = &facts.key_check else { return AttemptStep::CheckKey };
    let status = Some(api_error.status);
    match (key_check(listed.as_ref().copied()), listed) {
        (KeyCheck::Refused, _) => {
            let why = format!("{error}; the list is refused too, so the API refused the key");
            let obstacle = Obstacle::KeyRefused;
            retry(RetryPlan { status, obstacle, ..RetryPlan::at(None, OutcomeStatus::Known, why) })
        }
        (KeyCheck::Unanswered, Err(list)) => {
            let again = facts.after_error(list, OutcomeStatus::Known);
            let why = format!("{error}; it is not known whether the key is refused: {}", again.why);
            retry(RetryPlan { why, status, ..again })
        }
        _ if facts.open.is_create() && facts.open.may_have_taken_effect() => park(
            format!(
                "{error}; an earlier attempt may have taken effect: look for the customer at KOMOJU, then cancel this intent, or \
                 retry it (`komoju-sync intent retry`: the same request with the same key)"
            ),
            None,
        ),
        _ => AttemptStep::Finish(AttemptOutcome::Rejected(api_error.clone())),
    }
}
