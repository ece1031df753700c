//! Plans what settling an attempt writes: the intent's state, the attempt, the change log, and
//! later requests.
//!
//! The store applies a [`Settlement`] in one transaction, so that intent, attempt, change log and
//! mirror agree.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::intent::lifecycle::{IllegalTransition, Lifecycle};
use crate::intent::{IntentOp, MASKED_TOKEN};
use crate::lag::Consistency;
use crate::open_intent::OpenIntent;
use crate::park_timer::Moment;
use crate::plan::outcome::{AttemptOutcome, Obstacle, RetryPlan};
use crate::plan::{comparison, read_back};
use crate::remote::PushedCustomer;
use crate::remote::error::ApiError;
use crate::{ChangeKind, Customer, CustomerId, MirrorRow, Unreadable, time};

/// The facts for settling an attempt, besides its outcome.
#[derive(Clone, Copy, Debug)]
pub struct SettleFacts<'a> {
    /// The intent.
    pub open: &'a OpenIntent,
    /// The current time.
    pub now: &'a Moment,
    /// How long after its first attempt an intent parks.
    pub park_after: SignedDuration,
    /// How long the API's reads may lag behind its writes.
    pub consistency: Consistency,
    /// The customer of the outcome ([`customer_of`]).
    pub customer: Option<&'a CustomerId>,
    /// The mirror's row of that customer, live or deleted.
    pub mirrored: Option<&'a MirrorRow>,
    /// Whether the mirror or the log ever had that customer. It is used only for a delete that was
    /// answered with `not_found`.
    pub was_known: bool,
}

/// What settling an attempt writes.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The new state, outcome and number of attempts.
    pub life: Lifecycle,
    /// The other columns of the intent.
    pub update: IntentUpdate,
    /// The end of the attempt; `None` if there was no attempt.
    pub attempt: Option<AttemptEnd>,
    /// The change to record in the log.
    pub change: Option<CustomerChange>,
    /// The customer to request again, and when.
    pub recheck: Option<Recheck>,
    /// A customer that the answer showed in unreadable form, and the masked reason.
    pub unreadable: Option<(Unreadable, String)>,
    /// Whether the API refused the key.
    pub is_key_refused: bool,
    /// The time until which the API asks to wait.
    pub throttled_until: Option<Timestamp>,
    /// Whether the customer of an update does not exist, so that a pass should check.
    pub is_customer_missing: bool,
}

/// The columns of an intent besides its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IntentUpdate {
    /// When the next attempt is due; `None`: at once.
    pub next_attempt_at: Option<String>,
    /// The same as milliseconds from now.
    pub wait_ms: Option<i64>,
    /// When the intent was settled.
    pub settled_at: Option<String>,
    /// The customer that the intent created or changed.
    pub result_customer_id: Option<String>,
    /// The log entry that shows the intent's effect. A settlement that records a change replaces
    /// it.
    pub change_seq: Option<i64>,
    /// The reason for the state.
    pub reason: Option<String>,
    /// Details, as JSON.
    pub detail: Option<Value>,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptEnd {
    /// The HTTP status.
    pub status: Option<u16>,
    /// The error, masked.
    pub error: Option<String>,
}

/// A customer to request again by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// Which customer.
    pub customer: CustomerId,
    /// The time from which a read shows the effect.
    pub at: Timestamp,
}

/// A change of one customer, for the log.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerChange {
    /// The customer was created, updated or restored.
    Put(ChangeKind, Customer),
    /// The customer was deleted.
    Deleted(CustomerId),
}

impl Settlement {
    fn new(life: Lifecycle, update: IntentUpdate, attempt: Option<AttemptEnd>, now: Timestamp) -> Self {
        let settled_at = life.state.is_settled().then(|| time::written(now));
        Self {
            life,
            update: IntentUpdate { settled_at, ..update },
            attempt,
            change: None,
            recheck: None,
            unreadable: None,
            is_key_refused: false,
            throttled_until: None,
            is_customer_missing: false,
        }
    }
}

impl fmt::Display for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntentUpdate { next_attempt_at, reason, .. } = &self.update;
        write!(f, "{}", self.life.state)?;
        if let Some(at) = next_attempt_at {
            write!(f, " until {at}")?;
        }
        if let Some(reason) = reason {
            write!(f, ": {reason}")?;
        }
        match &self.change {
            Some(CustomerChange::Put(kind, customer)) => write!(f, "; record {} {kind}", customer.id())?,
            Some(CustomerChange::Deleted(id)) => write!(f, "; record {id} deleted")?,
            None => {}
        }
        match &self.recheck {
            Some(Recheck { customer, at }) => write!(f, "; request {customer} again at {at:.0}"),
            None => Ok(()),
        }
    }
}

