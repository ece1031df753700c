//! What a sweep remembers of the customers it saw: bits, and a few ids.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::store::log::unchanged::Reformatted;
use komoju_core::plan::busy_fields::FieldCounts;
use komoju_core::plan::rows::RowSet;
use komoju_core::{CustomerId, RawCustomer, Source};

/// How many customers are kept as canaries.
const KEPT: usize = 32;

/// The customers that a pass saw, and what it saw of their sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// Rows that were listed, by any round.
    pub(super) seen: RowSet,
    /// Rows that this round has listed.
    round: RowSet,
    /// Listed customers without a row of their own, as a digest each: unreadable, listed as deleted, or not applied.
    round_others: HashSet<u64>,
    /// Rows listed without a source where one is known.
    pub(super) null_listed: RowSet,
    /// Whether any listed customer showed a source.
    pub(super) any_source: bool,
    /// Some of those that were listed, from the whole length of the list.
    pub(super) canaries: Vec<CustomerId>,
    /// In how many customers each field changed.
    pub(super) fields: FieldCounts,
    /// Texts with a new format of the same content, to be noted when the sweep ends.
    pub(super) reformatted: Vec<Reformatted>,
}

impl Marks {
    /// Marks a row as listed; the last listing of a customer counts.
    pub(super) fn see(&mut self, row: i64, source: Source) {
        self.list(row);
        match source {
            Source::Retained => {
                self.null_listed.insert(row);
            }
            Source::Shown | Source::Absent => self.null_listed.remove(row),
        }
        self.any_source |= source == Source::Shown;
    }

    /// Marks a row as listed by an unreadable customer, which says nothing of its source.
    pub(super) fn see_unread(&mut self, row: i64) {
        self.list(row);
        self.null_listed.remove(row);
    }

    fn list(&mut self, row: i64) {
        self.seen.insert(row);
        self.round.insert(row);
    }

    /// Counts a listed customer that has no row to be marked.
    pub(super) fn see_other(&mut self, customer: &str) {
        let mut hasher = DefaultHasher::new();
        customer.hash(&mut hasher);
        self.round_others.insert(hasher.finish());
    }

    /// How many of them have no row to be marked.
    pub(super) fn others(&self) -> u64 {
        self.round_others.len() as u64
    }

    /// Another round begins: what earlier ones saw stays seen.
    pub(super) fn begin_round(&mut self) {
        (self.round, self.round_others) = Default::default();
    }

    /// How many customers of the mirror this round has listed.
    pub(super) fn mirrored_in_round(&self) -> u64 {
        self.round.len()
    }

    /// How many different customers this round has listed.
    pub(super) fn in_round(&self) -> u64 {
        self.round.len() + self.round_others.len() as u64
    }

    /// Keeps one customer of a page as a canary: so they come from everywhere in the list. `roll` is any random number.
    pub(super) fn keep_canaries(&mut self, listed: &[RawCustomer], roll: u64) {
        let askable: Vec<&CustomerId> =
            listed.iter().map(RawCustomer::id).filter(|id| id.can_be_requested()).collect();
        let room = KEPT.saturating_sub(self.canaries.len());
        // The first page fills up to three places, so that a list of one page has canaries enough.
        let wanted = if self.canaries.is_empty() { 3 } else { 1 };
        for n in 0..wanted.min(askable.len()) {
            let pick = askable[index(roll.wrapping_add(n as u64), askable.len())].clone();
            match room > n {
                true => self.canaries.push(pick),
                false => {
                    let place = index(roll.rotate_left(32), self.canaries.len());
                    self.canaries[place] = pick;
                }
            }
        }
    }
}

/// A place below `len`, which is not 0.
fn index(roll: u64, len: usize) -> usize {
    usize::try_from(roll % (len.max(1) as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(ids: std::ops::Range<u32>) -> Vec<RawCustomer> {
        ids.map(|n| RawCustomer::from_value(&json!({"id": n.to_string()})).unwrap()).collect()
    }

    #[test]
    fn one_page_gives_three_different_canaries_and_a_long_list_a_bounded_number() {
        let mut marks = Marks::default();
        marks.keep_canaries(&page(0..5), 7);
        let mut kept = marks.canaries.clone();
        kept.sort();
        kept.dedup();
        assert_eq!(kept.len(), 3);
        for n in 1..100 {
            marks.keep_canaries(&page(n * 10..n * 10 + 10), u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        assert_eq!(marks.canaries.len(), KEPT);
    }

    #[test]
    fn the_last_listing_of_a_customer_counts_for_its_source() {
        let mut marks = Marks::default();
        marks.see(1, Source::Retained);
        marks.see(1, Source::Shown);
        marks.see(2, Source::Shown);
        marks.see(2, Source::Retained);
        assert_eq!((marks.null_listed.iter().collect::<Vec<_>>(), marks.seen.len()), (vec![2], 2));
        assert!(marks.any_source);
    }
}
