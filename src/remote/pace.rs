//! The rate of requests: the configured one, or the one that the remote has accepted so far.
//!
//! The configured rate is the ceiling. A refusal for speed halves the rate and pauses all requests
//! for a second. While refusals continue, the rate halves again and the pause doubles. Answers
//! raise the rate. It rises fast while it is far below the rate at which the refusals began, slowly
//! near that rate, and very slowly above it. So an unpublished limit costs one refusal in about
//! forty answers. An hour after the last refusal the rate is the ceiling again.
//!
//! This module is pure: moments are durations of a steady clock that the caller reads. The bucket
//! is empty at the start of a process, so that restarts never exceed the limit.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use komoju_core::ReducedRate;
use komoju_core::reduced_rate::FORGET_AFTER;

/// LOWEST controls the lowest rate, in requests a second.
const LOWEST: f64 = 0.05;

/// FIRST_PAUSE controls the pause after a refusal. A request that was sent within this time after a
/// refusal belongs to the same event, because most limits count over a second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// MOST_PAUSE controls the pause after many refusals in a row.
const MOST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// LEAST_START controls the rate that the first refusal halves at least, in requests a second. A
/// client that sent few requests before it was refused would become too slow otherwise.
const LEAST_START: f64 = 4.0;

/// REMEMBERED controls from how many answers the shown share of refusals is computed.
const REMEMBERED: usize = 20;

/// ALMOST_ONE controls what counts as a whole request in the bucket. A sum of fractions may be a
/// little less than one.
const ALMOST_ONE: f64 = 1.0 - 1e-6;

/// The configured limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// In requests a second.
    pub rate: f64,
    /// How many requests may be sent at once after idle time.
    pub burst: u32,
}

/// A token bucket. Its rate follows the answers.
#[derive(Debug)]
pub struct Pace {
    /// The configured limit, if there is one.
    ceiling: Option<Ceiling>,
    /// Present while the rate is below the ceiling.
    slow: Option<Slow>,
    /// How many requests could be sent at `filled_at`.
    level: f64,
    filled_at: Duration,
    paused_until: Duration,
    /// Whether each of the last answers was a refusal.
    recent: VecDeque<bool>,
    sent: SentLately,
}

/// A rate below the ceiling.
#[derive(Clone, Copy, Debug)]
struct Slow {
    /// In requests a second.
    rate: f64,
    /// The rate at which the present series of refusals began, or the last one.
    refused_at: f64,
    /// The refusals in a row, without an answer in between.
    in_a_row: u32,
    /// When the last refusal arrived, by the steady clock; none if an earlier process received it.
    last_refusal: Option<Duration>,
    /// When the rate is the ceiling again.
    forget_at: Duration,
    /// Since when the rate is below the ceiling, by the wall clock; for display.
    since: Timestamp,
    /// When the last refusal arrived, by the wall clock; for display.
    last_refusal_at: Timestamp,
}

/// The effect of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalEffect {
    /// The rate was halved.
    Slowed,
    /// It belongs to the same event as an earlier refusal, so the rate is unchanged.
    Repeated,
}

impl Pace {
    /// Returns the pace of a new process: an empty bucket, and the rate that an earlier process has
    /// learned.
    pub fn new(
        ceiling: Option<Ceiling>,
        learned: Option<&ReducedRate>,
        now: Duration,
        wall: Timestamp,
    ) -> Self {
        let slow = learned.map(|learned| Slow {
            rate: learned.requests_per_second.max(LOWEST),
            refused_at: learned.refused_at.max(LOWEST),
            in_a_row: learned.in_a_row,
            last_refusal: None,
            forget_at: now + forget_after(learned.age(wall)),
            since: learned.since,
            last_refusal_at: learned.last_refusal,
        });
        let mut recent = VecDeque::with_capacity(REMEMBERED);
        if let Some(learned) = learned {
            let answers = (learned.answers as usize).min(REMEMBERED);
            // The order is not stored, so the refusals count as the oldest answers.
            recent.extend((0..answers).map(|n| n < learned.refused as usize));
        }
        let mut pace = Self {
            ceiling,
            slow,
            level: 0.0,
            filled_at: now,
            paused_until: Duration::ZERO,
            recent,
            sent: SentLately::default(),
        };
        pace.speed_up(now);
        pace
    }

