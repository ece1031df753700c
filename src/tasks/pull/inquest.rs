//! The inquest: asking about suspects, with a canary for every deletion.

use std::collections::VecDeque;

use super::ask::Found;
use super::{Failure, Pass, Phase, Progress, Pull, apply_lookup};
use crate::model::{CustomerId, Kind, Origin};
use crate::reconcile::evidence::{CANARIES, Inquest};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::changes::Recorder;
use crate::store::holds::{self, End};

/// How often it may happen in one inquest that a 404 has grown too old when its canary answers.
const ROUNDS: usize = 3;

/// Who can serve as a canary.
pub(super) enum Canaries {
    /// One of these must answer.
    Among(Vec<CustomerId>),
    /// There is nobody who could: a person has said that this is right.
    NobodyLives,
}

/// How an inquest ended.
pub(super) enum Verdict {
    /// Each suspect is settled: recorded as deleted, or alive.
    Settled,
    /// These are not settled: some answered `not_found`, but no canary could be had, so nothing is proven about them.
    NoCanary(Vec<CustomerId>),
}

/// Whether a person approved these deletions beforehand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Warrant {
    /// No: this sweep suspects them.
    OwnSuspicion,
    /// Yes: they were held, and approved.
    Approved,
}

impl<R: Remote> Pull<R> {
    /// Asks each suspect; records who is proven gone and how the others are. What is proven stays recorded when it fails midway.
    pub(super) async fn hold_inquest(
        &self,
        pass: &mut Pass,
        suspects: Vec<CustomerId>,
        canaries: &Canaries,
        warrant: Warrant,
    ) -> Result<Verdict, Failure> {
        let of = suspects.len() as u64;
        let mut queue = VecDeque::from(suspects);
        let mut inquest = Inquest::default();
        let mut stale_rounds = 0;
        loop {
            if let Some(suspect) = queue.pop_front() {
                let asked_at = self.clock.elapsed();
                match self.look_up(&suspect).await? {
                    Found::Alive(customer) => self.record_alive(pass, customer, warrant).await?,
                    Found::Gone => inquest.gone(suspect, asked_at),
                }
                let done = of.saturating_sub(queue.len() as u64);
                self.progress.send_replace(Progress { phase: Phase::Asking, done, of });
            }
            if inquest.is_due(self.clock.elapsed()) || (queue.is_empty() && !inquest.is_empty()) {
                let answered_at = match canaries {
                    Canaries::Among(canaries) => self.ask_canaries(canaries).await?,
                    Canaries::NobodyLives => Some(self.clock.elapsed()),
                };
                let Some(answered_at) = answered_at else {
                    return Ok(Verdict::NoCanary(inquest.take_unproven().into_iter().chain(queue).collect()));
                };
                let proof = inquest.canary(answered_at);
                self.record_gone(pass, proof.proven, warrant).await?;
                if !proof.stale.is_empty() {
                    stale_rounds += 1;
                    if stale_rounds == ROUNDS {
                        return Err(Failure::TooSlow(proof.stale.len() + queue.len()));
                    }
                    queue.extend(proof.stale);
                }
            }
            if queue.is_empty() && inquest.is_empty() {
                return Ok(Verdict::Settled);
            }
        }
    }

    /// When a canary answered, by the steady clock; `None` when up to three were asked and none did.
    async fn ask_canaries(&self, canaries: &[CustomerId]) -> Result<Option<std::time::Duration>, Failure> {
        let start = usize::try_from(self.roll() % 1024).unwrap_or(0);
        let picked = (0..canaries.len()).map(|n| &canaries[(start + n) % canaries.len()]).take(CANARIES);
        for canary in picked {
            if let Found::Alive(_) = self.look_up(canary).await? {
                return Ok(Some(self.clock.elapsed()));
            }
        }
        Ok(None)
    }

    async fn record_alive(
        &self,
        pass: &mut Pass,
        customer: crate::model::Customer,
        warrant: Warrant,
    ) -> Result<(), Failure> {
        let cause = self.cause(pass, Origin::Lookup);
        let recorded = self.store.write(move |tx| {
            if warrant == Warrant::Approved {
                holds::end(tx, customer.id(), End::Alive)?;
            }
            apply_lookup(tx, cause, &customer)
        });
        match recorded.await? {
            Some(Kind::Created) => pass.tally.created += 1,
            Some(Kind::Updated) => pass.tally.updated += 1,
            Some(Kind::Restored) => pass.tally.restored += 1,
            _ => {}
        }
        Ok(())
    }

    async fn record_gone(
        &self,
        pass: &mut Pass,
        proven: Vec<CustomerId>,
        warrant: Warrant,
    ) -> Result<(), Failure> {
        let origin = match warrant {
            Warrant::OwnSuspicion => Origin::Sweep,
            Warrant::Approved => Origin::Lookup,
        };
        let cause = self.cause(pass, origin);
        let recorded = self.store.write(move |tx| -> Result<_, StoreError> {
            let mut recorder = Recorder::new(tx, cause)?;
            for id in &proven {
                recorder.record_deleted(id)?;
                if warrant == Warrant::Approved {
                    holds::end(tx, id, End::Deleted)?;
                }
            }
            Ok(recorder.tally().deleted)
        });
        pass.tally.deleted += recorded.await?;
        Ok(())
    }
}