/// Returns the customer of an outcome.
pub fn customer_of(open: &OpenIntent, outcome: &AttemptOutcome) -> Option<CustomerId> {
    let shown = match outcome {
        AttemptOutcome::TookEffect { customer: PushedCustomer::Shown(customer), .. } => {
            Some(customer.id().clone())
        }
        AttemptOutcome::TookEffect { customer: PushedCustomer::Unreadable(bad), .. } => bad.id.clone(),
        _ => None,
    };
    open.customer.clone().or(shown)
}

/// Plans what the outcome of an attempt writes.
///
/// # Errors
/// The intent is not sending.
pub fn settle(facts: SettleFacts<'_>, outcome: AttemptOutcome) -> Result<Settlement, IllegalTransition> {
    match outcome {
        AttemptOutcome::TookEffect { customer, status } => took_effect(facts, customer, status),
        AttemptOutcome::NotFound(api_error) if is_delete_done(facts) => {
            took_effect(facts, PushedCustomer::None, Some(api_error.status))
        }
        AttemptOutcome::NotFound(api_error) if facts.open.is_delete() => {
            let why = format!("{api_error}; the mirror never had a customer with this id: check the id");
            rejected(facts, api_error, why)
        }
        AttemptOutcome::Rejected(api_error) | AttemptOutcome::NotFound(api_error) => {
            let why = api_error.to_string();
            rejected(facts, api_error, why)
        }
        AttemptOutcome::Retry(later) => waits(facts, later),
        AttemptOutcome::Park { reason, detail } => {
            let reason = Some(masked(facts.open, reason));
            let update = IntentUpdate { reason, detail, ..IntentUpdate::default() };
            let life = facts.open.life.park()?;
            Ok(Settlement::new(life, update, Some(AttemptEnd::default()), facts.now.wall))
        }
    }
}

/// Whether a delete of a missing customer is done: the mirror once had the customer, or an earlier
/// attempt may have deleted it. Any other id is the submitter's mistake.
fn is_delete_done(facts: SettleFacts<'_>) -> bool {
    let open = facts.open;
    open.is_delete() && open.customer.is_some() && (open.may_have_taken_effect() || facts.was_known)
}

/// Masks the token, because an answer of the API may repeat it.
fn masked(open: &OpenIntent, text: String) -> String {
    match open.token().filter(|token| !token.is_empty()) {
        Some(token) => text.replace(token, MASKED_TOKEN),
        None => text,
    }
}

fn took_effect(
    facts: SettleFacts<'_>,
    customer: PushedCustomer,
    status: Option<u16>,
) -> Result<Settlement, IllegalTransition> {
    let open = facts.open;
    let (shown, unreadable) = match customer {
        PushedCustomer::Shown(customer) => (Some(customer), None),
        PushedCustomer::Unreadable(bad) => (None, Some(bad)),
        PushedCustomer::None => (None, None),
    };
    let update = IntentUpdate {
        result_customer_id: facts.customer.map(|id| id.as_str().to_owned()),
        change_seq: facts.mirrored.map(|row| row.seq),
        reason: already_deleted(open, status).map(str::to_owned),
        detail: shown.as_ref().and_then(|shown| missing_fields(open, shown)),
        ..IntentUpdate::default()
    };
    let is_answered_create = open.is_create() && status.is_some();
    let shows_none = shown.is_none() && !open.is_delete() && status.is_some();
    // If the mirror already had the customer, a create's answer may be older than the mirror. So
    // the customer is requested again.
    let rechecked = facts.customer.filter(|_| shows_none || (is_answered_create && facts.mirrored.is_some()));
    let attempt = Some(AttemptEnd { status, error: None });
    Ok(Settlement {
        change: change(facts, shown, is_answered_create),
        recheck: rechecked.map(|customer| Recheck {
            customer: customer.clone(),
            at: facts.consistency.after(facts.now.wall),
        }),
        unreadable: unreadable.filter(|_| !open.is_delete()).map(|bad| {
            let reason = masked(open, bad.reason.to_string());
            (bad, reason)
        }),
        ..Settlement::new(open.life.take_effect()?, update, attempt, facts.now.wall)
    })
}

fn already_deleted(open: &OpenIntent, status: Option<u16>) -> Option<&'static str> {
    if !open.is_delete() || status != Some(404) {
        None
    } else if open.may_have_taken_effect() {
        Some(
            "the customer did not exist at the retry: an attempt whose answer was lost deleted it, or another program did",
        )
    } else {
        Some("the customer was already deleted at KOMOJU")
    }
}

/// Returns the requested values that the answer to an update does not show.
fn missing_fields(open: &OpenIntent, shown: &Customer) -> Option<Value> {
    let Some(IntentOp::Update(_, body)) = open.op() else { return None };
    let missing = read_back::not_applied(body, shown.fields());
    (!missing.is_empty()).then(|| json!({"not_applied": missing}))
}

