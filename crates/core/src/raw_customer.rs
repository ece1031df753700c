//! A customer of a list page, as raw text that is not parsed yet.
//!
//! In nearly every sweep nearly every customer is unchanged. So a page is parsed only far enough to
//! find the id of each text, and to detect unchanged texts by their [`Fingerprint`]. Any other text
//! is parsed completely.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::customer::{BadCustomer, Customer, CustomerId, check_size};
use super::fingerprint::{Fingerprint, fingerprint};
use super::json;
use super::unreadable::Unreadable;

/// What an answer shows of a customer's payment source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It shows a source.
    Shown,
    /// It shows no source, and the mirror has none.
    Absent,
    /// It shows no source, and the known one of the mirror is retained.
    Retained,
}

/// One customer of a page.
#[derive(Clone, Debug)]
pub struct RawCustomer {
    id: CustomerId,
    is_deleted: bool,
    text: Box<RawValue>,
    fingerprint: Fingerprint,
}

impl RawCustomer {
    /// Checks a text as a customer, by the rules of [`Customer::from_value`].
    pub fn new(text: Box<RawValue>) -> Result<Self, BadCustomer> {
        parse_head(text.get()).map(|head| Self::from_parts(head, text))
    }

    /// Checks the text at this position of a page as a customer.
    pub fn at(position: u64, text: Box<RawValue>) -> Result<Self, Unreadable> {
        match parse_head(text.get()) {
            Ok(head) => Ok(Self::from_parts(head, text)),
            Err(reason) => Err(Unreadable::new(text.get().as_bytes(), Some(position), reason)),
        }
    }

    fn from_parts((id, is_deleted): (CustomerId, bool), text: Box<RawValue>) -> Self {
        let fingerprint = fingerprint(text.get().as_bytes());
        Self { id, is_deleted, text, fingerprint }
    }

    /// Checks a JSON value as a customer.
    pub fn from_value(value: &Value) -> Result<Self, BadCustomer> {
        let text = serde_json::value::to_raw_value(value);
        Self::new(text.map_err(|why| BadCustomer::Unreadable(why.to_string()))?)
    }

    /// Returns the id of the customer.
    pub fn id(&self) -> &CustomerId {
        &self.id
    }

    /// Whether the list marks it with `"deleted": true`.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// Returns the length of its text in bytes.
    pub fn bytes(&self) -> usize {
        self.text.get().len()
    }

    /// Returns the fingerprint of its text.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Parses the whole customer.
    pub fn read(&self) -> Result<Customer, BadCustomer> {
        let value = json::parse(self.text.get().as_bytes());
        Customer::from_value(value.map_err(|why| BadCustomer::Unreadable(why.to_string()))?)
    }

    /// Whether both have the same content, whatever the order of their keys.
    pub fn has_same_content(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            || matches!((self.read(), other.read()), (Ok(one), Ok(two)) if one == two)
    }
}

/// Returns the customer's id and whether it is marked as deleted, if the whole text is readable.
fn parse_head(text: &str) -> Result<(CustomerId, bool), BadCustomer> {
    check_size(text.as_bytes())?;
    if !text.starts_with('{') {
        return Err(BadCustomer::NotAnObject);
    }
    // The quick parse skips values and does not notice these faults. So parse such a text
    // completely: every accepted text must be readable later.
    let head = (!may_be_unreadable(text)).then(|| serde_json::from_str(text));
    // The quick parse refuses a repeated key. The complete parse uses its last value, as the rest
    // of the program does.
    let Head { id, resource, deleted } = match head {
        Some(Ok(head)) => head,
        _ => Head::from_value(
            &json::parse(text.as_bytes()).map_err(|why| BadCustomer::Unreadable(why.to_string()))?,
        ),
    };
    let id = Customer::checked_id(id.as_ref(), resource.as_ref())?;
    Ok((id, deleted == Some(Value::Bool(true))))
}

/// Whether this JSON may hold an invalid escape, an internal key of the parser, or too many nested
/// levels.
fn may_be_unreadable(text: &str) -> bool {
    text.contains("\\u")
        || json::may_contain_internal_key(text.as_bytes())
        || memchr::memchr2_iter(b'[', b'{', text.as_bytes()).nth(json::DEEPEST).is_some()
}

