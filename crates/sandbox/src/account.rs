//! The customers of one account, its event log and its used tokens.
//!
//! [`Customers`] changes only by a [`Change`]. A [`Replica`] is a copy of the customers that
//! receives the same changes later.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::population::{Card, Population, rfc3339};
use crate::random;
use crate::readings::{Order, Readings};
use crate::webhooks::Webhooks;
use events::{CREATED, DELETED, EventLog, UPDATED};

mod emit;
pub(crate) mod events;
mod index;
pub(crate) mod ordered;
mod replica;
mod state;

pub use emit::EventIds;
pub(crate) use index::ListEnd;
use replica::Replica;
use state::Change;
pub(crate) use state::{Customers, ListView, Reveal};

/// One account. Its customers are listed newest first, unless a reading says otherwise.
#[derive(Debug)]
pub struct SandboxAccount {
    state: Customers,
    rng: ChaCha8Rng,
    pub(crate) events: EventLog,
    pub(crate) webhooks: Webhooks,
    /// The payment tokens that have been used.
    pub(crate) tokens: HashSet<String>,
    /// The time of the last [`SandboxAccount::tick`], by the sandbox's clock.
    now: Timestamp,
    /// The readings of that time.
    readings: Readings,
    /// The copies that lag, for lists and for show; none where reads do not lag.
    list_replica: Option<Box<Replica>>,
    show_replica: Option<Box<Replica>>,
}

impl SandboxAccount {
    /// Returns an account with seeded customers. `number` distinguishes accounts with the same
    /// seed.
    pub(crate) fn new(seed: u64, number: u64, customers: u32, now: Timestamp) -> Self {
        let population = Population::new(seed, number, customers, now);
        Self {
            rng: random::seeded([population.salt()]),
            events: EventLog::new(population.salt()),
            webhooks: Webhooks::new(population.salt()),
            tokens: HashSet::new(),
            now,
            readings: Readings::default(),
            list_replica: None,
            show_replica: None,
            state: Customers::new(population, customers),
        }
    }

    /// Sets the time of the next changes, and the readings that apply to them.
    pub(crate) fn tick(&mut self, now: Timestamp, readings: &Readings) {
        self.now = now;
        self.readings = readings.clone();
        Replica::keep(&mut self.list_replica, readings.list_lag_s, &self.state, now);
        Replica::keep(&mut self.show_replica, readings.show_lag_s, &self.state, now);
    }

    /// Returns the customers for a list. `lagging` selects the copy that lags, if there is one.
    pub(crate) fn listed(&mut self, lagging: bool) -> &mut Customers {
        match &mut self.list_replica {
            Some(replica) if lagging => &mut replica.state,
            _ => &mut self.state,
        }
    }

    /// Returns the newest customers, as the answers to writes show them.
    pub(crate) fn newest(&self) -> &Customers {
        &self.state
    }

    /// Returns the customers for show. `lagging` selects the copy that lags, if there is one.
    pub(crate) fn shown(&self, lagging: bool) -> &Customers {
        match &self.show_replica {
            Some(replica) if lagging => &replica.state,
            _ => &self.state,
        }
    }

    /// Returns the ids of all customers, newest first. Customers without an id are left out.
    pub fn ids(&self) -> Vec<String> {
        self.state.ids()
    }

