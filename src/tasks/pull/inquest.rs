//! The inquest: asking about suspects, with a canary for every deletion.
//!
//! A customer that gives no usable answer, or a canary that does not, holds up no other: what could not be proven is handed back, and
//! all others are settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::apply::apply_lookup;
use super::ask::Found;
use super::{Failure, Pass, Phase, Progress, Pull};
use crate::remote::Remote;
use crate::store::log::holds::{self, End};
use crate::store::log::unlisted;
use crate::tasks::echoes::Asked;
use komoju_core::plan::evidence::{self, CANARIES, Inquest};
use komoju_core::plan::lag::Occasion;
use komoju_core::plan::retry::TRIES;
use komoju_core::{Customer, CustomerId, Origin, PassKind, time};

/// How often it may happen in one inquest that a 404 has grown too old when its canary answers.
const ROUNDS: usize = 3;

/// How many customers without a usable answer get all their tries; the rest of such a pass gets one try each, so that an API that
/// fails for every customer that is gone does not take half a minute for each of them.
const PATIENT_WITH: usize = 3;

/// After so many customers without a usable answer a sweep requests no further ones.
const MOST_UNCLEAR: usize = 20;

/// Which customers can serve as a canary.
pub(super) enum Canaries {
    /// One of these must answer.
    Among(Vec<CustomerId>),
    /// There is none: an operator has decided that this is right.
    NoneLeft,
}

/// How an inquest ended. A suspect that is in none of these lists is settled: recorded as deleted, or alive.
#[derive(Default)]
pub(super) struct Verdict {
    /// Gone by their own answer, while no canary answered.
    pub(super) unproven: Vec<CustomerId>,
    /// Proven gone, and more than may be recorded.
    pub(super) over: Vec<CustomerId>,
    /// They gave no usable answer, or were not requested.
    pub(super) unknown: Vec<CustomerId>,
    /// Whether no canary answered: nothing can be proven just now.
    pub(super) lacks_canary: bool,
}

/// What allows deletions to be recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Warrant {
    /// A sweep suspects them; so many may be recorded.
    OwnSuspicion { room: u64 },
    /// An operator has approved them.
    Approved,
}

impl Pass {
    /// Whether another customer may be requested.
    pub(super) fn may_ask(&self) -> bool {
        self.budget > 0 && self.unclear < self.most_unclear
    }

    /// From here on the pass requests customers because of its own suspicion, within bounds.
    pub(super) fn limit_questions(&mut self) {
        self.budget = evidence::budget(self.tally.pages);
        self.most_unclear = self.unclear + MOST_UNCLEAR;
    }

    /// How often the next question may be asked.
    pub(super) fn patience(&self) -> usize {
        // A probe is soon made again.
        if self.unclear < PATIENT_WITH && self.kind == PassKind::Sweep { TRIES } else { 1 }
    }
}

impl<R: Remote> Pull<R> {
    /// Requests each suspect, as far as the pass's budget goes; records those that are proven gone and how the others are. What is
    /// proven stays recorded when it fails midway.
    pub(super) async fn hold_inquest(
        &self,
        pass: &mut Pass,
        suspects: Vec<CustomerId>,
        canaries: &Canaries,
        mut warrant: Warrant,
    ) -> Result<Verdict, Failure> {
        let of = suspects.len() as u64;
        let mut queue = VecDeque::from(suspects);
        let (mut inquest, mut verdict) = (Inquest::default(), Verdict::default());
        let (mut stale_rounds, mut any_alive) = (0, false);
        while !(queue.is_empty() && inquest.is_empty()) {
            let mut canary_due = false;
            if !pass.may_ask() {
                verdict.unknown.extend(queue.drain(..));
            }
            if let Some(suspect) = queue.pop_front() {
                let (asked_at, asked) = (self.clock.elapsed(), self.asking());
                match self.ask_one(pass, &suspect).await? {
                    Found::Alive(customer) => {
                        any_alive = true;
                        self.record_alive(pass, asked, customer).await?;
                    }
                    Found::Unreadable(bad) => self.record_unreadable(pass, &suspect, bad).await?,
                    // Without a canary nothing more is proven, and what lives is verified all the same.
                    Found::Gone if verdict.lacks_canary => verdict.unproven.push(suspect),
                    Found::Gone => inquest.gone(suspect, asked_at),
                    Found::Unclear(why) => {
                        tracing::warn!("{why}; whether this customer is gone is not proven");
                        verdict.unknown.push(suspect);
                        // Is it this customer, or does nothing answer?
                        canary_due = true;
                    }
                }
                let done = of.saturating_sub(queue.len() as u64);
                self.progress.send_replace(Progress { phase: Phase::Asking, done, of });
            }
            canary_due |= inquest.is_due(self.clock.elapsed()) || (queue.is_empty() && !inquest.is_empty());
            if !canary_due || (verdict.lacks_canary && inquest.is_empty()) {
                continue;
            }
            let Some(answered_at) = self.ask_canaries(pass, canaries).await? else {
                verdict.unproven.extend(inquest.take_unproven());
                verdict.lacks_canary = true;
                if any_alive {
                    continue;
                }
                // Nothing answers.
                verdict.unknown.extend(queue);
                return Ok(verdict);
            };
            let proof = inquest.canary(answered_at);
            verdict.over.extend(self.record_gone(pass, proof.proven, &mut warrant).await?);
            if !proof.stale.is_empty() {
                stale_rounds += 1;
                match stale_rounds < ROUNDS {
                    true => queue.extend(proof.stale),
                    false => verdict.unproven.extend(proof.stale),
                }
            }
        }
        Ok(verdict)
    }