fn change(
    facts: SettleFacts<'_>,
    shown: Option<Customer>,
    is_answered_create: bool,
) -> Option<CustomerChange> {
    let id = facts.customer?;
    if facts.open.is_delete() {
        return facts.mirrored?.is_live().then(|| CustomerChange::Deleted(id.clone()));
    }
    let shown = match facts.mirrored {
        Some(mirrored) if is_answered_create => with_new_source(&shown?, mirrored)?,
        _ => shown?,
    };
    let (kind, after) = comparison::compare(shown, facts.mirrored).change?;
    Some(CustomerChange::Put(kind, after))
}

/// A create that is sent again under its key is answered with the customer as it was created. So a
/// mirror that already has the customer is newer, except for a source, which the list may hide.
fn with_new_source(shown: &Customer, mirrored: &MirrorRow) -> Option<Customer> {
    let known = Customer::from_body(mirrored.body.as_deref()?).ok()?;
    let source = shown.source().cloned()?;
    (mirrored.is_live() && known.source().is_none()).then(|| known.with("source", Some(source)))
}

fn rejected(
    facts: SettleFacts<'_>,
    api_error: ApiError,
    why: String,
) -> Result<Settlement, IllegalTransition> {
    let open = facts.open;
    let ApiError { status, code, message, param } = api_error;
    let why = masked(open, why);
    let [code, message, param] = [code, message, param].map(|text| text.map(|text| masked(open, text)));
    let update = IntentUpdate {
        reason: Some(why.clone()),
        detail: Some(json!({"status": status, "code": code, "message": message, "param": param})),
        ..IntentUpdate::default()
    };
    let attempt = Some(AttemptEnd { status: Some(status), error: Some(why) });
    Ok(Settlement {
        is_customer_missing: status == 404 && !open.is_delete(),
        ..Settlement::new(open.life.reject()?, update, attempt, facts.now.wall)
    })
}

fn waits(facts: SettleFacts<'_>, later: RetryPlan) -> Result<Settlement, IllegalTransition> {
    let (open, now) = (facts.open, facts.now.wall);
    let why = masked(open, later.why);
    let is_key_refused = later.obstacle == Obstacle::KeyRefused;
    let waiting = open.life.wait(later.outcome)?;
    let (life, update) = if is_expired(facts) && !is_key_refused {
        let hours = facts.park_after.as_hours();
        let reason = format!("no attempt succeeded within {hours} hours; the last: {why}");
        (waiting.park()?, IntentUpdate { reason: Some(reason), ..IntentUpdate::default() })
    } else {
        let update = IntentUpdate {
            next_attempt_at: later.at.map(time::written),
            wait_ms: later.at.map(|at| at.as_millisecond() - now.as_millisecond()),
            reason: Some(why.clone()),
            ..IntentUpdate::default()
        };
        (waiting, update)
    };
    let attempt = Some(AttemptEnd { status: later.status, error: Some(why) });
    let throttled_until = match later.obstacle {
        Obstacle::Throttled { until } => until,
        Obstacle::None | Obstacle::KeyRefused => None,
    };
    Ok(Settlement { is_key_refused, throttled_until, ..Settlement::new(life, update, attempt, now) })
}

fn is_expired(facts: SettleFacts<'_>) -> bool {
    facts
        .open
        .park_timer
        .as_ref()
        .is_some_and(|park_timer| park_timer.is_expired(facts.now, facts.park_after))
}

/// Returns why an intent that is due cannot be sent.
pub fn refusal(open: &OpenIntent) -> Option<String> {
    if let Err(why) = &open.intent {
        return Some(format!("its row cannot be read: {why}; nothing was sent"));
    }
    let can_be_sent = open.is_create() || open.customer.as_ref().is_some_and(CustomerId::can_be_requested);
    (!can_be_sent).then(|| "the id of its customer cannot be requested; nothing was sent".to_owned())
}

/// Plans the end of an intent that cannot be sent. It is rejected, so that it does not block later
/// intents of its customer. If an earlier attempt may have taken effect, it is parked without an
/// attempt.
///
/// # Errors
/// The intent is neither queued nor waiting.
pub fn refuse(open: &OpenIntent, reason: String, now: Timestamp) -> Result<Settlement, IllegalTransition> {
    let update = IntentUpdate { reason: Some(reason.clone()), ..IntentUpdate::default() };
    if open.may_have_taken_effect() {
        return Ok(Settlement::new(open.life.park()?, update, None, now));
    }
    let attempt = Some(AttemptEnd { status: None, error: Some(reason) });
    Ok(Settlement::new(open.life.claim()?.reject()?, update, attempt, now))
}

#[cfg(test)]
mod tests;
