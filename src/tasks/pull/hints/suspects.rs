//! Hinted customers that the API does not find: which are proven to be deleted, which are held.
//!
//! `komoju_core::plan::absence` decides, as for a sweep. The 404 of each suspect is known already;
//! only the canaries are requested here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::conclude::plan_hold;
use super::super::requests::CustomerLookup;
use super::super::view::View;
use super::super::{Failure, Pull};
use super::Settling;
use crate::remote::EventRemote;
use crate::store::StoreError;
use crate::store::log::hints::DueHint;
use crate::store::log::mirror::LiveFilter;
use crate::store::log::{holds, passes, unlisted};
use crate::tasks::in_flight::RequestMark;
use komoju_core::format::count;
use komoju_core::plan::absence::{
    self, AbsenceCheck, AbsenceFindings, AbsencePlan, AbsenceStep, CANARIES, DeletePolicy, LookupAnswer,
};
use komoju_core::plan::hints::HintAnswer;
use komoju_core::plan::lookups::LookupBudget;
use komoju_core::{CustomerId, Origin, PassKind};

/// A hinted customer that the API does not find.
pub(super) struct Suspect {
    pub(super) hint: DueHint,
    pub(super) request: Arc<RequestMark>,
    /// When it was requested, by the steady clock.
    pub(super) requested_at: Duration,
}

/// Suspects, by their rows in the mirror.
pub(super) type Suspects = HashMap<i64, Suspect>;

impl<R: EventRemote> Pull<R> {
    /// Finds out which suspects are proven to be deleted, records those, and holds the others.
    /// `canary_at` is when a customer that was requested after all suspects has answered, by the
    /// steady clock.
    pub(super) async fn settle_suspects(
        &self,
        suspects: Suspects,
        mut canary_at: Option<Duration>,
    ) -> Result<(), Failure> {
        let suspects = Arc::new(suspects);
        let rows: Vec<i64> = suspects.keys().copied().collect();
        let (policy, limit, room) = self.deletion_limits().await?;
        let canaries = self.random_live(CANARIES + rows.len(), LiveFilter::Unapproved).await?;
        let is_suspect = |id: &CustomerId| suspects.values().any(|suspect| suspect.hint.id == *id);
        let canaries = canaries.into_iter().filter(|id| !is_suspect(id)).take(CANARIES).collect();
        let plan = AbsencePlan::new(rows.len() as u64, 0, limit);
        let mut check = AbsenceCheck::of_sweep(plan, rows, &HashMap::new(), Vec::new(), policy, canaries);
        check.set_room(room);
        let budget = LookupBudget::unlimited(PassKind::Probe);
        let findings = loop {
            match check.next_step(self.clock.elapsed(), &budget) {
                // It was requested already.
                AbsenceStep::Lookup(row) => {
                    let requested_at =
                        suspects.get(&row).map_or(Duration::ZERO, |suspect| suspect.requested_at);
                    check.answered(requested_at, LookupAnswer::Gone);
                }
                AbsenceStep::Canary(id) => {
                    let answered_at = match canary_at.take() {
                        Some(at) => Some(at),
                        None => self.request_canary(&id).await?,
                    };
                    check.canary_answered(answered_at);
                }
                AbsenceStep::Record { rows, room } => {
                    let (deleted, excess) = self.record_hinted(&suspects, rows, room).await?;
                    check.recorded(deleted, excess);
                }
                AbsenceStep::NoteImprecise { .. } => check.set_room(room),
                AbsenceStep::Finish => break check.into_findings(),
            }
        };
        self.hold_hinted(&suspects, findings).await
    }

    /// Requests a canary; returns when it answered, by the steady clock, if it did.
    async fn request_canary(&self, id: &CustomerId) -> Result<Option<Duration>, Failure> {
        let exists = matches!(self.look_up_hinted(id).await?, CustomerLookup::Alive(_));
        Ok(exists.then(|| self.clock.elapsed()))
    }