/// The members that the quick parse reads. `null` is a value, not a missing member.
#[derive(Deserialize)]
struct Head {
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    resource: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    deleted: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Head {
    fn from_value(customer: &Value) -> Self {
        let field = |name| customer.get(name).cloned();
        Self { id: field("id"), resource: field("resource"), deleted: field("deleted") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::customer::{LONGEST, MOST_VALUES};
    use super::*;

    fn listed(text: &str) -> Result<RawCustomer, BadCustomer> {
        RawCustomer::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn raw_customer_accepts_exactly_what_a_customer_accepts() {
        let texts = [
            "[]",
            "7",
            "\"x\"",
            "{}",
            r#"{"id":7}"#,
            r#"{"id":null}"#,
            r#"{"id":""}"#,
            r#"{"id":"a\u0000"}"#,
            r#"{"id":"a","resource":"payment"}"#,
            r#"{"id":"a","resource":null}"#,
            r#"{"id":"a"}"#,
            r#"{"id":"x","resource":"customer","id":"\u00e9","other":[{"id":"no"}]}"#,
            r#"{"id":"x","resource":"customer","id":"y","deleted":false,"deleted":true}"#,
            r#"{"id":{"$serde_json::private::RawValue":"\"a\""}}"#,
            r#"{"$serde_json::private::RawValue":"{\"id\":\"a\"}"}"#,
        ];
        for text in texts {
            let whole = Customer::from_value(json::parse(text.as_bytes()).unwrap());
            assert_eq!(
                listed(text).map(|listed| listed.id().clone()),
                whole.map(|whole| whole.id().clone()),
                "{text}"
            );
        }
    }

    #[test]
    fn fingerprint_depends_on_text_and_content_ignores_key_order() {
        let one = listed(r#"{"id":"a","email":"x"}"#).unwrap();
        let again = listed(r#"{"id":"a","email":"x"}"#).unwrap();
        let turned = listed(r#"{"email":"x","id":"a"}"#).unwrap();
        let other = RawCustomer::from_value(&json!({"id": "a", "email": "y"})).unwrap();
        assert_eq!(one.fingerprint(), again.fingerprint());
        assert_ne!(one.fingerprint(), turned.fingerprint());
        assert!(
            one.has_same_content(&again) && one.has_same_content(&turned) && !one.has_same_content(&other)
        );
        assert_eq!(other.read().unwrap().email(), Some("y"));
        assert_eq!(one.bytes(), r#"{"id":"a","email":"x"}"#.len());
    }

    #[test]
    fn text_that_could_not_be_read_later_is_refused() {
        let nested =
            |levels: usize| format!(r#"{{"id":"a","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let unreadable = [
            nested(120),
            nested(2000),
            r#"{"id":"a","x":"\ud800"}"#.into(),
            r#"{"id":"a","\udc00":1}"#.into(),
        ];
        for text in unreadable {
            assert!(matches!(listed(&text), Err(BadCustomer::Unreadable(_))), "{text}");
        }
        for text in [nested(90), r#"{"id":"a","x":"\u00e9\ud83d\ude00"}"#.into(), "{\"id\":\"[[[\"}".into()] {
            assert!(listed(&text).unwrap().read().is_ok(), "{text}");
        }
        let long = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(LONGEST));
        assert!(matches!(listed(&long), Err(BadCustomer::TooLarge { .. })));
        let list = |items: usize| {
            format!(r#"{{"id":"a","x":[0{}],"y":"{}"}}"#, ",0".repeat(items), ",".repeat(MOST_VALUES))
        };
        assert_eq!(listed(&list(MOST_VALUES)).unwrap_err(), BadCustomer::TooManyValues);
        assert!(listed(&list(MOST_VALUES - 10)).is_ok());
    }

    #[test]
    fn only_the_mark_true_makes_a_listed_customer_deleted() {
        for (text, is_deleted) in [
            (r#"{"id":"a","deleted":true}"#, true),
            (r#"{"id":"a","deleted":false}"#, false),
            (r#"{"id":"a","deleted":null}"#, false),
            (r#"{"id":"a"}"#, false),
        ] {
            assert_eq!(listed(text).unwrap().is_deleted(), is_deleted, "{text}");
        }
    }
}
