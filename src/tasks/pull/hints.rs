//! Customers that events name: each is requested by itself, and the answer is applied.
//!
//! ```text
//!   hints that are due ─▶ GET each ─▶ 200: compared with the mirror, as any lookup
//!                                  └▶ 404: a suspect ─▶ canary ─▶ recorded, or held
//! ```
//!
//! A 404 deletes nothing without the evidence that a sweep needs: the customer is old enough, a
//! canary answers within a minute, and the deletions since the last sweep stay within the sweep's
//! limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::conclude::plan_hold;
use super::page::{LookupEffect, plan_lookup};
use super::requests::CustomerLookup;
use super::view::View;
use super::{Failure, Pull, RequestError};
use crate::remote::EventRemote;
use crate::store::log::hints::{self, DueHint};
use crate::store::log::holds::{self, HoldEnd};
use crate::store::log::mirror::LiveFilter;
use crate::store::log::{passes, recall, unlisted};
use crate::store::{StoreError, Tx, read};
use crate::tasks::in_flight::RequestMark;
use komoju_core::format::count;
use komoju_core::plan::absence::{
    self, AbsenceCheck, AbsenceFindings, AbsencePlan, AbsenceStep, CANARIES, DeletePolicy, LookupAnswer,
};
use komoju_core::plan::hints::{HintAnswer, HintedRead, PAUSE_FOR, RecentAnswers};
use komoju_core::plan::lag::ReadReason;
use komoju_core::plan::lookups::LookupBudget;
use komoju_core::{Customer, CustomerId, Origin, PassKind};

/// AT_ONCE controls how many hinted customers are requested before their 404s are checked.
const AT_ONCE: u32 = 16;

/// AFTER_NO_ANSWER controls how long hints wait where the account cannot be checked, or the key is
/// refused.
const AFTER_NO_ANSWER: Duration = Duration::from_secs(60);

/// The answer to the request of a hinted customer.
struct Answered {
    hint: DueHint,
    asked: Arc<RequestMark>,
    /// When it was requested, by the steady clock.
    requested_at: Duration,
    found: CustomerLookup,
}

/// A hinted customer that the API does not find.
struct Suspect {
    hint: DueHint,
    asked: Arc<RequestMark>,
    requested_at: Duration,
}

/// Suspects, by their rows in the mirror.
type Suspects = HashMap<i64, Suspect>;

/// What the mirror says of a customer that the API does not find.
enum Absent {
    /// The mirror does not know it.
    Unknown,
    /// It is deleted in the mirror, too young for a conclusion, held, or being pushed.
    Settled(HintAnswer),
    /// It is live in this row of the mirror.
    Suspect(i64),
}

/// The newest answers to requests of hinted customers.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<RecentAnswers>);

