//! Settling: one transaction in which intent, attempt, change log and mirror say the same.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;

use super::Pusher;
use super::ended::{Ended, Obstacle, Settled, in_words, legal, moment, not_applied};
use crate::remote::PushedCustomer;
use crate::secret::MASK;
use crate::store::log::changes::{self, Cause};
use crate::store::log::mirror::{self, Stored};
use crate::store::log::unreadable::{self, Sight};
use crate::store::log::{lag, passes};
use crate::store::outbox::attempts::{self, AttemptEnd};
use crate::store::outbox::engine::{self, Open, Words};
use crate::store::{StoreError, Tx};
use crate::tasks::Echoes;
use komoju_core::intent::lifecycle::Outcome;
use komoju_core::intent::{Body, Wish};
use komoju_core::patience::Moment;
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::sighting;
use komoju_core::{Customer, CustomerId, Origin, Tally, time};

/// What settling needs to know.
pub(super) struct Settling {
    now: Moment,
    park_after: SignedDuration,
    consistency: Consistency,
    echoes: Arc<Echoes>,
}

impl<R> Pusher<R> {
    pub(super) fn settling(&self) -> Settling {
        Settling {
            now: moment(&*self.clock),
            park_after: self.settings.park_after,
            consistency: self.settings.consistency,
            echoes: Arc::clone(&self.echoes),
        }
    }
}

impl Settling {
    /// Writes what became of an attempt.
    pub(super) fn settle(&self, tx: &Tx<'_>, open: &Open, ended: Ended) -> Result<Settled, StoreError> {
        let at = time::written(self.now.wall);
        let wish = open.intent.as_ref().ok().map(|intent| &intent.wish);
        let token = match wish {
            Some(Wish::Create(body) | Wish::Update(_, body)) => body.token(),
            _ => None,
        };
        // What the API says may repeat what it was told.
        let hidden = |text: String| match token.filter(|token| !token.is_empty()) {
            Some(token) => text.replace(token, MASK),
            None => text,
        };
        let (mut key_refused, mut not_found, mut made) = (false, false, None);
        let mut recorded = Tally::default();
        let is_delete = matches!(wish, Some(Wish::Delete(_)));
        let ended = match ended {
            Ended::NotFound(told) if is_delete && self.is_delete_done(tx, open)? => {
                Ended::TookEffect { customer: PushedCustomer::None, status: Some(told.status) }
            }
            ended => ended,
        };
        let is_unknown_id = is_delete && matches!(ended, Ended::NotFound(_));
        let (life, mut words, end) = match ended {
            Ended::TookEffect { customer, status } => {
                let (customer, unreadable) = match customer {
                    PushedCustomer::Shown(customer) => (Some(customer), None),
                    PushedCustomer::Unreadable(bad) => (None, Some(bad)),
                    PushedCustomer::None => (None, None),
                };
                if let Some(bad) = &unreadable
                    && !matches!(wish, Some(Wish::Delete(_)))
                {
                    let sight = Sight { place: None, at: at.clone(), pass: None };
                    unreadable::note(tx, bad, &hidden(bad.reason.to_string()), &sight)?;
                }
                let unread = unreadable.and_then(|bad| bad.id);
                let (id, seq, echoed) = self.echo(tx, open, (customer.as_ref(), unread), status, &at)?;
                recorded = echoed;
                let detail = match (wish, &customer) {
                    (Some(Wish::Update(_, body)), Some(customer)) => told_of(body, customer),
                    _ => None,
                };
                made = id.clone();
                let result_customer_id = id.map(|id| id.as_str().to_owned());
                let was_gone = is_delete && status == Some(404);
                let reason = was_gone.then(|| match open.life.outcome {
                    Outcome::Known => "the customer was already deleted at KOMOJU".to_owned(),
                    Outcome::Unknown => "it was gone when this was tried again: an attempt whose answer was lost deleted it, or \
                                         somebody else did"
                        .to_owned(),
                });
                let words = Words { result_customer_id, change_seq: seq, reason, detail, ..Words::default() };
                (legal(open.life.take_effect())?, words, AttemptEnd { status, error: None })
            }
            Ended::Rejected(told) | Ended::NotFound(told) => {
                not_found = told.status == 404 && !is_delete;
                let why = match is_unknown_id {
                    true => format!("{told}; the mirror never had a customer with this id: check the id"),
                    false => told.to_string(),
                };
                let why = hidden(why);
                let [code, message, param] =
                    [told.code, told.message, told.param].map(|text| text.map(hidden));
                let detail = json!({"status": told.status, "code": code, "message": message, "param": param});
                let words = Words { reason: Some(why.clone()), detail: Some(detail), ..Words::default() };
                (
                    legal(open.life.reject())?,
                    words,
                    AttemptEnd { status: Some(told.status), error: Some(why) },
                )
            }
            Ended::Later { why, status, outcome, at: again, obstacle } => {
                let why = hidden(why);
                key_refused = obstacle == Obstacle::KeyRefused;
                if key_refused {
                    passes::note_refused(tx, &at)?;
                }
                if let Obstacle::Throttled { until: Some(until) } = obstacle {
                    passes::note_throttled(tx, Some(&time::written(until)))?;
                }
                let end = AttemptEnd { status, error: Some(why.clone()) };
                let waiting = legal(open.life.wait(outcome))?;
                match self.is_out_of_patience(open) && !key_refused {
                    true => {
                        let hours = self.park_after.as_hours();
                        let reason = format!("no attempt succeeded within {hours} hours; the last: {why}");
                        (legal(waiting.park())?, Words { reason: Some(reason), ..Words::default() }, end)
                    }
                    false => {
                        let next_attempt_at = again.map(time::written);
                        let wait_ms =
                            again.map(|again| again.as_millisecond() - self.now.wall.as_millisecond());
                        (
                            waiting,
                            Words { next_attempt_at, wait_ms, reason: Some(why), ..Words::default() },
                            end,
                        )
                    }
                }
            }
            Ended::Park { reason, detail } => {
                let words = Words { reason: Some(hidden(reason)), detail, ..Words::default() };
                (legal(open.life.park())?, words, AttemptEnd::default())
            }
        };
        if life.state.is_settled() {
            words.settled_at = Some(at.clone());
        }
        let reason = words.reason.clone();
        engine::own(tx, || {
            attempts::end_attempt(tx, open, life, &at, &end)?;
            engine::write(tx, open.position, life, words)
        })?;
        self.echoes.settled(open.position, open.customer.as_ref(), made.as_ref());
        Ok(Settled {
            position: open.position,
            id: open.id.clone(),
            what: in_words(open),
            life,
            reason,
            key_refused,
            not_found,
            recorded,
        })
    }

