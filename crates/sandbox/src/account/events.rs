//! Owns the events of an account: the changes of its customers. Lists show the newest first.

use std::collections::VecDeque;

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::population::rfc3339;
use crate::random;

/// KEPT controls how many events are kept, so that a sandbox that runs for days does not grow.
const KEPT: usize = 100_000;

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Created,
    Updated,
    Deleted,
}

impl EventKind {
    /// Returns the event's `type`.
    fn name(self) -> &'static str {
        match self {
            Self::Created => "customer.created",
            Self::Updated => "customer.updated",
            Self::Deleted => "customer.deleted",
        }
    }
}

/// Events in the order they happened.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    rng: ChaCha8Rng,
}

/// One event.
#[derive(Debug)]
struct Event {
    /// When it was recorded, in seconds since 1970.
    at_s: i64,
    body: Value,
}

impl EventLog {
    /// Returns an empty log. `salt` decides the ids of its events.
    pub(crate) fn new(salt: u64) -> Self {
        Self { events: VecDeque::new(), rng: random::seeded([!salt]) }
    }

    /// Records a change. `customer` is its state after the change, or before a delete.
    pub(crate) fn record(&mut self, now: Timestamp, kind: EventKind, customer: Value) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        let mut rng = random::seeded([self.rng.random(), now.as_millisecond() as u64]);
        let body = json!({
            "id": random::id(&mut rng),
            "type": kind.name(),
            "resource": "event",
            "data": customer,
            "created_at": rfc3339(now.as_second()),
            "reason": null,
        });
        self.events.push_back(Event { at_s: now.as_second(), body });
    }

    /// Returns the events within `seconds`, newest first.
    pub(crate) fn newest_first(&self, seconds: Option<std::ops::Range<i64>>) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .rev()
            .filter(move |event| seconds.as_ref().is_none_or(|seconds| seconds.contains(&event.at_s)))
            .map(|event| &event.body)
    }

    /// Returns the event with this id.
    pub(crate) fn get(&self, id: &str) -> Option<&Value> {
        self.events.iter().rev().map(|event| &event.body).find(|event| event["id"] == id)
    }
}