impl Recent {
    fn with<T>(&self, work: impl FnOnce(&mut RecentAnswers) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<R: EventRemote> Pull<R> {
    /// Requests the customers whose hints are due, some at a time. Returns how long the next one
    /// waits; `None` where none does.
    pub async fn read_hinted(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        let (is_refused, due) = self
            .read_mirror(move |view| {
                Ok((read::obstacles(view.conn())?.0.is_some(), hints::due(view.conn(), now, AT_ONCE)?))
            })
            .await?;
        if !due.is_empty() {
            // The passes find out when the key is accepted again.
            if is_refused || self.check_account().await.is_err() {
                return Ok(Some(AFTER_NO_ANSWER));
            }
            match self.read_batch(due).await {
                Ok(()) => {}
                Err(Failure::Store(e)) => return Err(e),
                Err(Failure::Stopped) => return Ok(None),
                Err(_) => return Ok(Some(AFTER_NO_ANSWER)),
            }
        }
        let now = self.clock.now();
        let next = self.read_mirror(move |view| hints::next_due(view.conn(), now)).await?;
        Ok(next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default()))
    }

    /// Requests these customers and applies the answers, as they arrive. A customer of the mirror
    /// that answers is a canary for the 404s that were requested before it.
    async fn read_batch(&self, due: Vec<DueHint>) -> Result<(), Failure> {
        let at_once = self.settings.max_concurrent_requests.div_ceil(2).max(1);
        let answers = futures_util::stream::iter(due).map(|hint| self.request_hinted(hint));
        let mut answers = std::pin::pin!(answers.buffer_unordered(at_once));
        let (mut suspects, mut canary) = (Suspects::new(), None);
        while let Some(answered) = answers.next().await {
            let answered = answered?;
            if answered.hint.seq > 0 && matches!(answered.found, CustomerLookup::Alive(_)) {
                canary = canary.max(Some((answered.requested_at, self.clock.elapsed())));
            }
            self.apply_hinted(answered, &mut suspects).await?;
        }
        if !suspects.is_empty() {
            let is_newer =
                |requested_at| suspects.values().all(|suspect| suspect.requested_at <= requested_at);
            let canary = canary.filter(|(requested_at, _)| is_newer(*requested_at));
            self.settle_suspects(suspects, canary.map(|(_, answered_at)| answered_at)).await?;
        }
        self.pause_if_many_are_missing().await
    }

    async fn request_hinted(&self, hint: DueHint) -> Result<Answered, Failure> {
        let (asked, requested_at) = (self.mark_request(), self.clock.elapsed());
        let found = self.look_up_hinted(&hint.id).await?;
        Ok(Answered { hint, asked, requested_at, found })
    }

    /// Requests one customer, once, in the turn of the events.
    async fn look_up_hinted(&self, id: &CustomerId) -> Result<CustomerLookup, Failure> {
        let request = || async { self.remote.show_hinted(id).await.map_err(RequestError::Remote) };
        CustomerLookup::of(self.with_retries(1, request).await)
    }

    async fn apply_hinted(&self, answered: Answered, suspects: &mut Suspects) -> Result<(), Failure> {
        let Answered { hint, asked, requested_at, found } = answered;
        let answer = match found {
            CustomerLookup::Alive(customer) => return Ok(self.apply_alive(hint, asked, customer).await?),
            CustomerLookup::Gone => match self.absent(&hint, &asked).await? {
                Absent::Suspect(row) => {
                    suspects.insert(row, Suspect { hint, asked, requested_at });
                    return Ok(());
                }
                Absent::Unknown => {
                    self.recent.with(|recent| recent.add(true));
                    HintAnswer::NotFound
                }
                Absent::Settled(answer) => answer,
            },
            // The next sweep reports it.
            CustomerLookup::Unreadable(_) => HintAnswer::Settled,
            CustomerLookup::Unclear(why) => {
                tracing::debug!("{why}; requesting this customer again");
                HintAnswer::Unclear
            }
        };
        Ok(self.settle_hint(hint, asked.requested_at(), answer).await?)
    }

    /// Compares a hinted customer with the mirror and settles its hint in the same transaction.
    async fn apply_alive(
        &self,
        hint: DueHint,
        asked: Arc<RequestMark>,
        customer: Customer,
    ) -> Result<(), StoreError> {
        let consistency = self.settings.consistency;
        let (planned_for, by) = (hint.clone(), Arc::clone(&asked));
        let plan = move |view: &mut View<'_>| {
            let seq = view.find(&planned_for.id)?.map_or(0, |stored| stored.standing.seq);
            // Another answer was applied meanwhile, and it may be newer.
            if seq != planned_for.seq {
                return Ok(HintAnswer::Overtaken);
            }
            view.end_hold(&planned_for.id, HoldEnd::Alive)?;
            Ok(match plan_lookup(view, &by, customer, ReadReason::Pass, consistency)? {
                LookupEffect::Recorded => HintAnswer::Recorded,
                LookupEffect::Unchanged => HintAnswer::Unchanged,
                LookupEffect::LeftOut => HintAnswer::LeftOut,
            })
        };
        self.recent.with(|recent| recent.add(false));
        let (settle, in_flight) = (self.settling(hint, asked.requested_at()), Arc::clone(&self.in_flight));
        let cause = self.cause(Origin::Event, None);
        self.plan_and_apply(cause, plan, move |tx, answer, recorded| {
            if recorded.changes() > 0 {
                in_flight.read_applied(&settle.hint.id);
            }
            settle.with(tx, *answer)
        })
        .await?;
        Ok(())
    }

    /// Returns what the mirror says of a customer that the API does not find.
    async fn absent(&self, hint: &DueHint, asked: &Arc<RequestMark>) -> Result<Absent, StoreError> {
        let (id, asked) = (hint.id.clone(), Arc::clone(asked));
        let (times, consistency) = (self.times(), self.settings.consistency);
        self.read_mirror(move |view| {
            let conn = view.conn();
            let Some(stored) = view.find(&id)? else { return Ok(Absent::Unknown) };
            if !stored.standing.is_live() {
                return Ok(Absent::Settled(HintAnswer::NotFound));
            }
            let is_pushed = asked.is_before_push_of(&id) || unlisted::has_push_open(conn, id.as_str())?;
            if is_pushed || view.is_unsettled(&id)? || !passes::has_whole_sweep(conn)? {
                return Ok(Absent::Settled(HintAnswer::Settled));
            }
            // A read may be from before the customer existed.
            if unlisted::young(conn, consistency, times)?.contains(stored.row) {
                return Ok(Absent::Settled(HintAnswer::NotFound));
            }
            Ok(Absent::Suspect(stored.row))
        })
        .await
    }

