//! Owns the customers of one account, its event log and its used tokens.
//!
//! A [`State`] holds the customers; it changes only by a [`Change`]. A [`Replica`] is a copy of the
//! state that receives the same changes later.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::population::{Card, Population, rfc3339};
use crate::random;
use crate::readings::Order;
use events::{EventKind, EventLog};

pub(crate) mod events;
mod index;
pub(crate) mod ordered;
mod replica;
mod state;

pub(crate) use index::End;
use replica::Replica;
use state::Change;
pub(crate) use state::{Reveal, State, View};

/// The customers of one account, newest first unless said otherwise.
#[derive(Debug)]
pub struct Account {
    state: State,
    rng: ChaCha8Rng,
    pub(crate) events: EventLog,
    /// Tokens that have been used.
    pub(crate) tokens: HashSet<String>,
    /// By the sandbox's clock, as far as replicas need it.
    now: Timestamp,
    /// Behind `state`, for lists and for show; `None` where they are not behind.
    list_replica: Option<Box<Replica>>,
    show_replica: Option<Box<Replica>>,
}

impl Account {
    pub(crate) fn new(seed: u64, number: u64, customers: u32, now: Timestamp) -> Self {
        let population = Population::new(seed, number, customers, now);
        Self {
            rng: random::seeded([population.salt()]),
            events: EventLog::new(population.salt()),
            tokens: HashSet::new(),
            now,
            list_replica: None,
            show_replica: None,
            state: State::new(population, customers),
        }
    }

    /// Sets the time of the changes to come, and how many seconds reads are behind them.
    pub(crate) fn tick(&mut self, now: Timestamp, list_lag_s: u64, show_lag_s: u64) {
        self.now = now;
        Replica::keep(&mut self.list_replica, list_lag_s, &self.state, now);
        Replica::keep(&mut self.show_replica, show_lag_s, &self.state, now);
    }

    /// What a list is answered from. `lagging` is without effect where lists are not behind.
    pub(crate) fn listed(&mut self, lagging: bool) -> &mut State {
        match &mut self.list_replica {
            Some(replica) if lagging => &mut replica.state,
            _ => &mut self.state,
        }
    }

    /// What the answers to writes show.
    pub(crate) fn newest(&self) -> &State {
        &self.state
    }

    /// What show is answered from. `lagging` is without effect where it is not behind.
    pub(crate) fn shown(&self, lagging: bool) -> &State {
        match &self.show_replica {
            Some(replica) if lagging => &replica.state,
            _ => &self.state,
        }
    }

    /// The ids of all customers, newest first. Customers put in without an id are left out.
    pub fn ids(&self) -> Vec<String> {
        self.state.ids()
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A customer with everything it has, whatever the readings hide.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.state.row(id).and_then(|row| self.state.body(row, Reveal::ALL))
    }

    /// All customers that have an id, as an answer shows them.
    pub(crate) fn truth(&self, reveal: Reveal) -> BTreeMap<String, Value> {
        let shown = self.ids().into_iter().filter_map(|id| {
            let body = self.state.body(self.state.row(&id)?, reveal)?;
            Some((id, body))
        });
        shown.collect()
    }

    /// Creates a customer from the fields given, of which none is checked; what is absent gets its usual value.
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

    /// Sets some fields of a customer, of which none is checked. False when there is no such customer.
    pub fn update(&mut self, now: Timestamp, id: &str, patch: Value) -> bool {
        let (Some(Value::Object(mut body)), Value::Object(patch)) = (self.get(id), patch) else {
            return false;
        };
        body.extend(patch);
        // Another id would be another customer.
        body.insert("id".to_owned(), id.into());
        self.put_raw(now, Value::Object(body));
        true
    }

    /// Deletes a customer. False when there is none.
    pub fn delete(&mut self, now: Timestamp, id: &str) -> bool {
        let Some(row) = self.state.row(id) else {
            return false;
        };
        let Some(body) = self.state.body(row, Reveal::ALL) else {
            return false;
        };
        self.change(Change::Delete { row });
        self.events.record(now, EventKind::Deleted, body);
        true
    }

