//! A whole customer, as the remote shows it. Unknown fields and the spelling of numbers are kept.
//!
//! The *body* of a customer is its JSON object in canonical form: keys sorted, no white space,
//! numbers digit for digit as received. Two answers have equal content if and only if their bodies
//! are equal, whatever the order of their keys.

use std::fmt;

use serde_json::{Map, Value};

use super::{json, time};

/// LONGEST controls how many bytes of JSON one customer may have. A hundred metadata values of
/// KOMOJU's maximum length (2000 characters) take 2.4 MB if each character is escaped as a
/// surrogate pair.
pub const LONGEST: usize = 4 << 20;

/// MOST_VALUES controls how many JSON values one customer may hold. A parsed value takes up to a
/// hundred bytes, so `[0,0,…]` would take thirty times its length. In a customer of maximum length
/// this allows members of 40 bytes on average.
pub const MOST_VALUES: usize = 100_000;

/// An opaque customer id: any non-empty text up to 1 KiB without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(String);

impl CustomerId {
    /// The maximum length of an id, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks a text as an id.
    pub fn new(text: impl Into<String>) -> Result<Self, BadCustomer> {
        let text = text.into();
        match text.len() {
            0 => Err(BadCustomer::EmptyId),
            n if n > Self::MAX_BYTES => Err(BadCustomer::LongId { bytes: n }),
            _ if text.contains('\0') => Err(BadCustomer::NulInId),
            _ => Ok(Self(text)),
        }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the id can be one segment of a URL path. `.` and `..` cannot, however they are
    /// encoded. No request can be sent for such an id, so nothing can be proven about it.
    pub fn can_be_requested(&self) -> bool {
        !matches!(self.0.as_str(), "." | "..")
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id comes from outside: escape it, so that it cannot send control codes to a terminal.
        fmt::Display::fmt(&self.0.escape_debug(), f)
    }
}

impl fmt::Debug for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One customer, as one answer of the remote shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    id: CustomerId,
    fields: Map<String, Value>,
    body: String,
    created_at: Option<String>,
}

impl Customer {
    /// Checks a JSON value as a customer. It must be an object with an `id`; its `resource`, if
    /// present, must be `customer`. Everything else is kept unchanged, known or not.
    pub fn from_value(value: Value) -> Result<Self, BadCustomer> {
        let Value::Object(fields) = value else { return Err(BadCustomer::NotAnObject) };
        let id = Self::checked_id(fields.get("id"), fields.get("resource"))?;
        Ok(Self::from_fields(id, fields))
    }

    /// Parses a customer from the bytes of an answer.
    pub fn from_text(text: &[u8]) -> Result<Self, BadCustomer> {
        let text = text.trim_ascii();
        check_size(text)?;
        Self::from_value(json::parse(text).map_err(|why| BadCustomer::Unreadable(why.to_string()))?)
    }

    fn from_fields(id: CustomerId, fields: Map<String, Value>) -> Self {
        // A map of owned values with string keys always serializes.
        let body = serde_json::to_string(&fields).unwrap_or_default();
        let created_at = fields.get("created_at").and_then(Value::as_str).and_then(time::read);
        Self { id, created_at: created_at.map(time::written), fields, body }
    }

    /// Checks these members of an object and returns its id.
    pub(super) fn checked_id(
        id: Option<&Value>,
        resource: Option<&Value>,
    ) -> Result<CustomerId, BadCustomer> {
        match resource {
            None => {}
            Some(Value::String(resource)) if resource == "customer" => {}
            Some(_) => return Err(BadCustomer::OtherResource),
        }
        match id {
            Some(Value::String(id)) => CustomerId::new(id.as_str()),
            Some(_) => Err(BadCustomer::IdNotText),
            None => Err(BadCustomer::NoId),
        }
    }

    /// Parses a body that [`Customer::body`] returned.
    pub fn from_body(body: &str) -> Result<Self, BadCustomer> {
        Self::from_value(json::parse(body.as_bytes()).map_err(|_| BadCustomer::NotAnObject)?)
    }

    /// Whether the API marks the customer with `"deleted": true`.
    pub fn is_deleted(&self) -> bool {
        self.fields().get("deleted") == Some(&Value::Bool(true))
    }

    /// Returns the customer's id.
    pub fn id(&self) -> &CustomerId {
        &self.id
    }

    /// Returns all fields by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Returns the whole object in canonical form.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Returns the email, if it is a string.
    pub fn email(&self) -> Option<&str> {
        self.fields.get("email").and_then(Value::as_str)
    }

    /// Returns when the customer was created, in the format of [`time`]; `None` if the field is not
    /// a readable time.
    pub fn created_at(&self) -> Option<&str> {
        self.created_at.as_deref()
    }

    /// Returns the payment source, if the answer shows one. `null` and absent both mean "none, or
    /// not shown".
    pub fn source(&self) -> Option<&Value> {
        self.fields.get("source").filter(|source| !source.is_null())
    }

    /// Returns the same customer with `field` replaced or removed.
    pub fn with(mut self, field: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.fields.insert(field.to_owned(), value),
            None => self.fields.remove(field),
        };
        Self::from_fields(self.id, self.fields)
    }
}

