//! The writing half of the remote: creates under idempotency keys, updates, deletes, and what can become of each on its way; and
//! whether each was one that may be sent, by what the database says at that moment.
//!
//! Longer than 400 lines because the ways that a push can end are one state machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_core::intent::Expect;
use komoju_core::{Customer, CustomerId, time};
use komoju_sync::remote::{
    ApiCall, BytesSent, CustomerAnswer, ErrorCause, PushAnswer, PushError, PushRemote, PushRequest,
    PushedCustomer, RemoteError, RequestStage,
};
use komoju_sync::store::{Conn, StoreError};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rusqlite::OptionalExtension as _;
use serde_json::Value;

use crate::remote::{Fake, told};
use crate::server::{Effect, Server};
use crate::world::HOLD_DELETES_OVER;

/// What can become of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushTrouble {
    /// There was no connection.
    Unconnected,
    /// It never arrived, and nobody can tell.
    LostRequest,
    /// It took effect, and the answer was lost.
    LostAnswer,
    /// A create goes on for a while after its answer was lost; meanwhile its key is answered 409.
    Slow,
    /// 500, and nothing was done.
    Fails,
    /// The same, and the key keeps that answer.
    FailsKept,
    /// 500, all was done, and the key keeps that answer.
    FailsAfterAll,
    /// 503 with Retry-After from a gateway, after all was done.
    Gateway,
    /// 429.
    TooMany,
    /// 422.
    Refused,
    /// 401.
    NoKey,
    /// 200 without a customer that can be read.
    Blank,
}

impl PushTrouble {
    pub const ALL: [Self; 12] = [
        Self::Unconnected,
        Self::LostRequest,
        Self::LostAnswer,
        Self::Slow,
        Self::Fails,
        Self::FailsKept,
        Self::FailsAfterAll,
        Self::Gateway,
        Self::TooMany,
        Self::Refused,
        Self::NoKey,
        Self::Blank,
    ];

    pub fn any(dice: &mut StdRng) -> Self {
        *Self::ALL.choose(dice).unwrap()
    }
}

/// A key that was used.
pub struct Used {
    first: Timestamp,
    body: Value,
    /// What it answers from now on; none while the first request runs.
    answer: Option<Kept>,
}

#[derive(Clone)]
enum Kept {
    Customer(Value),
    Status(u16),
}

/// A create that goes on.
pub struct Running {
    account: usize,
    key: String,
    body: Value,
    intent: String,
    /// So many requests under its key are still answered 409.
    left: u32,
}

/// KOMOJU remembers a key for so long.
const KEY_KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The intent whose push this is.
struct Sender {
    id: String,
    attempts: i64,
    expect: Option<String>,
}

impl Server {
    fn take_effect(&mut self, effect: Effect, customer: Option<&Value>) -> usize {
        let at = self.effects.len();
        match customer {
            Some(customer) => self.note(customer, Some(at)),
            None => self.note_gone(&effect.customer, Some(at)),
        }
        self.effects.push(effect);
        at
    }

    fn create(&mut self, account: usize, key: &str, body: &Value, intent: &str) -> (Value, usize) {
        let made = self.make_ours(account, body);
        let effect = Effect {
            intent: intent.to_owned(),
            account,
            is_create: true,
            customer: made["id"].as_str().unwrap().to_owned(),
            told: false,
        };
        let at = self.take_effect(effect, Some(&made));
        if let Some(used) = self.keys.get_mut(&(account, key.to_owned())) {
            used.answer = Some(Kept::Customer(made.clone()));
        }
        (made, at)
    }

    fn finish(&mut self, Running { account, key, body, intent, .. }: Running) {
        self.create(account, &key, &body, &intent);
    }

    pub fn finish_all_running(&mut self) {
        std::mem::take(&mut self.running).into_iter().for_each(|running| self.finish(running));
    }