    /// Finds out which suspects are proven to be deleted, records those, and holds the others.
    /// `canary_at` is when a customer that was requested after all suspects has answered, by the
    /// steady clock.
    async fn settle_suspects(
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
                let seq = view.find(&id)?.map_or(0, |stored| stored.standing.seq);
                // Our own push, another answer or an operator's decision is newer.
                if seq != suspect.hint.seq
                    || suspect.asked.is_before_push_of(&id)
                    || holds::is_rejected(view.conn(), &id)?
                {
                    continue;
                }
                if deleted.len() as u64 == room {
                    excess.push(row);
                    continue;
                }
                view.delete(&id)?;
                deleted.push((suspect.hint.clone(), suspect.asked.requested_at()));
            }
            Ok((deleted, excess))
        };
        let cause = self.cause(Origin::Event, None);
        let applied = self.plan_and_apply(cause, plan, move |tx, (deleted, _), _| {
            for (hint, requested_at) in deleted {
                in_flight.read_applied(&hint.id);
                let settle = Settling { hint: hint.clone(), requested_at: *requested_at, now, consistency };
                settle.with(tx, HintAnswer::Recorded)?;
            }
            Ok(())
        });
        let ((deleted, excess), _) = applied.await?;
        self.recent.with(|recent| deleted.iter().for_each(|_| recent.add(false)));
        Ok((deleted.len() as u64, excess))
    }

    /// Holds what is not proven or has no room, and settles the hints of all suspects.
    async fn hold_hinted(&self, suspects: &Arc<Suspects>, findings: AbsenceFindings) -> Result<(), Failure> {
        let held: u64 = findings.held.iter().map(|(rows, _)| rows.len() as u64).sum();
        if held > 0 {
            tracing::warn!(
                customers = held,
                "{} that events reported not recorded: see `komoju-sync deletions list`",
                count(held, "deletion")
            );
            self.recent.with(|recent| (0..held).for_each(|_| recent.add(true)));
        }
        let settling: Vec<Settling> = suspects
            .values()
            .map(|suspect| self.settling(suspect.hint.clone(), suspect.asked.requested_at()))
            .collect();
        let plan = move |view: &mut View<'_>| {
            for (rows, reason) in findings.held {
                plan_hold(view, &rows, reason)?;
            }
            Ok(())
        };
        let cause = self.cause(Origin::Event, None);
        self.plan_and_apply(cause, plan, move |tx, (), _| {
            settling.into_iter().try_for_each(|settle| settle.with(tx, HintAnswer::Settled))
        })
        .await?;
        Ok(())
    }

    async fn settle_hint(
        &self,
        hint: DueHint,
        requested_at: Timestamp,
        answer: HintAnswer,
    ) -> Result<(), StoreError> {
        let settle = self.settling(hint, requested_at);
        self.note(move |tx| settle.with(tx, answer)).await
    }

    fn settling(&self, hint: DueHint, requested_at: Timestamp) -> Settling {
        Settling { hint, requested_at, now: self.clock.now(), consistency: self.settings.consistency }
    }

    /// Pauses hints where the API does not find too many of the customers that events name.
    async fn pause_if_many_are_missing(&self) -> Result<(), Failure> {
        let Some(missing) = self.recent.with(RecentAnswers::take_excess) else { return Ok(()) };
        let reason = format!(
            "{missing} of the last 50 customers that events named were not found: the events may be of another mode or key"
        );
        tracing::warn!("events are not followed for {} minutes: {reason}", PAUSE_FOR.as_mins());
        let until = self.clock.now().checked_add(PAUSE_FOR).unwrap_or(Timestamp::MAX);
        Ok(self.note(move |tx| hints::pause(tx, until, &reason)).await?)
    }
}

/// Settles one hint in the transaction that applies its answer.
struct Settling {
    hint: DueHint,
    requested_at: Timestamp,
    now: Timestamp,
    consistency: komoju_core::plan::lag::Consistency,
}

impl Settling {
    fn with(self, tx: &Tx<'_>, answer: HintAnswer) -> Result<(), StoreError> {
        let Self { hint, requested_at, now, consistency } = self;
        let read = HintedRead {
            first_at: hint.first_at,
            requested_at,
            is_second: hint.is_second,
            is_hinted_again: hints::is_hinted_again(tx, &hint)?,
        };
        let step = read.next(answer, now, consistency);
        let is_answered = hints::settle(tx, &hint.id, requested_at, step)?;
        match (answer, is_answered) {
            (HintAnswer::Recorded, _) => recall::match_events(tx, Some(&hint.id)),
            (_, true) => recall::close(tx, &hint.id),
            (_, false) => Ok(()),
        }
    }
}
