//! The commit of the worker loop: settles finished attempts and claims due intents in one
//! transaction.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::report::AttemptReport;
use super::{PushSettings, Pusher};
use crate::clock::{BEFORE_SENDING, Clock};
use crate::remote::Remote;
use crate::secret::SecretKey;
use crate::store::log::mirror;
use crate::store::outbox::engine::{self, DueTimes};
use crate::store::outbox::{attempts, delete_limit, settle};
use crate::store::state::account;
use crate::store::{Conn, StoreError, Tx};
use crate::tasks::InFlightPushes;
use crate::tasks::in_flight::PendingCreate;
use komoju_core::intent::IntentOp;
use komoju_core::intent::lifecycle::IllegalTransition;
use komoju_core::open_intent::{FrozenRequest, OpenIntent};
use komoju_core::park_timer::{Moment, ParkTimer};
use komoju_core::plan::outcome::AttemptOutcome;
use komoju_core::plan::settle::{SettleFacts, customer_of, refusal, refuse};
use komoju_core::{CustomerId, plan, time};

/// A commit that is not run yet. It owns its inputs, because the writer thread of the store runs
/// it.
pub(super) struct PushCommit {
    key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    settings: PushSettings,
    in_flight: Arc<InFlightPushes>,
    server_time: Option<Timestamp>,
}

/// An attempt that has ended.
#[derive(Clone)]
pub(super) struct FinishedAttempt {
    pub(super) open: OpenIntent,
    pub(super) outcome: AttemptOutcome,
}

/// The result of a [`PushCommit`].
pub(super) struct CommitResult {
    /// The intents that were claimed. The caller sends them.
    pub(super) claimed: Vec<OpenIntent>,
    /// The attempts that were settled, and the intents that were refused.
    pub(super) settled: Vec<AttemptReport>,
    /// The position up to which queued intents have a `reason` that says what they wait for.
    pub(super) reasons_written_to: i64,
}

/// Returns the time by all clocks.
pub(super) fn moment(clock: &dyn Clock) -> Moment {
    Moment { wall: clock.now(), boot: clock.boot(), is_confirmed: clock.may_expire() }
}

/// Returns the time that decides which intents are due.
pub(super) fn due_time(clock: &dyn Clock) -> DueTimes {
    let at = time::written(clock.now());
    let is_confirmed = clock.confirmed_for() >= BEFORE_SENDING;
    DueTimes { confirmed: is_confirmed.then(|| at.clone()), at }
}

/// Returns whether anything may be pushed: pushing is on, and the key is this account's and not
/// refused.
pub(super) fn may_push(conn: &Conn, enabled: bool, key: &SecretKey) -> Result<bool, StoreError> {
    Ok(enabled && account::is_accepted(conn, |salt| key.salted_fingerprint(salt))?)
}

fn legal<T>(next: Result<T, IllegalTransition>) -> Result<T, StoreError> {
    next.map_err(|illegal| StoreError::Impossible(illegal.to_string()))
}

impl<R: Remote> Pusher<R> {
    pub(super) fn push_commit(&self) -> PushCommit {
        PushCommit {
            key: Arc::clone(&self.key),
            clock: Arc::clone(&self.clock),
            settings: self.settings.clone(),
            in_flight: Arc::clone(&self.in_flight),
            server_time: self.remote.server_time(),
        }
    }
}

impl PushCommit {
    /// Settles finished attempts, then claims up to `room` due intents, except those in `tried`.
    /// `reasons_written_to` is the value that the previous commit returned; 0 for the first one.
    pub(super) fn run(
        &self,
        tx: &Tx<'_>,
        finished: Vec<FinishedAttempt>,
        room: usize,
        tried: &HashSet<i64>,
        reasons_written_to: i64,
    ) -> Result<CommitResult, StoreError> {
        let settled =
            finished.into_iter().map(|FinishedAttempt { open, outcome }| self.settle(tx, &open, outcome));
        let settled = settled.collect::<Result<_, _>>()?;
        let mut committed = CommitResult { claimed: Vec::new(), settled, reasons_written_to };
        if room == 0 {
            return Ok(committed);
        }
        delete_limit::hold(tx, self.settings.hold_deletes_over, self.clock.boot().as_ref())?;
        engine::park_orphans(tx)?;
        engine::release_stuck(tx)?;
        let now = due_time(&*self.clock);
        if may_push(tx, self.settings.enabled, &self.key)? {
            for open in engine::due(tx, &now, room, tried)? {
                match refusal(&open) {
                    Some(reason) => committed.settled.push(self.refuse(tx, &open, reason)?),
                    None => committed.claimed.push(self.claim(tx, open)?),
                }
            }
        }
        committed.reasons_written_to = engine::explain(tx, reasons_written_to, &now.at)?;
        Ok(committed)
    }

