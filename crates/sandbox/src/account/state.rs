//! Owns the customers of an account at one time, and applies changes to them.
//!
//! A row is a number. A seeded row stores nothing until it changes. A deleted row keeps its last
//! state, so that a test can restore it. The [`super::index`] decides in which order rows are
//! listed.

use std::collections::HashMap;
use std::ops::Range;

use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::index::{self, End, Entry, Index};
use crate::account::ordered::Ordered;
use crate::population::{Person, Population};
use crate::readings::Order;

/// Which of a customer's fields an answer reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reveal {
    pub(crate) source: bool,
    pub(crate) locale: bool,
}

impl Reveal {
    pub(crate) const ALL: Self = Self { source: true, locale: true };
}

/// The customers of one account at one time.
#[derive(Debug, Clone)]
pub struct State {
    population: Population,
    rows: Vec<Row>,
    /// Rows of customers that are not from the population, by id.
    added: HashMap<String, u32>,
    /// The living.
    index: Index,
    /// The living and the deleted; built when first asked for.
    with_deleted: Option<Index>,
}

/// One change of a state. Rows must be as the change needs them: living to be deleted, deleted to be restored.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Puts in a customer, or in the place of that with the same `id`.
    Put { now: Timestamp, body: Value },
    /// Deletes a customer.
    Delete { row: u32 },
    /// Brings back a deleted customer.
    Restore { row: u32 },
    /// Deletes every customer.
    RemoveAll,
    /// Moves a customer to an end of the list.
    Move { end: End, order: Order, row: u32 },
}

/// A list as one request sees it.
#[derive(Debug, Clone)]
pub struct View {
    part: index::View,
    with_deleted: bool,
}

impl View {
    /// A list of these rows and no others.
    pub(crate) fn of_rows(rows: Vec<u32>) -> Self {
        Self { part: index::View::Rows(rows), with_deleted: false }
    }
}

#[derive(Debug, Clone)]
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

    fn restore(&mut self) {
        *self = match std::mem::replace(self, Self::Seeded) {
            Self::Deleted(None) => Self::Seeded,
            Self::Deleted(Some(customer)) => Self::Changed(customer),
            live => live,
        };
    }
}

#[derive(Debug, Clone)]
struct Customer {
    /// Kept beside the body, which may say anything.
    created_s: i64,
    body: Value,
}

