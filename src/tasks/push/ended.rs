//! The outcome of an attempt at an intent, and what the steps of an attempt share.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::remote::PushedCustomer;
use crate::remote::error::ApiError;
use crate::store::StoreError;
use crate::store::outbox::engine::Open;
use komoju_core::intent::Body;
use komoju_core::intent::lifecycle::{IllegalTransition, Lifecycle, Outcome};
use komoju_core::patience::Moment;
use komoju_core::{Tally, time};

/// What one attempt came to.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// Done: the customer as it is now, or none where it is gone or nothing is known of it.
    TookEffect { customer: PushedCustomer, status: Option<u16> },
    /// The API said no for good.
    Rejected(ApiError),
    /// The API has no such customer. For a delete that may be what was wanted.
    NotFound(ApiError),
    /// Later again; at once where no moment is given.
    Later { why: String, status: Option<u16>, outcome: Outcome, at: Option<Timestamp>, obstacle: Obstacle },
    /// A person decides.
    Park { reason: String, detail: Option<Value> },
}

/// What stands in everybody's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    None,
    KeyRefused,
    Throttled { until: Option<Timestamp> },
}

/// Whether the create may be sent again under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyIs {
    /// Yes: under the same key it is the same create. But the answer that nobody heard may have been a 5xx, which KOMOJU may keep or
    /// not: so it is not sent where its customer is plain to see.
    Good,
    /// Yes, if it is proven not to have taken effect.
    Doubtful,
    /// No: KOMOJU may have forgotten it.
    Past,
}

/// Where an intent is after an attempt, for whoever is told.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) position: i64,
    pub(super) id: String,
    /// The call in words, as in `update of c1`.
    pub(super) what: String,
    pub(super) life: Lifecycle,
    pub(super) reason: Option<String>,
    pub(super) key_refused: bool,
    /// The customer that it meant to change is not there.
    pub(super) not_found: bool,
    /// What it recorded in the change log.
    pub(super) recorded: Tally,
}

impl Settled {
    /// One of which no byte was sent.
    pub(super) fn not_sent(open: &Open, life: Lifecycle, reason: String) -> Self {
        Self {
            position: open.position,
            id: open.id.clone(),
            what: in_words(open),
            life,
            reason: Some(reason),
            key_refused: false,
            not_found: false,
            recorded: Tally::default(),
        }
    }
}

pub(super) fn legal<T>(next: Result<T, IllegalTransition>) -> Result<T, StoreError> {
    next.map_err(|illegal| StoreError::Impossible(illegal.to_string()))
}

/// Now, by all clocks.
pub(super) fn moment(clock: &dyn Clock) -> Moment {
    Moment { wall: clock.now(), boot: clock.boot(), is_confirmed: clock.may_expire() }
}

/// When the first attempt with this key began, by our clock and by the server's, where the server told the time.
pub(super) fn first_attempt(open: &Open) -> Option<(Option<Timestamp>, Timestamp)> {
    let read = |at: &Option<String>| at.as_deref().and_then(time::read);
    Some((read(&open.frozen.first_attempt_at), read(&open.frozen.first_server_at)?))
}

/// What an update asked for and the customer does not show.
pub(super) fn not_applied(body: &Body, after: &Map<String, Value>) -> Map<String, Value> {
    let null = Value::Null;
    let mut missing = Map::new();
    if let Some(email) =
        body.fields().get("email").filter(|email| after.get("email").unwrap_or(&null) != *email)
    {
        missing.insert("email".to_owned(), email.clone());
    }
    let theirs = after.get("metadata").and_then(Value::as_object);
    for (key, value) in body.fields().get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if theirs.and_then(|theirs| theirs.get(key)).unwrap_or(&null) != value {
            missing.insert(format!("metadata.{key}"), value.clone());
        }
    }
    missing
}

pub(super) fn in_words(open: &Open) -> String {
    match (open.intent.as_ref().map(|intent| intent.wish.op()), &open.customer) {
        (Ok("create"), _) => "create".to_owned(),
        (Ok(op), Some(customer)) => format!("{op} of {customer}"),
        (Ok(op), None) => op.to_owned(),
        (Err(_), _) => "intent".to_owned(),
    }
}