    /// Writes the outcome of an attempt.
    fn settle(
        &self,
        tx: &Tx<'_>,
        open: &OpenIntent,
        outcome: AttemptOutcome,
    ) -> Result<AttemptReport, StoreError> {
        let now = moment(&*self.clock);
        let customer = customer_of(open, &outcome);
        let find = |id: &CustomerId| mirror::find(tx, id);
        let stored = customer.as_ref().map(find).transpose()?.flatten();
        let was_known = match (&customer, &outcome) {
            // Query this only here, because it scans the log if the index of customers is missing.
            (Some(id), AttemptOutcome::NotFound(_)) if open.is_delete() => mirror::ever_had(tx, id)?,
            _ => false,
        };
        let facts = SettleFacts {
            open,
            now: &now,
            park_after: self.settings.park_after,
            consistency: self.settings.consistency,
            customer: customer.as_ref(),
            mirrored: stored.as_ref().map(|stored| &stored.mirror_row),
            was_known,
        };
        let settlement = legal(plan::settle::settle(facts, outcome))?;
        let recorded = settle::apply(tx, open, stored, &settlement, &time::written(now.wall))?;
        self.in_flight.settled(open.position, open.customer.as_ref(), customer.as_ref());
        Ok(AttemptReport::new(open, &settlement, recorded))
    }

    /// Begins an attempt. The first attempt freezes what later ones repeat.
    fn claim(&self, tx: &Tx<'_>, mut open: OpenIntent) -> Result<OpenIntent, StoreError> {
        if open.frozen.first_attempt_at.is_none() {
            open.frozen = freshly_frozen(&open, &self.settings, &*self.clock, self.server_time);
            open.frozen.base = body_before(tx, &open)?;
        }
        let now = moment(&*self.clock);
        let park_timer = match open.park_timer.take() {
            Some(park_timer) => park_timer.refreshed(&now),
            None => ParkTimer::start(&now),
        };
        open.life = legal(open.life.claim())?;
        engine::as_engine(tx, || {
            attempts::claim(tx, &open, &park_timer, &time::written(now.wall))?;
            if open.is_delete() {
                delete_limit::note_sent(tx, open.position, self.clock.boot().as_ref())?;
            }
            Ok(())
        })?;
        open.park_timer = Some(park_timer);
        self.in_flight.sending(open.position, open.customer.as_ref(), pending_create(&open));
        Ok(open)
    }

    /// Rejects an intent that the triggers accepted and that cannot be sent.
    fn refuse(&self, tx: &Tx<'_>, open: &OpenIntent, reason: String) -> Result<AttemptReport, StoreError> {
        let now = moment(&*self.clock);
        let at = time::written(now.wall);
        let settlement = legal(refuse(open, reason, now.wall))?;
        if settlement.attempt.is_some() {
            let claimed = OpenIntent { life: legal(open.life.claim())?, ..open.clone() };
            let park_timer = open.park_timer.clone().unwrap_or_else(|| ParkTimer::start(&now));
            engine::as_engine(tx, || attempts::claim(tx, &claimed, &park_timer, &at))?;
        }
        let recorded = settle::apply(tx, open, None, &settlement, &at)?;
        Ok(AttemptReport::new(open, &settlement, recorded))
    }
}

/// Returns the customer's body before an update with a token. A read-back compares with it.
fn body_before(tx: &Tx<'_>, open: &OpenIntent) -> Result<Option<String>, StoreError> {
    match (open.op(), &open.customer) {
        (Some(IntentOp::Update(_, body)), Some(customer)) if body.token().is_some() => {
            Ok(mirror::find(tx, customer)?.and_then(|stored| stored.mirror_row.body))
        }
        _ => Ok(None),
    }
}

/// Returns what the pull compares new customers with while this create is in flight.
fn pending_create(open: &OpenIntent) -> Option<PendingCreate> {
    let Some(IntentOp::Create(body)) = open.op() else { return None };
    Some(PendingCreate { body: open.as_sent(body), since: open.window_from() })
}

/// Returns what a first attempt freezes. A create gets a random key, and the tag unless the
/// metadata has that key already. `server_time` is the server's clock now.
pub(super) fn freshly_frozen(
    open: &OpenIntent,
    settings: &PushSettings,
    clock: &dyn Clock,
    server_time: Option<Timestamp>,
) -> FrozenRequest {
    let (key, tag) = match open.op() {
        Some(IntentOp::Create(body)) => {
            let tag = settings.reconcile_tag.clone().filter(|tag| !body.has_metadata(tag));
            (Some(format!("{:032x}", rand::random::<u128>())), tag)
        }
        _ => (None, None),
    };
    let first_boot = clock.boot().map(|(boot, up)| (boot, i64::try_from(up.as_millis()).unwrap_or(i64::MAX)));
    FrozenRequest {
        key,
        tag,
        base: None,
        first_attempt_at: Some(time::written(clock.now())),
        first_boot,
        first_server_at: server_time.map(time::written),
    }
}
