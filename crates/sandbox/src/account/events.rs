//! The event log of an account. Lists show the newest events first.
//!
//! An event is a change of a customer, or an event that a test emits. The readings of its time
//! decide when the list shows it, at which place and how often.

use std::collections::VecDeque;
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::clock::moved;
use crate::draws::{Draw, Draws};
use crate::population::rfc3339;
use crate::random::{self, is_drawn};
use crate::readings::{EventTime, Readings, Ties};

/// KEPT controls how many events are kept, so that a sandbox that runs for days does not grow.
const KEPT: usize = 100_000;

/// The type of the event of a created customer.
pub(crate) const CREATED: &str = "customer.created";

/// The type of the event of an updated customer.
pub(crate) const UPDATED: &str = "customer.updated";

/// The type of the event of a deleted customer.
pub(crate) const DELETED: &str = "customer.deleted";

/// Events in the order they happened.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    rng: ChaCha8Rng,
}

/// An event of the list.
#[derive(Debug)]
struct Event {
    /// Its `created_at`, in seconds since 1970.
    at_s: i64,
    /// Its place in the list, in seconds since 1970. Without disorder it equals `at_s`.
    place_s: i64,
    /// From when the list shows it.
    appears_at: Timestamp,
    body: Value,
}

impl EventLog {
    /// Returns an empty log. `salt` decides the ids of its events.
    pub(crate) fn new(salt: u64) -> Self {
        Self { events: VecDeque::new(), rng: random::seeded([!salt]) }
    }

    /// Returns the random numbers of the next event. They depend on the time too, so that a
    /// restarted sandbox does not give the same ids again.
    pub(crate) fn next_rng(&mut self, now: Timestamp) -> ChaCha8Rng {
        random::seeded([self.rng.random(), now.as_millisecond() as u64])
    }

    /// Records an event and returns it. `is_kept` decides whether the list can show it.
    pub(crate) fn record(
        &mut self,
        now: Timestamp,
        kind: &str,
        data: Value,
        readings: &Readings,
        is_kept: bool,
        rng: &mut impl Rng,
    ) -> Value {
        let lag = SignedDuration::from_millis(i64::try_from(readings.event_lag_ms).unwrap_or(i64::MAX));
        let appears_at = moved(now, lag);
        let at_s = match readings.event_time {
            EventTime::Change => now.as_second(),
            EventTime::Appearance => appears_at.as_second(),
        };
        let body = json!({
            "id": random::id(rng),
            "type": kind,
            "resource": "event",
            "data": data,
            "created_at": rfc3339(at_s),
            "reason": null,
        });
        let is_lost = is_drawn(rng, readings.event_loss_percent);
        let copies = if is_drawn(rng, readings.event_duplicate_percent) { 2 } else { 1 };
        if is_lost || !is_kept {
            return body;
        }
        let most = i64::try_from(readings.event_disorder_s).unwrap_or(i64::MAX);
        for _ in 0..copies {
            if self.events.len() == KEPT {
                self.events.pop_front();
            }
            let place_s = at_s.saturating_add(rng.random_range(-most..=most));
            self.events.push_back(Event { at_s, place_s, appears_at, body: body.clone() });
        }
        body
    }

    /// Returns the events that the list shows now, newest first; only those within `seconds`.
    pub(crate) fn list(
        &self,
        now: Timestamp,
        seconds: Option<&Range<i64>>,
        readings: &Readings,
        draws: Draws,
    ) -> Vec<&Value> {
        let within = |event: &&Event| seconds.is_none_or(|seconds| seconds.contains(&event.at_s));
        let mut events: Vec<&Event> = self.shown(now, readings).filter(within).collect();
        // The sort is stable, so events of one second have the order of the log, newest first.
        events.sort_by_key(|event| std::cmp::Reverse(event.place_s));
        if readings.event_ties == Ties::Unstable {
            for tied in events.chunk_by_mut(|one, next| one.place_s == next.place_s) {
                tied.shuffle(&mut draws.of(Draw::EventTies, draws.request, tied[0].place_s as u64));
            }
        }
        events.into_iter().map(|event| &event.body).collect()
    }

    /// Returns the event with this id, if the list shows it now.
    pub(crate) fn get(&self, id: &str, now: Timestamp, readings: &Readings) -> Option<&Value> {
        self.shown(now, readings).map(|event| &event.body).find(|event| event["id"] == id)
    }

    /// Returns all events of the list, also those that it does not show yet or no longer, in
    /// reverse order of their recording.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().rev().map(|event| &event.body)
    }

    /// Returns the events that have appeared and have not expired, in reverse order of their
    /// recording.
    fn shown(&self, now: Timestamp, readings: &Readings) -> impl Iterator<Item = &Event> {
        let oldest_s = readings
            .event_retention_s
            .map(|retention| now.as_second().saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX)));
        self.events.iter().rev().filter(move |event| {
            event.appears_at <= now && oldest_s.is_none_or(|oldest_s| event.at_s >= oldest_s)
        })
    }
}
