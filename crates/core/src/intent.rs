//! Intents: changes to make at the remote, as submitted through a door (SQL, file or command line).
//!
//! A door checks only the form. Fields are known and have the right types, and metadata is within
//! KOMOJU's length limits. An id can be a URL segment, and a token is a string. The API decides
//! whether an email is valid. A refusal names the field and the rule. It never repeats a value,
//! because the value may be a card number.
//!
//! [`lifecycle`] has the states of an intent.

mod body;
mod card;
mod expect;
pub mod lifecycle;
mod rule;
mod schema;
pub mod text;

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::customer::CustomerId;
use super::time;

pub use body::IntentBody;
pub use expect::{Expect, Mismatch};
pub use rule::{BadIntent, Rule};

/// KOMOJU's limit on a metadata key, in characters.
pub const LONGEST_METADATA_KEY: usize = 30;

/// KOMOJU's limit on a metadata value, in characters.
pub const LONGEST_METADATA_VALUE: usize = 2000;

/// Replaces a payment token once its intent is settled.
pub const MASKED_TOKEN: &str = "****";

/// The parameters of create and update that KOMOJU accepts.
const BODY_FIELDS: [&str; 4] = ["currency", "email", "metadata", "payment_details"];

/// The fields that `expect` may name.
const EXPECT_FIELDS: [&str; 4] = ["email", "locale", "metadata", "source"];

/// The format of a time in an intent: RFC 3339 with capital `T` and `Z`, at most nanoseconds, and a
/// valid offset.
const TIME_PATTERN: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$";

/// An intent's id, chosen by its submitter: any text of 1 to 255 bytes without control characters
/// that does not begin with `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(String);

impl IntentId {
    /// The maximum length of an id, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks a text as an id.
    ///
    /// # Errors
    /// The text breaks [`Rule::Id`].
    pub fn new(text: impl Into<String>) -> Result<Self, BadIntent> {
        let text = text.into();
        let fine = (1..=Self::MAX_BYTES).contains(&text.len())
            && !text.starts_with('@')
            && !text.contains(char::is_control);
        match fine {
            true => Ok(Self(text)),
            false => Err(BadIntent::at("id", Rule::Id)),
        }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The operation of an intent, with its customer and parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum IntentOp {
    /// Create a customer with these parameters.
    Create(IntentBody),
    /// Set these parameters of a customer. Parameters that are not named stay unchanged.
    Update(Target, IntentBody),
    /// Delete a customer.
    Delete(Target),
}

impl IntentOp {
    /// Returns the name that SQL, files and messages use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(..) => "update",
            Self::Delete(_) => "delete",
        }
    }
}

/// The customer that an intent changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The customer with this id.
    Customer(CustomerId),
    /// The customer that this intent creates, written as `@ID`.
    CreatedBy(IntentId),
}

impl Target {
    fn new(text: &str) -> Result<Self, BadIntent> {
        if let Some(intent) = text.strip_prefix('@') {
            let intent = IntentId::new(intent).map_err(|_| BadIntent::at("customer_id", Rule::Reference))?;
            return Ok(Self::CreatedBy(intent));
        }
        let id = CustomerId::new(text).ok().filter(CustomerId::can_be_requested);
        // A list, an editor or a URL may have added such a character. With it, the text is the id
        // of another customer or of none.
        id.filter(|id| !id.as_str().contains(is_refused_in_id))
            .map(Self::Customer)
            .ok_or_else(|| BadIntent::at("customer_id", Rule::CustomerId))
    }

    /// Returns the text as submitted and stored, character for character. `Display` escapes it.
    pub fn text(&self) -> String {
        match self {
            Self::Customer(id) => id.as_str().to_owned(),
            Self::CreatedBy(intent) => format!("@{intent}"),
        }
    }
}

/// Whether a door refuses this character in a customer's id.
fn is_refused_in_id(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#')
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Customer(id) => id.fmt(f),
            Self::CreatedBy(intent) => write!(f, "@{intent}"),
        }
    }
}

/// An intent as submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The id that the submitter chose.
    pub id: Option<IntentId>,
    /// The operation.
    pub op: IntentOp,
    /// What the submitter last saw of the customer.
    pub expect: Option<Expect>,
    /// The earliest time at which the intent is sent.
    pub not_before: Option<Timestamp>,
}