    /// Brings a deleted customer back as it was, without an event. False when none of this id was deleted.
    pub fn restore(&mut self, id: &str) -> bool {
        let deleted = self.state.row_ever(id).filter(|&row| !self.state.is_live(row));
        let Some(row) = deleted else {
            return false;
        };
        self.change(Change::Restore { row });
        true
    }

    /// Puts in any value whatever as a customer, or in the place of the customer with the same `id`.
    ///
    /// Without a text as `id` it is listed, but no request can name it. Without a readable `created_at` it has the place
    /// of a customer created now, or that of the one it replaces.
    pub fn put_raw(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str);
        let kind = match id.and_then(|id| self.state.row(id)) {
            Some(_) => EventKind::Updated,
            None => EventKind::Created,
        };
        self.change(Change::Put { now, body: body.clone() });
        self.events.record(now, kind, body);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.change(Change::RemoveAll);
    }

    /// The customer at a position from the newest; `None` past the end or without an id.
    pub(crate) fn nth_id(&self, position: usize) -> Option<String> {
        self.state.nth_id(position)
    }

    pub(crate) fn id_of(&self, row: u32) -> Option<String> {
        self.state.id_of(row)
    }

    pub(crate) fn created_s(&self, row: u32) -> i64 {
        self.state.created_s(row)
    }

    pub(crate) fn is_live(&self, row: u32) -> bool {
        self.state.is_live(row)
    }

    /// Moves a customer to an end of the list, though its `created_at` stays. By id, nothing can be moved.
    pub(crate) fn move_to(&mut self, end: End, order: Order, row: u32) {
        self.change(Change::Move { end, order, row });
    }

    fn change(&mut self, change: Change) {
        for replica in [&mut self.list_replica, &mut self.show_replica].into_iter().flatten() {
            replica.record(self.now, change.clone());
        }
        self.state.apply(change);
    }

    /// An id nobody has. It depends on the time too: a sandbox started again does not hand out the same ids.
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

/// Some card, as a customer put in by hand would have it.
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

    fn account(customers: u32) -> Account {
        Account::new(1, 0, customers, now())
    }

    #[test]
    fn what_is_created_is_first_and_what_is_deleted_can_come_back() {
        let mut account = account(3);
        let id = account.create(now(), json!({"email": "a@example.jp"}));
        assert_eq!(account.ids()[0], id);
        assert_eq!(account.get(&id).unwrap()["created_at"], "2026-06-01T00:00:00Z");

        let before = account.ids();
        for id in before.clone() {
            assert!(account.delete(now(), &id));
            assert!(!account.delete(now(), &id), "it is gone");
            assert_eq!(account.get(&id), None);
        }
        assert!(account.is_empty());
        for id in &before {
            assert!(account.restore(id));
            assert!(!account.restore(id), "it is back");
        }
        assert_eq!(account.ids(), before);
    }

    #[test]
    fn a_changed_customer_stays_where_it_was() {
        let mut account = account(10);
        let before = account.ids();
        assert!(account.update(now(), &before[4], json!({"email": null, "id": "other"})));
        assert_eq!(account.ids(), before);
        assert_eq!(account.get(&before[4]).unwrap()["email"], Value::Null);
        assert!(!account.update(now(), "nobody", json!({})));
    }

    #[test]
    fn a_customer_without_a_readable_age_keeps_its_place() {
        let mut account = account(2);
        account.put_raw(now(), json!({"id": "odd", "created_at": 5}));
        assert_eq!(account.ids()[0], "odd", "it counts as created now");
        let later = "2026-06-02T00:00:00Z".parse().unwrap();
        let newest = account.create(later, json!({}));
        account.update(later, "odd", json!({"email": "a@example.jp"}));
        assert_eq!(account.ids()[..2], [newest, "odd".to_owned()]);
    }

    #[test]
    fn anything_can_be_put_in_raw() {
        let mut account = account(2);
        account.put_raw(now(), json!({"id": "../x", "created_at": "2019-05-05T05:05:05+09:00"}));
        account.put_raw(now(), json!({"no": "id"}));
        account.put_raw(now(), json!(42));
        assert_eq!(account.len(), 5);
        assert_eq!(account.ids().len(), 3);
        assert_eq!(account.get("../x").unwrap()["id"], "../x");
    }

    #[test]
    fn hidden_fields_are_hidden_in_seeded_and_changed_customers_alike() {
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
