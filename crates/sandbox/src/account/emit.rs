//! Emits an event: builds its `data`, and passes it to the log and the deliveries.

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{CREATED, DELETED, UPDATED};
use super::{Reveal, SandboxAccount};
use crate::population::{drawn_email, rfc3339};
use crate::random::{self, is_drawn, pick};
use crate::readings::{EventData, Events};

/// The types of events that are not about customers.
const OTHER_TYPES: &[&str] = &["payment.authorized", "payment.captured", "payment.updated"];

/// The customers of events that a test emits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventIds {
    /// Customers of the account.
    #[default]
    Live,
    /// Ids that no customer ever had.
    Unknown,
    /// Both, about half each.
    Mixed,
}

impl SandboxAccount {
    /// Emits an event for any id, without a change. `kind` is the event's type, for example
    /// `customer.updated`. Its `data` is the customer, or invented for an unknown id.
    pub fn emit(&mut self, now: Timestamp, kind: &str, id: &str) {
        let customer = self.get(id).unwrap_or_else(|| {
            let created_at = rfc3339(now.as_second());
            json!({
                "id": id, "resource": "customer", "email": drawn_email(&mut random::of_text(id)),
                "source": null, "metadata": {}, "created_at": created_at,
            })
        });
        self.record(now, kind, customer);
    }

    /// Emits this many events at once, without changes. For a live customer an event is an update,
    /// for an unknown id it has any type. An account without customers has only unknown ids.
    pub fn flood(&mut self, now: Timestamp, count: u32, ids: EventIds, rng: &mut impl Rng) {
        for _ in 0..count {
            let is_live = match ids {
                EventIds::Live => true,
                EventIds::Unknown => false,
                EventIds::Mixed => rng.random(),
            };
            let position = rng.random_range(0..self.len().max(1));
            let live = if is_live { self.newest().nth_id(position) } else { None };
            match live {
                Some(id) => self.emit(now, UPDATED, &id),
                None => {
                    let id = self.fresh_id(now);
                    self.emit(now, pick(rng, &[CREATED, UPDATED, DELETED]), &id);
                }
            }
        }
    }

    /// Records an event about a customer. `customer` is its state after the change, or before a
    /// delete.
    pub(super) fn record(&mut self, now: Timestamp, kind: &str, customer: Value) {
        let mut rng = self.events.next_rng(now);
        let mut data_rng = random::seeded([rng.random()]);
        let other_follows = is_drawn(&mut rng, self.readings.event_other_percent);
        let id = customer["id"].clone();
        let data = self.event_data(customer, &mut data_rng);
        self.publish(now, kind, data, &mut rng);
        if other_follows {
            let payment = json!({
                "id": random::id(&mut data_rng), "resource": "payment", "status": "captured",
                "amount": data_rng.random_range(100..100_000), "currency": "JPY", "customer": id,
            });
            let kind = pick(&mut data_rng, OTHER_TYPES);
            self.publish(now, kind, payment, &mut rng);
        }
    }

    /// Adds an event to the log, and queues its deliveries.
    fn publish(&mut self, now: Timestamp, kind: &str, data: Value, rng: &mut ChaCha8Rng) {
        let is_kept = match self.readings.events {
            // What was recorded is listed again when the reading changes back.
            Events::Kept | Events::Dropped => true,
            Events::WithWebhook => self.webhooks.are_subscribed_to(kind),
        };
        let event = self.events.record(now, kind, data, &self.readings, is_kept, rng);
        self.webhooks.publish(kind, &event, &self.readings);
    }

    /// Returns the `data` of an event about this customer.
    fn event_data(&self, customer: Value, rng: &mut impl Rng) -> Value {
        match self.readings.event_data {
            EventData::Customer => customer,
            EventData::Id => json!({"id": customer["id"]}),
            EventData::Empty => json!({}),
            EventData::Wrong => self.wrong_data(customer, rng),
        }
    }

    /// Returns a customer that is not this one: with another email, with the values of another
    /// customer, or another customer.
    fn wrong_data(&self, customer: Value, rng: &mut impl Rng) -> Value {
        let position = rng.random_range(0..self.len().max(1));
        let other = self.newest().nth_id(position).filter(|id| customer["id"] != **id);
        let other = other.and_then(|id| self.newest().body(self.newest().row(&id)?, Reveal::ALL));
        let with = |mut body: Value, field: &str, value: Value| {
            if let Some(fields) = body.as_object_mut() {
                fields.insert(field.to_owned(), value);
            }
            body
        };
        let wrong = match (rng.random_range(0..3), other) {
            (1, Some(other)) => Some(with(other, "id", customer["id"].clone())),
            (2, other) => other,
            _ => None,
        };
        // Two customers may have the same values.
        let wrong = wrong.filter(|wrong| *wrong != customer);
        wrong.unwrap_or_else(|| with(customer, "email", drawn_email(rng).into()))
    }
}
