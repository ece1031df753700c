//! Requests for single suspects and held customers, within the budget of a sweep.

use std::collections::HashMap;

use jiff::Timestamp;
use rand::seq::{IteratorRandom, SliceRandom};

use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::{mirror, unlisted};
use crate::tasks::pull::ask::Found;
use crate::tasks::pull::{Failure, Pass, Phase, Progress, Pull};
use komoju_core::CustomerId;
use komoju_core::plan::evidence::{self, COUNTED_FOR, Licence, SAMPLE, Sampled};
use komoju_core::plan::rows::RowSet;

impl<R: Remote> Pull<R> {
    /// Requests some of too many suspects; takes out those that are alive, and returns the rows of those that are gone.
    pub(super) async fn ask_sample(
        &self,
        pass: &mut Pass,
        suspects: &mut RowSet,
    ) -> Result<(Sampled, Vec<i64>), Failure> {
        let picked = self.with_dice(|dice| suspects.iter().choose_multiple(dice, SAMPLE));
        let (mut alive, mut gone) = (0, Vec::new());
        for (row, id) in self.named(picked).await? {
            if !pass.may_ask() {
                break;
            }
            let asked = self.asking();
            match self.ask_one(pass, &id).await? {
                Found::Alive(customer) => self.record_alive(pass, asked, customer).await?,
                Found::Unreadable(bad) => self.record_unreadable(pass, &id, bad).await?,
                Found::Gone => {
                    gone.push(row);
                    continue;
                }
                Found::Unclear(why) => {
                    tracing::warn!("{why}; whether this customer is gone is not known");
                    continue;
                }
            }
            alive += 1;
            suspects.remove(row);
        }
        Ok((evidence::sampled(alive, gone.len()), gone))
    }

    /// How many deletions this sweep may record.
    pub(super) async fn room(&self, pass: &Pass, licence: Licence, limit: u64) -> Result<u64, StoreError> {
        if licence == Licence::Hold {
            return Ok(0);
        }
        let since = self.clock.now().checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN);
        let is_imprecise = pass.learnt.above_limit_at.is_some_and(|at| at > since);
        let recorded = match is_imprecise {
            true => self.store.read(move |conn| unlisted::deletions_since(conn, since)).await?,
            false => 0,
        };
        Ok(evidence::room(limit, is_imprecise, recorded))
    }

    /// The suspects in the order in which they are requested: those that are probably gone, then those that were verified longest ago
    /// or never, in a random order among equals.
    pub(super) fn in_order(
        &self,
        suspects: &RowSet,
        verified: &HashMap<i64, i64>,
        first: Vec<i64>,
    ) -> Vec<i64> {
        let mut rows: Vec<i64> = suspects.iter().collect();
        self.with_dice(|dice| rows.shuffle(dice));
        let first: std::collections::HashSet<i64> = first.into_iter().collect();
        rows.sort_by_key(|row| (!first.contains(row), verified.get(row).copied().unwrap_or(i64::MIN)));
        rows
    }

    /// Requests held customers with what is left of the budget: one that is alive leaves its hold.
    pub(super) async fn ask_held(&self, pass: &mut Pass, held: &RowSet) -> Result<(), Failure> {
        let most = usize::try_from(pass.budget).unwrap_or(usize::MAX);
        let picked = self.with_dice(|dice| held.iter().choose_multiple(dice, most));
        let of = picked.len() as u64;
        for (done, (_, id)) in self.named(picked).await?.into_iter().enumerate() {
            if !pass.may_ask() {
                break;
            }
            self.progress.send_replace(Progress { phase: Phase::Asking, done: done as u64, of });
            let asked = self.asking();
            match self.ask_one(pass, &id).await? {
                Found::Alive(customer) => self.record_alive(pass, asked, customer).await?,
                Found::Unreadable(bad) => self.record_unreadable(pass, &id, bad).await?,
                Found::Gone => {}
                Found::Unclear(why) => {
                    tracing::warn!("{why}; whether this held customer is gone is not known");
                }
            }
        }
        Ok(())
    }

    /// Those of these rows whose customers are live, with their ids.
    pub(super) async fn named(&self, rows: Vec<i64>) -> Result<Vec<(i64, CustomerId)>, StoreError> {
        let named = self.store.read(move |conn| {
            // A customer that our own push deleted meanwhile, or that was erased, is missing no longer.
            let named = |row| Ok(mirror::live_id_of(conn, row)?.map(|id| (row, id)));
            rows.into_iter().filter_map(|row| named(row).transpose()).collect()
        });
        named.await
    }
}
