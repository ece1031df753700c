//! Owns the orders in which customers are listed: by creation, by id, and as a fault moved them.
//!
//! The order of creation always exists. The other two are built at first use, because only a
//! reading or a fault needs them. The index knows each row, its second of creation and its id, and
//! nothing else.
//!
//! Each order is a sorted `Vec`, because a page is cut from it by position. An insert moves the
//! keys behind it: at most 32 MB for a million customers.

use std::collections::HashMap;
use std::ops::Range;

use crate::readings::Order;

/// What the index needs to know of a row.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) row: u32,
    pub(crate) created_s: i64,
    pub(crate) id: Option<String>,
}

/// Rows in order.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    by_time: Vec<Place>,
    by_id: Option<Vec<(String, u32)>>,
    moved: Option<Moved>,
}

/// A position in the order of creation; the row settles ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created_s: i64,
    row: u32,
}

/// The order once rows have been moved by hand.
#[derive(Debug, Clone)]
struct Moved {
    order: Vec<Place>,
    /// In the place of their second of creation.
    seconds: HashMap<u32, i64>,
}

/// A list as one request sees it.
#[derive(Debug, Clone)]
pub enum View {
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
pub enum End {
    First,
    Last,
}

impl Index {
    /// `seconds` are those of rows 0, 1, 2, … and never fall.
    pub(crate) fn new(seconds: impl Iterator<Item = i64>) -> Self {
        let places = (0..).zip(seconds).map(|(row, created_s)| Place { created_s, row });
        Self { by_time: places.collect(), by_id: None, moved: None }
    }

    /// An index of these rows, each with its second, among which rows are moved as they are here.
    pub(crate) fn of_rows(&self, rows: impl Iterator<Item = (i64, u32)>) -> Self {
        let places: Vec<Place> = rows.map(|(created_s, row)| Place { created_s, row }).collect();
        let sorted = |mut places: Vec<Place>| {
            places.sort_unstable();
            places
        };
        let moved = self.moved.as_ref().map(|moved| Moved {
            order: sorted(places.iter().map(|&place| moved.place(place)).collect()),
            seconds: moved.seconds.clone(),
        });
        Self { by_time: sorted(places), by_id: None, moved }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let place = Place { created_s: entry.created_s, row: entry.row };
        insert(&mut self.by_time, place);
        if let Some(by_id) = &mut self.by_id {
            insert(by_id, (entry.id.unwrap_or_default(), entry.row));
        }
        if let Some(moved) = &mut self.moved {
            let place = moved.place(place);
            insert(&mut moved.order, place);
        }
    }

    /// The entry must be what it was when it was inserted.
    pub(crate) fn remove(&mut self, entry: Entry) {
        let place = Place { created_s: entry.created_s, row: entry.row };
        remove(&mut self.by_time, &place);
        if let Some(by_id) = &mut self.by_id {
            remove(by_id, &(entry.id.unwrap_or_default(), entry.row));
        }
        if let Some(moved) = &mut self.moved {
            let place = moved.place(place);
            remove(&mut moved.order, &place);
        }
    }

    pub(crate) fn newest_first(&self) -> Vec<u32> {
        placed(&self.by_time, 0..self.len(), 0..self.len(), true)
    }

    /// The row at a position from the newest.
    pub(crate) fn nth_newest(&self, position: usize) -> Option<u32> {
        let rank = self.len().checked_sub(position + 1)?;
        self.by_time.get(rank).map(|place| place.row)
    }

