//! One attempt, from its claim to what came of it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ended::{Ended, KeyIs, Obstacle, first_attempt, not_applied};
use super::{AFTER_BUSY, Finished, Pusher};
use crate::remote::{
    Call, Cause, Class, Left, Push, PushError, PushRemote, Pushed, PushedCustomer, Remote, RemoteError, Shown,
};
use crate::secret::Masker;
use crate::store::StoreError;
use crate::store::log::lag;
use crate::store::outbox::attempts;
use crate::store::outbox::engine::Open;
use crate::tasks::echoes::Making;
use komoju_core::intent::lifecycle::Outcome;
use komoju_core::intent::{Body, Intent, Surprise, Wish};
use komoju_core::plan::creates;
use komoju_core::plan::outcome::{FirstAttempt, attempt_wait, key_is_good};
use komoju_core::plan::read_back::{self, Reading};
use komoju_core::{Customer, CustomerId, PageQuery, Unreadable, time};

impl<R: Remote + PushRemote> Pusher<R> {
    /// Makes one attempt at a claimed intent.
    pub(super) async fn attempt(&self, mut open: Open) -> Result<Finished, StoreError> {
        let ended = match open.intent.clone() {
            Ok(intent) => match self.carry_out(&mut open, &intent).await {
                // What an attempt writes it writes before it sends.
                Err(e) if e.is_busy() => Ended::Later {
                    why: format!("nothing was sent: {e}"),
                    status: None,
                    outcome: Outcome::Known,
                    at: self.clock.now().checked_add(AFTER_BUSY).ok(),
                    obstacle: Obstacle::None,
                },
                ended => ended?,
            },
            Err(why) => Ended::Park { reason: why, detail: None },
        };
        Ok(Finished { open, ended })
    }

    async fn carry_out(&self, open: &mut Open, intent: &Intent) -> Result<Ended, StoreError> {
        if open.life.outcome == Outcome::Unknown
            && let Some(ended) = self.look_what_became_of_it(open, intent).await?
        {
            return Ok(ended);
        }
        if let Some(ended) = self.check_expectation(open, intent).await? {
            return Ok(ended);
        }
        // One that may have taken effect already is dated by the attempt that did it, or not at all.
        if matches!(intent.wish, Wish::Create(_))
            && open.frozen.first_server_at.is_none()
            && open.life.outcome == Outcome::Known
            && let Some(ended) = self.note_the_time(open).await?
        {
            return Ok(ended);
        }
        let Some(push) = push_of(open, intent) else {
            return Ok(Ended::Park { reason: "its customer cannot be asked for".to_owned(), detail: None });
        };
        Ok(match self.remote.push(&push).await {
            Ok(Pushed::Took { customer, status }) => self.took_effect(open, &push, customer, status).await,
            Ok(Pushed::NotFound { told }) => Ended::NotFound(told),
            Err(PushError { error, left }) => match &error.cause {
                Cause::Rejected(told) if told.status == 403 => {
                    self.after_forbidden(open, &push, told.clone(), error.to_string()).await
                }
                cause => {
                    let outcome = outcome_of(left, cause);
                    self.after_error(open, error, outcome)
                }
            },
        })
    }

    /// An earlier attempt may have taken effect. Decides whether the same may be sent again; what is settled by looking is returned.
    async fn look_what_became_of_it(
        &self,
        open: &mut Open,
        intent: &Intent,
    ) -> Result<Option<Ended>, StoreError> {
        match &intent.wish {
            Wish::Create(body) => {
                if let Some(ended) = self.ask_the_time(open).await {
                    return Ok(Some(ended));
                }
                let can_look = open.frozen.first_server_at.is_some();
                match self.key_is_good(open) {
                    false => self.reconcile(open, body, KeyIs::Past).await,
                    // Whether KOMOJU keeps a 5xx under its key is not known, nor whether it is the whole truth; and whether a customer
                    // carries the intent's id can be told.
                    true if open.met_server_error || (open.frozen.tag.is_some() && can_look) => {
                        self.reconcile(open, body, KeyIs::Doubtful).await
                    }
                    true if can_look => self.reconcile(open, body, KeyIs::Good).await,
                    true => Ok(None),
                }
            }
            Wish::Update(_, body) if body.token().is_some() => self.read_back(open, body).await,
            // Plain values and deletes may be repeated.
            Wish::Update(..) | Wish::Delete(_) => Ok(None),
        }
    }