    /// Requests one customer, within the pass's budget and patience.
    pub(super) async fn ask_one(&self, pass: &mut Pass, id: &CustomerId) -> Result<Found, Failure> {
        pass.budget = pass.budget.saturating_sub(1);
        let found = self.look_up(id, pass.patience()).await?;
        pass.unclear += usize::from(matches!(found, Found::Unclear(_)));
        Ok(found)
    }

    /// When a canary answered, by the steady clock; `None` when up to three were requested and none did.
    async fn ask_canaries(&self, pass: &mut Pass, canaries: &Canaries) -> Result<Option<Duration>, Failure> {
        let canaries = match canaries {
            Canaries::NoneLeft => return Ok(Some(self.clock.elapsed())),
            Canaries::Among(canaries) => canaries,
        };
        let start = usize::try_from(self.roll() % 1024).unwrap_or(0);
        let picked = (0..canaries.len()).map(|n| &canaries[(start + n) % canaries.len()]).take(CANARIES);
        for canary in picked {
            match self.ask_one(pass, canary).await? {
                Found::Alive(_) => return Ok(Some(self.clock.elapsed())),
                // What cannot be read proves nothing.
                Found::Gone | Found::Unreadable(_) | Found::Unclear(_) => {}
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
        let (at, consistency) = (time::written(self.clock.now()), self.settings.consistency);
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        let recorded = self.apply(pass, Origin::Lookup, move |tx, recorder, _| {
            holds::end(tx, customer.id(), End::Alive)?;
            if let Some(sweep) = sweep {
                unlisted::note_verified(tx, customer.id().as_str(), sweep, &at)?;
            }
            apply_lookup(tx, recorder, &asked, customer, (Occasion::Pass, consistency))
        });
        Ok(recorded.await?)
    }

    /// Records those that are proven gone, as far as the warrant goes; returns the others.
    async fn record_gone(
        &self,
        pass: &mut Pass,
        proven: Vec<CustomerId>,
        warrant: &mut Warrant,
    ) -> Result<Vec<CustomerId>, Failure> {
        let (origin, mut room) = match *warrant {
            Warrant::OwnSuspicion { room } => (Origin::Sweep, room),
            Warrant::Approved => (Origin::Lookup, u64::MAX),
        };
        let asked = Arc::clone(&pass.asked);
        let recorded = self.apply(pass, origin, move |tx, recorder, _| {
            let mut over = Vec::new();
            for id in proven {
                // Our own push, answered meanwhile or about to be, is newer. And an operator may have rejected the deletion.
                if asked.is_before_push_of(&id) || holds::is_rejected(tx, &id)? {
                    continue;
                }
                if room == 0 {
                    over.push(id);
                    continue;
                }
                room -= 1;
                recorder.record_deleted(&id)?;
            }
            Ok((over, room))
        });
        let (over, room) = recorded.await?;
        if let Warrant::OwnSuspicion { room: left } = warrant {
            *left = room;
        }
        Ok(over)
    }
}