/// Why a JSON value cannot be mirrored as a customer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCustomer {
    /// It is not JSON that can be read.
    #[error("it is not JSON that can be read ({0})")]
    Unreadable(String),
    /// Its text is longer than [`LONGEST`].
    #[error("it has {}more than {} bytes of JSON", known_length(*.bytes), LONGEST)]
    TooLarge {
        /// Its length; `None` if not all of it was received.
        bytes: Option<usize>,
    },
    /// It holds more values than [`MOST_VALUES`].
    #[error("it holds more than {} values", MOST_VALUES)]
    TooManyValues,
    /// It is not a JSON object.
    #[error("it is not an object")]
    NotAnObject,
    /// Its `resource` is not `customer`.
    #[error("its \"resource\" is not \"customer\"")]
    OtherResource,
    /// It has no `id`.
    #[error("it has no id")]
    NoId,
    /// Its `id` is a number, null, …
    #[error("its id is not a string")]
    IdNotText,
    /// Its `id` is the empty string.
    #[error("its id is empty")]
    EmptyId,
    /// Its `id` is longer than [`CustomerId::MAX_BYTES`].
    #[error("its id is {bytes} bytes long; the longest that is mirrored is 1024")]
    LongId {
        /// The length of the id.
        bytes: usize,
    },
    /// Its `id` holds a NUL.
    #[error("its id holds a NUL")]
    NulInId,
}

/// Formats the known length of a text for the message.
fn known_length(bytes: Option<usize>) -> String {
    bytes.map(|bytes| format!("{bytes} bytes, ")).unwrap_or_default()
}

/// Checks that parsing a customer from this text takes bounded memory.
pub(super) fn check_size(text: &[u8]) -> Result<(), BadCustomer> {
    if text.len() > LONGEST {
        return Err(BadCustomer::TooLarge { bytes: Some(text.len()) });
    }
    match text.len() > MOST_VALUES && json::scan::count_values(text) > MOST_VALUES {
        true => Err(BadCustomer::TooManyValues),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Result<Customer, BadCustomer> {
        Customer::from_value(super::json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn body_ignores_the_order_of_keys_at_every_depth() {
        let one = parsed(r#"{"id":"a","metadata":{"x":"1","y":{"p":1,"q":2}},"email":null}"#).unwrap();
        let two = parsed(r#"{"email":null,"metadata":{"y":{"q":2,"p":1},"x":"1"},"id":"a"}"#).unwrap();
        assert_eq!(one.body(), two.body());
    }

    #[test]
    fn numbers_and_unknown_fields_are_kept_unchanged() {
        let text =
            r#"{"big":123456789012345678901234567890,"cents":1.10,"id":"a","new":{"deep":[1e400,-0]}}"#;
        assert_eq!(parsed(text).unwrap().body(), text);
    }

    #[test]
    fn body_parses_as_the_same_customer() {
        let customer =
            parsed(r#"{"id":"é\n","created_at":"2024-05-01T09:00:00+09:00","source":{"brand":"visa"}}"#)
                .unwrap();
        assert_eq!(Customer::from_body(customer.body()).unwrap(), customer);
    }

    #[test]
    fn value_that_is_not_a_customer_is_refused_with_the_reason() {
        let cases = [
            (json!([]), BadCustomer::NotAnObject),
            (json!({}), BadCustomer::NoId),
            (json!({"id": 7}), BadCustomer::IdNotText),
            (json!({"id": ""}), BadCustomer::EmptyId),
            (json!({"id": "a\0b"}), BadCustomer::NulInId),
            (json!({"id": "x".repeat(1025)}), BadCustomer::LongId { bytes: 1025 }),
            (json!({"id": "a", "resource": "payment"}), BadCustomer::OtherResource),
        ];
        for (value, why) in cases {
            assert_eq!(Customer::from_value(value), Err(why));
        }
    }

    #[test]
    fn customer_may_have_a_resource_and_a_creation_time() {
        let made = json!({"id": "a", "resource": "customer", "created_at": "2024-05-01T09:00:00+09:00"});
        let customer = Customer::from_value(made).unwrap();
        assert_eq!(customer.created_at(), Some("2024-05-01T00:00:00.000Z"));
        assert_eq!(format!("{:?}", customer.id()), "\"a\"");
    }

    #[test]
    fn fields_of_unexpected_types_are_kept() {
        let odd = json!({"id": "a", "email": 5, "metadata": [1], "created_at": "soon", "source": "card"});
        let customer = Customer::from_value(odd).unwrap();
        assert_eq!((customer.email(), customer.created_at()), (None, None));
        assert_eq!(customer.source(), Some(&json!("card")));
    }

    #[test]
    fn printed_ids_are_escaped_and_dots_cannot_be_requested() {
        assert_eq!(CustomerId::new("\u{1b}[2J\n").unwrap().to_string(), "\\u{1b}[2J\\n");
        for (text, askable) in [(".", false), ("..", false), ("...", true), ("%2e", true), ("a/../b", true)] {
            assert_eq!(CustomerId::new(text).unwrap().can_be_requested(), askable, "{text}");
        }
    }

    #[test]
    fn only_the_mark_true_makes_a_customer_deleted() {
        for (text, is_deleted) in [
            (r#"{"id":"a","deleted":true}"#, true),
            (r#"{"id":"a","deleted":false}"#, false),
            (r#"{"id":"a","deleted":"true"}"#, false),
            (r#"{"id":"a"}"#, false),
        ] {
            assert_eq!(parsed(text).unwrap().is_deleted(), is_deleted, "{text}");
        }
    }

    #[test]
    fn customer_of_exactly_the_largest_size_is_accepted() {
        let text = |bytes: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(bytes - r#"{"id":""}"#.len()));
        assert_eq!(check_size(text(LONGEST).as_bytes()), Ok(()));
        let larger = BadCustomer::TooLarge { bytes: Some(LONGEST + 1) };
        assert_eq!(check_size(text(LONGEST + 1).as_bytes()), Err(larger.clone()));
        assert!(larger.to_string().contains(&format!("{} bytes", LONGEST + 1)), "{larger}");
    }
}
