//! Owns the faults that change customers between two pages of a list.
//!
//! A client pages by number over a list that moves. A delete on a page that it has read moves the
//! first customer of the next page onto that page, and the client misses it. An insert shows it the
//! last customer twice.

use std::ops::Range;

use jiff::Timestamp;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::account::{Account, End};
use crate::faults::{Drift, Effect, Fired, Region};
use crate::population::{drawn_email, rfc3339};
use crate::random;
use crate::readings::Order;

/// Whether customers change after the page.
pub(crate) fn is_among(fired: &[Fired]) -> bool {
    fired.iter().any(|fired| matches!(fired.effect, Effect::Drift(_) | Effect::RandomDrift { .. }))
}

/// Lets customers change after a page that ended before position `end` of a list of `rows`.
pub(crate) fn after(
    account: &mut Account,
    now: Timestamp,
    order: Order,
    rows: &[u32],
    end: usize,
    fired: &[Fired],
) {
    for fired in fired {
        match fired.effect {
            Effect::Drift(drift) => {
                let rng = random::seeded([fired.earlier]);
                Current::new(account, now, order, rows, end, rng).drift(&drift);
            }
            Effect::RandomDrift { seed, delete, insert, update, reorder } => {
                let mut rng = random::seeded([seed, fired.earlier]);
                let [delete, insert, update, reorder] = [delete, insert, update, reorder].map(|most| {
                    let count = rng.random_range(0..=most);
                    let served = rng.random_range(0..=count);
                    [served as usize, (count - served) as usize]
                });
                let mut current = Current::new(account, now, order, rows, end, rng);
                for (index, place) in [Region::Served, Region::Coming].into_iter().enumerate() {
                    current.drift(&Drift {
                        delete: delete[index],
                        insert: insert[index],
                        update: update[index],
                        reorder: reorder[index],
                        place,
                    });
                }
            }
            _ => {}
        }
    }
}

struct Current<'a> {
    account: &'a mut Account,
    now: Timestamp,
    order: Order,
    /// All rows of the list as it was when the page was served.
    rows: Vec<u32>,
    end: usize,
    rng: ChaCha8Rng,
}

impl<'a> Current<'a> {
    fn new(
        account: &'a mut Account,
        now: Timestamp,
        order: Order,
        rows: &[u32],
        end: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        Self { rows: rows.to_vec(), account, now, order, end, rng }
    }

    fn drift(&mut self, drift: &Drift) {
        if drift.is_nothing() {
            return;
        }
        let region = match drift.place {
            Region::Served => 0..self.end,
            Region::Coming => self.end..self.rows.len(),
        };
        let chosen = self.choose(drift.delete + drift.update + drift.reorder, region.clone());
        let (deleted, rest) = chosen.split_at(drift.delete.min(chosen.len()));
        let (updated, moved) = rest.split_at(drift.update.min(rest.len()));
        for _ in 0..drift.insert {
            self.insert(drift.place, region.clone());
        }
        for &row in moved {
            let end = match drift.place {
                Region::Served => End::Last,
                Region::Coming => End::First,
            };
            self.account.move_to(end, self.order, row);
        }
        for &row in updated {
            let email = drawn_email(&mut self.rng);
            if let Some(id) = self.account.id_of(row) {
                self.account.update(self.now, &id, json!({"email": email}));
            }
        }
        for &row in deleted {
            if let Some(id) = self.account.id_of(row) {
                self.account.delete(self.now, &id);
            }
        }
    }

    /// Different living rows of a region, at most all there are.
    fn choose(&mut self, count: usize, region: Range<usize>) -> Vec<u32> {
        let rows = self.rows[region].iter().copied();
        let mut living: Vec<u32> = rows.filter(|&row| self.account.is_live(row)).collect();
        let count = count.min(living.len());
        let (chosen, _) = living.partial_shuffle(&mut self.rng, count);
        chosen.to_vec()
    }

    /// A new customer whose place in the list is within the region. By id, where it lands is up to its id.
    fn insert(&mut self, place: Region, region: Range<usize>) {
        let lands_newest = matches!(
            (self.order, place),
            (Order::NewestFirst, Region::Served) | (Order::OldestFirst, Region::Coming)
        );
        let beside = if region.is_empty() {
            self.rows.last().copied()
        } else {
            Some(self.rows[self.rng.random_range(region)])
        };
        // A second older than one of the region is still within it: for where the newest comes first it is behind that
        // one, and the region goes to the end; for where the oldest does it is before it, and the region has the start.
        let created_s = match beside {
            Some(row) if !lands_newest => self.account.created_s(row) - 1,
            _ => self.now.as_second(),
        };
        let email = drawn_email(&mut self.rng);
        let fields = json!({"email": email, "created_at": rfc3339(created_s)});
        self.account.create(self.now, fields);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(account: &mut Account, order: Order) -> Vec<u32> {
        let state = account.listed(false);
        let view = state.view(order, None, false);
        state.rows(&view, 0..usize::MAX)
    }

    /// All customers are of the same second, so that only a step aside keeps a new one within its region.
    #[test]
    fn a_new_customer_lands_within_its_region() {
        for (order, place) in [
            (Order::NewestFirst, Region::Served),
            (Order::NewestFirst, Region::Coming),
            (Order::OldestFirst, Region::Served),
            (Order::OldestFirst, Region::Coming),
        ] {
            let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
            let mut account = Account::new(1, 0, 0, now);
            for _ in 0..20 {
                account.create(now, json!({"created_at": "2026-01-01T00:00:00Z"}));
            }
            let served = rows(&mut account, order);
            let before = served[..10].to_vec();
            let drift = Drift { insert: 5, place, ..Drift::default() };
            Current::new(&mut account, now, order, &served, 10, random::seeded([1])).drift(&drift);

            let rows = rows(&mut account, order);
            let served_end = rows.iter().rposition(|row| before.contains(row)).unwrap();
            let new: Vec<usize> = (0..25).filter(|&position| rows[position] >= 20).collect();
            assert_eq!(new.len(), 5);
            assert!(
                new.iter().all(|&position| (position < served_end) == (place == Region::Served)),
                "{order:?} {place:?}: {new:?}"
            );
        }
    }

    #[test]
    fn no_row_is_chosen_twice_and_none_is_invented() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let mut account = Account::new(1, 0, 10, now);
        let served = rows(&mut account, Order::NewestFirst);
        let mut current =
            Current::new(&mut account, now, Order::NewestFirst, &served, 4, random::seeded([1]));
        let mut chosen = current.choose(100, 0..4);
        chosen.sort_unstable();
        assert_eq!(chosen, [6, 7, 8, 9]);
    }
}