    /// The list in this order, of all rows or of those created within `seconds`. Within bounds, moves do not show.
    pub(crate) fn view(
        &mut self,
        order: Order,
        seconds: Option<Range<i64>>,
        id_of: impl Fn(u32) -> Option<String>,
    ) -> View {
        let newest_first = order == Order::NewestFirst;
        let Some(seconds) = seconds else {
            return match order {
                Order::ById => {
                    self.sort_by_id(id_of);
                    View::Id
                }
                _ if self.moved.is_some() => View::Moved { newest_first },
                _ => View::Time { ranks: 0..self.len(), newest_first },
            };
        };
        let rank = |created_s| self.by_time.partition_point(|place| place.created_s < created_s);
        let start = rank(seconds.start);
        let ranks = start..rank(seconds.end).max(start);
        if order == Order::ById {
            let mut rows: Vec<u32> = self.by_time[ranks].iter().map(|place| place.row).collect();
            rows.sort_by_cached_key(|&row| id_of(row));
            return View::Rows(rows);
        }
        View::Time { ranks, newest_first }
    }

    pub(crate) fn view_len(&self, view: &View) -> usize {
        match view {
            View::Time { ranks, .. } => ranks.len(),
            View::Moved { .. } | View::Id => self.len(),
            View::Rows(rows) => rows.len(),
        }
    }

    /// The rows at these positions of a view; positions past the end are left out.
    pub(crate) fn rows(&self, view: &View, positions: Range<usize>) -> Vec<u32> {
        let end = positions.end.min(self.view_len(view));
        let positions = positions.start.min(end)..end;
        match (view, &self.moved, &self.by_id) {
            (View::Time { ranks, newest_first }, ..) => {
                placed(&self.by_time, ranks.clone(), positions, *newest_first)
            }
            (View::Moved { newest_first }, Some(moved), _) => {
                placed(&moved.order, 0..self.len(), positions, *newest_first)
            }
            (View::Id, _, Some(by_id)) => by_id[positions].iter().map(|(_, row)| *row).collect(),
            (View::Rows(rows), ..) => rows[positions].to_vec(),
            // A view is used under the lock it was made under, so its index is still there.
            (View::Moved { .. } | View::Id, ..) => Vec::new(),
        }
    }

    /// Moves a row to an end of the list, though it stays as old as it is. By id, nothing can be moved.
    pub(crate) fn move_to(&mut self, end: End, order: Order, row: u32, created_s: i64) {
        let newest = match (order, end) {
            (Order::ById, _) => return,
            (Order::NewestFirst, End::First) | (Order::OldestFirst, End::Last) => true,
            (Order::NewestFirst, End::Last) | (Order::OldestFirst, End::First) => false,
        };
        let moved =
            self.moved.get_or_insert_with(|| Moved { order: self.by_time.clone(), seconds: HashMap::new() });
        let from = moved.place(Place { created_s, row });
        if remove(&mut moved.order, &from) {
            let edge = if newest { moved.order.last() } else { moved.order.first() };
            let edge = edge.map_or(created_s, |place| place.created_s);
            let to = if newest { edge.saturating_add(1) } else { edge.saturating_sub(1) };
            moved.seconds.insert(row, to);
            insert(&mut moved.order, Place { created_s: to, row });
        }
    }

