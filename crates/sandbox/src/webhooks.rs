//! The webhooks of an account: their subscriptions and their queues of deliveries.
//!
//! Each webhook has one queue, and one task that sends its deliveries one after another. So
//! deliveries arrive in the order of their events, unless a reading says otherwise. A delivery that
//! fails goes back into the queue. All times here are real time, not the sandbox's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::account::ordered::Ordered;
use crate::faults::milliseconds;
use crate::random::{self, is_drawn};
use crate::readings::Readings;

mod delivery;
mod signature;
pub(crate) mod target;

pub use delivery::{DeliveryState, WebhookDelivery};
use target::WebhookTarget;

/// KEPT controls how many deliveries are kept, so that a sandbox that runs for days does not grow.
/// Only settled ones are dropped.
const KEPT: usize = 10_000;

/// The body of the delivery that a new webhook gets at once.
const PING: &str = r#"{"type":"ping"}"#;

/// RETRY_MOST controls the longest pause between two attempts.
const RETRY_MOST: Duration = Duration::from_secs(60 * 60);

/// A webhook, as a merchant enters it in the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxWebhook {
    /// The receiver on this machine: `http://127.0.0.1:PORT/PATH`, also `localhost` and `[::1]`, or
    /// `unix:/SOCKET:/PATH` for a Unix socket.
    pub url: String,
    /// The secret of the signatures.
    pub secret: String,
    /// The types of events that it subscribes to; all if it is empty.
    #[serde(default)]
    pub types: Vec<String>,
}

/// The id of a registered webhook; unique within its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookId(pub u64);

/// Why a webhook cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL is not a receiver on this machine.
    #[error("{url} is not a receiver on this machine; use http://127.0.0.1:PORT/PATH or unix:/SOCKET:/PATH")]
    Url {
        /// The URL.
        url: String,
    },
    /// No account has this key.
    #[error("there is no account with this key")]
    Key,
}

/// The webhooks of one account and their deliveries.
#[derive(Debug)]
pub(crate) struct Webhooks {
    registered: BTreeMap<WebhookId, RegisteredWebhook>,
    deliveries: BTreeMap<u64, WebhookDelivery>,
    last_webhook: u64,
    last_delivery: u64,
    salt: u64,
    rng: ChaCha8Rng,
}

/// A webhook and its queue.
#[derive(Debug, Serialize)]
pub(crate) struct RegisteredWebhook {
    id: WebhookId,
    #[serde(flatten)]
    webhook: SandboxWebhook,
    #[serde(skip)]
    target: WebhookTarget,
    /// The deliveries that are pending, by the time of their next attempt.
    #[serde(skip)]
    queue: BTreeSet<(Instant, u64)>,
    /// Wakes its task when the queue changes.
    #[serde(skip)]
    wake: Arc<Notify>,
}

/// What the task of a webhook does next.
#[derive(Debug)]
pub(crate) enum NextAttempt {
    /// Sends this.
    Now(Box<DeliveryAttempt>),
    /// Waits until this time.
    At(Instant),
    /// Waits until the queue changes.
    Idle,
    /// Ends: the webhook was removed.
    Removed,
}

/// One request to a receiver.
#[derive(Debug)]
pub(crate) struct DeliveryAttempt {
    pub(crate) number: u64,
    pub(crate) target: WebhookTarget,
    /// How long the receiver may take for its answer.
    pub(crate) timeout: Duration,
    /// `X-Komoju-ID`
    pub(crate) id: String,
    /// `X-Komoju-Event`
    pub(crate) kind: String,
    /// `X-Komoju-Signature`
    pub(crate) signature: String,
    pub(crate) body: Bytes,
}

impl Webhooks {
    /// Returns no webhooks. `salt` decides what is random about deliveries.
    pub(crate) fn new(salt: u64) -> Self {
        Self {
            registered: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            last_webhook: 0,
            last_delivery: 0,
            salt,
            rng: random::seeded([salt, u64::from_le_bytes(*b"webhooks")]),
        }
    }

    /// Registers a webhook and queues its ping. Returns its id, and the signal of its queue.
    pub(crate) fn register(
        &mut self,
        webhook: SandboxWebhook,
    ) -> Result<(WebhookId, Arc<Notify>), WebhookError> {
        let target = WebhookTarget::parse(&webhook.url)?;
        self.last_webhook += 1;
        let (id, wake) = (WebhookId(self.last_webhook), Arc::new(Notify::new()));
        let registered =
            RegisteredWebhook { id, webhook, target, queue: BTreeSet::new(), wake: Arc::clone(&wake) };
        self.registered.insert(id, registered);
        let delivery = WebhookDelivery::new(id, "ping", None, PING.to_owned());
        self.queue(delivery, Duration::ZERO);
        Ok((id, wake))
    }

    /// Removes a webhook. Its pending deliveries are canceled. Returns false if there is no such
    /// webhook.
    pub(crate) fn remove(&mut self, id: WebhookId) -> bool {
        let Some(removed) = self.registered.remove(&id) else {
            return false;
        };
        for delivery in self.deliveries.values_mut().filter(|delivery| delivery.webhook == id) {
            delivery.cancel();
        }
        removed.wake.notify_one();
        true
    }

    /// Returns the registered webhooks.
    pub(crate) fn registered(&self) -> impl Iterator<Item = &RegisteredWebhook> {
        self.registered.values()
    }

