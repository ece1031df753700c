//! One transaction of a run: settles the attempts that are over, and claims intents that are due.

use std::sync::Arc;
use std::time::Duration;

use super::{Drained, Finished, LONGEST_WAIT, Pusher, Run};
use crate::clock::{BEFORE_SENDING, Clock};
use crate::metrics;
use crate::remote::{PushRemote, Remote};
use crate::store::StoreError;
use crate::store::outbox::delete_limit;
use crate::store::outbox::engine::{self, Open};
use crate::tasks::push::attempt::making;
use crate::tasks::push::claim::{Claimed, claim, may_push};
use crate::tasks::push::ended::Settled;
use komoju_core::intent::lifecycle::State;
use komoju_core::{Origin, time};

/// What tells which intents are due.
fn now_by(clock: &dyn Clock) -> engine::Now {
    let at = time::written(clock.now());
    let is_confirmed = clock.confirmed_for() >= BEFORE_SENDING;
    engine::Now { confirmed: is_confirmed.then(|| at.clone()), at }
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// One transaction: settles what is over, then claims up to `room` intents that are due and may be pushed.
    pub(super) async fn turn(
        &self,
        finished: &[Finished],
        room: usize,
        run: &mut Run,
    ) -> Result<Vec<Open>, StoreError> {
        let finished = finished.to_vec();
        let settling = self.settling();
        let fingerprint_of = {
            let key = Arc::clone(&self.key);
            move |salt: &[u8]| key.salted_fingerprint(salt)
        };
        let (settings, clock) = (self.settings.clone(), Arc::clone(&self.clock));
        let server = self.remote.server_time();
        let (not_again, explained) = (run.not_again().cloned(), run.explained);
        let echoes = Arc::clone(&self.echoes);
        let turned = self.store.write(move |tx| {
            let mut settled = Vec::with_capacity(finished.len());
            for Finished { open, ended } in finished {
                settled.push(settling.settle(tx, &open, ended)?);
            }
            let now = now_by(&*clock);
            let mut claimed = Vec::new();
            let mut explained = explained;
            if room > 0 {
                delete_limit::hold(tx, settings.hold_deletes_over, clock.boot().as_ref())?;
                engine::park_orphans(tx)?;
                engine::catch_astray(tx)?;
                if may_push(tx, settings.enabled, &fingerprint_of)? {
                    for open in engine::due(tx, &now, room, not_again.as_ref())? {
                        match claim(tx, open, &settings, &*clock, server)? {
                            Claimed::NotSent(ended) => settled.push(ended),
                            Claimed::Ready(open) => {
                                echoes.sending(open.position, open.customer.as_ref(), making(&open));
                                claimed.push(*open);
                            }
                        }
                    }
                }
                explained = engine::explain(tx, explained, &now.at)?;
            }
            Ok((settled, claimed, explained))
        });
        let (settled, claimed, explained) = turned.await?;
        run.explained = explained;
        for _ in claimed.iter().filter(|open| open.life.attempts > 1) {
            metrics::attempted_again();
        }
        run.tried.extend(claimed.iter().map(|open| open.position));
        for settled in settled {
            run.tried.insert(settled.position);
            self.tell(&settled, &mut run.drained);
        }
        Ok(claimed)
    }

    /// What became of an intent, for the log, the drain's sum and whoever waits for it.
    pub(super) fn tell(&self, settled: &Settled, drained: &mut Drained) {
        let Settled { id, what, life, reason, key_refused, not_found, recorded, .. } = settled;
        metrics::attempt(life.state);
        metrics::changes(Origin::Intent, recorded);
        drained.attempts += 1;
        drained.key_refused |= *key_refused;
        let why = reason.as_deref().unwrap_or_default();
        match life.state {
            State::Done => {
                drained.done += 1;
                tracing::info!(intent = %id, "intent {id}: {what} is done");
            }
            State::Rejected => {
                drained.rejected += 1;
                tracing::warn!(intent = %id, "intent {id}: {what} was rejected: {why}");
            }
            State::Parked => {
                drained.parked += 1;
                tracing::warn!(intent = %id, "intent {id}: {what} is parked and waits for an operator: {why}");
            }
            _ => {
                drained.waiting += 1;
                tracing::warn!(intent = %id, attempts = life.attempts, "intent {id}: {what} waits for another attempt: {why}");
            }
        }
        if *key_refused {
            tracing::error!(
                "the API refused the key for a push: {why}; nothing more is pushed until a key is accepted"
            );
            self.signals.refused.notify_one();
        }
        if *not_found {
            self.signals.look.notify_one();
        }
        self.signals.settled.notify_one();
    }

    /// Whether a turn would find anything to do. Reads only, for most wake-ups are about something else.
    pub(super) async fn is_something_due(&self, run: &Run) -> Result<bool, StoreError> {
        let (now, explained) = (now_by(&*self.clock), run.explained);
        let (enabled, not_again) = (self.settings.enabled, run.not_again().cloned());
        let key = Arc::clone(&self.key);
        let due = self.store.read(move |conn| {
            if !engine::has_open(conn)? {
                return Ok(false);
            }
            if engine::last_position(conn)? > explained || engine::is_any_astray(conn)? {
                return Ok(true);
            }
            Ok(may_push(conn, enabled, &|salt| key.salted_fingerprint(salt))?
                && !engine::due(conn, &now, 1, not_again.as_ref())?.is_empty())
        });
        due.await
    }

    /// How long until time alone makes an intent due; `None`: for ever.
    pub(super) async fn until_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        let at = time::written(now);
        let next = self.store.read(move |conn| engine::next_due(conn, &at)).await?;
        let next = next.as_deref().and_then(time::read);
        Ok(next
            .map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default().min(LONGEST_WAIT)))
    }
}
