//! Intents: what somebody wants changed at the remote, as it comes in by any door.
//!
//! A door judges form and nothing else: known fields of the right types, metadata within KOMOJU's lengths, an id that can travel, a
//! token that is a text. Whether an email is valid, the API says. What is refused names the field and the rule, and never repeats
//! a value: it may be a card number.
//!
//! What becomes of an intent is [`lifecycle`].

mod card;
pub mod lifecycle;
mod rule;
mod schema;
pub mod text;

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use rule::{BadIntent, Rule};

use super::customer::CustomerId;

use super::time;

/// KOMOJU's limit on a metadata key, in characters.
pub const LONGEST_METADATA_KEY: usize = 30;

/// KOMOJU's limit on a metadata value, in characters.
pub const LONGEST_METADATA_VALUE: usize = 2000;

/// What stands where a payment token stood, once its intent is settled.
pub const MASKED_TOKEN: &str = "****";

/// The parameters of create and update that KOMOJU takes.
const BODY_FIELDS: [&str; 4] = ["currency", "email", "metadata", "payment_details"];

/// What a dropper may say that it last saw.
const EXPECT_FIELDS: [&str; 4] = ["email", "locale", "metadata", "source"];

/// How a moment is written in an intent: RFC 3339 with `T` and `Z` in capitals, to the nanosecond at most, and offsets as there are.
const TIME_PATTERN: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$";

/// An intent's id, chosen by whoever drops it: any text of 1 to 255 bytes without control characters, not beginning with `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(String);

impl IntentId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Takes a text as an id.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wanted, and of whom.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// A new customer with these parameters.
    Create(Body),
    /// Other values for these parameters; what is not named stays.
    Update(Target, Body),
    /// The customer's end.
    Delete(Target),
}

impl Wish {
    /// The word in SQL, files and messages.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(..) => "update",
            Self::Delete(_) => "delete",
        }
    }
}

/// Whose customer it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Customer(CustomerId),
    /// The one that this intent creates, written `@ID`.
    CreatedBy(IntentId),
}

impl Target {
    fn new(text: &str) -> Result<Self, BadIntent> {
        if let Some(intent) = text.strip_prefix('@') {
            let intent = IntentId::new(intent).map_err(|_| BadIntent::at("customer_id", Rule::Reference))?;
            return Ok(Self::CreatedBy(intent));
        }
        let id = CustomerId::new(text).ok().filter(CustomerId::can_be_asked);
        // Nothing that a list, an editor or a URL may have added to it: with such a character it is another customer's id, or none.
        id.filter(|id| !id.as_str().contains(is_refused_in_an_id))
            .map(Self::Customer)
            .ok_or_else(|| BadIntent::at("customer_id", Rule::CustomerId))
    }

    /// As it is dropped and stored, character for character; `Display` is for people.
    pub fn text(&self) -> String {
        match self {
            Self::Customer(id) => id.as_str().to_owned(),
            Self::CreatedBy(intent) => format!("@{intent}"),
        }
    }
}

/// Whether a door refuses this character in a customer's id.
fn is_refused_in_an_id(c: char) -> bool {
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

/// The parameters of a create or an update. A token in them is never shown by `Debug`.
#[derive(Clone, PartialEq)]
pub struct Body(Map<String, Value>);

impl Body {
    /// Takes a JSON object as parameters.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn new(value: Value) -> Result<Self, BadIntent> {
        let Value::Object(fields) = value else { return Err(BadIntent::at("body", Rule::Object)) };
        known("body", &fields, &BODY_FIELDS)?;
        for (name, value) in &fields {
            let field = format!("body.{name}");
            match name.as_str() {
                "email" if value.is_string() || value.is_null() => {}
                "email" => return Err(BadIntent::at(field, Rule::TextOrNull)),
                "metadata" => check_metadata(&field, value)?,
                "payment_details" if value.is_object() || value.as_str().is_some_and(card::is_number) => {
                    return Err(BadIntent::at(field, Rule::Card));
                }
                _ if value.is_string() => {}
                _ => return Err(BadIntent::at(field, Rule::Text)),
            }
        }
        Ok(Self(fields))
    }

    /// The parameters by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The payment token, if it carries one: used once by KOMOJU, so an attempt with it cannot be repeated blindly.
    pub fn token(&self) -> Option<&str> {
        self.0.get("payment_details").and_then(Value::as_str)
    }

    /// The parameters but for the token.
    pub fn without_token(&self) -> Map<String, Value> {
        let mut fields = self.0.clone();
        fields.remove("payment_details");
        fields
    }

    /// Whether this metadata key is named.
    pub fn has_metadata(&self, key: &str) -> bool {
        self.0.get("metadata").and_then(Value::as_object).is_some_and(|metadata| metadata.contains_key(key))
    }

    /// The same with one more metadata key.
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        let metadata = self.0.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The JSON that is sent.
    pub fn text(&self) -> String {
        // A map of owned values with text keys always serialises.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| match name.as_str() {
            "payment_details" => (name, MASKED_TOKEN.to_owned()),
            _ => (name, value.to_string()),
        });
        f.debug_map().entries(shown).finish()
    }
}

/// What the dropper last saw of the customer; only what is named is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect(Map<String, Value>);

/// A field that is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Surprise {
    /// Which, as in `email` or `metadata.order_id`.
    pub field: String,
    /// What was expected; `null` for absent.
    pub expected: Value,
    /// What is there; `null` for absent.
    pub found: Value,
}

