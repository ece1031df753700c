//! Events: what the remote says has happened, reduced to the customer to look at.
//!
//! An event is a hint, never data. It causes one request for its customer and nothing else, so only
//! the id of the customer is read from it. The form of `data` is not documented: a customer, its
//! id, or an object that names it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::fingerprint::fingerprint;
use crate::{CustomerId, time};

/// LONGEST_ID controls how many characters of an event's id are kept.
const LONGEST_ID: usize = 255;

/// CLOCKS_AGREE controls which difference of two clocks counts as none: the server's `Date` has
/// whole seconds.
const CLOCKS_AGREE: SignedDuration = SignedDuration::from_secs(2);

/// An event about a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's id, or a text made from its other fields where it has none. Not empty.
    pub id: String,
    /// Which customer; `None` where `data` does not say.
    pub customer: Option<CustomerId>,
    /// When it happened, by the server's clock; `None` where that cannot be read.
    pub created_at: Option<Timestamp>,
}

/// What a JSON value is, read as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventReading {
    /// An event about a customer.
    Customer(Event),
    /// An event of another type, such as `payment.captured` or `ping`.
    Other,
    /// No event: it has no type.
    Unreadable,
}

impl EventReading {
    /// Reads a value as an event. Only `type` must be there.
    pub fn of(value: &Value) -> Self {
        let Some(kind) = value.get("type").and_then(Value::as_str) else { return Self::Unreadable };
        if !kind.starts_with("customer.") {
            return Self::Other;
        }
        let customer = value.get("data").and_then(customer_of);
        let created_at = value.get("created_at").and_then(time_of);
        let id = match value.get("id") {
            Some(Value::String(id)) if !id.is_empty() => id.chars().take(LONGEST_ID).collect(),
            Some(Value::Number(id)) => id.to_string(),
            // Repeats of it are recognized by all that it says.
            _ => fingerprint(value.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        Self::Customer(Event { id, customer, created_at })
    }
}

/// Reads a time that is written as RFC 3339 or as seconds since 1970.
fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => time::read(text),
        Value::Number(seconds) => Timestamp::from_second(seconds.as_i64()?).ok(),
        _ => None,
    }
}

/// One page of the event list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// How many events a full page holds, as the answer says; `None` where it does not.
    pub per_page: Option<u64>,
    /// The events about customers, in the answer's order.
    pub events: Vec<Event>,
    /// How many events are about something else, or cannot be read.
    pub others: u64,
    /// The newest time of any event on the page, by the server's clock.
    pub newest: Option<Timestamp>,
}

impl EventPage {
    /// Adds one item of the answer's `data`; `None` is an item that is not JSON.
    pub fn add(&mut self, item: Option<&Value>) {
        let created_at = item.and_then(|item| item.get("created_at"));
        self.newest = self.newest.max(created_at.and_then(time_of));
        match item.map(EventReading::of) {
            Some(EventReading::Customer(event)) => self.events.push(event),
            Some(EventReading::Other | EventReading::Unreadable) | None => self.others += 1,
        }
    }

    /// Returns how many events the page has, of any type.
    pub fn len(&self) -> u64 {
        self.events.len() as u64 + self.others
    }

