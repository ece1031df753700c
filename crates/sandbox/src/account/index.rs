//! The orders in which customers are listed: by creation, by id, and as a fault moved them.
//!
//! The order of creation always exists. The other two are built at first use, because only a
//! reading or a fault needs them. A change drops the order by id; the next list builds it again.
//!
//! Each order is a sorted `Vec`, because a page is a range of positions. An insert moves the keys
//! behind it: at most 16 MB for a million customers.

use std::collections::HashMap;
use std::ops::Range;

use crate::readings::Order;

/// The rows of customers in each order.
#[derive(Debug, Clone)]
pub(crate) struct CustomerIndex {
    by_time: Vec<IndexPlace>,
    by_id: Option<Vec<u32>>,
    moved: Option<Moved>,
}

/// A row's place in the order of creation. The row decides between equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexPlace {
    /// When the customer was created, in seconds since 1970.
    pub(crate) created_s: i64,
    pub(crate) row: u32,
}

/// The order after rows were moved by a fault.
#[derive(Debug, Clone)]
struct Moved {
    order: Vec<IndexPlace>,
    /// The seconds that replace the creation times of moved rows.
    seconds: HashMap<u32, i64>,
}

/// A list as one request sees it.
#[derive(Debug, Clone)]
pub enum IndexView {
    /// Ranks in the order of creation.
    Time { ranks: Range<usize>, newest_first: bool },
    /// The whole moved order.
    Moved { newest_first: bool },
    /// The whole order by id.
    Id,
    /// These rows only.
    Rows(Vec<u32>),
}

/// An end of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListEnd {
    First,
    Last,
}

impl CustomerIndex {
    /// Returns the index of rows 0, 1, 2, …, whose creation times are `seconds`, in ascending
    /// order.
    pub(crate) fn new(seconds: impl Iterator<Item = i64>) -> Self {
        let places = (0..).zip(seconds).map(|(row, created_s)| IndexPlace { created_s, row });
        Self { by_time: places.collect(), by_id: None, moved: None }
    }