impl Expect {
    /// Takes a JSON object as an expectation.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn new(value: Value) -> Result<Self, BadIntent> {
        let Value::Object(fields) = value else { return Err(BadIntent::at("expect", Rule::Object)) };
        known("expect", &fields, &EXPECT_FIELDS)?;
        match fields.get("metadata") {
            None | Some(Value::Object(_)) => Ok(Self(fields)),
            Some(_) => Err(BadIntent::at("expect.metadata", Rule::Object)),
        }
    }

    /// What is expected, by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The expectation as JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// What is not as expected; in metadata only the named keys count.
    pub fn surprises(&self, theirs: &Map<String, Value>) -> Vec<Surprise> {
        let null = Value::Null;
        let of = |fields: &Map<String, Value>, name: &str| fields.get(name).unwrap_or(&null).clone();
        let mut surprises = Vec::new();
        let mut compare = |field: String, expected: &Value, found: Value| {
            if *expected != found {
                surprises.push(Surprise { field, expected: expected.clone(), found });
            }
        };
        for (name, expected) in &self.0 {
            match expected {
                Value::Object(keys) if name == "metadata" => {
                    let found =
                        theirs.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
                    for (key, expected) in keys {
                        compare(format!("metadata.{key}"), expected, of(&found, key));
                    }
                }
                expected => compare(name.clone(), expected, of(theirs, name)),
            }
        }
        surprises
    }
}

/// An intent as it was dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The id that its dropper chose.
    pub id: Option<IntentId>,
    /// What is wanted.
    pub wish: Wish,
    /// What its dropper last saw.
    pub expect: Option<Expect>,
    /// Nothing is sent before.
    pub not_before: Option<Timestamp>,
}

impl Intent {
    /// Reads an intent from JSON text: `op`, `customer_id`, `body`, `id`, `expect`, `not_before`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadIntent> {
        Self::from_bytes(text.as_bytes())
    }

    /// Reads an intent from the bytes of a file or a line. The first fault may be that the bytes are no text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadIntent> {
        let intent = Self::stored(bytes)?;
        match &intent.wish {
            Wish::Create(body) if body.0.is_empty() => Err(BadIntent::at("body", Rule::EmptyCreate)),
            _ => Ok(intent),
        }
    }

    /// Reads an intent that was accepted before, by its fields. Earlier versions accepted a create without parameters; it must not look
    /// like a row that another program changed.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn stored(bytes: &[u8]) -> Result<Self, BadIntent> {
        match text::parse(bytes) {
            Ok(Value::Object(fields)) => Self::of(fields),
            Ok(_) => Err(BadIntent::at("the intent", Rule::Object)),
            Err(fault) => Err(BadIntent::at("the intent", Rule::Json(fault))),
        }
    }

    fn of(mut fields: Map<String, Value>) -> Result<Self, BadIntent> {
        const FIELDS: [&str; 6] = ["body", "customer_id", "expect", "id", "not_before", "op"];
        known("", &fields, &FIELDS)?;
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
        let body = body.map(Body::new).transpose()?;
        let wish = match (op.as_deref(), target, body) {
            (Some("create"), None, body) => Wish::Create(body.unwrap_or_else(|| Body(Map::new()))),
            (Some("create"), Some(_), _) => return Err(BadIntent::at("customer_id", Rule::NotWithCreate)),
            (Some("update"), Some(target), Some(body)) if !body.0.is_empty() => Wish::Update(target, body),
            (Some("update"), Some(_), _) => return Err(BadIntent::at("body", Rule::EmptyUpdate)),
            (Some("delete"), Some(target), None) => Wish::Delete(target),
            (Some("delete"), Some(_), Some(_)) => return Err(BadIntent::at("body", Rule::NotWithDelete)),
            (Some("update" | "delete"), None, _) => return Err(BadIntent::at("customer_id", Rule::Missing)),
            _ => return Err(BadIntent::at("op", Rule::Op)),
        };
        let expect = expect.map(Expect::new).transpose()?;
        if expect.is_some() && matches!(wish, Wish::Create(_)) {
            return Err(BadIntent::at("expect", Rule::NotWithCreate));
        }
        let moment = |text: String| {
            let read = if is_written_as_a_time(&text) { time::read(&text) } else { None };
            read.ok_or_else(|| BadIntent::at("not_before", Rule::Time))
        };
        Ok(Self {
            id: id.map(IntentId::new).transpose()?,
            wish,
            expect,
            not_before: not_before.map(moment).transpose()?,
        })
    }
}

/// Whether a text is spelled as [`TIME_PATTERN`] says: narrower than what the reader of times takes, so that SQL can judge the same.
fn is_written_as_a_time(text: &str) -> bool {
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

fn known(within: &str, fields: &Map<String, Value>, known: &'static [&'static str]) -> Result<(), BadIntent> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => {
            let unknown: String = unknown.escape_debug().take(40).collect();
            let field = if within.is_empty() { unknown } else { format!("{within}.{unknown}") };
            Err(BadIntent::at(field, Rule::Known(known)))
        }
        None => Ok(()),
    }
}

fn check_metadata(field: &str, value: &Value) -> Result<(), BadIntent> {
    let Value::Object(metadata) = value else { return Err(BadIntent::at(field, Rule::Object)) };
    for (key, value) in metadata {
        if key.chars().count() > LONGEST_METADATA_KEY {
            return Err(BadIntent::at(field, Rule::LongKey));
        }
        let key = format!("{field}.{}", key.escape_debug());
        match value {
            // Whether null takes a key away, the API says.
            Value::Null => {}
            Value::String(text) if text.chars().count() <= LONGEST_METADATA_VALUE => {}
            Value::String(_) => return Err(BadIntent::at(key, Rule::LongValue)),
            _ => return Err(BadIntent::at(key, Rule::TextOrNull)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
