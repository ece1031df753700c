//! An open intent, as the outbox stores it: the input of every decision about its attempts.

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
    /// Its number in the order of acceptance.
    pub position: i64,
    /// Its id.
    pub id: String,
    /// Its content, or why the row is unreadable after another program changed it.
    pub intent: Result<Intent, String>,
    /// Its state, outcome and number of attempts.
    pub life: Lifecycle,
    /// The customer that it changes; `None` for a create, and for a follower of a create that is
    /// not done yet.
    pub customer: Option<CustomerId>,
    /// The values that its first attempt fixed.
    pub frozen: FrozenRequest,
    /// The time from which `park_after_h` counts; `None` before the first attempt.
    pub park_timer: Option<ParkTimer>,
    /// Whether an attempt with this key was answered with a 5xx.
    pub met_server_error: bool,
    /// When the previous attempt ended, or when it began if its end is not known.
    pub last_attempt_at: Option<Timestamp>,
}

/// The values that an intent's first attempt fixes for later attempts. They are committed before a
/// byte is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrozenRequest {
    /// The idempotency key of a create.
    pub key: Option<String>,
    /// The metadata key under which a create carries the intent's id.
    pub tag: Option<String>,
    /// For an update with a token: the customer's body in the mirror before the update.
    pub base: Option<String>,
    /// When the first attempt with this key began, by the wall clock. It is kept as text, because
    /// an unreadable time must not look like a missing one.
    pub first_attempt_at: Option<String>,
    /// The id of the boot in which that attempt began, and the milliseconds since the start of that
    /// boot.
    pub first_boot: Option<(String, i64)>,
    /// When that attempt began, by the server's clock.
    pub first_server_at: Option<String>,
}

impl OpenIntent {
    /// Returns the operation, if the row is readable.
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

    /// Returns the payment token that the intent sends.
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

    /// Returns a short description, such as `update of c1`.
    pub fn summary(&self) -> String {
        match (self.op().map(IntentOp::name), &self.customer) {
            (Some("create"), _) => "create".to_owned(),
            (Some(op), Some(customer)) => format!("{op} of {customer}"),
            (Some(op), None) => op.to_owned(),
            (None, _) => "intent".to_owned(),
        }
    }

    /// Returns the request that performs the intent; `None` while its customer or its key is
    /// missing.
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

    /// Returns a create's parameters as sent, with the intent's id under its tag, if it has a tag.
    pub fn as_sent(&self, body: &IntentBody) -> IntentBody {
        match &self.frozen.tag {
            Some(tag) => body.clone().with_metadata(tag, &self.id),
            None => body.clone(),
        }
    }

    /// Returns the earliest time at which a create with this key can have created its customer.
    /// Returns `None` if the server's time of the first attempt is not known.
    pub fn window_from(&self) -> Option<Timestamp> {
        let read = |at: &Option<String>| at.as_deref().and_then(time::read);
        let server = read(&self.frozen.first_server_at)?;
        Some(creates::window_from(read(&self.frozen.first_attempt_at), server))
    }
}