    /// Whether a webhook subscribes to events of this type.
    pub(crate) fn are_subscribed_to(&self, kind: &str) -> bool {
        self.registered.values().any(|registered| registered.webhook.subscribes_to(kind))
    }

    /// Queues the deliveries of an event.
    pub(crate) fn publish(&mut self, kind: &str, event: &Value, readings: &Readings) {
        let subscribed: Vec<WebhookId> =
            self.registered().filter(|to| to.webhook.subscribes_to(kind)).map(|to| to.id).collect();
        if subscribed.is_empty() {
            return;
        }
        let body = serde_json::to_string(&Ordered(event)).unwrap_or_default();
        for id in subscribed {
            let mut rng = random::seeded([self.rng.random()]);
            let event_id = event["id"].as_str().map(str::to_owned);
            let mut delivery = WebhookDelivery::new(id, kind, event_id, body.clone());
            delivery.id = random::id(&mut rng);
            let is_dropped = is_drawn(&mut rng, readings.webhook_drop_percent);
            let copies = if is_drawn(&mut rng, readings.webhook_duplicate_percent) { 2 } else { 1 };
            if is_dropped {
                delivery.state = DeliveryState::Dropped;
                self.add(delivery);
                continue;
            }
            for copy in 0..copies {
                let mut delivery = delivery.clone();
                // A second delivery may have an id of its own.
                if copy > 0 && rng.random() {
                    delivery.id = random::id(&mut rng);
                }
                let more_ms = rng.random_range(0..=readings.webhook_disorder_ms);
                let delay = milliseconds(readings.webhook_delay_ms.saturating_add(more_ms));
                self.queue(delivery, delay);
            }
        }
    }

    /// Returns what the task of a webhook does next.
    pub(crate) fn next(&mut self, id: WebhookId, readings: &Readings) -> NextAttempt {
        let Some(registered) = self.registered.get_mut(&id) else {
            return NextAttempt::Removed;
        };
        let Some(&(at, number)) = registered.queue.first() else {
            return NextAttempt::Idle;
        };
        if at > Instant::now() {
            return NextAttempt::At(at);
        }
        registered.queue.pop_first();
        let Some(delivery) = self.deliveries.get_mut(&number) else {
            return NextAttempt::At(at);
        };
        let body = Bytes::from(delivery.body.clone());
        let mut secret = registered.webhook.secret.clone();
        // By attempt, because the order of attempts and events differs from run to run.
        let mut rng = random::seeded([self.salt, number, delivery.attempts.into()]);
        if is_drawn(&mut rng, readings.webhook_wrong_signature_percent) {
            delivery.wrong_signatures += 1;
            secret.push('x');
        }
        NextAttempt::Now(Box::new(DeliveryAttempt {
            number,
            target: registered.target.clone(),
            timeout: milliseconds(readings.webhook_timeout_ms),
            id: delivery.id.clone(),
            kind: delivery.kind.clone(),
            signature: signature::of(&secret, &body),
            body,
        }))
    }

    /// Records the status of a receiver's answer, or the reason why there is none. Queues another
    /// attempt unless the status is 2xx or no attempt is left.
    pub(crate) fn finish(
        &mut self,
        webhook: WebhookId,
        number: u64,
        result: Result<u16, String>,
        readings: &Readings,
    ) {
        let Some(delivery) = self.deliveries.get_mut(&number) else {
            return;
        };
        delivery.finish(result, readings.webhook_attempts);
        if delivery.state != DeliveryState::Pending {
            return;
        }
        let doublings = delivery.attempts.saturating_sub(1).min(31);
        let pause = milliseconds(readings.webhook_retry_ms).saturating_mul(1 << doublings);
        if let Some(registered) = self.registered.get_mut(&webhook) {
            registered.queue.insert((Instant::now() + pause.min(RETRY_MOST), number));
        }
    }

    /// Returns the deliveries in the order of their events.
    pub(crate) fn deliveries(&self) -> impl Iterator<Item = &WebhookDelivery> {
        self.deliveries.values()
    }

    /// Drops the settled deliveries.
    pub(crate) fn clear(&mut self) {
        self.deliveries.retain(|_, delivery| delivery.state == DeliveryState::Pending);
    }

    /// Whether no delivery is pending.
    pub(crate) fn are_settled(&self) -> bool {
        self.deliveries.values().all(|delivery| delivery.state != DeliveryState::Pending)
    }

    /// Adds a delivery, and queues it for an attempt after this delay.
    fn queue(&mut self, delivery: WebhookDelivery, delay: Duration) {
        let webhook = delivery.webhook;
        let number = self.add(delivery);
        if let Some(registered) = self.registered.get_mut(&webhook) {
            registered.queue.insert((Instant::now() + delay, number));
            registered.wake.notify_one();
        }
    }

    /// Numbers and stores a delivery, and drops an old one if there are too many.
    fn add(&mut self, mut delivery: WebhookDelivery) -> u64 {
        if self.deliveries.len() >= KEPT {
            let mut settled = self.deliveries.values().filter(|old| old.state != DeliveryState::Pending);
            if let Some(number) = settled.next().map(|old| old.number) {
                self.deliveries.remove(&number);
            }
        }
        self.last_delivery += 1;
        delivery.number = self.last_delivery;
        if delivery.id.is_empty() {
            delivery.id = random::id(&mut self.rng);
        }
        self.deliveries.insert(delivery.number, delivery);
        self.last_delivery
    }
}

impl SandboxWebhook {
    /// Whether it subscribes to events of this type.
    fn subscribes_to(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|other| other == kind)
    }
}