    /// Returns how long the next request must wait; zero: it may be sent now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        let pause = self.paused_until.saturating_sub(now);
        let Some(Ceiling { rate, .. }) = self.limit() else { return pause };
        let empty = if self.level >= ALMOST_ONE { 0.0 } else { (1.0 - self.level) / rate };
        pause.max(Duration::from_secs_f64(empty))
    }

    /// Records that a request is sent.
    pub fn sent(&mut self, now: Duration) {
        self.fill(now);
        self.level = (self.level - 1.0).max(0.0);
        self.sent.count(now);
    }

    /// Records that the request sent at `sent_at` was answered, and not refused for its speed.
    /// Returns whether the rate rose.
    pub fn answered(&mut self, sent_at: Duration, now: Duration) -> bool {
        self.remember(false);
        self.fill(now);
        let Some(slow) = &mut self.slow else { return false };
        // A request that was sent before the refusal is no information about the present rate.
        if slow.last_refusal.is_some_and(|refused| sent_at <= refused) {
            return false;
        }
        slow.in_a_row = 0;
        let near = slow.rate / slow.refused_at;
        slow.rate = match near {
            ..0.5 => slow.rate * 1.5,
            0.5..0.9 => slow.rate * 1.05,
            _ => slow.rate + 0.002 * slow.refused_at,
        };
        self.speed_up(now);
        true
    }

    /// Records that the request sent at `sent_at` was refused for its speed. `wall` is the time for
    /// display.
    pub fn refused(&mut self, sent_at: Duration, now: Duration, wall: Timestamp) -> RefusalEffect {
        self.remember(true);
        self.fill(now);
        let known = self.slow;
        if let Some(last) = known.and_then(|slow| slow.last_refusal)
            && sent_at < last + FIRST_PAUSE
        {
            return RefusalEffect::Repeated;
        }
        // Halve the rate at which requests were really sent, if the limit is far above it.
        let lately = self.sent.rate(now).max(LEAST_START);
        let rate = self.limit().map_or(lately, |limit| limit.rate.min(lately));
        let in_a_row = known.map_or(0, |slow| slow.in_a_row);
        self.slow = Some(Slow {
            rate: (rate / 2.0).max(LOWEST),
            refused_at: known.filter(|_| in_a_row > 0).map_or(rate, |slow| slow.refused_at),
            in_a_row: in_a_row.saturating_add(1),
            last_refusal: Some(now),
            forget_at: now + forget_after(jiff::SignedDuration::ZERO),
            since: known.map_or(wall, |slow| slow.since),
            last_refusal_at: wall,
        });
        let pause = FIRST_PAUSE.saturating_mul(1 << in_a_row.min(30)).min(MOST_PAUSE);
        self.paused_until = self.paused_until.max(now + pause);
        self.level = self.level.min(1.0);
        RefusalEffect::Slowed
    }

    /// Whether there is neither a limit nor a pause.
    pub fn is_free(&self, now: Duration) -> bool {
        self.ceiling.is_none() && self.slow.is_none() && self.paused_until <= now
    }

    /// Whether a refusal pauses all requests now.
    pub fn is_paused(&self, now: Duration) -> bool {
        self.paused_until > now
    }

    /// Returns the reduced rate, to be stored and shown; none while the rate is the ceiling.
    pub fn slowed(&mut self, now: Duration) -> Option<ReducedRate> {
        self.speed_up(now);
        let slow = self.slow?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(ReducedRate {
            requests_per_second: slow.rate,
            refused_at: slow.refused_at,
            in_a_row: slow.in_a_row,
            since: slow.since,
            last_refusal: slow.last_refusal_at,
            refused: count(self.recent.iter().filter(|refused| **refused).count()),
            answers: count(self.recent.len()),
        })
    }

    /// Returns the present limit.
    fn limit(&self) -> Option<Ceiling> {
        self.slow.map(|slow| Ceiling { rate: slow.rate, burst: 1 }).or(self.ceiling)
    }

    /// Fills the bucket for the time since the last call, at the rate of that time.
    fn fill(&mut self, now: Duration) {
        if let Some(Ceiling { rate, burst }) = self.limit() {
            let passed = now.saturating_sub(self.filled_at).as_secs_f64();
            self.level = (self.level + passed * rate).min(burst.into());
        }
        self.filled_at = now;
        self.speed_up(now);
    }

    /// Returns to the ceiling if the rate has reached it, or an hour after the last refusal.
    fn speed_up(&mut self, now: Duration) {
        let Some(slow) = self.slow else { return };
        let top = self.ceiling.map_or(2.0 * slow.refused_at, |ceiling| ceiling.rate);
        if slow.rate >= top || now >= slow.forget_at {
            self.slow = None;
        }
    }

    /// Adds an answer to the recent ones.
    fn remember(&mut self, refused: bool) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(refused);
    }
}

/// Returns the time until a refusal of this age is forgotten.
fn forget_after(age: jiff::SignedDuration) -> Duration {
    (FORGET_AFTER - age).try_into().unwrap_or_default()
}

/// The rate at which requests are sent: the larger count of the present and the last second.
#[derive(Debug, Default)]
struct SentLately {
    second: u64,
    count: u32,
    before: u32,
}

impl SentLately {
    /// Counts a request.
    fn count(&mut self, now: Duration) {
        self.turn(now);
        self.count = self.count.saturating_add(1);
    }

    /// Returns the rate in requests a second.
    fn rate(&mut self, now: Duration) -> f64 {
        self.turn(now);
        self.count.max(self.before).into()
    }

    /// Starts a new count in a new second.
    fn turn(&mut self, now: Duration) {
        let second = now.as_secs();
        if second != self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
    }
}

#[cfg(test)]
mod tests;
