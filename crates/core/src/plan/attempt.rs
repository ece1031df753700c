//! Plans one attempt of an intent: what to request, commit or send next, and the outcome.
//!
//! [`next_step`] is a function of [`AttemptFacts`] alone. The caller performs the step, adds the
//! result to the facts, and calls it again:
//! ```text
//!   outcome of an earlier attempt unknown ─▶ find out: look for the create's customer, or read the update back
//!   an expectation                        ─▶ read the customer and compare
//!   a create's first attempt              ─▶ commit the server's time
//!   nothing left to find out              ─▶ send, then interpret the answer
//! ```
//!
//! An unknown outcome is never guessed. Without proof at the API, the attempt parks the intent.

mod answer;
mod first;
mod lookup;

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::intent::lifecycle::OutcomeStatus;
use crate::intent::{Expect, Intent, IntentBody, IntentOp, Mismatch};
use crate::lag::Consistency;
use crate::open_intent::OpenIntent;
use crate::park_timer::Moment;
use crate::plan::create_window::WindowQuery;
use crate::plan::outcome::{AttemptOutcome, Obstacle, RetryPlan, attempt_wait};
use crate::plan::read_back::{self, UpdateEffect};
use crate::remote::error::{ApiCall, ErrorCause, ErrorClass, RemoteError};
use crate::remote::{CustomerAnswer, PushAnswer, PushError, PushRequest, PushedCustomer};
use crate::{Customer, CustomerId, Unreadable};

pub use first::first_step;
pub use lookup::{CreateLookup, LookupResult};

/// The facts about an attempt so far.
#[derive(Clone, Debug)]
pub struct AttemptFacts {
    /// The intent, as claimed.
    pub open: OpenIntent,
    /// How long the API's reads may lag behind its writes.
    pub consistency: Consistency,
    /// A random number from 0 to 1 that varies the waits.
    pub jitter: f64,
    /// The current time.
    pub now: Moment,
    /// The time by the server's clock; `None` until an answer has shown it.
    pub server_time: Option<Timestamp>,
    /// The time until which the API asks to wait.
    pub throttled_until: Option<Timestamp>,
    /// The result of [`AttemptStep::RequestServerTime`].
    pub time_check: Option<Result<(), RemoteError>>,
    /// The result of the last [`AttemptStep::ReadCustomer`]; `None` again after a push.
    pub reading: Option<CustomerRead>,
    /// The result of [`AttemptStep::FindLastPush`].
    pub last_push: Option<LastPush>,
    /// The result of [`AttemptStep::LookForCustomer`].
    pub lookup: Option<CreateLookup>,
    /// Whether [`AttemptStep::FreezeFirstAttempt`] is committed.
    pub is_dated: bool,
    /// Whether [`AttemptStep::FreezeNewKey`] is committed.
    pub has_new_key: bool,
    /// The result of [`AttemptStep::Send`].
    pub sent: Option<SentPush>,
    /// The result of [`AttemptStep::CheckKey`].
    pub key_check: Option<Result<(), RemoteError>>,
}

/// A read of a customer by its id.
#[derive(Clone, Debug)]
pub struct CustomerRead {
    /// The requested customer.
    pub id: CustomerId,
    /// The request, for messages.
    pub call: ApiCall,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// The answer.
    pub result: Result<CustomerAnswer, RemoteError>,
}

/// When our last push of the customer settled; `None` if the read cannot be older than that.
#[derive(Clone, Copy, Debug)]
pub struct LastPush(pub Option<Timestamp>);

/// A push and its answer.
#[derive(Clone, Debug)]
pub struct SentPush {
    /// The request.
    pub push: PushRequest,
    /// The answer.
    pub answer: Result<PushAnswer, PushError>,
}

/// The next action of an attempt.
#[derive(Clone, Debug)]
pub enum AttemptStep {
    /// Send any request: its answer shows the server's time.
    RequestServerTime,
    /// Request this customer.
    ReadCustomer(CustomerId),
    /// Find in the log when our last push of this customer settled, if a read requested at this
    /// time may be older.
    FindLastPush(CustomerId, Timestamp),
    /// Look for the customer of a create, in the list and in the log.
    LookForCustomer(WindowQuery),
    /// Commit the time of a create's first attempt by the server's clock. From then on a lost
    /// answer leaves the outcome unknown.
    FreezeFirstAttempt,
    /// Commit a new key, because the create did not take effect.
    FreezeNewKey,
    /// Send the push.
    Send {
        /// The request.
        push: PushRequest,
        /// Whether an earlier attempt may have taken effect.
        is_repeat: bool,
    },
    /// Request the list. If it is refused too, the key itself is refused.
    CheckKey,
    /// End the attempt with this outcome.
    Finish(AttemptOutcome),
}

