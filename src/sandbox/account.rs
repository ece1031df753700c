//! One merchant's customers: the seeded ones, and what became of them.
//!
//! A row is a number. Seeded rows hold nothing until they change; deleted rows keep their last state, so that a test can
//! bring them back. In which order rows are listed is up to the [`index`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::dice::Dice;
use super::events::{EventKind, EventLog};
use super::population::{Card, Person, Population, rfc3339};
use super::readings::Order;

mod index;

pub(super) use index::{End, View};
use index::{Entry, Index};

/// Which of a customer's fields an answer reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reveal {
    pub(super) source: bool,
    pub(super) locale: bool,
}

impl Reveal {
    pub(super) const ALL: Self = Self { source: true, locale: true };
}

/// The customers of one account, newest first unless said otherwise.
#[derive(Debug)]
pub struct Account {
    population: Population,
    rows: Vec<Row>,
    /// Rows of customers that are not from the population, by id.
    added: HashMap<String, u32>,
    index: Index,
    dice: Dice,
    pub(super) events: EventLog,
    /// Tokens that have been used.
    pub(super) tokens: HashSet<String>,
}

#[derive(Debug)]
enum Row {
    Seeded,
    Changed(Box<Customer>),
    /// `None`: as it was seeded.
    Deleted(Option<Box<Customer>>),
}

impl Row {
    fn delete(&mut self) {
        *self = match std::mem::replace(self, Self::Seeded) {
            Self::Seeded => Self::Deleted(None),
            Self::Changed(customer) => Self::Deleted(Some(customer)),
            deleted @ Self::Deleted(_) => deleted,
        };
    }
}

#[derive(Debug, Clone)]
struct Customer {
    /// Kept beside the body, which may say anything.
    created_s: i64,
    body: Value,
}

impl Account {
    pub(super) fn new(seed: u64, number: u64, customers: u32, now: Timestamp) -> Self {
        let population = Population::new(seed, number, customers, now);
        Self {
            index: Index::new((0..customers).map(|row| population.created_s(row))),
            rows: std::iter::repeat_with(|| Row::Seeded).take(customers as usize).collect(),
            added: HashMap::new(),
            dice: Dice::new(population.salt()),
            events: EventLog::new(population.salt()),
            tokens: HashSet::new(),
            population,
        }
    }

    /// The ids of all customers, newest first. Customers put in without an id are left out.
    pub fn ids(&self) -> Vec<String> {
        let rows = self.index.newest_first();
        rows.into_iter().filter_map(|row| self.id_of(row)).collect()
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A customer with everything it has, whatever the readings hide.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.row(id).and_then(|row| self.body(row, Reveal::ALL))
    }

