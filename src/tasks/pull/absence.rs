//! Missing customers: carries out what [`komoju_core::plan::absence`] decides, one step after the other.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::ask::Found;
use super::page::plan_lookup;
use super::{Failure, Pass, Phase, Progress, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::{self, End};
use crate::store::log::unlisted;
use crate::tasks::echoes::Asked;
use komoju_core::plan::absence::{
    self, AbsenceCheck, AbsenceFindings, AbsenceStep, COUNTED_FOR, LookupAnswer,
};
use komoju_core::plan::lag::ReadReason;
use komoju_core::{Customer, CustomerId, Origin, PassKind};

/// What became of deletions that are proven.
struct Recorded {
    /// How many are recorded.
    deleted: u64,
    /// Rows for which there was no room.
    excess: Vec<i64>,
}

impl<R: Remote> Pull<R> {
    /// Carries out a check. What is proven stays recorded if it fails midway. `origin` is that of the deletions.
    pub(super) async fn check_absence(
        &self,
        pass: &mut Pass,
        mut check: AbsenceCheck,
        origin: Origin,
    ) -> Result<AbsenceFindings, Failure> {
        let mut done = 0;
        loop {
            let step = check.next_step(self.clock.elapsed(), &pass.budget);
            tracing::debug!(pass = pass.id, "{step}");
            match step {
                AbsenceStep::Lookup(row) => {
                    let (requested_at, answer) = self.look_up_row(pass, row).await?;
                    check.answered(requested_at, answer);
                    done += 1;
                    let of = done + check.left().min(pass.budget.left());
                    self.progress.send_replace(Progress { phase: Phase::Asking, done, of });
                }
                AbsenceStep::Canary(id) => {
                    let found = self.ask_one(pass, &id).await?;
                    let exists = matches!(found, Found::Alive(_));
                    check.canary_answered(exists.then(|| self.clock.elapsed()));
                }
                AbsenceStep::Record { rows, room } => {
                    let recorded = self.record_deleted(pass, origin, rows, room).await?;
                    check.recorded(recorded.deleted, recorded.excess);
                }
                AbsenceStep::NoteImprecise { suspects } => {
                    check.set_room(self.note_imprecise(pass, suspects).await?);
                }
                AbsenceStep::Finish => return Ok(check.into_findings()),
            }
        }
    }

    /// Requests the customer in a row of the mirror, and records it where it exists. Returns when it was requested, by the steady
    /// clock, and the answer.
    async fn look_up_row(&self, pass: &mut Pass, row: i64) -> Result<(Duration, LookupAnswer), Failure> {
        let id = self.look(move |view| view.live_id_of(row)).await?;
        // After the wait for the database, which may be long: the age of a 404 counts from its request.
        let requested_at = self.clock.elapsed();
        let Some(id) = id else { return Ok((requested_at, LookupAnswer::NotLive)) };
        let asked = self.asking();
        let answer = match self.ask_one(pass, &id).await? {
            Found::Alive(customer) => {
                self.record_alive(pass, asked, customer).await?;
                LookupAnswer::Exists
            }
            Found::Unreadable(bad) => {
                self.record_unreadable(pass, &id, bad).await?;
                LookupAnswer::Unreadable
            }
            Found::Gone => LookupAnswer::Gone,
            Found::Unclear(why) => {
                tracing::warn!("{why}; whether this customer is gone is not proven");
                LookupAnswer::Unclear
            }
        };
        Ok((requested_at, answer))
    }

    /// Requests one customer, within the pass's budget and patience.
    async fn ask_one(&self, pass: &mut Pass, id: &CustomerId) -> Result<Found, Failure> {
        let found = self.look_up(id, pass.budget.tries()).await?;
        pass.budget.spend(!matches!(found, Found::Unclear(_)));
        Ok(found)
    }

    /// Records a customer that the list did not show and that exists.
    async fn record_alive(
        &self,
        pass: &mut Pass,
        asked: Arc<Asked>,
        customer: Customer,
    ) -> Result<(), StoreError> {
        let consistency = self.settings.consistency;
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        self.step(pass, Origin::Lookup, move |view, _| {
            view.end_hold(customer.id(), End::Alive)?;
            if let Some(sweep) = sweep {
                view.note_verified(customer.id(), sweep)?;
            }
            plan_lookup(view, &asked, customer, ReadReason::Pass, consistency).map(drop)
        })
        .await
    }

    /// Records proven deletions, at most `room` of them.
    async fn record_deleted(
        &self,
        pass: &mut Pass,
        origin: Origin,
        rows: Vec<i64>,
        room: u64,
    ) -> Result<Recorded, StoreError> {
        let asked = Arc::clone(&pass.asked);
        self.step(pass, origin, move |view, _| {
            let mut recorded = Recorded { deleted: 0, excess: Vec::new() };
            for row in rows {
                let Some(id) = view.live_id_of(row)? else { continue };
                // Our own push is newer, or is about to be. And an operator may have rejected the deletion meanwhile.
                if asked.is_before_push_of(&id) || holds::is_rejected(view.conn(), &id)? {
                    continue;
                }
                if recorded.deleted == room {
                    recorded.excess.push(row);
                    continue;
                }
                view.delete(&id)?;
                recorded.deleted += 1;
            }
            Ok(recorded)
        })
        .await
    }

    /// Notes that the list leaves out customers that exist; returns how many deletions may be recorded from here on.
    async fn note_imprecise(&self, pass: &mut Pass, suspects: u64) -> Result<u64, StoreError> {
        let live = pass.live_before;
        tracing::warn!(
            suspects,
            live,
            "the list leaves out {suspects} of {live} customers, and at least one of them exists: they are verified \
             by single requests"
        );
        // Before a deletion is recorded: a stop must not lose it.
        let now = self.clock.now();
        pass.learnt.above_limit_at = Some(now);
        self.note(move |tx| unlisted::note_above_limit(tx, now)).await?;
        self.room(pass).await
    }

    /// How many deletions this sweep may record.
    pub(super) async fn room(&self, pass: &Pass) -> Result<u64, StoreError> {
        let since = self.clock.now().checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN);
        let is_imprecise = pass.learnt.above_limit_at.is_some_and(|at| at > since);
        let recorded =
            if is_imprecise { self.look(move |view| view.deletions_since(since)).await? } else { 0 };
        Ok(absence::room(self.limit(pass), is_imprecise, recorded))
    }

    /// How many suspects a sweep may settle by itself.
    pub(super) fn limit(&self, pass: &Pass) -> u64 {
        absence::limit(pass.live_before, self.settings.max_delete_count, self.settings.max_delete_percent)
    }
}
