//! The customers of an account at one time. This module applies changes to them.
//!
//! A row is a number. A seeded row stores nothing until it changes. A deleted row keeps its last
//! state, so that a test can restore it. [`super::index`] decides the order of lists.

use std::collections::HashMap;
use std::ops::Range;

use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::index::{CustomerIndex, IndexPlace, IndexView, ListEnd};
use crate::account::ordered::Ordered;
use crate::population::{Population, SeededCustomer};
use crate::readings::Order;

/// The fields of a customer that an answer shows or hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reveal {
    pub(crate) source: bool,
    pub(crate) locale: bool,
}

impl Reveal {
    /// All fields.
    pub(crate) const ALL: Self = Self { source: true, locale: true };
}

/// The customers of one account at one time.
#[derive(Debug, Clone)]
pub struct Customers {
    population: Population,
    rows: Vec<Row>,
    /// The rows of customers that are not from the population, by id.
    added: HashMap<String, u32>,
    /// The live customers.
    index: CustomerIndex,
    /// The live and the deleted customers. It is built by the first list that shows both, and
    /// dropped by a change of their order.
    with_deleted: Option<CustomerIndex>,
}

/// One change. The row of a delete must be live, and the row of a restore deleted.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Stores a customer, in place of the one with the same `id`.
    Put { now: Timestamp, body: Value },
    /// Deletes a customer.
    Delete { row: u32 },
    /// Restores a deleted customer.
    Restore { row: u32 },
    /// Deletes every customer.
    RemoveAll,
    /// Moves a customer to an end of the list.
    Move { end: ListEnd, order: Order, row: u32 },
}

/// A list as one request sees it.
#[derive(Debug, Clone)]
pub struct ListView {
    part: IndexView,
    with_deleted: bool,
}

impl ListView {
    /// Returns a list of these rows only.
    pub(crate) fn of_rows(rows: Vec<u32>) -> Self {
        Self { part: IndexView::Rows(rows), with_deleted: false }
    }
}

/// What is stored of one customer.
#[derive(Debug, Clone)]
enum Row {
    /// Nothing: the customer is unchanged since the start.
    Seeded,
    Changed(Box<Customer>),
    /// The last state before the delete; none if the customer was unchanged until then.
    Deleted(Option<Box<Customer>>),
}

impl Row {
    /// Deletes the customer, and keeps its last state.
    fn delete(&mut self) {
        *self = match std::mem::replace(self, Self::Seeded) {
            Self::Seeded => Self::Deleted(None),
            Self::Changed(customer) => Self::Deleted(Some(customer)),
            deleted @ Self::Deleted(_) => deleted,
        };
    }

    /// Restores the last state.
    fn restore(&mut self) {
        *self = match std::mem::replace(self, Self::Seeded) {
            Self::Deleted(None) => Self::Seeded,
            Self::Deleted(Some(customer)) => Self::Changed(customer),
            live => live,
        };
    }
}

/// A customer that is not as it was seeded.
#[derive(Debug, Clone)]
struct Customer {
    /// The time for the order of lists. The body may contain any value as `created_at`.
    created_s: i64,
    body: Value,
}

impl Customers {
    /// Returns the seeded customers, unchanged.
    pub(crate) fn new(population: Population, customers: u32) -> Self {
        Self {
            index: CustomerIndex::new((0..customers).map(|row| population.created_s(row))),
            rows: std::iter::repeat_with(|| Row::Seeded).take(customers as usize).collect(),
            added: HashMap::new(),
            with_deleted: None,
            population,
        }
    }

