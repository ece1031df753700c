//! Hinted customers that the API does not find: which are proven to be deleted, which are held.
//!
//! `komoju_core::plan::absence` decides, as for a sweep. The 404 of each suspect is known already;
//! only the canaries are requested here.

use std::collections::{HashMap, HashSet};
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
    self, AbsenceCheck, AbsenceFindings, AbsencePlan, AbsenceStep, CANARIES, COUNTED_FOR, DeletePolicy,
    LookupAnswer,
};
use komoju_core::plan::hints::HintAnswer;
use komoju_core::plan::lookups::LookupBudget;
use komoju_core::{CustomerId, Origin, PassKind};

/// A hinted customer that the API does not find.
pub(super) struct Suspect {
    pub(super) hint: DueHint,
    pub(super) request: Arc<RequestMark>,
    /// When it was requested and when it answered, by the steady clock.
    pub(super) requested_at: Duration,
    pub(super) answered_at: Duration,
}

/// What became of suspects with a canary.
#[derive(Debug, Default)]
struct RecordedSuspects {
    /// What follows for their hints, by the rows of the suspects.
    answers: HashMap<i64, HintAnswer>,
    /// The rows for which there was no room.
    excess: Vec<i64>,
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
        // Each is known to be gone: up to the limit they are recorded, and the others are held.
        let plan = AbsencePlan::new((rows.len() as u64).min(limit), 0, limit);
        let mut check = AbsenceCheck::of_sweep(plan, rows, &HashMap::new(), Vec::new(), policy, canaries);
        check.set_room(room);
        let budget = LookupBudget::unlimited(PassKind::Probe);
        let mut answered = HashSet::new();
        let mut answers: HashMap<i64, HintAnswer> = HashMap::new();
        let findings = loop {
            match check.next_step(self.clock.elapsed(), &budget) {
                AbsenceStep::Lookup(row) => {
                    let Some(suspect) = suspects.get(&row) else {
                        check.answered(Duration::ZERO, LookupAnswer::NotLive);
                        continue;
                    };
                    let (requested_at, answer) = match answered.insert(row) {
                        // It was requested already.
                        true => (suspect.requested_at, LookupAnswer::Gone),
                        // Its 404 has become too old for a canary.
                        false => self.request_again(&suspect.hint.id).await?,
                    };
                    check.answered(requested_at, answer);
                }
                AbsenceStep::Canary(id) => {
                    let answered_at = match canary_at.take() {
                        Some(at) => Some(at),
                        None => self.request_canary(&id).await?,
                    };
                    check.canary_answered(answered_at);
                }
                AbsenceStep::Record { rows, room } => {
                    let recorded = self.record_hinted(&suspects, rows, room).await?;
                    let deleted = recorded.answers.values().filter(|it| **it == HintAnswer::Recorded);
                    check.recorded(deleted.count() as u64, recorded.excess);
                    answers.extend(recorded.answers);
                }
                AbsenceStep::NoteImprecise { .. } => check.set_room(room),
                AbsenceStep::Finish => break check.into_findings(),
            }
        };
        self.hold_hinted(&suspects, answers, findings).await
    }

    /// Requests a suspect again; returns when, by the steady clock, and the answer. A customer that
    /// exists keeps its hint.
    async fn request_again(&self, id: &CustomerId) -> Result<(Duration, LookupAnswer), Failure> {
        let requested_at = self.clock.elapsed();
        let answer = match self.look_up_hinted(id).await? {
            CustomerLookup::Alive(_) => LookupAnswer::Exists,
            CustomerLookup::Unreadable(_) => LookupAnswer::Unreadable,
            CustomerLookup::Gone => LookupAnswer::Gone,
            CustomerLookup::Unclear(_) => LookupAnswer::Unclear,
        };
        Ok((requested_at, answer))
    }

    /// Requests a canary, in the turn of the passes as a sweep does; returns when it answered, by
    /// the steady clock, if it did.
    async fn request_canary(&self, id: &CustomerId) -> Result<Option<Duration>, Failure> {
        let exists = matches!(self.look_up(id, 1).await?, CustomerLookup::Alive(_));
        Ok(exists.then(|| self.clock.elapsed()))
    }

    /// Returns what may be recorded: the policy, a sweep's limit, and how much of it is left. The
    /// deletions count together that events reported since the last whole sweep, or within a day
    /// where no sweep is whole.
    async fn deletion_limits(&self) -> Result<(DeletePolicy, u64, u64), StoreError> {
        let (count, percent) = (self.settings.max_delete_count, self.settings.max_delete_percent);
        let now = self.clock.now();
        self.read_mirror(move |view| {
            let conn = view.conn();
            let policy = if holds::holds_all(conn)? { DeletePolicy::Hold } else { DeletePolicy::Record };
            let limit = absence::limit(view.live_count()?, count, percent);
            let a_day_ago = now.checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN);
            // A sweep in the future was recorded while the clock was ahead.
            let swept_at = passes::last_whole_sweep_at(conn)?.filter(|at| *at <= now);
            let since = swept_at.map_or(a_day_ago, |at| at.max(a_day_ago));
            let recorded = unlisted::deletions_by_events_since(conn, since)?;
            Ok((policy, limit, absence::room(limit, true, recorded)))
        })
        .await
    }

    /// Records proven deletions, at most `room`.
    async fn record_hinted(
        &self,
        suspects: &Arc<Suspects>,
        rows: Vec<i64>,
        room: u64,
    ) -> Result<RecordedSuspects, StoreError> {
        let (suspects, in_flight) = (Arc::clone(suspects), Arc::clone(&self.in_flight));
        let consistency = self.settings.consistency;
        let now = self.clock.now();
        let plan = move |view: &mut View<'_>| {
            let mut recorded = RecordedSuspects::default();
            let mut deleted = Vec::new();
            for row in rows {
                let Some(suspect) = suspects.get(&row) else { continue };
                let id = &suspect.hint.id;
                let seq = view.find(id)?.map_or(0, |stored| stored.mirror_row.seq);
                // Another answer was applied meanwhile, and it may be newer.
                if seq != suspect.hint.seq {
                    recorded.answers.insert(row, HintAnswer::Overtaken);
                    continue;
                }
                // Our own push, a hold or an operator's decision is newer.
                if suspect.request.is_before_push_of(id)
                    || unlisted::has_push_open(view.conn(), id.as_str())?
                    || view.is_unsettled(id)?
                {
                    recorded.answers.insert(row, HintAnswer::NothingMore);
                    continue;
                }
                if deleted.len() as u64 == room {
                    recorded.excess.push(row);
                    continue;
                }
                view.delete(id)?;
                recorded.answers.insert(row, HintAnswer::Recorded);
                deleted.push((suspect.hint.clone(), suspect.request.requested_at()));
            }
            Ok((recorded, deleted))
        };
        let cause = self.cause(Origin::Event, None);
        let applied = self.plan_and_apply(cause, plan, move |tx, (_, deleted), _| {
            for (hint, requested_at) in deleted {
                in_flight.note_applied_read(&hint.id);
                let settle = Settling { hint: hint.clone(), requested_at: *requested_at, now, consistency };
                settle.with(tx, HintAnswer::Recorded)?;
            }
            Ok(())
        });
        let ((recorded, deleted), _) = applied.await?;
        self.missing_rate.with(|missing_rate| deleted.iter().for_each(|_| missing_rate.add(false)));
        Ok(recorded)
    }

    /// Holds what is not proven or has no room, and settles the hints of the suspects that are not
    /// recorded. One without an answer of its own, and not held, is requested again.
    async fn hold_hinted(
        &self,
        suspects: &Arc<Suspects>,
        answers: HashMap<i64, HintAnswer>,
        findings: AbsenceFindings,
    ) -> Result<(), Failure> {
        let held_rows: HashSet<i64> = findings.held.iter().flat_map(|(rows, _)| rows).copied().collect();
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
        let settling: Vec<(Settling, HintAnswer)> = suspects
            .iter()
            .filter(|(row, _)| answers.get(row) != Some(&HintAnswer::Recorded))
            .map(|(row, suspect)| {
                let other =
                    if held_rows.contains(row) { HintAnswer::NothingMore } else { HintAnswer::Unclear };
                let answer = answers.get(row).copied().unwrap_or(other);
                (self.settling(suspect.hint.clone(), suspect.request.requested_at()), answer)
            })
            .collect();
        let plan = move |view: &mut View<'_>| {
            for (rows, reason) in findings.held {
                plan_hold(view, &rows, reason)?;
            }
            Ok(())
        };
        let cause = self.cause(Origin::Event, None);
        self.plan_and_apply(cause, plan, move |tx, (), _| {
            settling.into_iter().try_for_each(|(settle, answer)| settle.with(tx, answer))
        })
        .await?;
        Ok(())
    }
}
