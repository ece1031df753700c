//! The faults that change customers between two pages of a list.
//!
//! A client reads pages by number while the list changes. After a delete on a page that it has
//! read, the first customer of the next page moves onto that page, and the client misses it. After
//! an insert, the client reads the last customer twice.

use std::ops::Range;

use jiff::Timestamp;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::account::{ListEnd, SandboxAccount};
use crate::faults::{Drift, FaultEffect, Fired, Region};
use crate::population::{drawn_email, rfc3339};
use crate::random;
use crate::readings::Order;

/// Whether one of these faults changes customers after the page.
pub(crate) fn is_among(fired: &[Fired]) -> bool {
    fired.iter().any(|fired| matches!(fired.effect, FaultEffect::Drift(_) | FaultEffect::RandomDrift { .. }))
}

/// Changes customers after a page that ended before position `end` of a list of `rows`.
pub(crate) fn after(
    account: &mut SandboxAccount,
    now: Timestamp,
    order: Order,
    rows: &[u32],
    end: usize,
    fired: &[Fired],
) {
    for fired in fired {
        match fired.effect {
            FaultEffect::Drift(drift) => {
                let rng = random::seeded([fired.earlier]);
                Change::new(account, now, order, rows, end, rng).drift(&drift);
            }
            FaultEffect::RandomDrift { seed, delete, insert, update, reorder } => {
                let mut rng = random::seeded([seed, fired.earlier]);
                let [delete, insert, update, reorder] = [delete, insert, update, reorder].map(|most| {
                    let count = rng.random_range(0..=most);
                    let served = rng.random_range(0..=count);
                    [served as usize, (count - served) as usize]
                });
                let mut change = Change::new(account, now, order, rows, end, rng);
                for (index, place) in [Region::Served, Region::Coming].into_iter().enumerate() {
                    change.drift(&Drift {
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

/// The changes after one page.
struct Change<'a> {
    account: &'a mut SandboxAccount,
    now: Timestamp,
    order: Order,
    /// All rows of the list when the page was served.
    rows: Vec<u32>,
    /// The position after the page.
    end: usize,
    rng: ChaCha8Rng,
}

impl<'a> Change<'a> {
    fn new(
        account: &'a mut SandboxAccount,
        now: Timestamp,
        order: Order,
        rows: &[u32],
        end: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        Self { rows: rows.to_vec(), account, now, order, end, rng }
    }

    /// Makes the changes that a fault asks for.
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
                Region::Served => ListEnd::Last,
                Region::Coming => ListEnd::First,
            };
            self.account.move_to(end, self.order, row);
        }
        for &row in updated {
            let email = drawn_email(&mut self.rng);
            if let Some(id) = self.account.newest().id_of(row) {
                self.account.update(self.now, &id, json!({"email": email}));
            }
        }
        for &row in deleted {
            if let Some(id) = self.account.newest().id_of(row) {
                self.account.delete(self.now, &id);
            }
        }
    }

    /// Draws up to `count` different live rows of a region.
    fn choose(&mut self, count: usize, region: Range<usize>) -> Vec<u32> {
        let rows = self.rows[region].iter().copied();
        let mut live: Vec<u32> = rows.filter(|&row| self.account.newest().is_live(row)).collect();
        let count = count.min(live.len());
        let (chosen, _) = live.partial_shuffle(&mut self.rng, count);
        chosen.to_vec()
    }

    /// Creates a customer whose place is within the region. In the order of ids, its id decides.
    fn insert(&mut self, place: Region, region: Range<usize>) {
        let lands_newest = matches!(
            (self.order, place),
            (Order::NewestFirst, Region::Served) | (Order::OldestFirst, Region::Coming)
        );
        let neighbour = if region.is_empty() {
            self.rows.last().copied()
        } else {
            Some(self.rows[self.rng.random_range(region)])
        };
        // A customer that is a second older than one of the region is within the region, too. With
        // the newest first it follows that one, and the region extends to the end of the list. With
        // the oldest first it precedes that one, and the region begins at the start of the list.
        let created_s = match neighbour {
            Some(row) if !lands_newest => self.account.newest().created_s(row) - 1,
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

    fn rows(account: &mut SandboxAccount, order: Order) -> Vec<u32> {
        let state = account.listed(false);
        let view = state.view(order, None, false);
        state.rows(&view, 0..usize::MAX)
    }

    /// All customers are created within the same second, so that only another second keeps a new
    /// one within its region.
    #[test]
    fn new_customer_is_within_its_region() {
        for (order, place) in [
            (Order::NewestFirst, Region::Served),
            (Order::NewestFirst, Region::Coming),
            (Order::OldestFirst, Region::Served),
            (Order::OldestFirst, Region::Coming),
        ] {
            let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
            let mut account = SandboxAccount::new(1, 0, 0, now);
            for _ in 0..20 {
                account.create(now, json!({"created_at": "2026-01-01T00:00:00Z"}));
            }
            let served = rows(&mut account, order);
            let before = served[..10].to_vec();
            let drift = Drift { insert: 5, place, ..Drift::default() };
            Change::new(&mut account, now, order, &served, 10, random::seeded([1])).drift(&drift);

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
    fn chosen_rows_are_different_rows_of_the_region() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let mut account = SandboxAccount::new(1, 0, 10, now);
        let served = rows(&mut account, Order::NewestFirst);
        let mut change = Change::new(&mut account, now, Order::NewestFirst, &served, 4, random::seeded([1]));
        let mut chosen = change.choose(100, 0..4);
        chosen.sort_unstable();
        assert_eq!(chosen, [6, 7, 8, 9]);
    }
}
