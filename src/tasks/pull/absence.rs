//! Missing customers: performs the steps that [`komoju_core::plan::absence`] decides, one at a
//! time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::page::plan_lookup;
use super::requests::CustomerLookup;
use super::{Failure, Pass, PassProgress, Phase, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::{self, HoldEnd};
use crate::store::log::unlisted;
use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::absence::{
    self, AbsenceCheck, AbsenceFindings, AbsenceStep, COUNTED_FOR, LookupAnswer,
};
use komoju_core::plan::lag::ReadReason;
use komoju_core::{Customer, CustomerId, Origin, PassKind};

/// The result of recording proven deletions.
struct RecordedDeletions {
    /// The number of recorded deletions.
    deleted: u64,
    /// The rows that are proven and exceed the limit.
    excess: Vec<i64>,
}

impl<R: Remote> Pull<R> {
    /// Performs a check. Deletions that are recorded remain if a later step fails. `origin` is the
    /// origin of the deletions.
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
                    self.progress.send_replace(PassProgress { phase: Phase::Verifying, done, of });
                }
                AbsenceStep::Canary(id) => {
                    let found = self.request_one(pass, &id).await?;
                    let exists = matches!(found, CustomerLookup::Alive(_));
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

    /// Requests the customer in a row of the mirror, and records it if it exists. Returns the time
    /// of the request, by the steady clock, and the answer.
    async fn look_up_row(&self, pass: &mut Pass, row: i64) -> Result<(Duration, LookupAnswer), Failure> {
        let id = self.read_mirror(move |view| view.live_id_of(row)).await?;
        // Read the clock after the database, which may block for long: the age of a 404 counts from
        // its request.
        let requested_at = self.clock.elapsed();
        let Some(id) = id else { return Ok((requested_at, LookupAnswer::NotLive)) };
        let request = self.mark_request();
        let answer = match self.request_one(pass, &id).await? {
            CustomerLookup::Alive(customer) => {
                self.record_alive(pass, request, customer).await?;
                LookupAnswer::Exists
            }
            CustomerLookup::Unreadable(bad) => {
                self.record_unreadable(pass, &id, bad).await?;
                LookupAnswer::Unreadable
            }
            CustomerLookup::Gone => LookupAnswer::Gone,
            CustomerLookup::Unclear(why) => {
                tracing::warn!("{why}; the deletion of this customer is not proven");
                LookupAnswer::Unclear
            }
        };
        Ok((requested_at, answer))
    }

    /// Requests one customer, within the budget of the pass.
    async fn request_one(&self, pass: &mut Pass, id: &CustomerId) -> Result<CustomerLookup, Failure> {
        let found = self.look_up(id, pass.budget.tries()).await?;
        pass.budget.spend(!matches!(found, CustomerLookup::Unclear(_)));
        Ok(found)
    }

    /// Records the state of a customer that exists although the list did not show it.
    async fn record_alive(
        &self,
        pass: &mut Pass,
        request: Arc<RequestMark>,
        customer: Customer,
    ) -> Result<(), StoreError> {
        let consistency = self.settings.consistency;
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        self.step(pass, Origin::Lookup, move |view, _| {
            view.end_hold(customer.id(), HoldEnd::Alive)?;
            if let Some(sweep) = sweep {
                view.note_verified(customer.id(), sweep)?;
            }
            plan_lookup(view, &request, customer, ReadReason::Pass, consistency).map(drop)
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
    ) -> Result<RecordedDeletions, StoreError> {
        let request = Arc::clone(&pass.started);
        self.step(pass, origin, move |view, _| {
            let mut recorded = RecordedDeletions { deleted: 0, excess: Vec::new() };
            for row in rows {
                let Some(id) = view.live_id_of(row)? else { continue };
                // Our own push is newer, or is in flight. An operator may also have rejected the
                // deletion meanwhile.
                if request.is_before_push_of(&id) || holds::is_rejected(view.conn(), &id)? {
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

    /// Notes that the list leaves out existing customers. Returns how many deletions may still be
    /// recorded.
    async fn note_imprecise(&self, pass: &mut Pass, suspects: u64) -> Result<u64, StoreError> {
        let live = pass.live_before;
        tracing::warn!(
            suspects,
            live,
            "the list leaves out {suspects} of {live} customers, and at least one of them exists: verifying with \
             single requests"
        );
        // Write the note before a deletion is recorded, because a stop must not lose it.
        let now = self.clock.now();
        pass.list_history.above_limit_at = Some(now);
        self.note(move |tx| unlisted::note_above_limit(tx, now)).await?;
        self.room(pass).await
    }

    /// Returns how many deletions this sweep may record.
    pub(super) async fn room(&self, pass: &Pass) -> Result<u64, StoreError> {
        let since = self.clock.now().checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN);
        let is_imprecise = pass.list_history.above_limit_at.is_some_and(|at| at > since);
        let recorded =
            if is_imprecise { self.read_mirror(move |view| view.deletions_since(since)).await? } else { 0 };
        Ok(absence::room(self.limit(pass), is_imprecise, recorded))
    }

    /// Returns how many suspects a sweep may settle without an operator.
    pub(super) fn limit(&self, pass: &Pass) -> u64 {
        absence::limit(pass.live_before, self.settings.max_delete_count, self.settings.max_delete_percent)
    }
}