    /// Returns whether the page has no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns the customer that an event's `data` names.
fn customer_of(data: &Value) -> Option<CustomerId> {
    let id = match data {
        Value::String(id) => Some(id.as_str()),
        Value::Object(fields) => {
            ["id", "customer", "customer_id", "object"].iter().find_map(|name| match fields.get(*name)? {
                Value::String(id) => Some(id.as_str()),
                Value::Object(inner) => inner.get("id").and_then(Value::as_str),
                _ => None,
            })
        }
        _ => None,
    };
    CustomerId::new(id?).ok()
}

/// Returns a time of the server's clock by the clock of this machine. `now` and `server_now` are
/// the same moment by both.
pub fn local_time(at: Timestamp, now: Timestamp, server_now: Timestamp) -> Timestamp {
    let offset = now.duration_since(server_now);
    match offset.abs() < CLOCKS_AGREE {
        true => at,
        false => at.checked_add(offset).unwrap_or(at),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Event {
        match EventReading::of(&value) {
            EventReading::Customer(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn customer_is_found_in_every_form_of_data() {
        for data in [
            json!("cus_1"),
            json!({"id": "cus_1", "resource": "customer", "email": null}),
            json!({"customer": "cus_1"}),
            json!({"customer": {"id": "cus_1"}}),
            json!({"customer_id": "cus_1"}),
            json!({"object": {"id": "cus_1"}}),
        ] {
            let event = read(json!({"id": "ev", "type": "customer.updated", "data": data}));
            assert_eq!(event.customer.as_ref().map(CustomerId::as_str), Some("cus_1"), "{data}");
        }
    }

    #[test]
    fn data_without_a_usable_id_names_no_customer() {
        for data in [json!({}), json!(null), json!(7), json!({"id": 7}), json!({"id": ""}), json!("a\u{0}b")]
        {
            let event = read(json!({"id": "ev", "type": "customer.deleted", "data": data}));
            assert_eq!(event.customer, None, "{data}");
        }
        assert_eq!(read(json!({"id": "ev", "type": "customer.deleted"})).customer, None);
    }

    #[test]
    fn event_without_an_id_is_recognized_by_its_other_fields() {
        let event =
            |at: &str| read(json!({"type": "customer.updated", "created_at": at, "data": "cus_1"})).id;
        let (one, other) = (event("2026-01-01T00:00:00Z"), event("2026-01-01T00:00:01Z"));
        assert_eq!(one, event("2026-01-01T00:00:00Z"));
        assert_ne!(one, other);
    }

    #[test]
    fn id_and_time_may_be_numbers() {
        let event = |id: u32| {
            read(json!({"id": id, "type": "customer.updated", "created_at": 1_700_000_000, "data": "c"}))
        };
        assert_eq!((event(12).id, event(13).id), ("12".to_owned(), "13".to_owned()));
        assert_eq!(event(12).created_at, Timestamp::from_second(1_700_000_000).ok());
        let nameless =
            |email: &str| read(json!({"type": "customer.updated", "data": {"id": "c", "email": email}})).id;
        assert_ne!(nameless("a@example.jp"), nameless("b@example.jp"), "another update is no repeat");
    }

    #[test]
    fn other_types_are_not_customers_and_no_type_is_no_event() {
        assert_eq!(EventReading::of(&json!({"type": "ping"})), EventReading::Other);
        assert_eq!(
            EventReading::of(&json!({"type": "payment.captured", "data": {"id": "p"}})),
            EventReading::Other
        );
        for value in [json!({}), json!([]), json!("customer.updated"), json!({"type": 1})] {
            assert_eq!(EventReading::of(&value), EventReading::Unreadable, "{value}");
        }
    }

    #[test]
    fn long_id_is_cut() {
        let event = read(json!({"id": "é".repeat(300), "type": "customer.updated", "data": "c"}));
        assert_eq!(event.id.chars().count(), LONGEST_ID);
    }

    #[test]
    fn server_time_is_moved_by_the_difference_of_the_clocks() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(local_time(at(100), at(1000), at(1000)), at(100));
        assert_eq!(local_time(at(100), at(1001), at(1000)), at(100), "whole seconds agree");
        assert_eq!(local_time(at(100), at(1060), at(1000)), at(160));
        assert_eq!(local_time(at(100), at(940), at(1000)), at(40));
    }

    #[test]
    fn page_counts_events_of_every_type_and_keeps_the_newest_time() {
        let mut page = EventPage::default();
        assert!(page.is_empty());
        page.add(Some(&json!({"id": "a", "type": "customer.updated", "data": "c", "created_at": 1000})));
        page.add(Some(&json!({"id": "b", "type": "payment.captured", "created_at": "1970-01-01T00:30:00Z"})));
        page.add(Some(&json!({"id": "c"})));
        page.add(None);
        assert_eq!((page.events.len(), page.others, page.len(), page.is_empty()), (1, 3, 4, false));
        assert_eq!(page.newest, Some(Timestamp::from_second(1800).unwrap()));
    }

    #[test]
    fn event_with_an_empty_id_is_recognized_by_its_content() {
        let id = |data: &str| read(json!({"id": "", "type": "customer.updated", "data": data})).id;
        assert_eq!(id("c"), id("c"));
        assert_ne!(id("c"), id("d"));
    }
}
