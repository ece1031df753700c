//! An open intent as the outbox holds it: the input of every decision about its attempts.

use jiff::Timestamp;

use crate::intent::lifecycle::{Lifecycle, OutcomeStatus};
use crate::intent::{Intent, IntentBody, IntentOp};
use crate::park_timer::ParkTimer;
use crate::plan::creates;
use crate::remote::PushRequest;
use crate::{CustomerId, time};

/// An open intent, ready to be attempted.
#[derive(Clone, Debug)]
pub struct OpenIntent {
    /// Its place in the order of acceptance.
    pub position: i64,
    /// Its id.
    pub id: String,
    /// Its wish and expectation, or why another program's change made its row unreadable.
    pub intent: Result<Intent, String>,
    /// Its state, outcome and number of attempts.
    pub life: Lifecycle,
    /// The customer that it changes; `None` for a create, and until the create that it waits for is
    /// done.
    pub customer: Option<CustomerId>,
    /// What its first attempt fixed.
    pub frozen: FrozenRequest,
    /// The time from which `park_after_h` counts.
    pub park_timer: Option<ParkTimer>,
    /// Whether an attempt with this key was answered with a 5xx.
    pub met_server_error: bool,
    /// When the last attempt before this one ended, or began where its end is not known.
    pub last_attempt_at: Option<Timestamp>,
}

/// What an intent's first attempt fixes for later attempts. It is committed before a byte is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrozenRequest {
    /// A create's idempotency key.
    pub key: Option<String>,
    /// The metadata key under which a create carries the intent's id.
    pub tag: Option<String>,
    /// An update with a token: the customer's body before it, as the mirror had it.
    pub base: Option<String>,
    /// When the first attempt with this key began, by the wall clock. Kept as text: an unreadable
    /// time must not look like none.
    pub first_attempt_at: Option<String>,
    /// The boot in which it began, and the milliseconds since the start of that boot.
    pub first_boot: Option<(String, i64)>,
    /// When it began, by the server's clock.
    pub first_server_at: Option<String>,
}

impl OpenIntent {
    /// The wish, where the row can be read.
    pub fn op(&self) -> Option<&IntentOp> {
        self.intent.as_ref().ok().map(|intent| &intent.op)
    }

    /// Whether this is a create.
    pub fn is_create(&self) -> bool {
        matches!(self.op(), Some(IntentOp::Create(_)))
    }

    /// Whether this is a delete.
    pub fn is_delete(&self) -> bool {
        matches!(self.op(), Some(IntentOp::Delete(_)))
    }

    /// The payment token that it sends.
    pub fn token(&self) -> Option<&str> {
        match self.op()? {
            IntentOp::Create(body) | IntentOp::Update(_, body) => body.token(),
            IntentOp::Delete(_) => None,
        }
    }

    /// Whether an earlier attempt may have taken effect.
    pub fn may_have_taken_effect(&self) -> bool {
        self.life.outcome == OutcomeStatus::Unknown
    }

    /// The intent in a few words, such as `update of c1`.
    pub fn summary(&self) -> String {
        match (self.op().map(IntentOp::name), &self.customer) {
            (Some("create"), _) => "create".to_owned(),
            (Some(op), Some(customer)) => format!("{op} of {customer}"),
            (Some(op), None) => op.to_owned(),
            (None, _) => "intent".to_owned(),
        }
    }

    /// The call that performs the intent; `None` while its customer or its key is missing.
    pub fn push(&self) -> Option<PushRequest> {
        match self.op()? {
            IntentOp::Create(body) => {
                Some(PushRequest::Create { key: self.frozen.key.clone()?, body: self.as_sent(body) })
            }
            IntentOp::Update(_, body) => {
                Some(PushRequest::Update { id: self.customer.clone()?, body: body.clone() })
            }
            IntentOp::Delete(_) => Some(PushRequest::Delete { id: self.customer.clone()? }),
        }
    }

    /// A create's parameters as they are sent: with the intent's id under its tag, where it has
    /// one.
    pub fn as_sent(&self, body: &IntentBody) -> IntentBody {
        match &self.frozen.tag {
            Some(tag) => body.clone().with_metadata(tag, &self.id),
            None => body.clone(),
        }
    }

    /// The earliest time at which a create with this key can have created its customer; `None`
    /// where the server's time of the first attempt is not known.
    pub fn window_from(&self) -> Option<Timestamp> {
        let read = |at: &Option<String>| at.as_deref().and_then(time::read);
        let server = read(&self.frozen.first_server_at)?;
        Some(creates::window_from(read(&self.frozen.first_attempt_at), server))
    }
}