    /// Applies a change.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { now, body } => self.put(now, body),
            Change::Delete { row } => {
                self.index.remove(self.place(row));
                self.rows[row as usize].delete();
            }
            Change::Restore { row } => {
                self.rows[row as usize].restore();
                self.index.insert(self.place(row));
            }
            Change::RemoveAll => {
                self.rows.iter_mut().for_each(Row::delete);
                self.index = CustomerIndex::new(std::iter::empty());
            }
            Change::Move { end, order, row } => {
                self.index.move_to(end, order, self.place(row));
                self.with_deleted = None;
            }
        }
    }

    /// Stores a customer, in place of the one with the same `id`, live or deleted.
    fn put(&mut self, now: Timestamp, body: Value) {
        let id = body.get("id").and_then(Value::as_str).map(str::to_owned);
        let known = id.as_deref().and_then(|id| self.row_ever(id));
        let row = known.unwrap_or(self.rows.len() as u32);
        let created_at = body.get("created_at").and_then(Value::as_str);
        let created_s = match created_at.and_then(|text| text.parse::<Timestamp>().ok()) {
            Some(time) => time.as_second(),
            None => known.map_or(now.as_second(), |row| self.created_s(row)),
        };
        if let Some(row) = known.filter(|&row| self.is_live(row)) {
            self.index.remove(self.place(row));
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
        self.index.insert(self.place(row));
        self.with_deleted = None;
    }

    /// Returns the ids of all live customers that have one, newest first.
    pub(crate) fn ids(&self) -> Vec<String> {
        let rows = self.index.newest_first();
        rows.into_iter().filter_map(|row| self.id_of(row)).collect()
    }

    /// Returns the number of live customers.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the id of the customer at a position from the newest; none past the end, or if the
    /// customer has no id.
    pub(crate) fn nth_id(&self, position: usize) -> Option<String> {
        self.id_of(self.index.nth_newest(position)?)
    }

    /// Returns the row of a live customer.
    pub(crate) fn row(&self, id: &str) -> Option<u32> {
        self.row_ever(id).filter(|&row| self.is_live(row))
    }

    /// Returns the row of a customer, live or deleted.
    pub(crate) fn row_ever(&self, id: &str) -> Option<u32> {
        self.population.number(id).or_else(|| self.added.get(id).copied())
    }

    /// Returns the id of a live customer.
    pub(crate) fn id_of(&self, row: u32) -> Option<String> {
        id_ever(&self.rows, &self.population, row).filter(|_| self.is_live(row))
    }

    /// Returns when a customer was created, in seconds since 1970.
    pub(crate) fn created_s(&self, row: u32) -> i64 {
        match &self.rows[row as usize] {
            Row::Changed(customer) | Row::Deleted(Some(customer)) => customer.created_s,
            Row::Seeded | Row::Deleted(None) => self.population.created_s(row),
        }
    }

    /// Whether a customer is live.
    pub(crate) fn is_live(&self, row: u32) -> bool {
        !matches!(self.rows[row as usize], Row::Deleted(_))
    }

    /// Returns a live customer as an answer shows it.
    pub(crate) fn body(&self, row: u32, reveal: Reveal) -> Option<Value> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) => Some(revealed(customer.body.clone(), reveal)),
            Row::Seeded => serde_json::to_value(self.seeded(row, reveal)).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// Returns [`Customers::body`] as text, without building a value for a seeded customer. Pages
    /// consist of these texts.
    pub(crate) fn text(&self, row: u32, reveal: Reveal) -> Option<Box<RawValue>> {
        match self.rows.get(row as usize)? {
            Row::Seeded => to_raw_value(&self.seeded(row, reveal)).ok(),
            Row::Changed(customer) if reveal == Reveal::ALL => to_raw_value(&Ordered(&customer.body)).ok(),
            Row::Changed(_) => to_raw_value(&Ordered(&self.body(row, reveal)?)).ok(),
            Row::Deleted(_) => None,
        }
    }

    /// Returns the last state of a deleted customer, with `"deleted": true`.
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

    /// Returns the month and year at whose end a customer's card expires.
    pub(crate) fn expiry(&self, row: u32) -> Option<(u64, u64)> {
        match self.rows.get(row as usize)? {
            Row::Changed(customer) | Row::Deleted(Some(customer)) => {
                let source = customer.body.get("source")?;
                Some((source.get("month")?.as_u64()?, source.get("year")?.as_u64()?))
            }
            Row::Seeded | Row::Deleted(None) => {
                let card = self.population.customer(row).source?;
                Some((card.month, card.year))
            }
        }
    }

    /// Returns the list in this order, of all customers or of those created within `seconds`.
    pub(crate) fn view(&mut self, order: Order, seconds: Option<Range<i64>>, with_deleted: bool) -> ListView {
        if with_deleted && self.with_deleted.is_none() {
            let all = (0..self.rows.len() as u32).map(|row| self.place(row));
            self.with_deleted = Some(self.index.of_places(all));
        }
        let (rows, population) = (&self.rows, &self.population);
        let index = match &mut self.with_deleted {
            Some(index) if with_deleted => index,
            _ => &mut self.index,
        };
        ListView { part: index.view(order, seconds, |row| id_ever(rows, population, row)), with_deleted }
    }

    /// Returns the number of rows of a list.
    pub(crate) fn view_len(&self, view: &ListView) -> usize {
        self.index_of(view).view_len(&view.part)
    }

    /// Returns the rows at these positions of a list. Positions past the end are ignored.
    pub(crate) fn rows(&self, view: &ListView, positions: Range<usize>) -> Vec<u32> {
        self.index_of(view).rows(&view.part, positions)
    }

    /// Returns the index that a list belongs to.
    fn index_of(&self, view: &ListView) -> &CustomerIndex {
        match &self.with_deleted {
            Some(index) if view.with_deleted => index,
            _ => &self.index,
        }
    }

    /// Returns a customer as it was seeded, without the hidden fields.
    fn seeded(&self, row: u32, reveal: Reveal) -> SeededCustomer {
        let mut customer = self.population.customer(row);
        if !reveal.source {
            customer.source = None;
        }
        if !reveal.locale {
            customer.locale = None;
        }
        customer
    }

    /// Returns a customer's place in the order of creation.
    fn place(&self, row: u32) -> IndexPlace {
        IndexPlace { created_s: self.created_s(row), row }
    }
}

/// Returns the id of a customer, live or deleted. A free function, because [`Customers::view`]
/// calls it while the index is borrowed.
fn id_ever(rows: &[Row], population: &Population, row: u32) -> Option<String> {
    match rows.get(row as usize)? {
        Row::Changed(customer) | Row::Deleted(Some(customer)) => {
            customer.body.get("id")?.as_str().map(str::to_owned)
        }
        Row::Seeded | Row::Deleted(None) => Some(population.id(row)),
    }
}

/// Removes the hidden fields from a customer.
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