    /// The age of a key is judged by the server's clock too: a process that has not heard from it yet asks.
    async fn ask_the_time(&self, open: &Open) -> Option<Ended> {
        if self.remote.server_time().is_some() {
            return None;
        }
        let asked = self.remote.list(PageQuery { page: 1, per_page: 1, created_from: None }).await;
        // Any answer tells the time.
        match (asked, self.remote.server_time()) {
            (Err(error), None) => Some(self.after_read_error(open, error, Outcome::Known)),
            _ => None,
        }
    }

    /// A create's first attempt is committed with what the server's clock says: by it the customer's creation is dated. Where the
    /// server says nothing, that it is sent is committed all the same: whoever finds it cut off knows that it may have taken effect.
    async fn note_the_time(&self, open: &mut Open) -> Result<Option<Ended>, StoreError> {
        if let Some(ended) = self.ask_the_time(open).await {
            return Ok(Some(ended));
        }
        open.frozen.first_server_at = self.remote.server_time().map(time::written);
        let (position, frozen) = (open.position, open.frozen.clone());
        let noted = self.store.write(move |tx| match frozen.first_server_at {
            Some(_) => attempts::freeze(tx, position, &frozen),
            None => attempts::note_unknown(tx, position),
        });
        noted.await?;
        Ok(None)
    }

    fn key_is_good(&self, open: &Open) -> bool {
        let Some(at) = open.frozen.first_attempt_at.as_deref().and_then(time::read) else { return false };
        let same_boot =
            open.frozen.first_boot.as_ref().zip(self.clock.boot()).and_then(|((boot, ms), (now, up))| {
                let then = std::time::Duration::from_millis(u64::try_from(*ms).ok()?);
                (*boot == now).then(|| up.saturating_sub(then))
            });
        let then = open.frozen.first_server_at.as_deref().and_then(time::read);
        let server = then.zip(self.remote.server_time()).map(|(then, now)| now.duration_since(then));
        key_is_good(FirstAttempt { at, now: self.clock.now(), server, same_boot })
    }

    /// An update with a token: did it take effect? Where that cannot be told, nothing is repeated.
    async fn read_back(&self, open: &Open, body: &Body) -> Result<Option<Ended>, StoreError> {
        let Some(customer) = &open.customer else { return Ok(None) };
        let asked_at = self.clock.now();
        let shown = match self.remote.look(customer).await {
            Ok(Shown::Found(shown)) => shown,
            Ok(Shown::Unreadable(bad)) => {
                return Ok(Some(self.after_unreadable(open, customer, &bad, Outcome::Known)));
            }
            // The call itself will say so, in the API's own words; a customer that is gone takes no token.
            Ok(Shown::NotFound) => return Ok(None),
            Err(error) => return Ok(Some(self.after_read_error(open, error, Outcome::Known))),
        };
        let before = open.frozen.base.as_deref().and_then(|base| Customer::from_body(base).ok());
        let reading = read_back::read(body, before.as_ref().map(Customer::fields), shown.fields());
        if reading != Reading::Applied && self.may_be_before_last_attempt(open, asked_at).await? {
            let why =
                "whether this update took effect is read again, once no read can be older than the attempt";
            return Ok(Some(self.after_lag(why)));
        }
        Ok(match reading {
            Reading::Applied => {
                Some(Ended::TookEffect { customer: PushedCustomer::Shown(shown), status: None })
            }
            Reading::NotApplied => None,
            Reading::Unclear => Some(Ended::Park {
                reason: "whether this update took effect cannot be told from the customer, and its payment token can be used once: \
                         look at the customer at KOMOJU, then cancel this intent, or retry it with a new token (--body @FILE)"
                    .to_owned(),
                detail: Some(json!({"theirs": shown.fields()})),
            }),
        })
    }

    /// Whether a read that was requested at `asked_at` may show what was there before this intent's last attempt.
    pub(super) async fn may_be_before_last_attempt(
        &self,
        open: &Open,
        asked_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let consistency = self.settings.consistency;
        if consistency.0.is_zero() {
            return Ok(false);
        }
        let open = open.clone();
        let last = self.store.read(move |conn| attempts::last_attempt_at(conn, &open)).await?;
        Ok(last.is_some_and(|last| consistency.may_be_behind(last, asked_at)))
    }

    /// The same is read again when no read can be older than now.
    pub(super) fn after_lag(&self, why: &str) -> Ended {
        Ended::Later {
            why: format!("{why} (inbound.consistency_s)"),
            status: None,
            outcome: Outcome::Unknown,
            at: Some(self.settings.consistency.after(self.clock.now())),
            obstacle: Obstacle::None,
        }
    }