    /// Returns the number of customers.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is no customer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a customer with all fields, also those that the readings hide.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.state.row(id).and_then(|row| self.state.body(row, Reveal::ALL))
    }

    /// Returns all customers that have an id, as an answer shows them.
    pub(crate) fn truth(&self, reveal: Reveal) -> BTreeMap<String, Value> {
        let shown = self.ids().into_iter().filter_map(|id| {
            let body = self.state.body(self.state.row(&id)?, reveal)?;
            Some((id, body))
        });
        shown.collect()
    }

    /// Creates a customer and returns its id. The fields are not checked; an absent field has its
    /// usual value.
    pub fn create(&mut self, now: Timestamp, fields: Value) -> String {
        let mut body = match fields {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        let id = match body.get("id") {
            Some(Value::String(id)) => id.clone(),
            _ => self.fresh_id(now),
        };
        body.insert("id".to_owned(), id.clone().into());
        let defaults = [
            ("resource", "customer".into()),
            ("email", Value::Null),
            ("source", Value::Null),
            ("metadata", Value::Object(Map::new())),
            ("created_at", rfc3339(now.as_second()).into()),
            ("locale", "ja".into()),
        ];
        for (field, value) in defaults {
            body.entry(field).or_insert(value);
        }
        self.put_raw(now, Value::Object(body));
        id
    }

    /// Sets some fields of a customer without checks. Returns false if there is no such customer.
    pub fn update(&mut self, now: Timestamp, id: &str, patch: Value) -> bool {
        let (Some(Value::Object(mut body)), Value::Object(patch)) = (self.get(id), patch) else {
            return false;
        };
        body.extend(patch);
        // With another id it would be another customer.
        body.insert("id".to_owned(), id.into());
        self.put_raw(now, Value::Object(body));
        true
    }

    /// Deletes a customer. Returns false if there is no such customer.
    pub fn delete(&mut self, now: Timestamp, id: &str) -> bool {
        let Some(row) = self.state.row(id) else {
            return false;
        };
        let Some(body) = self.state.body(row, Reveal::ALL) else {
            return false;
        };
        self.change(Change::Delete { row });
        self.record(now, DELETED, body);
        true
    }

    /// Restores a deleted customer unchanged, without an event. Returns false if no customer with
    /// this id was deleted.
    pub fn restore(&mut self, id: &str) -> bool {
        let deleted = self.state.row_ever(id).filter(|&row| !self.state.is_live(row));
        let Some(row) = deleted else {
            return false;
        };
        self.change(Change::Restore { row });
        true
    }

    /// Stores any JSON value as a customer, in place of the customer with the same `id`.
    ///
    /// Without a string as `id` the value is listed, but no request can name it. Without a readable
    /// `created_at` it has the place of the customer that it replaces, or of one created now.
    pub fn put_raw(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str);
        let kind = match id.and_then(|id| self.state.row(id)) {
            Some(_) => UPDATED,
            None => CREATED,
        };
        self.change(Change::Put { now, body: body.clone() });
        self.record(now, kind, body);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.change(Change::RemoveAll);
    }

    /// Moves a customer to an end of the list without changing its `created_at`. A list in the
    /// order of ids is unchanged.
    pub(crate) fn move_to(&mut self, end: ListEnd, order: Order, row: u32) {
        self.change(Change::Move { end, order, row });
    }

    /// Applies a change, and passes it to the replicas.
    fn change(&mut self, change: Change) {
        for replica in [&mut self.list_replica, &mut self.show_replica].into_iter().flatten() {
            replica.record(self.now, change.clone());
        }
        self.state.apply(change);
    }

    /// Returns an unused id. It depends on the time too, so that a restarted sandbox does not give
    /// the same ids again.
    fn fresh_id(&mut self, now: Timestamp) -> String {
        let mut rng = random::seeded([self.rng.random(), now.as_millisecond() as u64]);
        loop {
            let id = random::id(&mut rng);
            if self.state.row_ever(&id).is_none() {
                return id;
            }
        }
    }
}

/// Returns a card as the value of `source`.
pub(crate) fn source_value(card: &Card) -> Value {
    serde_json::to_value(card).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn account(customers: u32) -> SandboxAccount {
        SandboxAccount::new(1, 0, customers, now())
    }

    #[test]
    fn created_customer_is_first_and_deleted_customers_are_restored_in_place() {
        let mut account = account(3);
        let id = account.create(now(), json!({"email": "a@example.jp"}));
        assert_eq!(account.ids()[0], id);
        assert_eq!(account.get(&id).unwrap()["created_at"], "2026-06-01T00:00:00Z");

        let before = account.ids();
        for id in before.clone() {
            assert!(account.delete(now(), &id));
            assert!(!account.delete(now(), &id), "the customer is deleted already");
            assert_eq!(account.get(&id), None);
        }
        assert!(account.is_empty());
        for id in &before {
            assert!(account.restore(id));
            assert!(!account.restore(id), "the customer is restored already");
        }
        assert_eq!(account.ids(), before);
    }

    #[test]
    fn changed_customer_keeps_its_place() {
        let mut account = account(10);
        let before = account.ids();
        assert!(account.update(now(), &before[4], json!({"email": null, "id": "other"})));
        assert_eq!(account.ids(), before);
        assert_eq!(account.get(&before[4]).unwrap()["email"], Value::Null);
        assert!(!account.update(now(), "unknown", json!({})));
    }

    #[test]
    fn customer_without_a_readable_creation_time_keeps_its_place() {
        let mut account = account(2);
        account.put_raw(now(), json!({"id": "odd", "created_at": 5}));
        assert_eq!(account.ids()[0], "odd", "the customer counts as created now");
        let later = "2026-06-02T00:00:00Z".parse().unwrap();
        let newest = account.create(later, json!({}));
        account.update(later, "odd", json!({"email": "a@example.jp"}));
        assert_eq!(account.ids()[..2], [newest, "odd".to_owned()]);
    }

    #[test]
    fn any_json_value_is_stored_as_a_customer() {
        let mut account = account(2);
        account.put_raw(now(), json!({"id": "../x", "created_at": "2019-05-05T05:05:05+09:00"}));
        account.put_raw(now(), json!({"no": "id"}));
        account.put_raw(now(), json!(42));
        assert_eq!(account.len(), 5);
        assert_eq!(account.ids().len(), 3);
        assert_eq!(account.get("../x").unwrap()["id"], "../x");
    }

    #[test]
    fn hidden_fields_are_hidden_in_seeded_and_in_changed_customers() {
        let mut account = account(40);
        let ids = account.ids();
        account.update(now(), &ids[0], json!({"source": {"type": "credit_card"}, "locale": "ko"}));
        let hidden = Reveal { source: false, locale: false };
        for id in ids {
            let row = account.state.row(&id).unwrap();
            let body = account.state.body(row, hidden).unwrap();
            assert!(body["source"].is_null() && body.get("locale").is_none());
            let text = account.state.text(row, hidden).unwrap();
            assert_eq!(serde_json::from_str::<Value>(text.get()).unwrap(), body);
        }
    }
}
