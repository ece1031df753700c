//! What a sweep keeps of the customers that it saw: a few bits each, and a few ids.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::store::log::unchanged::Reformatted;
use komoju_core::plan::busy_fields::FieldCounts;
use komoju_core::plan::rows::RowSet;
use komoju_core::{CustomerId, RawCustomer, Source};

/// KEPT controls how many customers are kept as canaries.
const KEPT: usize = 32;

/// The customers that a pass saw, and whether their sources were shown.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenCustomers {
    /// The rows that any round listed.
    pub(super) rows: RowSet,
    /// The rows that this round listed.
    round: RowSet,
    /// The digests of listed customers that have no row to mark: unreadable, listed as deleted, or
    /// not applied.
    round_others: HashSet<u64>,
    /// The rows that were listed without a source although the mirror has one.
    pub(super) null_listed: RowSet,
    /// Whether any listed customer showed a source.
    pub(super) any_source: bool,
    /// Some of the listed customers, from the whole length of the list.
    pub(super) canaries: Vec<CustomerId>,
    /// The number of customers in which each field changed.
    pub(super) fields: FieldCounts,
    /// The customers with a new format of the same JSON content. These are noted when the sweep
    /// ends.
    pub(super) reformatted: Vec<Reformatted>,
}

impl SeenCustomers {
    /// Marks a row as listed. If a customer is listed twice, the later source counts.
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

    /// Marks a row as listed without a usable source: the customer is unreadable, or its state is
    /// not applied.
    pub(super) fn see_unread(&mut self, row: i64) {
        self.list(row);
        self.null_listed.remove(row);
    }

    fn list(&mut self, row: i64) {
        self.rows.insert(row);
        self.round.insert(row);
    }

    /// Counts a listed customer that has no row to mark.
    pub(super) fn see_other(&mut self, customer: &str) {
        let mut hasher = DefaultHasher::new();
        customer.hash(&mut hasher);
        self.round_others.insert(hasher.finish());
    }

    /// Returns how many customers of this round have no row to mark.
    pub(super) fn others(&self) -> u64 {
        self.round_others.len() as u64
    }

    /// Starts another round. What earlier rounds saw is kept.
    pub(super) fn begin_round(&mut self) {
        (self.round, self.round_others) = Default::default();
    }

    /// Returns how many customers of the mirror this round listed.
    pub(super) fn mirrored_in_round(&self) -> u64 {
        self.round.len()
    }

    /// Returns how many different customers this round listed.
    pub(super) fn in_round(&self) -> u64 {
        self.round.len() + self.round_others.len() as u64
    }

    /// Keeps one customer of a page as a canary, so that the canaries come from the whole list.
    /// `roll` is a random number.
    pub(super) fn keep_canaries(&mut self, listed: &[RawCustomer], roll: u64) {
        let askable: Vec<&CustomerId> =
            listed.iter().map(RawCustomer::id).filter(|id| id.can_be_requested()).collect();
        let room = KEPT.saturating_sub(self.canaries.len());
        // The first page gives up to three, because a list of one page needs three canaries.
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

/// Returns a random index below `len`. `len` is not 0.
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
    fn one_page_gives_three_canaries_and_a_long_list_a_bounded_number() {
        let mut seen_customers = SeenCustomers::default();
        seen_customers.keep_canaries(&page(0..5), 7);
        let mut kept = seen_customers.canaries.clone();
        kept.sort();
        kept.dedup();
        assert_eq!(kept.len(), 3);
        for n in 1..100 {
            seen_customers
                .keep_canaries(&page(n * 10..n * 10 + 10), u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        assert_eq!(seen_customers.canaries.len(), KEPT);
    }

    #[test]
    fn later_listing_of_a_customer_decides_its_source() {
        let mut seen_customers = SeenCustomers::default();
        seen_customers.see(1, Source::Retained);
        seen_customers.see(1, Source::Shown);
        seen_customers.see(2, Source::Shown);
        seen_customers.see(2, Source::Retained);
        assert_eq!(
            (seen_customers.null_listed.iter().collect::<Vec<_>>(), seen_customers.rows.len()),
            (vec![2], 2)
        );
        assert!(seen_customers.any_source);
    }
}