    /// Returns an index of these places in which the same rows are moved as in this index.
    pub(crate) fn of_places(&self, places: impl Iterator<Item = IndexPlace>) -> Self {
        let places: Vec<IndexPlace> = places.collect();
        let sorted = |mut places: Vec<IndexPlace>| {
            places.sort_unstable();
            places
        };
        let moved = self.moved.as_ref().map(|moved| Moved {
            order: sorted(places.iter().map(|&place| moved.place(place)).collect()),
            seconds: moved.seconds.clone(),
        });
        Self { by_time: sorted(places), by_id: None, moved }
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Adds a row.
    pub(crate) fn insert(&mut self, place: IndexPlace) {
        self.by_id = None;
        insert(&mut self.by_time, place);
        if let Some(moved) = &mut self.moved {
            let place = moved.place(place);
            insert(&mut moved.order, place);
        }
    }

    /// Removes a row. The place must be the same as when the row was added.
    pub(crate) fn remove(&mut self, place: IndexPlace) {
        self.by_id = None;
        remove(&mut self.by_time, &place);
        if let Some(moved) = &mut self.moved {
            let place = moved.place(place);
            remove(&mut moved.order, &place);
        }
    }

    /// Returns all rows, newest first.
    pub(crate) fn newest_first(&self) -> Vec<u32> {
        placed(&self.by_time, 0..self.len(), 0..self.len(), true)
    }

    /// Returns the row at a position from the newest.
    pub(crate) fn nth_newest(&self, position: usize) -> Option<u32> {
        let rank = self.len().checked_sub(position + 1)?;
        self.by_time.get(rank).map(|place| place.row)
    }

    /// Returns the list in this order, of all rows or of those created within `seconds`. A list
    /// with bounds ignores moves.
    pub(crate) fn view(
        &mut self,
        order: Order,
        seconds: Option<Range<i64>>,
        id_of: impl Fn(u32) -> Option<String>,
    ) -> IndexView {
        let newest_first = order == Order::NewestFirst;
        let Some(seconds) = seconds else {
            return match order {
                Order::ById => {
                    self.by_id.get_or_insert_with(|| sorted_by_id(&self.by_time, id_of));
                    IndexView::Id
                }
                _ if self.moved.is_some() => IndexView::Moved { newest_first },
                _ => IndexView::Time { ranks: 0..self.len(), newest_first },
            };
        };
        let rank = |created_s| self.by_time.partition_point(|place| place.created_s < created_s);
        let start = rank(seconds.start);
        let ranks = start..rank(seconds.end).max(start);
        if order == Order::ById {
            return IndexView::Rows(sorted_by_id(&self.by_time[ranks], id_of));
        }
        IndexView::Time { ranks, newest_first }
    }

    /// Returns the number of rows of a list.
    pub(crate) fn view_len(&self, view: &IndexView) -> usize {
        match view {
            IndexView::Time { ranks, .. } => ranks.len(),
            IndexView::Moved { .. } | IndexView::Id => self.len(),
            IndexView::Rows(rows) => rows.len(),
        }
    }

    /// Returns the rows at these positions of a list. Positions past the end are ignored.
    pub(crate) fn rows(&self, view: &IndexView, positions: Range<usize>) -> Vec<u32> {
        let end = positions.end.min(self.view_len(view));
        let positions = positions.start.min(end)..end;
        match (view, &self.moved, &self.by_id) {
            (IndexView::Time { ranks, newest_first }, ..) => {
                placed(&self.by_time, ranks.clone(), positions, *newest_first)
            }
            (IndexView::Moved { newest_first }, Some(moved), _) => {
                placed(&moved.order, 0..self.len(), positions, *newest_first)
            }
            (IndexView::Id, _, Some(by_id)) => by_id[positions].to_vec(),
            (IndexView::Rows(rows), ..) => rows[positions].to_vec(),
            // One lock covers a list and the use of its rows, so the order still exists.
            (IndexView::Moved { .. } | IndexView::Id, ..) => Vec::new(),
        }
    }

    /// Moves a row to an end of the list without changing its creation time. A list in the order of
    /// ids is unchanged.
    pub(crate) fn move_to(&mut self, end: ListEnd, order: Order, place: IndexPlace) {
        let newest = match (order, end) {
            (Order::ById, _) => return,
            (Order::NewestFirst, ListEnd::First) | (Order::OldestFirst, ListEnd::Last) => true,
            (Order::NewestFirst, ListEnd::Last) | (Order::OldestFirst, ListEnd::First) => false,
        };
        let moved =
            self.moved.get_or_insert_with(|| Moved { order: self.by_time.clone(), seconds: HashMap::new() });
        let from = moved.place(place);
        if remove(&mut moved.order, &from) {
            let edge = if newest { moved.order.last() } else { moved.order.first() };
            let edge = edge.map_or(place.created_s, |place| place.created_s);
            let to = if newest { edge.saturating_add(1) } else { edge.saturating_sub(1) };
            moved.seconds.insert(place.row, to);
            insert(&mut moved.order, IndexPlace { created_s: to, row: place.row });
        }
    }
}

impl Moved {
    /// Returns a row's place in the moved order.
    fn place(&self, unmoved: IndexPlace) -> IndexPlace {
        let created_s = self.seconds.get(&unmoved.row).copied().unwrap_or(unmoved.created_s);
        IndexPlace { created_s, row: unmoved.row }
    }
}

/// Inserts a key at its place, unless it is present.
fn insert<K: Ord>(sorted: &mut Vec<K>, key: K) {
    if let Err(at) = sorted.binary_search(&key) {
        sorted.insert(at, key);
    }
}

/// Removes a key. Returns false if it is not present.
fn remove<K: Ord>(sorted: &mut Vec<K>, key: &K) -> bool {
    let found = sorted.binary_search(key);
    found.map(|at| sorted.remove(at)).is_ok()
}

/// Returns the rows of these places in the order of their ids.
fn sorted_by_id(places: &[IndexPlace], id_of: impl Fn(u32) -> Option<String>) -> Vec<u32> {
    let mut rows: Vec<u32> = places.iter().map(|place| place.row).collect();
    rows.sort_by_cached_key(|&row| (id_of(row), row));
    rows
}

/// Returns the rows at these positions within some ranks of an order.
fn placed(
    order: &[IndexPlace],
    ranks: Range<usize>,
    positions: Range<usize>,
    newest_first: bool,
) -> Vec<u32> {
    let rows = |ranks: Range<usize>| order[ranks].iter().map(|place| place.row);
    if newest_first {
        rows(ranks.end - positions.end..ranks.end - positions.start).rev().collect()
    } else {
        rows(ranks.start + positions.start..ranks.start + positions.end).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Returns an index of ten rows, one for each second. The ids are in the opposite order.
    fn index() -> CustomerIndex {
        CustomerIndex::new(0..10)
    }

    fn id_of(row: u32) -> Option<String> {
        Some(format!("id{}", 99 - row))
    }

    fn place(row: u32) -> IndexPlace {
        IndexPlace { row, created_s: i64::from(row) }
    }

    fn listed(index: &mut CustomerIndex, order: Order, seconds: Option<Range<i64>>) -> Vec<u32> {
        let view = index.view(order, seconds, id_of);
        index.rows(&view, 0..usize::MAX)
    }

    #[test]
    fn every_order_has_every_row_once_also_after_changes() {
        let mut index = index();
        // The order by id exists before the changes, so that it must be built again after them.
        assert_eq!(listed(&mut index, Order::ById, None), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        index.remove(place(4));
        index.insert(place(10));
        assert_eq!(listed(&mut index, Order::ById, None), [10, 9, 8, 7, 6, 5, 3, 2, 1, 0]);
        assert_eq!(listed(&mut index, Order::NewestFirst, None), [10, 9, 8, 7, 6, 5, 3, 2, 1, 0]);
        assert_eq!(listed(&mut index, Order::OldestFirst, None), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]);
        assert_eq!(index.nth_newest(1), Some(9));
        assert_eq!(index.nth_newest(10), None);
    }

    #[test]
    fn range_of_seconds_includes_its_start_and_not_its_end() {
        let mut index = index();
        assert_eq!(listed(&mut index, Order::NewestFirst, Some(3..6)), [5, 4, 3]);
        assert_eq!(listed(&mut index, Order::OldestFirst, Some(3..6)), [3, 4, 5]);
        assert_eq!(listed(&mut index, Order::ById, Some(3..6)), [5, 4, 3]);
        let backwards = Range { start: 6, end: 3 };
        assert!(listed(&mut index, Order::NewestFirst, Some(backwards)).is_empty());
    }

    #[test]
    fn page_is_a_range_of_positions() {
        let mut index = index();
        let view = index.view(Order::NewestFirst, None, id_of);
        assert_eq!(index.rows(&view, 3..6), [6, 5, 4]);
        assert_eq!(index.rows(&view, 8..12), [1, 0]);
        assert!(index.rows(&view, 12..15).is_empty());
    }

    #[test]
    fn moved_rows_are_at_the_ends_in_both_orders() {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let mut index = index();
            for (end, row) in [(ListEnd::Last, 2), (ListEnd::First, 7), (ListEnd::First, 3)] {
                index.move_to(end, order, place(row));
            }
            let rows = listed(&mut index, order, None);
            assert_eq!((rows[0], rows[1], rows[9]), (3, 7, 2), "{order:?}");
            index.remove(place(7));
            assert!(!listed(&mut index, order, None).contains(&7));
        }
    }

    #[test]
    fn move_in_the_order_of_ids_has_no_effect() {
        let mut index = index();
        index.move_to(ListEnd::First, Order::ById, place(0));
        assert_eq!(listed(&mut index, Order::ById, None)[0], 9);
        assert!(index.moved.is_none());
    }

    proptest! {
        #[test]
        fn index_equals_a_plain_sorted_list(
            start in proptest::collection::btree_set(0u32..5_000, 0..2_000),
            moves in proptest::collection::vec((any::<bool>(), 0u32..5_000), 0..2_000),
        ) {
            // Three rows for each second, so that the row decides between equal times.
            let place = |row| IndexPlace { row, created_s: i64::from(row / 3) };
            let mut plain = start.clone();
            let mut index = CustomerIndex::new(std::iter::empty()).of_places(start.into_iter().map(place));
            for (insert, row) in moves {
                if insert {
                    plain.insert(row);
                    index.insert(place(row));
                } else {
                    plain.remove(&row);
                    index.remove(place(row));
                }
            }
            prop_assert_eq!(index.len(), plain.len());
            let all: Vec<u32> = plain.iter().copied().collect();
            prop_assert_eq!(listed(&mut index, Order::OldestFirst, None), all.clone());
            let view = index.view(Order::OldestFirst, None, |_| None);
            for rank in [0, 1, all.len() / 2, all.len()] {
                let end = all.len().min(rank + 7);
                prop_assert_eq!(index.rows(&view, rank..rank + 7), all[rank.min(end)..end].to_vec());
            }
            for second in [0, 17, 833, 1_667] {
                let within = listed(&mut index, Order::OldestFirst, Some(0..second));
                let expected: BTreeSet<u32> = plain.range(..second as u32 * 3).copied().collect();
                prop_assert_eq!(within, Vec::from_iter(expected));
            }
        }
    }
}