impl fmt::Display for AttemptStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestServerTime => f.write_str("request the server's time"),
            Self::ReadCustomer(id) => write!(f, "read customer {id}"),
            Self::FindLastPush(id, _) => write!(f, "find the last push of customer {id} in the log"),
            Self::LookForCustomer(query) => {
                write!(f, "look for its customer first, in the window from {:.0}", query.from)
            }
            Self::FreezeFirstAttempt => f.write_str("commit the time of the first attempt"),
            Self::FreezeNewKey => f.write_str("commit a new key: the create did not take effect"),
            Self::Send { push: PushRequest::Create { .. }, is_repeat: true } => {
                f.write_str("send again under its key")
            }
            Self::Send { push: PushRequest::Create { .. }, is_repeat: false } => {
                f.write_str("send under its key")
            }
            Self::Send { is_repeat: true, .. } => f.write_str("send again"),
            Self::Send { is_repeat: false, .. } => f.write_str("send"),
            Self::CheckKey => f.write_str("request the list, to see whether the key is refused"),
            Self::Finish(outcome) => outcome.fmt(f),
        }
    }
}

impl AttemptFacts {
    /// The facts at the start of an attempt.
    pub fn new(open: OpenIntent, consistency: Consistency, jitter: f64, now: Moment) -> Self {
        Self {
            open,
            consistency,
            jitter,
            now,
            server_time: None,
            throttled_until: None,
            time_check: None,
            reading: None,
            last_push: None,
            lookup: None,
            is_dated: false,
            has_new_key: false,
            sent: None,
            key_check: None,
        }
    }

    /// Adds the answer to a push. An earlier read of the customer no longer counts.
    pub fn add_answer(&mut self, push: PushRequest, answer: Result<PushAnswer, PushError>) {
        self.sent = Some(SentPush { push, answer });
        self.reading = None;
    }

    fn reading_of(&self, id: &CustomerId) -> Option<&CustomerRead> {
        self.reading.as_ref().filter(|reading| reading.id == *id)
    }

    /// Whether a read requested at `requested_at` may show the state before this intent's last
    /// attempt.
    fn may_be_before_last_attempt(&self, requested_at: Timestamp) -> bool {
        self.open.last_attempt_at.is_some_and(|last| self.consistency.may_be_behind(last, requested_at))
    }

    /// Returns the time of the next attempt. The wait depends on the number of attempts, and is at
    /// least `least`.
    fn retry_at(&self, least: std::time::Duration) -> Option<Timestamp> {
        let wait = attempt_wait(self.open.life.attempts, self.jitter).max(least);
        self.now.wall.checked_add(wait).ok()
    }

    /// Retries when no read can be older than now.
    fn after_lag(&self, why: &str) -> AttemptStep {
        let at = self.consistency.after(self.now.wall);
        retry(RetryPlan::at(Some(at), OutcomeStatus::Unknown, format!("{why} (inbound.consistency_s)")))
    }

    /// Retries after a request without a result. A refused read says nothing about the intent, so
    /// it is read again too. `outcome` is the outcome of the attempt apart from this request.
    fn after_error(&self, error: &RemoteError, outcome: OutcomeStatus) -> RetryPlan {
        let cause = match error.cause.clone() {
            ErrorCause::Rejected(api_error) => ErrorCause::Unexpected(api_error),
            cause => cause,
        };
        let error = RemoteError { cause, ..error.clone() };
        let is_throttled = error.class() == ErrorClass::Throttled || error.retry_after.is_some();
        let (at, obstacle) = if matches!(error.cause, ErrorCause::KeyRefused(_)) {
            // The intent is due at once when a key is accepted.
            (None, Obstacle::KeyRefused)
        } else {
            let at = self.retry_at(error.retry_after.unwrap_or_default()).unwrap_or(Timestamp::MAX);
            let until = self.throttled_until;
            (Some(at), if is_throttled { Obstacle::Throttled { until } } else { Obstacle::None })
        };
        RetryPlan { why: error.to_string(), status: error.status(), outcome, at, obstacle }
    }