impl State {
    pub(crate) fn new(population: Population, customers: u32) -> Self {
        Self {
            index: Index::new((0..customers).map(|row| population.created_s(row))),
            rows: std::iter::repeat_with(|| Row::Seeded).take(customers as usize).collect(),
            added: HashMap::new(),
            with_deleted: None,
            population,
        }
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { now, body } => self.put(now, body),
            Change::Delete { row } => {
                self.index.remove(self.entry(row));
                self.rows[row as usize].delete();
            }
            Change::Restore { row } => {
                self.rows[row as usize].restore();
                self.index.insert(self.entry(row));
            }
            Change::RemoveAll => {
                self.rows.iter_mut().for_each(Row::delete);
                self.index = Index::new(std::iter::empty());
            }
            Change::Move { end, order, row } => {
                let created_s = self.created_s(row);
                self.index.move_to(end, order, row, created_s);
                if let Some(index) = &mut self.with_deleted {
                    index.move_to(end, order, row, created_s);
                }
            }
        }
    }

    fn put(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str).map(str::to_owned);
        let known = id.as_deref().and_then(|id| self.row_ever(id));
        let row = known.unwrap_or(self.rows.len() as u32);
        let created_at = body.get("created_at").and_then(Value::as_str);
        let created_s = match created_at.and_then(|text| text.parse::<Timestamp>().ok()) {
            Some(time) => time.as_second(),
            None => known.map_or(now.as_second(), |row| self.created_s(row)),
        };
        if let Some(row) = known {
            let before = self.entry(row);
            if let Some(index) = &mut self.with_deleted {
                index.remove(before.clone());
            }
            if self.is_live(row) {
                self.index.remove(before);
            }
        }
        let changed = Row::Changed(Box::new(Customer { created_s, body }));
        match known {
            Some(row) => self.rows[row as usize] = changed,
            None => {
                self.rows.push(changed);
                if let Some(id) = id {
                    self.added.insert(id, row);
                }
            }
        }
        let after = self.entry(row);
        if let Some(index) = &mut self.with_deleted {
            index.insert(after.clone());
        }
        self.index.insert(after);
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let rows = self.index.newest_first();
        rows.into_iter().filter_map(|row| self.id_of(row)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn nth_id(&self, position: usize) -> Option<String> {
        self.id_of(self.index.nth_newest(position)?)
    }

    /// The row of a living customer.
    pub(crate) fn row(&self, id: &str) -> Option<u32> {
        self.row_ever(id).filter(|&row| self.is_live(row))
    }

    /// The row of a customer, living or deleted.
    pub(crate) fn row_ever(&self, id: &str) -> Option<u32> {
        self.population.number(id).or_else(|| self.added.get(id).copied())
    }

    /// The id of a living customer.
    pub(crate) fn id_of(&self, row: u32) -> Option<String> {
        id_ever(&self.rows, &self.population, row).filter(|_| self.is_live(row))
    }

    pub(crate) fn created_s(&self, row: u32) -> i64 {
        match &self.rows[row as usize] {
            Row::Changed(customer) | Row::Deleted(Some(customer)) => customer.created_s,
            Row::Seeded | Row::Deleted(None) => self.population.created_s(row),
        }
    }

    pub(crate) fn is_live(&self, row: u32) -> bool {
        !matches!(self.rows[row as usize], Row::Deleted(_))
    }

    /// A living customer as an answer shows it.
    pub(crate) fn body(&self, row: u32, reveal: Reveal) -> Option<Value> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) => Some(revealed(customer.body.clone(), reveal)),
            Row::Seeded => serde_json::to_value(self.seeded(row, reveal)).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// The same as [`State::body`], written at once: pages are made of these.
    pub(crate) fn text(&self, row: u32, reveal: Reveal) -> Option<Box<RawValue>> {
        match self.rows.get(row as usize)? {
            Row::Seeded => to_raw_value(&self.seeded(row, reveal)).ok(),
            Row::Changed(customer) if reveal == Reveal::ALL => to_raw_value(&Ordered(&customer.body)).ok(),
            Row::Changed(_) => to_raw_value(&Ordered(&self.body(row, reveal)?)).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// The last state of a deleted customer, with `"deleted": true`.
    pub(crate) fn deleted_text(&self, row: u32, reveal: Reveal) -> Option<Box<RawValue>> {
        let mut body = match self.rows.get(row as usize)? {
            Row::Deleted(Some(customer)) => revealed(customer.body.clone(), reveal),
            Row::Deleted(None) => serde_json::to_value(self.seeded(row, reveal)).ok()?,
            Row::Seeded | Row::Changed(_) => return None,
        };
        if let Some(fields) = body.as_object_mut() {
            fields.insert("deleted".to_owned(), true.into());
        }
        to_raw_value(&Ordered(&body)).ok()
    }

    /// Month and year at whose end a customer's card expires.
    pub(crate) fn expiry(&self, row: u32) -> Option<(u64, u64)> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) | Row::Deleted(Some(customer)) => {
                let source = customer.body.get("source")?;
                Some((source.get("month")?.as_u64()?, source.get("year")?.as_u64()?))
            }
            Row::Seeded | Row::Deleted(None) => {
                let card = self.population.person(row).source?;
                Some((card.month, card.year))
            }
        }
    }

    /// The list in this order, of all customers or of those created within `seconds`.
    pub(crate) fn view(&mut self, order: Order, seconds: Option<Range<i64>>, with_deleted: bool) -> View {
        if with_deleted && self.with_deleted.is_none() {
            let all = (0..self.rows.len() as u32).map(|row| (self.created_s(row), row));
            self.with_deleted = Some(self.index.of_rows(all));
        }
        let (rows, population) = (&self.rows, &self.population);
        let index = match &mut self.with_deleted {
            Some(index) if with_deleted => index,
            _ => &mut self.index,
        };
        View { part: index.view(order, seconds, |row| id_ever(rows, population, row)), with_deleted }
    }

    pub(crate) fn view_len(&self, view: &View) -> usize {
        self.index_of(view).view_len(&view.part)
    }

    /// The rows at these positions of a view; positions past the end are left out.
    pub(crate) fn rows(&self, view: &View, positions: Range<usize>) -> Vec<u32> {
        self.index_of(view).rows(&view.part, positions)
    }

    fn index_of(&self, view: &View) -> &Index {
        match &self.with_deleted {
            Some(index) if view.with_deleted => index,
            _ => &self.index,
        }
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
        let id = id_ever(&self.rows, &self.population, row);
        Entry { row, created_s: self.created_s(row), id }
    }
}

/// The id of a customer, living or deleted. On its own, so that the index can ask while it is borrowed.
fn id_ever(rows: &[Row], population: &Population, row: u32) -> Option<String> {
    match rows.get(row as usize)? {
        Row::Changed(customer) | Row::Deleted(Some(customer)) => {
            customer.body.get("id")?.as_str().map(str::to_owned)
        }
        Row::Seeded | Row::Deleted(None) => Some(population.id(row)),
    }
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