    fn sort_by_id(&mut self, id_of: impl Fn(u32) -> Option<String>) {
        if self.by_id.is_some() {
            return;
        }
        let with_id = |place: &Place| (id_of(place.row).unwrap_or_default(), place.row);
        let mut ids: Vec<(String, u32)> = self.by_time.iter().map(with_id).collect();
        ids.sort_unstable();
        self.by_id = Some(ids);
    }
}

impl Moved {
    fn place(&self, unmoved: Place) -> Place {
        let created_s = self.seconds.get(&unmoved.row).copied().unwrap_or(unmoved.created_s);
        Place { created_s, row: unmoved.row }
    }
}

/// Inserts a key at its place; one that is there already stays as it is.
fn insert<K: Ord>(sorted: &mut Vec<K>, key: K) {
    if let Err(at) = sorted.binary_search(&key) {
        sorted.insert(at, key);
    }
}

/// Removes a key; false when it was not there.
fn remove<K: Ord>(sorted: &mut Vec<K>, key: &K) -> bool {
    let found = sorted.binary_search(key);
    found.map(|at| sorted.remove(at)).is_ok()
}

fn placed(order: &[Place], ranks: Range<usize>, positions: Range<usize>, newest_first: bool) -> Vec<u32> {
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

    /// Ten rows, a second apart, whose ids run against their age.
    fn index() -> Index {
        Index::new(0..10)
    }

    fn id_of(row: u32) -> Option<String> {
        Some(format!("id{}", 99 - row))
    }

    fn entry(row: u32) -> Entry {
        Entry { row, created_s: i64::from(row), id: id_of(row) }
    }

    fn listed(index: &mut Index, order: Order, seconds: Option<Range<i64>>) -> Vec<u32> {
        let view = index.view(order, seconds, id_of);
        index.rows(&view, 0..usize::MAX)
    }

    #[test]
    fn every_order_has_every_row_once_also_after_changes() {
        let mut index = index();
        // The order by id exists before the changes, so that both building and keeping it is tried.
        assert_eq!(listed(&mut index, Order::ById, None), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        index.remove(entry(4));
        index.insert(entry(10));
        assert_eq!(listed(&mut index, Order::ById, None), [10, 9, 8, 7, 6, 5, 3, 2, 1, 0]);
        assert_eq!(listed(&mut index, Order::NewestFirst, None), [10, 9, 8, 7, 6, 5, 3, 2, 1, 0]);
        assert_eq!(listed(&mut index, Order::OldestFirst, None), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]);
        assert_eq!(index.nth_newest(1), Some(9));
        assert_eq!(index.nth_newest(10), None);
    }

    #[test]
    fn a_range_of_seconds_takes_its_start_and_not_its_end() {
        let mut index = index();
        assert_eq!(listed(&mut index, Order::NewestFirst, Some(3..6)), [5, 4, 3]);
        assert_eq!(listed(&mut index, Order::OldestFirst, Some(3..6)), [3, 4, 5]);
        assert_eq!(listed(&mut index, Order::ById, Some(3..6)), [5, 4, 3]);
        let backwards = Range { start: 6, end: 3 };
        assert!(listed(&mut index, Order::NewestFirst, Some(backwards)).is_empty());
    }

    #[test]
    fn a_page_is_a_part_of_a_view() {
        let mut index = index();
        let view = index.view(Order::NewestFirst, None, id_of);
        assert_eq!(index.rows(&view, 3..6), [6, 5, 4]);
        assert_eq!(index.rows(&view, 8..12), [1, 0]);
        assert!(index.rows(&view, 12..15).is_empty());
    }

    #[test]
    fn moved_rows_are_at_the_ends_in_either_order() {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let mut index = index();
            for (end, row) in [(End::Last, 2), (End::First, 7), (End::First, 3)] {
                index.move_to(end, order, row, i64::from(row));
            }
            let rows = listed(&mut index, order, None);
            assert_eq!((rows[0], rows[1], rows[9]), (3, 7, 2), "{order:?}");
            index.remove(entry(7));
            assert!(!listed(&mut index, order, None).contains(&7));
        }
    }

    #[test]
    fn by_id_nothing_moves() {
        let mut index = index();
        index.move_to(End::First, Order::ById, 0, 0);
        assert_eq!(listed(&mut index, Order::ById, None)[0], 9);
        assert!(index.moved.is_none());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_sorted_list(
            start in proptest::collection::btree_set(0u32..5_000, 0..2_000),
            moves in proptest::collection::vec((any::<bool>(), 0u32..5_000), 0..2_000),
        ) {
            // Three rows a second, so that rows settle ties.
            let entry = |row| Entry { row, created_s: i64::from(row / 3), id: None };
            let mut plain = start.clone();
            let rows = start.iter().map(|&row| (i64::from(row / 3), row));
            let mut index = Index::new(std::iter::empty()).of_rows(rows);
            for (insert, row) in moves {
                if insert {
                    plain.insert(row);
                    index.insert(entry(row));
                } else {
                    plain.remove(&row);
                    index.remove(entry(row));
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