    /// Compares what the submitter last saw with what is there now; a difference parks, and nothing is sent. Shortly after our own
    /// push the difference may be what that push replaced: then it is compared again later.
    async fn check_expectation(&self, open: &Open, intent: &Intent) -> Result<Option<Ended>, StoreError> {
        let (Some(expect), Some(customer)) = (&intent.expect, &open.customer) else { return Ok(None) };
        let asked_at = self.clock.now();
        Ok(match self.remote.look(customer).await {
            Ok(Shown::Found(theirs)) => {
                // What an earlier attempt of ours has already done is no surprise.
                if open.life.outcome == Outcome::Unknown && is_applied(&intent.wish, theirs.fields()) {
                    return Ok(None);
                }
                let surprises = expect.surprises(theirs.fields());
                if surprises.is_empty() {
                    return Ok(None);
                }
                if let Some(pushed_at) = self.pushed_at(customer, asked_at).await? {
                    return Ok(Some(Ended::Later {
                        why: "the customer is not as expected, shortly after our own push of it: it is compared again once no read can \
                              be older than that push (inbound.consistency_s)"
                            .to_owned(),
                        status: None,
                        outcome: open.life.outcome,
                        at: Some(self.settings.consistency.after(pushed_at)),
                        obstacle: Obstacle::None,
                    }));
                }
                Some(conflict(&surprises, theirs.fields(), intent))
            }
            Ok(Shown::Unreadable(bad)) => Some(self.after_unreadable(open, customer, &bad, Outcome::Known)),
            // The call itself will say so, in the API's own words.
            Ok(Shown::NotFound) => None,
            Err(error) => Some(self.after_read_error(open, error, Outcome::Known)),
        })
    }

    /// When our last push of this customer settled, if a read that was requested at `asked_at` may be older.
    async fn pushed_at(
        &self,
        customer: &CustomerId,
        asked_at: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (id, consistency) = (customer.clone(), self.settings.consistency);
        self.store.read(move |conn| lag::pushed_at(conn, &id, asked_at, consistency)).await
    }

    /// A 2xx. The customer that it shows is what the mirror learns. Where an update's answer shows none that can be read, its
    /// customer is requested. Where that is unreadable too, nothing is learned, and the update took effect all the same. A
    /// create whose answer does not even show an id is sent again under its key (the first answer is repeated).
    async fn took_effect(&self, open: &Open, push: &Push, customer: PushedCustomer, status: u16) -> Ended {
        let customer = match (push, customer) {
            (_, shown @ PushedCustomer::Shown(_)) => shown,
            (Push::Create { .. }, PushedCustomer::Unreadable(bad)) if bad.id.is_some() => {
                PushedCustomer::Unreadable(bad)
            }
            (Push::Create { .. }, unknown) => {
                let reason = match unknown {
                    PushedCustomer::Unreadable(bad) => format!(" ({})", bad.reason),
                    _ => String::new(),
                };
                let wait = attempt_wait(open.life.attempts, self.roll());
                return Ended::Later {
                    why: format!(
                        "POST /customers: answered HTTP {status} without a customer that can be read{reason}"
                    ),
                    status: Some(status),
                    outcome: Outcome::Unknown,
                    at: self.clock.now().checked_add(wait).ok(),
                    obstacle: Obstacle::None,
                };
            }
            // A read may lag behind the push itself: the customer is requested once it cannot.
            (Push::Update { .. }, PushedCustomer::None) if !self.settings.consistency.0.is_zero() => {
                PushedCustomer::None
            }
            (Push::Update { id, .. }, _) => match self.remote.look(id).await {
                Ok(Shown::Found(customer)) => PushedCustomer::Shown(customer),
                // Its id says that the API speaks, and not something in front of it.
                Ok(Shown::Unreadable(bad)) if bad.id.is_some() => PushedCustomer::Unreadable(bad),
                Ok(Shown::Unreadable(bad)) => return self.after_unreadable(open, id, &bad, Outcome::Unknown),
                Ok(Shown::NotFound) => PushedCustomer::None,
                // It took effect, and nothing is known of the customer: it is requested, or the update sent, once more.
                Err(error) => return self.after_read_error(open, error, Outcome::Unknown),
            },
            (Push::Delete { .. }, other) => other,
        };
        Ended::TookEffect { customer, status: Some(status) }
    }

