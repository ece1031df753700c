//! Customers that events name: each is requested by itself, and the answer is applied.
//!
//! ```text
//!   hints that are due ─▶ GET each ─▶ 200: compared with the mirror, as any lookup
//!                                  └▶ 404: a suspect ─▶ canary ─▶ recorded, or held
//! ```
//!
//! A 404 deletes nothing without the evidence that a sweep needs. The customer is old enough, and a
//! canary answers within a minute. The deletions since the last sweep stay within the sweep's
//! limit.

mod suspects;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;

use suspects::{Suspect, Suspects};

use super::page::{LookupEffect, plan_lookup};
use super::requests::CustomerLookup;
use super::view::View;
use super::{Failure, Pull, RequestError};
use crate::remote::EventRemote;
use crate::store::log::hints::{self, DueHint};
use crate::store::log::holds::HoldEnd;
use crate::store::log::{passes, recall, unlisted};
use crate::store::{StoreError, Tx, read};
use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::hints::{HintAnswer, HintedRead, MissingRate, PAUSE_FOR};
use komoju_core::plan::lag::{Consistency, ReadReason};
use komoju_core::{Customer, CustomerId, Origin, time};

/// AT_ONCE controls how many hinted customers are requested before their 404s are checked.
const AT_ONCE: u32 = 16;

/// AFTER_NO_ANSWER controls how long hints wait where the account cannot be checked, or the key is
/// refused.
const AFTER_NO_ANSWER: Duration = Duration::from_secs(60);

/// MOST_UNCLEAR controls after how many customers without a usable answer the others wait.
const MOST_UNCLEAR: u32 = 3;

/// The answer to the request of a hinted customer.
struct HintedAnswer {
    hint: DueHint,
    request: Arc<RequestMark>,
    /// When it was requested and when it answered, by the steady clock.
    requested_at: Duration,
    answered_at: Duration,
    /// When it was requested, by our clock and the server's.
    times: (Timestamp, Timestamp),
    lookup: CustomerLookup,
}

/// How long the requests of hinted customers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintWait {
    /// How long the next one waits; `None` where none does.
    pub wait: Option<Duration>,
    /// Whether a new hint has to wait as long: nothing answers, or the key is refused.
    pub is_blocked: bool,
}

impl HintWait {
    const BLOCKED: Self = Self { wait: Some(AFTER_NO_ANSWER), is_blocked: true };
}

/// What the mirror says of a customer that the API does not find.
enum Absent {
    /// The mirror does not know it.
    Unknown,
    /// It is deleted in the mirror, too young for a conclusion, held, or being pushed.
    Settled(HintAnswer),
    /// It is live in this row of the mirror.
    Suspect(i64),
}

/// The [`MissingRate`] that the requests of hinted customers share.
#[derive(Debug, Default)]
pub(super) struct SharedMissingRate(Mutex<MissingRate>);

