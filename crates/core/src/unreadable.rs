//! A customer that an answer shows in a form that cannot be mirrored.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::fingerprint::{Fingerprint, fingerprint};
use super::json::scan;
use super::{BadCustomer, CustomerId, PassId};

/// COMPARED controls how many bytes of a text that is too long identify it.
const COMPARED: usize = 4 << 10;

/// One unreadable customer, with its identity and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id, if that is readable.
    pub id: Option<CustomerId>,
    /// Its position on its page, from 1; `None` if it was requested by its id.
    pub position: Option<u64>,
    /// The fingerprint of its text, or of the beginning of a text that is too long.
    pub fingerprint: Fingerprint,
    /// Why it is unreadable.
    pub reason: BadCustomer,
}

impl Unreadable {
    /// An unreadable customer with this text, which may be truncated.
    pub fn new(text: &[u8], position: Option<u64>, reason: BadCustomer) -> Self {
        // The length of a truncated text depends on what precedes it in the answer.
        let compared = match reason {
            BadCustomer::TooLarge { .. } => &text[..text.len().min(COMPARED)],
            _ => text,
        };
        Self { id: id_in(text), position, fingerprint: fingerprint(compared), reason }
    }
}

impl Unreadable {
    /// Returns the same number for the same customer, as far as it can be identified.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.id {
            Some(id) => id.hash(&mut hasher),
            None => self.fingerprint.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Where and when an unreadable customer was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableOccurrence {
    /// The page of the list and the position on it; `None` if it was requested by its id.
    pub place: Option<(u64, u64)>,
    /// When it was seen, in the format of [`time`](super::time).
    pub at: String,
    /// The pass that saw it.
    pub pass: Option<PassId>,
}

/// Names an unreadable customer, such as `customer ID (page 3, position 5)`.
pub fn phrase(id: Option<&str>, page: Option<u64>, position: Option<u64>) -> String {
    let place = page.zip(position).map(|(page, position)| format!("page {page}, position {position}"));
    match (id, place) {
        (Some(id), Some(place)) => format!("customer {id} ({place})"),
        (Some(id), None) => format!("customer {id}"),
        (None, Some(place)) => format!("the customer at {place}"),
        (None, None) => "a customer".to_owned(),
    }
}

/// Returns the id in a customer's text, which may be truncated or invalid JSON.
pub fn id_in(text: &[u8]) -> Option<CustomerId> {
    let id: String = serde_json::from_slice(scan::member(text, "id")?).ok()?;
    CustomerId::new(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_from_an_unreadable_customer() {
        let id = |text: &str| id_in(text.as_bytes()).map(|id| id.as_str().to_owned());
        for text in [
            r#"{"id":"a","email":"\ud800"}"#,
            r#"{"email":NaN,"id":"\u0061"}"#,
            r#"{"id":"a","metadata":{"k":"cut"#,
            r#"{"id":"b","id":"a"}"#,
        ] {
            assert_eq!(id(text).as_deref(), Some("a"), "{text}");
        }
        for text in ["null", "{}", r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"\ud800"}"#, r#"{"x":{"id":"a"}}"#]
        {
            assert_eq!(id(text), None, "{text}");
        }
        assert_eq!(id(&format!(r#"{{"id":"{}"}}"#, "x".repeat(1025))), None);
    }

    #[test]
    fn digest_is_that_of_the_id_or_else_of_the_text() {
        let digest = |text: &str| Unreadable::new(text.as_bytes(), None, BadCustomer::NoId).digest();
        assert_eq!(digest(r#"{"id":"a","n":1}"#), digest(r#"{"id":"a","n":2}"#));
        assert_ne!(digest(r#"{"id":"a"}"#), digest(r#"{"id":"b"}"#));
        assert_ne!(digest("1"), digest("2"));
    }

    #[test]
    fn unreadable_customer_is_named_by_what_is_known() {
        assert_eq!(phrase(Some("a"), Some(3), Some(5)), "customer a (page 3, position 5)");
        assert_eq!(phrase(Some("a"), None, None), "customer a");
        assert_eq!(phrase(None, Some(3), Some(5)), "the customer at page 3, position 5");
        assert_eq!(phrase(None, Some(3), None), "a customer");
    }
}