    /// What the key answers without anything being done; `None`: it is a new request.
    fn replay(&mut self, account: usize, key: &str, body: &Value) -> Option<Kept> {
        if let Some(at) = self.running.iter().position(|running| running.key == key) {
            self.running[at].left -= 1;
            if self.running[at].left == 0 {
                let running = self.running.remove(at);
                self.finish(running);
            }
            return Some(Kept::Status(409));
        }
        let now = self.now();
        let used = self.keys.get(&(account, key.to_owned()))?;
        if now.duration_since(used.first) >= KEY_KEPT_FOR {
            return None;
        }
        if used.body != *body {
            self.broken.push(format!("the key {key} came with another body"));
        }
        used.answer.clone()
    }
}

impl Fake {
    /// Who sends this, by the database; complains of whatever should keep it from being sent.
    fn sender(&self, push: &PushRequest) -> Sender {
        let eyes = self.eyes.lock().unwrap();
        let judged = self.judge(eyes.as_ref().unwrap(), push);
        drop(eyes);
        let (sender, complaints) = judged.unwrap();
        let mut server = self.server.lock().unwrap();
        if let Some(why) = server.closed {
            server.broken.push(format!("{} was sent, though {why}", sender.id));
        }
        server.broken.extend(complaints);
        server.senders.insert(sender.id.clone());
        sender
    }

    fn judge(&self, conn: &Conn, push: &PushRequest) -> Result<(Sender, Vec<String>), StoreError> {
        let (by, value, body) = match push {
            PushRequest::Create { key, body } => ("outbox.key = ?1", key.as_str(), Some(body)),
            PushRequest::Update { id, body } => ("lane = ?1 AND is_sending = 1", id.as_str(), Some(body)),
            PushRequest::Delete { id } => ("lane = ?1 AND is_sending = 1", id.as_str(), None),
        };
        let mut complaints = Vec::new();
        let up = komoju_sync::clock::Clock::boot(&*self.clock).unwrap().1;
        let hour_ago = i64::try_from(up.as_millis()).unwrap() - 3_600_000;
        let sql = format!(
            "SELECT id, state, body, tag, attempts, expect, not_before, is_head = 1 AND is_open = 1, held,
                 is_delete AND NOT approved AND attempts = 1 AND (SELECT count(*) FROM outbox JOIN intents USING (position)
                     WHERE is_delete = 1 AND approved = 0 AND (is_open = 1 OR (state = 'done' AND sent_boot_ms > ?3))) > ?2,
                 op = 'create' AND first_server_at IS NULL OR first_attempt_at IS NULL,
                 EXISTS (SELECT 1 FROM attempts WHERE intent_id = id AND finished_at IS NULL)
             FROM intents JOIN outbox USING (position) WHERE {by}"
        );
        let found = conn.prepare_cached(&sql)?.query_row(
            rusqlite::params![value, HOLD_DELETES_OVER, hour_ago],
            |row| {
                let id: String = row.get(0)?;
                let mut complain = |is: bool, what: &str| {
                    if is {
                        complaints.push(format!("{id} was sent, though {what}"));
                    }
                };
                let state: String = row.get(1)?;
                complain(state != "sending", &format!("the database says that it is {state}"));
                let stored: Option<String> = row.get(2)?;
                let mut stored: Option<Value> = stored.and_then(|stored| serde_json::from_str(&stored).ok());
                if let (Some(tag), Some(stored)) = (row.get::<_, Option<String>>(3)?, stored.as_mut()) {
                    stored["metadata"][tag.as_str()] = id.clone().into();
                }
                let sent = body.map(|body| Value::Object(body.fields().clone()));
                complain(sent != stored, "its body is another one");
                complain(
                    sent.as_ref().is_some_and(|sent| sent["payment_details"] == "****"),
                    "its token is no more than a mask",
                );
                let not_before: Option<String> = row.get(6)?;
                let due = not_before.as_deref().and_then(time::read).is_none_or(|due| due <= self.wall());
                complain(!due, "its time has not come");
                complain(!row.get::<_, bool>(7)?, "another intent of its customer comes first");
                complain(row.get(8)?, "it is held");
                complain(row.get(9)?, "too many deletes are open");
                complain(row.get(10)?, "what its attempts repeat was not committed");
                complain(!row.get::<_, bool>(11)?, "no attempt of it runs");
                Ok(Sender { id, attempts: row.get(4)?, expect: row.get(5)? })
            },
        );
        let sender = found.optional()?.unwrap_or_else(|| {
            complaints.push(format!("{push:?} was sent, and no intent says so"));
            Sender { id: String::new(), attempts: 0, expect: None }
        });
        Ok((sender, complaints))
    }