    /// What a customer says that cannot be read is not known: it is requested again later.
    pub(super) fn after_unreadable(
        &self,
        open: &Open,
        id: &CustomerId,
        bad: &Unreadable,
        outcome: Outcome,
    ) -> Ended {
        let cause = Cause::Unusable(format!("the customer is unreadable: {}", bad.reason));
        let call = Call::Show { id: Masker::default().text(id.as_str()) };
        self.after_read_error(open, RemoteError { call, cause, retry_after: None }, outcome)
    }

    /// A read that failed says nothing of the intent, whatever it was answered: it is read again later. `outcome` is that of the
    /// attempt without this read.
    pub(super) fn after_read_error(&self, open: &Open, error: RemoteError, outcome: Outcome) -> Ended {
        match error.cause {
            Cause::Rejected(told) => {
                let cause = Cause::Unexpected(told);
                self.after_error(open, RemoteError { cause, ..error }, outcome)
            }
            _ => self.after_error(open, error, outcome),
        }
    }

    fn after_error(&self, open: &Open, error: RemoteError, outcome: Outcome) -> Ended {
        let (why, status) = (error.to_string(), error.status());
        let throttled = error.class() == Class::Throttled || error.retry_after.is_some();
        match error.cause {
            Cause::Rejected(told) => Ended::Rejected(told),
            // Due at once when a key is accepted.
            Cause::KeyRefused(_) => {
                Ended::Later { why, status, outcome, at: None, obstacle: Obstacle::KeyRefused }
            }
            _ => {
                let wait =
                    attempt_wait(open.life.attempts, self.roll()).max(error.retry_after.unwrap_or_default());
                let at = self.clock.now().checked_add(wait).unwrap_or(Timestamp::MAX);
                let obstacle = match throttled {
                    true => Obstacle::Throttled { until: self.remote.throttled_until() },
                    false => Obstacle::None,
                };
                Ended::Later { why, status, outcome, at: Some(at), obstacle }
            }
        }
    }
}

/// Whether a write that failed may have taken effect.
fn outcome_of(left: Left, cause: &Cause) -> Outcome {
    match (left, cause) {
        // It was turned away before anything was done. A 503 that asks to wait may come from a gateway, after all was done.
        (Left::Nothing, _) | (_, Cause::KeyRefused(_)) => Outcome::Known,
        (_, Cause::Throttled(told)) if told.status == 429 => Outcome::Known,
        (Left::Perhaps, _) => Outcome::Unknown,
    }
}

/// The call that carries an intent out.
fn push_of(open: &Open, intent: &Intent) -> Option<Push> {
    match &intent.wish {
        Wish::Create(body) => Some(Push::Create { key: open.frozen.key.clone()?, body: as_sent(open, body) }),
        Wish::Update(_, body) => Some(Push::Update { id: open.customer.clone()?, body: body.clone() }),
        Wish::Delete(_) => Some(Push::Delete { id: open.customer.clone()? }),
    }
}

/// A create's parameters as they are sent: with the intent's id, where it is tagged.
fn as_sent(open: &Open, body: &Body) -> Body {
    match &open.frozen.tag {
        Some(tag) => body.clone().with_metadata(tag, &open.id),
        None => body.clone(),
    }
}

/// What the pull has to know of a create, so that it does not take whom it makes for somebody else's.
pub(super) fn making(open: &Open) -> Option<Making> {
    let Ok(Wish::Create(body)) = open.intent.as_ref().map(|intent| &intent.wish) else { return None };
    let since = first_attempt(open).map(|(ours, server)| creates::window_from(ours, server));
    Some(Making { body: as_sent(open, body), since })
}

/// A conflict, kept whole: what was expected, what is there, what was wanted.
fn conflict(surprises: &[Surprise], theirs: &Map<String, Value>, intent: &Intent) -> Ended {
    let fields: Vec<&str> = surprises.iter().map(|surprise| surprise.field.as_str()).collect();
    let base = intent.expect.as_ref().map(|expect| expect.fields().clone());
    let ours = match &intent.wish {
        Wish::Update(_, body) => Value::Object(body.without_token()),
        Wish::Create(_) | Wish::Delete(_) => Value::Null,
    };
    let differs = if fields.len() == 1 { "differs" } else { "differ" };
    Ended::Park {
        reason: format!("the customer is not as expected: {} {differs}; nothing was sent", fields.join(", ")),
        detail: Some(json!({"differs": fields, "base": base, "theirs": theirs, "ours": ours})),
    }
}

fn is_applied(wish: &Wish, theirs: &Map<String, Value>) -> bool {
    matches!(wish, Wish::Update(_, body) if not_applied(body, theirs).is_empty())
}
