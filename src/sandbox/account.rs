//! One merchant's customers: the seeded ones, what became of them, and the order they are listed in.
//!
//! A row is a number. Seeded rows hold nothing until they change; deleted rows keep their last state, so that a test can
//! bring them back. The index by time always exists; those by id and for moved rows are built when first asked for, as
//! nothing but a reading or a fault ever does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::dice::Dice;
use super::events::{EventKind, EventLog};
use super::population::{Card, Population, rfc3339};
use super::ranked::Ranked;
use super::readings::Order;

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
    by_time: Ranked<Place>,
    by_id: Option<Ranked<(String, u32)>>,
    moved: Option<Moved>,
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

/// A position in the order of creation; the row settles ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created_s: i64,
    row: u32,
}

/// The order once rows have been moved by hand.
#[derive(Debug)]
struct Moved {
    order: Ranked<Place>,
    places: HashMap<u32, i64>,
    /// The next move to an end goes beyond all earlier ones.
    moves: i64,
}

/// A list as one request sees it.
#[derive(Debug, Clone)]
pub(super) enum View {
    /// Ranks in the order of creation.
    Time { ranks: Range<usize>, newest_first: bool },
    /// All of the moved order.
    Moved { newest_first: bool },
    /// All by id.
    Id,
    /// These rows and no others.
    Rows(Vec<u32>),
}

/// Which end of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    First,
    Last,
}

impl Account {
    pub(super) fn new(seed: u64, number: u64, customers: u32, now: Timestamp) -> Self {
        let population = Population::new(seed, number, customers, now);
        let places = (0..customers).map(|row| Place { created_s: population.created_s(row), row });
        Self {
            by_time: Ranked::from_sorted(places),
            rows: std::iter::repeat_with(|| Row::Seeded).take(customers as usize).collect(),
            added: HashMap::new(),
            by_id: None,
            moved: None,
            dice: Dice::new(population.salt()),
            events: EventLog::new(population.salt()),
            tokens: HashSet::new(),
            population,
        }
    }

    /// The ids of all customers, newest first. Customers put in without an id are left out.
    pub fn ids(&self) -> Vec<String> {
        let mut places = self.by_time.slice(0..self.len());
        places.reverse();
        places.iter().filter_map(|place| self.id_of(place.row)).collect()
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.by_time.len()
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
        self.unlist(row);
        self.rows[row as usize].delete();
        self.events.record(now, EventKind::Deleted, body);
        true
    }