    fn wall(&self) -> Timestamp {
        komoju_sync::clock::Clock::now(&*self.clock)
    }

    fn answer(&self, push: &PushRequest, sender: &Sender) -> Result<PushAnswer, PushError> {
        let mut server = self.server.lock().unwrap();
        server.requests += 1;
        let call = match push {
            PushRequest::Create { .. } => ApiCall::Create,
            PushRequest::Update { id, .. } => ApiCall::Update { id: id.to_string() },
            PushRequest::Delete { id } => ApiCall::Delete { id: id.to_string() },
        };
        let fails = |cause: ErrorCause, bytes_sent: BytesSent, retry_after: Option<Duration>| {
            Err(PushError { error: RemoteError { call: call.clone(), cause, retry_after }, bytes_sent })
        };
        let lost = |step| {
            fails(ErrorCause::Unreachable { stage: step, why: "reset".into() }, BytesSent::Maybe, None)
        };
        let trouble = server.push_trouble.take();
        if let Some((trouble, left)) = trouble {
            server.push_trouble = (left > 1).then_some((trouble, left - 1));
            server.count(format!("PushTrouble::{trouble:?}"));
        }
        let trouble = trouble.map(|(trouble, _)| trouble);
        match trouble {
            Some(PushTrouble::Unconnected) => {
                let cause =
                    ErrorCause::Unreachable { stage: RequestStage::Connection, why: "refused".into() };
                return fails(cause, BytesSent::None, None);
            }
            Some(PushTrouble::LostRequest) => return lost(RequestStage::Answer),
            _ => self.heard.store(true, std::sync::atomic::Ordering::Relaxed),
        }
        match trouble {
            Some(PushTrouble::TooMany) => {
                let after = Some(Duration::from_secs(3));
                return fails(ErrorCause::Throttled(told(429, None)), BytesSent::Maybe, after);
            }
            Some(PushTrouble::NoKey) => {
                return fails(
                    ErrorCause::KeyRefused(told(401, Some("unauthorized"))),
                    BytesSent::Maybe,
                    None,
                );
            }
            _ => {}
        }
        if server.is_quiet && sender.attempts == 1 {
            self.must_be_as_expected(&mut server, push, sender);
        }
        let status = |status: u16| match status {
            409 | 500.. => fails(ErrorCause::Unexpected(told(status, None)), BytesSent::Maybe, None),
            _ => fails(ErrorCause::Rejected(told(status, None)), BytesSent::Maybe, None),
        };
        let done = match push {
            PushRequest::Create { key, body } => {
                let body = Value::Object(body.fields().clone());
                match server.replay(self.account, key, &body) {
                    Some(Kept::Status(code)) => return status(code),
                    // The first answer is told again.
                    Some(Kept::Customer(made)) => Some((Some(made), None)),
                    None => {
                        let (first, used) = (server.now(), (self.account, key.clone()));
                        server.keys.insert(used.clone(), Used { first, body: body.clone(), answer: None });
                        let keep = |server: &mut Server, code| {
                            server
                                .keys
                                .entry(used.clone())
                                .and_modify(|used| used.answer = Some(Kept::Status(code)));
                            status(code)
                        };
                        match trouble {
                            Some(PushTrouble::Fails) => {
                                server.keys.remove(&used);
                                return status(500);
                            }
                            Some(PushTrouble::FailsKept) => return keep(&mut server, 500),
                            Some(PushTrouble::Refused) => return keep(&mut server, 422),
                            Some(PushTrouble::Slow) => {
                                let intent = sender.id.clone();
                                server.running.push(Running {
                                    account: self.account,
                                    key: key.clone(),
                                    body,
                                    intent,
                                    left: 2,
                                });
                                return lost(RequestStage::Answer);
                            }
                            _ if is_spent(&server, &body) => return keep(&mut server, 422),
                            _ => {}
                        }
                        let (made, effect) = server.create(self.account, key, &body, &sender.id);
                        if trouble == Some(PushTrouble::FailsAfterAll) {
                            return keep(&mut server, 500);
                        }
                        Some((Some(made), Some(effect)))
                    }
                }
            }
            PushRequest::Update { id, body } => match trouble {
                Some(PushTrouble::Fails | PushTrouble::FailsKept) => return status(500),
                Some(PushTrouble::Refused) => return status(422),
                _ => {
                    let body = Value::Object(body.fields().clone());
                    match server.find(self.account, id.as_str()) {
                        Some(_) if is_spent(&server, &body) => return status(422),
                        Some(at) => {
                            let mut changed = server.lists[self.account][at].clone();
                            server.change(&mut changed, &body);
                            server.lists[self.account][at] = changed.clone();
                            let effect = server.take_effect(self.effect_of(sender, id), Some(&changed));
                            Some((Some(changed), Some(effect)))
                        }
                        None => None,
                    }
                }
            },
            PushRequest::Delete { id } => match trouble {
                Some(PushTrouble::Fails | PushTrouble::FailsKept) => return status(500),
                Some(PushTrouble::Refused) => return status(422),
                _ => server.find(self.account, id.as_str()).map(|at| {
                    let gone = server.lists[self.account].remove(at);
                    if self.account == 0 {
                        server.gone.push(gone.clone());
                    }
                    let effect = server.take_effect(self.effect_of(sender, id), None);
                    (Some(gone), Some(effect))
                }),
            },
        };
        match trouble {
            Some(PushTrouble::LostAnswer | PushTrouble::Slow) => return lost(RequestStage::Answer),
            Some(PushTrouble::Gateway) => {
                let after = Some(Duration::from_secs(3));
                return fails(ErrorCause::Throttled(told(503, None)), BytesSent::Maybe, after);
            }
            Some(PushTrouble::FailsAfterAll) => return status(500),
            _ => {}
        }
        match done {
            None => Ok(PushAnswer::NotFound { error: told(404, Some("not_found")) }),
            Some(_) if trouble == Some(PushTrouble::Blank) => {
                Ok(PushAnswer::Applied { customer: PushedCustomer::None, status: 200 })
            }
            Some((customer, effect)) => {
                if let Some(effect) = effect {
                    server.effects[effect].told = true;
                }
                let customer = customer.map_or(PushedCustomer::None, |customer| {
                    PushedCustomer::Shown(Customer::from_value(customer).unwrap())
                });
                Ok(PushAnswer::Applied { customer, status: 200 })
            }
        }
    }