    /// Whether a delete whose customer the API does not have is done: the mirror had the customer at some time, or an earlier attempt
    /// may have deleted it. Any other id is a mistake of the submitter (a wrong case, a stray character).
    fn is_delete_done(&self, tx: &Tx<'_>, open: &Open) -> Result<bool, StoreError> {
        let Some(customer) = &open.customer else { return Ok(false) };
        Ok(open.life.outcome == Outcome::Unknown || mirror::ever_had(tx, customer)?)
    }

    fn is_out_of_patience(&self, open: &Open) -> bool {
        open.patience.as_ref().is_some_and(|patience| patience.is_over(&self.now, self.park_after))
    }

    /// What took effect enters log and mirror, with the intent's id; returns the customer, the change that records it and how many
    /// there are. Where the mirror knew it all already, that is the change by which it did.
    fn echo(
        &self,
        tx: &Tx<'_>,
        open: &Open,
        (shown, unread): (Option<&Customer>, Option<CustomerId>),
        status: Option<u16>,
        at: &str,
    ) -> Result<(Option<CustomerId>, Option<i64>, Tally), StoreError> {
        let shown_id = shown.map(|customer| customer.id().clone());
        let id = open.customer.clone().or(shown_id).or(unread);
        let Some(customer) = &id else { return Ok((None, None, Tally::default())) };
        let is_delete = matches!(open.intent.as_ref().map(|intent| &intent.wish), Ok(Wish::Delete(_)));
        let is_answered_create = status.is_some()
            && matches!(open.intent.as_ref().map(|intent| &intent.wish), Ok(Wish::Create(_)));
        let stored = mirror::find(tx, customer)?;
        let known_seq = stored.as_ref().map(|stored| stored.standing.seq);
        let cause = Cause {
            observed_at: at.to_owned(),
            origin: Origin::Intent,
            pass_id: None,
            intent_id: Some(open.id.clone()),
        };
        let ((), recorded) = changes::recording(tx, cause, |recorder| {
            if is_delete {
                if stored.is_some_and(|stored| stored.standing.is_live()) {
                    recorder.record_deleted(customer)?;
                }
            } else if let Some(shown) = news(shown, is_answered_create, stored.as_ref()) {
                let sighting = sighting::judge(shown, stored.as_ref().map(|stored| &stored.standing));
                if let Some((kind, after)) = sighting.change {
                    recorder.record(kind, &after, stored)?;
                }
            }
            Ok(())
        })?;
        // Of a customer that the mirror knew, a create's answer says how it was; and an answer may show no customer. How it is now is
        // requested.
        let shows_none = shown.is_none() && !is_delete && status.is_some();
        if (is_answered_create && known_seq.is_some()) || shows_none {
            lag::schedule(tx, customer, self.consistency.after(self.now.wall), None)?;
        }
        let seq = match recorded.changes() {
            0 => known_seq,
            _ => Some(changes::head(tx)?.seq),
        };
        Ok((id, seq, recorded))
    }
}

/// What there is to record of a customer that a push was answered with. A create that is sent again under its key is answered as the
/// first time: with the customer as it was made. Whoever has seen that customer since knows better, but for a card, which the list may
/// not show.
fn news(shown: Option<&Customer>, is_answered_create: bool, stored: Option<&Stored>) -> Option<Customer> {
    let (shown, Some(stored), true) = (shown?, stored, is_answered_create) else { return shown.cloned() };
    let known = Customer::from_body(stored.standing.body.as_deref()?).ok()?;
    let card = |customer: &Customer| customer.fields().get("source").filter(|card| !card.is_null()).cloned();
    match (stored.standing.is_live(), card(&known), card(shown)) {
        (true, None, Some(card)) => Some(known.with("source", Some(card))),
        _ => None,
    }
}

/// What the answer to an update does not show of what was asked for.
fn told_of(body: &Body, customer: &Customer) -> Option<serde_json::Value> {
    let missing = not_applied(body, customer.fields());
    (!missing.is_empty()).then(|| json!({"not_applied": missing}))
}