    /// Retries after an answer with an unreadable customer.
    fn after_unreadable(&self, call: &ApiCall, bad: &Unreadable, outcome: OutcomeStatus) -> RetryPlan {
        let cause = ErrorCause::Unusable(format!("the customer is unreadable: {}", bad.reason));
        self.after_error(&RemoteError { call: call.clone(), cause, retry_after: None }, outcome)
    }
}

fn retry(plan: RetryPlan) -> AttemptStep {
    AttemptStep::Finish(AttemptOutcome::Retry(plan))
}

fn park(reason: impl Into<String>, detail: Option<Value>) -> AttemptStep {
    AttemptStep::Finish(AttemptOutcome::park(reason, detail))
}

/// Returns the next step of an attempt.
pub fn next_step(facts: &AttemptFacts) -> AttemptStep {
    let intent = match &facts.open.intent {
        Ok(intent) => intent,
        Err(why) => return park(why.clone(), None),
    };
    if let Some(sent) = &facts.sent {
        return answer::next(facts, sent);
    }
    earlier_attempt(facts, intent)
        .or_else(|| expectation(facts, intent))
        .or_else(|| first_attempt(facts))
        .unwrap_or_else(|| send(facts))
}

/// Returns the step that finds out whether an earlier attempt took effect, or the outcome; `None`
/// if the push may be sent again.
fn earlier_attempt(facts: &AttemptFacts, intent: &Intent) -> Option<AttemptStep> {
    if !facts.open.may_have_taken_effect() {
        return None;
    }
    match &intent.op {
        // The age of the key is measured by the server's clock.
        IntentOp::Create(body) => server_time(facts).or_else(|| lookup::next(facts, body)),
        IntentOp::Update(_, body) if body.token().is_some() => read_back(facts, body),
        // Updates without a token, and deletes, may be repeated.
        IntentOp::Update(..) | IntentOp::Delete(_) => None,
    }
}

/// Returns the step that gets the server's time. Any answer of the API shows it, if the server
/// sends it at all.
fn server_time(facts: &AttemptFacts) -> Option<AttemptStep> {
    match (&facts.server_time, &facts.time_check) {
        (Some(_), _) | (None, Some(Ok(()))) => None,
        (None, None) => Some(AttemptStep::RequestServerTime),
        (None, Some(Err(error))) => Some(retry(facts.after_error(error, OutcomeStatus::Known))),
    }
}

/// Returns a read and the customer that it shows. The error is the step that reads it, or the
/// outcome if it cannot be read; `None` if it does not exist.
fn shown<'a>(
    facts: &'a AttemptFacts,
    id: &CustomerId,
) -> Result<(&'a CustomerRead, &'a Customer), Option<AttemptStep>> {
    let Some(reading) = facts.reading_of(id) else { return Err(Some(AttemptStep::ReadCustomer(id.clone()))) };
    match &reading.result {
        Ok(CustomerAnswer::Found(customer)) => Ok((reading, customer)),
        // The answer to the push will say the same. A missing customer uses no token.
        Ok(CustomerAnswer::NotFound) => Err(None),
        Ok(CustomerAnswer::Unreadable(bad)) => {
            Err(Some(retry(facts.after_unreadable(&reading.call, bad, OutcomeStatus::Known))))
        }
        Err(error) => Err(Some(retry(facts.after_error(error, OutcomeStatus::Known)))),
    }
}