    /// All customers that have an id, as an answer shows them.
    pub(super) fn truth(&self, reveal: Reveal) -> BTreeMap<String, Value> {
        let shown = self.ids().into_iter().filter_map(|id| {
            let body = self.body(self.row(&id)?, reveal)?;
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
        let Some(row) = self.row(id) else {
            return false;
        };
        let Some(body) = self.body(row, Reveal::ALL) else {
            return false;
        };
        self.index.remove(self.entry(row));
        self.rows[row as usize].delete();
        self.events.record(now, EventKind::Deleted, body);
        true
    }

    /// Brings a deleted customer back as it was, without an event. False when none of this id was deleted.
    pub fn restore(&mut self, id: &str) -> bool {
        let Some(row) = self.row_ever(id) else {
            return false;
        };
        let slot = &mut self.rows[row as usize];
        *slot = match std::mem::replace(slot, Row::Seeded) {
            Row::Deleted(None) => Row::Seeded,
            Row::Deleted(Some(customer)) => Row::Changed(customer),
            live => {
                *slot = live;
                return false;
            }
        };
        self.index.insert(self.entry(row));
        true
    }

    /// Puts in any value whatever as a customer, or in the place of the customer with the same `id`.
    ///
    /// Without a text as `id` it is listed, but no request can name it. Without a readable `created_at` it has the place
    /// of a customer created now, or that of the one it replaces.
    pub fn put_raw(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str).map(str::to_owned);
        let known = id.as_deref().and_then(|id| self.row_ever(id));
        let row = known.unwrap_or(self.rows.len() as u32);
        let created_at = body.get("created_at").and_then(Value::as_str);
        let created_s = match created_at.and_then(|text| text.parse::<Timestamp>().ok()) {
            Some(time) => time.as_second(),
            None => known.map_or(now.as_second(), |row| self.created_s(row)),
        };
        let kind = match known.filter(|&row| self.is_live(row)) {
            Some(row) => {
                self.index.remove(self.entry(row));
                EventKind::Updated
            }
            None => EventKind::Created,
        };
        let changed = Row::Changed(Box::new(Customer { created_s, body: body.clone() }));
        match known {
            Some(row) => self.rows[row as usize] = changed,
            None => {
                self.rows.push(changed);
                if let Some(id) = id {
                    self.added.insert(id, row);
                }
            }
        }
        self.index.insert(self.entry(row));
        self.events.record(now, kind, body);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.rows.iter_mut().for_each(Row::delete);
        self.index = Index::new(std::iter::empty());
    }

    /// The customer at a position from the newest; `None` past the end or without an id.
    pub(super) fn nth_id(&self, position: usize) -> Option<String> {
        self.id_of(self.index.nth_newest(position)?)
    }

    /// The row of a living customer.
    pub(super) fn row(&self, id: &str) -> Option<u32> {
        self.row_ever(id).filter(|&row| self.is_live(row))
    }

    pub(super) fn id_of(&self, row: u32) -> Option<String> {
        id_of(&self.rows, &self.population, row)
    }

    pub(super) fn created_s(&self, row: u32) -> i64 {
        match &self.rows[row as usize] {
            Row::Changed(customer) | Row::Deleted(Some(customer)) => customer.created_s,
            Row::Seeded | Row::Deleted(None) => self.population.created_s(row),
        }
    }

    /// A living customer as an answer shows it.
    pub(super) fn body(&self, row: u32, reveal: Reveal) -> Option<Value> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) => Some(revealed(customer.body.clone(), reveal)),
            Row::Seeded => serde_json::to_value(self.seeded(row, reveal)).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// The same as [`Account::body`], written at once: pages are made of these.
    pub(super) fn text(&self, row: u32, reveal: Reveal) -> Option<Box<RawValue>> {
        match self.rows.get(row as usize)? {
            Row::Seeded => to_raw_value(&self.seeded(row, reveal)).ok(),
            Row::Changed(customer) if reveal == Reveal::ALL => to_raw_value(&customer.body).ok(),
            Row::Changed(_) => to_raw_value(&self.body(row, reveal)?).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// The list in this order, of all customers or of those created within `seconds`.
    pub(super) fn view(&mut self, order: Order, seconds: Option<Range<i64>>) -> View {
        let (rows, population) = (&self.rows, &self.population);
        self.index.view(order, seconds, |row| id_of(rows, population, row))
    }

    pub(super) fn view_len(&self, view: &View) -> usize {
        self.index.view_len(view)
    }

    /// The rows at these positions of a view; positions past the end are left out.
    pub(super) fn rows(&self, view: &View, positions: Range<usize>) -> Vec<u32> {
        self.index.rows(view, positions)
    }

    /// Moves a customer to an end of the list, though its `created_at` stays. By id, nothing can be moved.
    pub(super) fn move_to(&mut self, end: End, order: Order, row: u32) {
        self.index.move_to(end, order, row, self.created_s(row));
    }

    /// An id nobody has. It depends on the time too: a sandbox started again does not hand out the same ids.
    fn fresh_id(&mut self, now: Timestamp) -> String {
        let mut dice = Dice::new(self.dice.roll() ^ now.as_millisecond() as u64);
        loop {
            let id = dice.id();
            if self.row_ever(&id).is_none() {
                return id;
            }
        }
    }

    fn row_ever(&self, id: &str) -> Option<u32> {
        self.population.number(id).or_else(|| self.added.get(id).copied())
    }

    pub(super) fn is_live(&self, row: u32) -> bool {
        !matches!(self.rows[row as usize], Row::Deleted(_))
    }

    fn seeded(&self, row: u32, reveal: Reveal) -> Person {
        let mut person = self.population.person(row);
        if !reveal.source {
            person.source = None;
        }
        if !reveal.locale {
            person.locale = None;
        }
        person
    }

    fn entry(&self, row: u32) -> Entry {
        Entry { row, created_s: self.created_s(row), id: self.id_of(row) }
    }
}

/// On its own, so that the index can ask while it is borrowed.
fn id_of(rows: &[Row], population: &Population, row: u32) -> Option<String> {
    match rows.get(row as usize)? {
        Row::Changed(customer) => customer.body.get("id")?.as_str().map(str::to_owned),
        Row::Seeded => Some(population.id(row)),
        Row::Deleted(_) => None,
    }
}

/// Some card, as a customer put in by hand would have it.
pub(super) fn source_value(card: &Card) -> Value {
    serde_json::to_value(card).unwrap_or_default()
}

fn revealed(mut body: Value, reveal: Reveal) -> Value {
    if let Some(fields) = body.as_object_mut() {
        if !reveal.source && fields.contains_key("source") {
            fields.insert("source".to_owned(), Value::Null);
        }
        if !reveal.locale {
            fields.remove("locale");
        }
    }
    body
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
            let row = account.row(&id).unwrap();
            let body = account.body(row, hidden).unwrap();
            assert!(body["source"].is_null() && body.get("locale").is_none());
            let text = account.text(row, hidden).unwrap();
            assert_eq!(serde_json::from_str::<Value>(text.get()).unwrap(), body);
        }
    }
}