impl Intent {
    /// Parses an intent from JSON text with the fields `op`, `customer_id`, `body`, `id`, `expect`
    /// and `not_before`.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BadIntent> {
        Self::from_bytes(text.as_bytes())
    }

    /// Parses an intent from the bytes of a file or of a line.
    ///
    /// # Errors
    /// The first rule that the bytes break; they may not even be text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadIntent> {
        let intent = Self::stored(bytes)?;
        match &intent.op {
            IntentOp::Create(body) if body.0.is_empty() => Err(BadIntent::at("body", Rule::EmptyCreate)),
            _ => Ok(intent),
        }
    }

    /// Parses an intent that was accepted before. Earlier versions accepted a create without
    /// parameters. Such a row must not look like one that another program changed.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn stored(bytes: &[u8]) -> Result<Self, BadIntent> {
        match text::parse(bytes) {
            Ok(Value::Object(fields)) => Self::from_fields(fields),
            Ok(_) => Err(BadIntent::at("the intent", Rule::Object)),
            Err(fault) => Err(BadIntent::at("the intent", Rule::Json(fault))),
        }
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Self, BadIntent> {
        const FIELDS: [&str; 6] = ["body", "customer_id", "expect", "id", "not_before", "op"];
        check_known("", &fields, &FIELDS)?;
        let mut text = |name: &'static str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(BadIntent::at(name, Rule::Text)),
        };
        let (op, id, target, not_before) =
            (text("op")?, text("id")?, text("customer_id")?, text("not_before")?);
        let mut object = |name: &str| fields.remove(name).filter(|value| !value.is_null());
        let (body, expect) = (object("body"), object("expect"));
        let target = target.as_deref().map(Target::new).transpose()?;
        let body = body.map(IntentBody::new).transpose()?;
        let op = match (op.as_deref(), target, body) {
            (Some("create"), None, body) => IntentOp::Create(body.unwrap_or_else(|| IntentBody(Map::new()))),
            (Some("create"), Some(_), _) => return Err(BadIntent::at("customer_id", Rule::NotWithCreate)),
            (Some("update"), Some(target), Some(body)) if !body.0.is_empty() => {
                IntentOp::Update(target, body)
            }
            (Some("update"), Some(_), _) => return Err(BadIntent::at("body", Rule::EmptyUpdate)),
            (Some("delete"), Some(target), None) => IntentOp::Delete(target),
            (Some("delete"), Some(_), Some(_)) => return Err(BadIntent::at("body", Rule::NotWithDelete)),
            (Some("update" | "delete"), None, _) => return Err(BadIntent::at("customer_id", Rule::Missing)),
            _ => return Err(BadIntent::at("op", Rule::Op)),
        };
        let expect = expect.map(Expect::new).transpose()?;
        if expect.is_some() && matches!(op, IntentOp::Create(_)) {
            return Err(BadIntent::at("expect", Rule::NotWithCreate));
        }
        let moment = |text: String| {
            let read = if has_time_format(&text) { time::read(&text) } else { None };
            read.ok_or_else(|| BadIntent::at("not_before", Rule::Time))
        };
        Ok(Self {
            id: id.map(IntentId::new).transpose()?,
            op,
            expect,
            not_before: not_before.map(moment).transpose()?,
        })
    }
}

/// Whether a text matches [`TIME_PATTERN`]. The pattern accepts less than the time parser, so that
/// SQL can check the same rule.
fn has_time_format(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let shaped = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                like => byte == like,
            })
    };
    let Some((moment, rest)) = text.split_at_checked(19) else { return false };
    let (fraction, offset) = match rest.strip_suffix('Z') {
        Some(fraction) => (fraction, "+00:00"),
        None => match rest.len().checked_sub(6).and_then(|at| rest.split_at_checked(at)) {
            Some(parts) => parts,
            None => return false,
        },
    };
    shaped(moment, "0000-00-00T00:00:00")
        && moment[11..13] <= *"23"
        && moment[17..] <= *"59"
        && (fraction.is_empty()
            || fraction
                .strip_prefix('.')
                .is_some_and(|places| (1..=9).contains(&places.len()) && digits(places)))
        && offset
            .strip_prefix(['+', '-'])
            .is_some_and(|offset| shaped(offset, "00:00") && offset[..2] <= *"14" && offset[3..] <= *"59")
}

fn check_known(
    within: &str,
    fields: &Map<String, Value>,
    known: &'static [&'static str],
) -> Result<(), BadIntent> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => {
            let unknown: String = unknown.escape_debug().take(40).collect();
            let field = if within.is_empty() { unknown } else { format!("{within}.{unknown}") };
            Err(BadIntent::at(field, Rule::Known(known)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
