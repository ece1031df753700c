//! The rules that a door checks. Their messages name the field and never repeat a value.

use std::fmt;

use super::text::TextFault;
use super::{BODY_FIELDS, IntentId, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE};
use crate::CustomerId;

/// Why a door refuses an intent: the field, and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct BadIntent {
    /// The name of the field, such as `body.metadata.order_id`.
    pub field: String,
    /// The broken rule.
    pub rule: Rule,
}

impl BadIntent {
    pub(super) fn at(field: impl Into<String>, rule: Rule) -> Self {
        Self { field: field.into(), rule }
    }
}

/// A rule that a door checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Must be bytes that are JSON in UTF-8.
    Json(TextFault),
    /// Must be a JSON object.
    Object,
    /// Must be a string.
    Text,
    /// Must be a string or null.
    TextOrNull,
    /// Must be one of these fields.
    Known(&'static [&'static str]),
    /// Must be one of the three operations.
    Op,
    /// Must be a valid intent id.
    Id,
    /// Must be `@` and a valid intent id.
    Reference,
    /// Must be a customer id that can be one segment of a URL path.
    CustomerId,
    /// Must be present.
    Missing,
    /// Must not be given with a create.
    NotWithCreate,
    /// Must not be given with a delete.
    NotWithDelete,
    /// A create must have at least one parameter.
    EmptyCreate,
    /// An update must have at least one parameter.
    EmptyUpdate,
    /// Must be a payment token, never a card.
    Card,
    /// A metadata key must not be longer than [`LONGEST_METADATA_KEY`].
    LongKey,
    /// A metadata value must not be longer than [`LONGEST_METADATA_VALUE`].
    LongValue,
    /// Must be a time.
    Time,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(fault) => fault.fmt(f),
            Self::Object => f.write_str("must be a JSON object"),
            Self::Text => f.write_str("must be a text"),
            Self::TextOrNull => f.write_str("must be a text or null"),
            Self::Known(known) => write!(f, "is not known here; known are {}", known.join(", ")),
            Self::Op => f.write_str("must be create, update or delete"),
            Self::Id => write!(
                f,
                "must have 1 to {} bytes, no control characters, and not begin with @",
                IntentId::MAX_BYTES
            ),
            Self::Reference => f.write_str("must be @ and the id of the intent that creates the customer"),
            Self::CustomerId => write!(
                f,
                "must have 1 to {} bytes without white space, control characters, /, \\, %, ? and #, and be neither \".\" nor \"..\"",
                CustomerId::MAX_BYTES
            ),
            Self::Missing => f.write_str("must be given"),
            Self::NotWithCreate => f.write_str("cannot be given with a create"),
            Self::NotWithDelete => f.write_str("cannot be given with a delete"),
            Self::EmptyCreate => {
                write!(f, "a create needs at least one parameter: {}", BODY_FIELDS.join(", "))
            }
            Self::EmptyUpdate => f.write_str("an update must change something"),
            Self::Card => f.write_str(
                "must be a payment token, a text that begins with tok_; card numbers never enter this system",
            ),
            Self::LongKey => write!(f, "a key has more than {LONGEST_METADATA_KEY} characters"),
            Self::LongValue => write!(f, "has more than {LONGEST_METADATA_VALUE} characters"),
            Self::Time => f.write_str("must be a time such as 2026-01-31T09:30:00Z"),
        }
    }
}