    /// Brings a deleted customer back as it was. False when none of this id was deleted.
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
        self.list(row);
        true
    }

    /// Puts in any value whatever as a customer, or in the place of the customer with the same `id`.
    ///
    /// Without a text as `id` it is listed, but no request can name it. Without a readable `created_at` it counts as
    /// created now.
    pub fn put_raw(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str).map(str::to_owned);
        let created_s = body
            .get("created_at")
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map_or(now.as_second(), Timestamp::as_second);
        let known = id.as_deref().and_then(|id| self.row_ever(id));
        let row = known.unwrap_or(self.rows.len() as u32);
        let kind = match known.filter(|&row| self.is_live(row)) {
            Some(row) => {
                self.unlist(row);
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
        self.list(row);
        self.events.record(now, kind, body);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.rows.iter_mut().for_each(Row::delete);
        self.by_time = Ranked::from_sorted(std::iter::empty());
        self.by_id = None;
        self.moved = None;
    }

    /// The customer at a position from the newest; `None` past the end or without an id.
    pub(super) fn nth_id(&self, position: usize) -> Option<String> {
        let rank = self.len().checked_sub(position + 1)?;
        let place = self.by_time.slice(rank..rank + 1);
        self.id_of(place.first()?.row)
    }

    /// The row of a living customer.
    pub(super) fn row(&self, id: &str) -> Option<u32> {
        self.row_ever(id).filter(|&row| self.is_live(row))
    }

    pub(super) fn id_of(&self, row: u32) -> Option<String> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) => customer.body.get("id")?.as_str().map(str::to_owned),
            Row::Seeded => Some(self.population.id(row)),
            Row::Deleted(_) => None,
        }
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
            Row::Seeded => serde_json::value::to_raw_value(&self.seeded(row, reveal)).ok(),
            Row::Changed(customer) if reveal == Reveal::ALL => {
                serde_json::value::to_raw_value(&customer.body).ok()
            }
            Row::Changed(_) => serde_json::value::to_raw_value(&self.body(row, reveal)?).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// The list in this order, of all customers or of those created within `seconds`.
    pub(super) fn view(&mut self, order: Order, seconds: Option<Range<i64>>) -> View {
        let newest_first = order == Order::NewestFirst;
        let Some(seconds) = seconds else {
            return match order {
                Order::ById => {
                    self.index_by_id();
                    View::Id
                }
                _ if self.moved.is_some() => View::Moved { newest_first },
                _ => View::Time { ranks: 0..self.len(), newest_first },
            };
        };
        let rank = |created_s| self.by_time.rank(&Place { created_s, row: 0 });
        let start = rank(seconds.start);
        let ranks = start..rank(seconds.end).max(start);
        if order == Order::ById {
            let mut rows: Vec<u32> = self.by_time.slice(ranks).iter().map(|place| place.row).collect();
            rows.sort_by_cached_key(|&row| self.id_of(row));
            return View::Rows(rows);
        }
        View::Time { ranks, newest_first }
    }

    pub(super) fn view_len(&self, view: &View) -> usize {
        match view {
            View::Time { ranks, .. } => ranks.len(),
            View::Moved { .. } | View::Id => self.len(),
            View::Rows(rows) => rows.len(),
        }
    }

    /// The rows at these positions of a view; positions past the end are left out.
    pub(super) fn rows(&self, view: &View, positions: Range<usize>) -> Vec<u32> {
        let end = positions.end.min(self.view_len(view));
        let positions = positions.start.min(end)..end;
        let places = |index: &Ranked<Place>, ranks: &Range<usize>, newest_first| -> Vec<u32> {
            if newest_first {
                let slice = index.slice(ranks.end - positions.end..ranks.end - positions.start);
                slice.iter().rev().map(|place| place.row).collect()
            } else {
                let slice = index.slice(ranks.start + positions.start..ranks.start + positions.end);
                slice.iter().map(|place| place.row).collect()
            }
        };
        match (view, &self.moved, &self.by_id) {
            (View::Time { ranks, newest_first }, ..) => places(&self.by_time, ranks, *newest_first),
            (View::Moved { newest_first }, Some(moved), _) => {
                places(&moved.order, &(0..self.len()), *newest_first)
            }
            (View::Id, _, Some(by_id)) => by_id.slice(positions).into_iter().map(|(_, row)| row).collect(),
            (View::Rows(rows), ..) => rows[positions].to_vec(),
            // A view is used under the lock it was made under, so its index is still there.
            (View::Moved { .. } | View::Id, ..) => Vec::new(),
        }
    }

    /// Moves a customer to an end of the list, though its `created_at` stays. By id, nothing can be moved.
    pub(super) fn move_to(&mut self, end: End, order: Order, row: u32) {
        let moved = self.moved.get_or_insert_with(|| Moved {
            order: self.by_time.clone(),
            places: HashMap::new(),
            moves: 0,
        });
        moved.moves += 1;
        let newest = match (order, end) {
            (Order::ById, _) => return,
            (Order::NewestFirst, End::First) | (Order::OldestFirst, End::Last) => true,
            (Order::NewestFirst, End::Last) | (Order::OldestFirst, End::First) => false,
        };
        // Far outside of any `created_at`, the later move farther.
        let to = if newest { i64::MAX / 2 + moved.moves } else { i64::MIN / 2 - moved.moves };
        let from = self.moved_place(row);
        if let Some(moved) = &mut self.moved {
            moved.order.remove(&from);
            moved.order.insert(Place { created_s: to, row });
            moved.places.insert(row, to);
        }
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

    fn seeded(&self, row: u32, reveal: Reveal) -> super::population::Person {
        let mut person = self.population.person(row);
        if !reveal.source {
            person.source = None;
        }
        if !reveal.locale {
            person.locale = None;
        }
        person
    }

    fn place(&self, row: u32) -> Place {
        Place { created_s: self.created_s(row), row }
    }

    fn moved_place(&self, row: u32) -> Place {
        let place = self.place(row);
        let moved = self.moved.as_ref().and_then(|moved| moved.places.get(&row));
        Place { created_s: moved.copied().unwrap_or(place.created_s), row }
    }

    fn list(&mut self, row: u32) {
        let (place, moved_place, id) = (self.place(row), self.moved_place(row), self.id_of(row));
        self.by_time.insert(place);
        if let Some(by_id) = &mut self.by_id {
            by_id.insert((id.unwrap_or_default(), row));
        }
        if let Some(moved) = &mut self.moved {
            moved.order.insert(moved_place);
        }
    }

    fn unlist(&mut self, row: u32) {
        let (place, moved_place, id) = (self.place(row), self.moved_place(row), self.id_of(row));
        self.by_time.remove(&place);
        if let Some(by_id) = &mut self.by_id {
            by_id.remove(&(id.unwrap_or_default(), row));
        }
        if let Some(moved) = &mut self.moved {
            moved.order.remove(&moved_place);
        }
    }

    fn index_by_id(&mut self) {
        if self.by_id.is_some() {
            return;
        }
        let places = self.by_time.slice(0..self.len());
        let mut ids: Vec<(String, u32)> =
            places.iter().map(|place| (self.id_of(place.row).unwrap_or_default(), place.row)).collect();
        ids.sort_unstable();
        self.by_id = Some(Ranked::from_sorted(ids.into_iter()));
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

    fn listed(account: &mut Account, order: Order, seconds: Option<Range<i64>>) -> Vec<String> {
        let view = account.view(order, seconds);
        let rows = account.rows(&view, 0..usize::MAX);
        rows.iter().filter_map(|&row| account.id_of(row)).collect()
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
    fn every_order_lists_everybody_once_also_after_changes() {
        let mut account = account(500);
        // The indexes exist before the changes, so that both building and keeping them is tried.
        listed(&mut account, Order::ById, None);
        account.create(now(), json!({"created_at": "2021-01-01T00:00:00Z"}));
        let second = account.ids()[1].clone();
        account.delete(now(), &second);

        let newest = listed(&mut account, Order::NewestFirst, None);
        assert_eq!(newest, account.ids());
        let mut oldest = listed(&mut account, Order::OldestFirst, None);
        oldest.reverse();
        assert_eq!(oldest, newest);
        let by_id = listed(&mut account, Order::ById, None);
        let mut sorted = newest;
        sorted.sort();
        assert_eq!(by_id, sorted);
    }

    #[test]
    fn a_range_of_seconds_takes_its_start_and_not_its_end() {
        let mut account = account(300);
        let seconds: Vec<i64> = (0..300).map(|row| account.created_s(row)).collect();
        let range = seconds[100]..seconds[200];
        let expected = seconds.iter().filter(|second| range.contains(second)).count();
        for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
            assert_eq!(listed(&mut account, order, Some(range.clone())).len(), expected);
        }
        assert!(listed(&mut account, Order::NewestFirst, Some(range.end..range.start)).is_empty());
    }

    #[test]
    fn moved_customers_are_at_the_ends_in_either_order() {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let mut account = account(10);
            let before = listed(&mut account, order, None);
            let row = |account: &Account, position: usize| account.row(&before[position]).unwrap();
            let (last, first) = (row(&account, 2), row(&account, 7));
            account.move_to(End::Last, order, last);
            account.move_to(End::First, order, first);
            let after = listed(&mut account, order, None);
            assert_eq!(after.first(), Some(&before[7]));
            assert_eq!(after.last(), Some(&before[2]));
            assert_eq!(after.len(), before.len());
            assert!(account.delete(now(), &before[7]));
            assert_eq!(listed(&mut account, order, None).len(), 9);
        }
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