    fn effect_of(&self, sender: &Sender, id: &CustomerId) -> Effect {
        Effect {
            intent: sender.id.clone(),
            account: self.account,
            is_create: false,
            customer: id.as_str().to_owned(),
            told: false,
        }
    }

    /// A first attempt is sent only where the customer is as its dropper saw it.
    fn must_be_as_expected(&self, server: &mut Server, push: &PushRequest, sender: &Sender) {
        let (PushRequest::Update { id, .. } | PushRequest::Delete { id }) = push else { return };
        let Some(expect) = sender.expect.as_deref() else { return };
        let expect = Expect::new(serde_json::from_str(expect).unwrap()).unwrap();
        if let Some(at) = server.find(self.account, id.as_str())
            && !expect.mismatches(server.lists[self.account][at].as_object().unwrap()).is_empty()
        {
            server.broken.push(format!("{} was sent, though its customer is not as expected", sender.id));
        }
    }
}

/// A token can be used once.
fn is_spent(server: &Server, body: &Value) -> bool {
    body.get("payment_details").and_then(Value::as_str).is_some_and(|token| server.tokens.contains(token))
}

impl PushRemote for Fake {
    async fn push(&self, push: &PushRequest) -> Result<PushAnswer, PushError> {
        let sender = self.sender(push);
        tokio::task::yield_now().await;
        let answer = self.answer(push, &sender);
        tokio::task::yield_now().await;
        answer
    }

    async fn look(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        tokio::task::yield_now().await;
        self.shown(id)
    }
}