impl SharedMissingRate {
    fn with<T>(&self, work: impl FnOnce(&mut MissingRate) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<R: EventRemote> Pull<R> {
    /// Requests the customers whose hints are due, some at a time. Returns how long the next one
    /// waits.
    pub async fn read_hinted(&self) -> Result<HintWait, StoreError> {
        let now = self.clock.now();
        let (is_refused, due) = self
            .read_mirror(move |view| {
                Ok((read::obstacles(view.conn())?.0.is_some(), hints::due(view.conn(), now, AT_ONCE)?))
            })
            .await?;
        if !due.is_empty() {
            // The passes find out when the key is accepted again.
            if is_refused {
                return Ok(HintWait::BLOCKED);
            }
            let read = async {
                self.check_account().await?;
                self.read_batch(due).await
            };
            match read.await {
                Ok(()) => {}
                Err(Failure::Store(e)) => return Err(e),
                Err(Failure::Stopped) => return Ok(HintWait::default()),
                Err(Failure::KeyRefused(_)) => {
                    let at = time::written(self.clock.now());
                    self.note(move |tx| passes::note_refused(tx, &at)).await?;
                    return Ok(HintWait::BLOCKED);
                }
                Err(_) => return Ok(HintWait::BLOCKED),
            }
        }
        let now = self.clock.now();
        let next = self.read_mirror(move |view| hints::next_due(view.conn(), now)).await?;
        let wait = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        Ok(HintWait { wait, is_blocked: false })
    }

    /// Requests these customers and applies the answers, as they arrive. A customer of the mirror
    /// that answers is a canary for the 404s that were requested before it.
    async fn read_batch(&self, due: Vec<DueHint>) -> Result<(), Failure> {
        let at_once = self.settings.max_concurrent_requests.div_ceil(2).max(1);
        let answers = futures_util::stream::iter(due).map(|hint| self.request_hinted(hint));
        let mut answers = std::pin::pin!(answers.buffer_unordered(at_once));
        let (mut suspects, mut canary, mut unclear) = (Suspects::new(), None, 0);
        while let Some(answered) = answers.next().await {
            let answered = answered?;
            match &answered.lookup {
                CustomerLookup::Alive(_) if answered.hint.is_live => {
                    canary = canary.max(Some((answered.requested_at, answered.answered_at)));
                }
                CustomerLookup::Unclear(why) if !why.is_rejected() => unclear += 1,
                _ => {}
            }
            self.apply_hinted(answered, &mut suspects).await?;
            if unclear >= MOST_UNCLEAR || self.pause_if_many_are_missing().await? {
                break;
            }
        }
        if !suspects.is_empty() {
            // The canary must have been requested after each 404 was answered.
            let is_newer =
                |requested_at| suspects.values().all(|suspect| suspect.answered_at <= requested_at);
            let canary = canary.filter(|(requested_at, _)| is_newer(*requested_at));
            self.settle_suspects(suspects, canary.map(|(_, answered_at)| answered_at)).await?;
            self.pause_if_many_are_missing().await?;
        }
        if unclear >= MOST_UNCLEAR { Err(Failure::NoAnswers) } else { Ok(()) }
    }

    async fn request_hinted(&self, hint: DueHint) -> Result<HintedAnswer, Failure> {
        let (request, requested_at, times) = (self.mark_request(), self.clock.elapsed(), self.times());
        let lookup = self.look_up_hinted(&hint.id).await?;
        Ok(HintedAnswer { hint, request, requested_at, answered_at: self.clock.elapsed(), times, lookup })
    }

    /// Requests one customer, once, in the turn of the events.
    async fn look_up_hinted(&self, id: &CustomerId) -> Result<CustomerLookup, Failure> {
        let request = || async { self.remote.show_hinted(id).await.map_err(RequestError::Remote) };
        CustomerLookup::of(self.with_retries(1, request).await)
    }

    async fn apply_hinted(&self, answered: HintedAnswer, suspects: &mut Suspects) -> Result<(), Failure> {
        let HintedAnswer { hint, request, requested_at, answered_at, times, lookup } = answered;
        let answer = match lookup {
            CustomerLookup::Alive(customer) => return Ok(self.apply_alive(hint, request, customer).await?),
            CustomerLookup::Gone => match self.absent(&hint, &request, times).await? {
                Absent::Suspect(row) => {
                    suspects.insert(row, Suspect { hint, request, requested_at, answered_at });
                    return Ok(());
                }
                Absent::Unknown => {
                    if !hint.is_second {
                        self.missing_rate.with(|missing_rate| missing_rate.add(true));
                    }
                    HintAnswer::NotFound
                }
                Absent::Settled(answer) => answer,
            },
            // The next sweep reports it.
            CustomerLookup::Unreadable(_) => HintAnswer::NothingMore,
            // The same request would be rejected again.
            CustomerLookup::Unclear(why) if why.is_rejected() => {
                tracing::debug!("{why}");
                HintAnswer::NothingMore
            }
            CustomerLookup::Unclear(why) => {
                tracing::debug!("{why}; requesting this customer again");
                HintAnswer::Unclear
            }
        };
        Ok(self.settle_hint(hint, request.requested_at(), answer).await?)
    }

    /// Compares a hinted customer with the mirror and settles its hint in the same transaction.
    async fn apply_alive(
        &self,
        hint: DueHint,
        request: Arc<RequestMark>,
        customer: Customer,
    ) -> Result<(), StoreError> {
        let consistency = self.settings.consistency;
        let (planned_for, by) = (hint.clone(), Arc::clone(&request));
        let plan = move |view: &mut View<'_>| {
            let seq = view.find(&planned_for.id)?.map_or(0, |stored| stored.mirror_row.seq);
            // Another answer was applied meanwhile, and it may be newer.
            if seq != planned_for.seq {
                return Ok(HintAnswer::Overtaken);
            }
            view.end_hold(&planned_for.id, HoldEnd::Alive)?;
            Ok(match plan_lookup(view, &by, customer, ReadReason::Pass, consistency)? {
                LookupEffect::Recorded => HintAnswer::Recorded,
                LookupEffect::Unchanged => HintAnswer::Unchanged,
                LookupEffect::LeftOut(Some(until)) => HintAnswer::LeftOut(until),
                LookupEffect::LeftOut(None) => HintAnswer::NothingMore,
            })
        };
        self.missing_rate.with(|missing_rate| missing_rate.add(false));
        let (settle, in_flight) = (self.settling(hint, request.requested_at()), Arc::clone(&self.in_flight));
        let cause = self.cause(Origin::Event, None);
        self.plan_and_apply(cause, plan, move |tx, answer, recorded| {
            // A state that is confirmed is newer than every earlier answer, too.
            if recorded.changes() > 0 || *answer == HintAnswer::Unchanged {
                in_flight.note_applied_read(&settle.hint.id);
            }
            settle.with(tx, *answer)
        })
        .await?;
        Ok(())
    }

    /// Returns what the mirror says of a customer that the API does not find. `times` is when it
    /// was requested, by our clock and the server's.
    async fn absent(
        &self,
        hint: &DueHint,
        request: &Arc<RequestMark>,
        times: (Timestamp, Timestamp),
    ) -> Result<Absent, StoreError> {
        let (id, request) = (hint.id.clone(), Arc::clone(request));
        let consistency = self.settings.consistency;
        self.read_mirror(move |view| {
            let conn = view.conn();
            let Some(stored) = view.find(&id)? else { return Ok(Absent::Unknown) };
            if !stored.mirror_row.is_live() {
                return Ok(Absent::Settled(HintAnswer::NotFound));
            }
            let is_pushed = request.is_before_push_of(&id) || unlisted::has_push_open(conn, id.as_str())?;
            // A sweep of this account must have shown the customer.
            let bound_at = view.account()?.and_then(|account| time::read(&account.bound_at));
            let swept_at = passes::last_whole_sweep_at(conn)?;
            let is_swept = swept_at.zip(bound_at).is_some_and(|(swept, bound)| swept >= bound);
            if is_pushed || view.is_unsettled(&id)? || !is_swept {
                return Ok(Absent::Settled(HintAnswer::NothingMore));
            }
            // A read may be from before the customer existed.
            if unlisted::young(conn, consistency, times)?.contains(stored.row) {
                return Ok(Absent::Settled(HintAnswer::NotFound));
            }
            Ok(Absent::Suspect(stored.row))
        })
        .await
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
    /// Returns whether they pause.
    async fn pause_if_many_are_missing(&self) -> Result<bool, Failure> {
        let Some(missing) = self.missing_rate.with(MissingRate::take_excess) else { return Ok(false) };
        let reason = format!(
            "{missing} of the last 50 customers that events named were not found: the webhook may be of the other mode (test or live), or of another account"
        );
        tracing::warn!("events are not followed for {} minutes: {reason}", PAUSE_FOR.as_mins());
        let until = self.clock.now().checked_add(PAUSE_FOR).unwrap_or(Timestamp::MAX);
        self.note(move |tx| hints::pause(tx, until, &reason)).await?;
        Ok(true)
    }
}

/// Settles one hint in the transaction that applies its answer.
struct Settling {
    hint: DueHint,
    requested_at: Timestamp,
    now: Timestamp,
    consistency: Consistency,
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
        match answer {
            HintAnswer::Recorded => recall::match_events(tx, &hint.id),
            HintAnswer::Unchanged | HintAnswer::NotFound if is_answered => recall::close(tx, &hint.id),
            // The change is recorded later: by a recheck, a sweep or an operator.
            _ => Ok(()),
        }
    }
}