    /// Returns what may be recorded: the policy, a sweep's limit, and how much of it is left since
    /// the last sweep.
    async fn deletion_limits(&self) -> Result<(DeletePolicy, u64, u64), StoreError> {
        let (count, percent) = (self.settings.max_delete_count, self.settings.max_delete_percent);
        self.read_mirror(move |view| {
            let conn = view.conn();
            let policy = if holds::holds_all(conn)? { DeletePolicy::Hold } else { DeletePolicy::Record };
            let limit = absence::limit(view.live_count()?, count, percent);
            let since = passes::last_whole_sweep_at(conn)?.unwrap_or(Timestamp::MIN);
            let recorded = unlisted::deletions_by_events_since(conn, since)?;
            Ok((policy, limit, absence::room(limit, true, recorded)))
        })
        .await
    }

    /// Records proven deletions, at most `room`; returns how many, and the rows for which there was
    /// no room.
    async fn record_hinted(
        &self,
        suspects: &Arc<Suspects>,
        rows: Vec<i64>,
        room: u64,
    ) -> Result<(u64, Vec<i64>), StoreError> {
        let (suspects, in_flight) = (Arc::clone(suspects), Arc::clone(&self.in_flight));
        let consistency = self.settings.consistency;
        let now = self.clock.now();
        let plan = move |view: &mut View<'_>| {
            let (mut deleted, mut excess) = (Vec::new(), Vec::new());
            for row in rows {
                let (Some(id), Some(suspect)) = (view.live_id_of(row)?, suspects.get(&row)) else { continue };
                let seq = view.find(&id)?.map_or(0, |stored| stored.mirror_row.seq);
                // Our own push, another answer or an operator's decision is newer.
                if seq != suspect.hint.seq
                    || suspect.request.is_before_push_of(&id)
                    || holds::is_rejected(view.conn(), &id)?
                {
                    continue;
                }
                if deleted.len() as u64 == room {
                    excess.push(row);
                    continue;
                }
                view.delete(&id)?;
                deleted.push((suspect.hint.clone(), suspect.request.requested_at()));
            }
            Ok((deleted, excess))
        };
        let cause = self.cause(Origin::Event, None);
        let applied = self.plan_and_apply(cause, plan, move |tx, (deleted, _), _| {
            for (hint, requested_at) in deleted {
                in_flight.note_applied_read(&hint.id);
                let settle = Settling { hint: hint.clone(), requested_at: *requested_at, now, consistency };
                settle.with(tx, HintAnswer::Recorded)?;
            }
            Ok(())
        });
        let ((deleted, excess), _) = applied.await?;
        self.missing_rate.with(|missing_rate| deleted.iter().for_each(|_| missing_rate.add(false)));
        Ok((deleted.len() as u64, excess))
    }

    /// Holds what is not proven or has no room, and settles the hints of all suspects.
    async fn hold_hinted(&self, suspects: &Arc<Suspects>, findings: AbsenceFindings) -> Result<(), Failure> {
        let held: u64 = findings.held.iter().map(|(rows, _)| rows.len() as u64).sum();
        if held > 0 {
            let are = if held == 1 { "is" } else { "are" };
            tracing::warn!(
                customers = held,
                "{} that events reported {are} held: see `komoju-sync deletions list`",
                count(held, "deletion")
            );
            self.missing_rate.with(|missing_rate| (0..held).for_each(|_| missing_rate.add(true)));
        }
        let settling: Vec<Settling> = suspects
            .values()
            .map(|suspect| self.settling(suspect.hint.clone(), suspect.request.requested_at()))
            .collect();
        let plan = move |view: &mut View<'_>| {
            for (rows, reason) in findings.held {
                plan_hold(view, &rows, reason)?;
            }
            Ok(())
        };
        let cause = self.cause(Origin::Event, None);
        self.plan_and_apply(cause, plan, move |tx, (), _| {
            settling.into_iter().try_for_each(|settle| settle.with(tx, HintAnswer::NothingMore))
        })
        .await?;
        Ok(())
    }
}
