//! The inquest: asking about suspects, with a canary for every deletion.
//!
//! One customer that cannot be asked, or a canary that gives no answer, stands in nobody's way: what could not be proven is handed
//! back, and everybody else is settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::apply::apply_lookup;
use super::ask::Found;
use super::{Failure, Pass, Phase, Progress, Pull};
use crate::model::{Customer, CustomerId, Origin, PassKind};
use crate::reconcile::evidence::{CANARIES, Inquest};
use crate::reconcile::retry::TRIES;
use crate::remote::Remote;
use crate::store::holds::{self, End};
use crate::tasks::echoes::Asked;

/// How often it may happen in one inquest that a 404 has grown too old when its canary answers.
const ROUNDS: usize = 3;

/// How many questions without a usable answer get all their tries; the rest of such a pass gets one try each, so that an API that
/// fails for everybody who is gone does not take half a minute for each of them.
const PATIENT_WITH: usize = 3;

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
    /// All but these are.
    Unproven(Vec<CustomerId>),
    /// These are not settled, because no canary answered: nothing can be proven just now.
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

impl Pass {
    /// How often the next question may be asked.
    pub(super) fn patience(&self) -> usize {
        // A probe is soon made again.
        if self.unclear < PATIENT_WITH && self.kind == PassKind::Sweep { TRIES } else { 1 }
    }
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
        let mut unproven = Vec::new();
        let mut stale_rounds = 0;
        while !(queue.is_empty() && inquest.is_empty()) {
            let mut canary_due = false;
            if let Some(suspect) = queue.pop_front() {
                let (asked_at, asked) = (self.clock.elapsed(), self.echoes.asking());
                match self.look_up(&suspect, pass.patience()).await? {
                    Found::Alive(customer) => self.record_alive(pass, asked, customer).await?,
                    Found::Unreadable(bad) => self.record_unreadable(pass, &suspect, bad).await?,
                    Found::Gone => inquest.gone(suspect, asked_at),
                    Found::Unclear(why) => {
                        tracing::warn!("{why}; whether this customer is gone is not proven");
                        unproven.push(suspect);
                        pass.unclear += 1;
                        // Is it this customer, or does nobody answer?
                        canary_due = true;
                    }
                }
                let done = of.saturating_sub(queue.len() as u64);
                self.progress.send_replace(Progress { phase: Phase::Asking, done, of });
            }
            canary_due |= inquest.is_due(self.clock.elapsed()) || (queue.is_empty() && !inquest.is_empty());
            if !canary_due {
                continue;
            }
            let Some(answered_at) = self.ask_canaries(pass, canaries).await? else {
                unproven.extend(inquest.take_unproven());
                unproven.extend(queue);
                return Ok(Verdict::NoCanary(unproven));
            };
            let proof = inquest.canary(answered_at);
            self.record_gone(pass, proof.proven, warrant).await?;
            if !proof.stale.is_empty() {
                stale_rounds += 1;
                match stale_rounds < ROUNDS {
                    true => queue.extend(proof.stale),
                    false => unproven.extend(proof.stale),
                }
            }
        }
        Ok(if unproven.is_empty() { Verdict::Settled } else { Verdict::Unproven(unproven) })
    }

    /// When a canary answered, by the steady clock; `None` when up to three were asked and none did.
    pub(super) async fn ask_canaries(
        &self,
        pass: &mut Pass,
        canaries: &Canaries,
    ) -> Result<Option<Duration>, Failure> {
        let canaries = match canaries {
            Canaries::NobodyLives => return Ok(Some(self.clock.elapsed())),
            Canaries::Among(canaries) => canaries,
        };
        let start = usize::try_from(self.roll() % 1024).unwrap_or(0);
        let picked = (0..canaries.len()).map(|n| &canaries[(start + n) % canaries.len()]).take(CANARIES);
        for canary in picked {
            match self.look_up(canary, pass.patience()).await? {
                Found::Alive(_) => return Ok(Some(self.clock.elapsed())),
                // What cannot be read proves nothing.
                Found::Gone | Found::Unreadable(_) => {}
                Found::Unclear(_) => pass.unclear += 1,
            }
        }
        Ok(None)
    }

    /// Records a suspect that answered.
    pub(super) async fn record_alive(
        &self,
        pass: &mut Pass,
        asked: Arc<Asked>,
        customer: Customer,
    ) -> Result<(), Failure> {
        let recorded = self.apply(pass, Origin::Lookup, move |tx, recorder, _| {
            holds::end(tx, customer.id(), End::Alive)?;
            apply_lookup(tx, recorder, &asked, customer)
        });
        Ok(recorded.await?)
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
        let asked = Arc::clone(&pass.asked);
        let recorded = self.apply(pass, origin, move |tx, recorder, _| {
            for id in &proven {
                // Our own delete, answered meanwhile or about to be, is recorded as such.
                if asked.is_before_push_of(id) {
                    continue;
                }
                // A person may have said no while it was asked for.
                if holds::is_rejected(tx, id)? {
                    continue;
                }
                recorder.record_deleted(id)?;
            }
            Ok(())
        });
        Ok(recorded.await?)
    }
}