/// Finds out whether an update with a token took effect. A token works only once, so the update is
/// parked if the customer does not show whether it did.
fn read_back(facts: &AttemptFacts, body: &IntentBody) -> Option<AttemptStep> {
    let (reading, customer) = match shown(facts, facts.open.customer.as_ref()?) {
        Ok(shown) => shown,
        Err(next) => return next,
    };
    let before = facts.open.frozen.base.as_deref().and_then(|base| Customer::from_body(base).ok());
    let effect = read_back::compare(body, before.as_ref().map(Customer::fields), customer.fields());
    if effect != UpdateEffect::Applied && facts.may_be_before_last_attempt(reading.requested_at) {
        let why =
            "whether this update took effect is checked again once no read can be older than the attempt";
        return Some(facts.after_lag(why));
    }
    match effect {
        UpdateEffect::Applied => Some(found(customer.clone())),
        UpdateEffect::NotApplied => None,
        UpdateEffect::Unclear => Some(park(
            "the customer does not show whether this update took effect, and its payment token can be used only once: look at the \
             customer at KOMOJU, then cancel this intent, or retry it with a new token (--body @FILE)",
            Some(json!({"theirs": customer.fields()})),
        )),
    }
}

fn found(customer: Customer) -> AttemptStep {
    AttemptStep::Finish(AttemptOutcome::TookEffect {
        customer: PushedCustomer::Shown(customer),
        status: None,
    })
}

/// Compares the submitter's expectation with the customer now. A difference parks the intent, and
/// nothing is sent.
fn expectation(facts: &AttemptFacts, intent: &Intent) -> Option<AttemptStep> {
    let (expect, customer) = (intent.expect.as_ref()?, facts.open.customer.as_ref()?);
    match shown(facts, customer) {
        Ok((reading, theirs)) => compare(facts, intent, expect, reading, theirs.fields()),
        Err(next) => next,
    }
}

fn compare(
    facts: &AttemptFacts,
    intent: &Intent,
    expect: &Expect,
    reading: &CustomerRead,
    theirs: &Map<String, Value>,
) -> Option<AttemptStep> {
    let is_applied =
        matches!(&intent.op, IntentOp::Update(_, body) if read_back::not_applied(body, theirs).is_empty());
    let mismatches = expect.mismatches(theirs);
    // An earlier attempt of this intent may have made the difference.
    if mismatches.is_empty() || (facts.open.may_have_taken_effect() && is_applied) {
        return None;
    }
    // Shortly after our own push, the read may still show the state before that push.
    match facts.last_push {
        None => Some(AttemptStep::FindLastPush(reading.id.clone(), reading.requested_at)),
        Some(LastPush(Some(pushed_at))) => {
            let why = "the customer is not as expected, shortly after our own push of it: it is compared again once no read can be \
                       older than that push (inbound.consistency_s)";
            let at = facts.consistency.after(pushed_at);
            Some(retry(RetryPlan::at(Some(at), facts.open.life.outcome, why)))
        }
        Some(LastPush(None)) => Some(conflict(&mismatches, theirs, intent)),
    }
}

/// Parks a conflict with the expected, the current and the requested values.
fn conflict(mismatches: &[Mismatch], theirs: &Map<String, Value>, intent: &Intent) -> AttemptStep {
    let fields: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.field.as_str()).collect();
    let base = intent.expect.as_ref().map(|expect| expect.fields().clone());
    let ours = match &intent.op {
        IntentOp::Update(_, body) => Value::Object(body.without_token()),
        IntentOp::Create(_) | IntentOp::Delete(_) => Value::Null,
    };
    let differs = if fields.len() == 1 { "differs" } else { "differ" };
    park(
        format!("the customer is not as expected: {} {differs}; nothing was sent", fields.join(", ")),
        Some(json!({"differs": fields, "base": base, "theirs": theirs, "ours": ours})),
    )
}

/// Commits the server's time before a create's first attempt. The create's window begins shortly
/// before that time. A create that may have taken effect already gets no such time any more. It has
/// the time of an earlier attempt, or the time is unknown.
fn first_attempt(facts: &AttemptFacts) -> Option<AttemptStep> {
    let open = &facts.open;
    let is_undated = open.is_create()
        && open.frozen.first_server_at.is_none()
        && !open.may_have_taken_effect()
        && !facts.is_dated;
    if is_undated { server_time(facts).or(Some(AttemptStep::FreezeFirstAttempt)) } else { None }
}

fn send(facts: &AttemptFacts) -> AttemptStep {
    let is_repeat = facts.open.may_have_taken_effect() && !facts.has_new_key;
    match facts.open.push() {
        Some(push) => AttemptStep::Send { push, is_repeat },
        None => park("the id of its customer cannot be requested", None),
    }
}

#[cfg(test)]
mod tests;
