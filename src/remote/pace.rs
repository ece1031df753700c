//! How fast requests may leave: the configured rate, or the rate that the remote has been found to accept.
//!
//! The configured rate is the ceiling. A refusal for speed halves the rate and lets no request leave for a second; while refusals
//! continue, the rate halves again and the pause doubles. Answers raise the rate: fast while it is far below the rate at which the
//! refusals began, slowly near it, and hardly beyond. So a limit that is not published costs a refusal for some forty answers. An
//! hour after the last refusal the ceiling is the rate again.
//!
//! Pure: moments are durations of a steady clock that the caller reads. The bucket is empty when a process starts: however often
//! it restarts, it never sends more than the limit allows.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use komoju_core::Slowed;
use komoju_core::slowed::FORGET_AFTER;

/// LOWEST controls how slow requests become at most, in requests a second.
const LOWEST: f64 = 0.05;

/// FIRST_PAUSE controls how long no request leaves after a refusal, and for how long after a refusal a request that was sent belongs
/// to the same event: most limits count over a second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// LONGEST_PAUSE controls how long no request leaves after many refusals in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// LEAST_START controls from which rate a client comes down that sent few requests before it was refused, in requests a second.
const LEAST_START: f64 = 4.0;

/// REMEMBERED controls how many answers the shown share of refusals is of.
const REMEMBERED: usize = 20;

/// ALMOST_ONE controls what counts as a whole request in the bucket: sums of fractions come out a little below it.
const ALMOST_ONE: f64 = 1.0 - 1e-6;

/// The configured limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// In requests a second.
    pub rate: f64,
    /// How many may leave at once after a rest.
    pub burst: u32,
}

/// When the next request may leave, and what the answers have taught of that.
#[derive(Debug)]
pub struct Pace {
    /// `None`: no limit is configured.
    ceiling: Option<Ceiling>,
    /// Present while the rate is below the ceiling.
    slow: Option<Slow>,
    /// How many requests could leave at `filled_at`.
    level: f64,
    filled_at: Duration,
    paused_until: Duration,
    /// Whether each of the last answers was a refusal.
    recent: VecDeque<bool>,
    sent: SentLately,
}

#[derive(Clone, Copy, Debug)]
struct Slow {
    rate: f64,
    /// The rate at the first refusal of the last row.
    refused_at: f64,
    in_a_row: u32,
    /// By the steady clock; `None` where an earlier process got the last refusal.
    last_refusal: Option<Duration>,
    forget_at: Duration,
    /// By the wall clock, for those who read it.
    since: Timestamp,
    last_refusal_at: Timestamp,
}

/// What a refusal meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rate was halved.
    Slowed,
    /// It belongs to a refusal that was taken into account before.
    Repeated,
}

impl Pace {
    /// The pace of a new process: the bucket is empty, and what an earlier process learned holds.
    pub fn new(ceiling: Option<Ceiling>, learned: Option<&Slowed>, now: Duration, wall: Timestamp) -> Self {
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
            // Their order is not kept: the refusals count as the oldest.
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

    /// How long the next request must wait; zero: it may leave now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        let pause = self.paused_until.saturating_sub(now);
        let Some(Ceiling { rate, .. }) = self.limit() else { return pause };
        let empty = if self.level >= ALMOST_ONE { 0.0 } else { (1.0 - self.level) / rate };
        pause.max(Duration::from_secs_f64(empty))
    }

    /// A request leaves.
    pub fn sent(&mut self, now: Duration) {
        self.fill(now);
        self.level = (self.level - 1.0).max(0.0);
        self.sent.count(now);
    }

    /// The request that left at `sent_at` was answered, and not refused for its speed. Returns whether the rate rose.
    pub fn answered(&mut self, sent_at: Duration, now: Duration) -> bool {
        self.remember(false);
        self.fill(now);
        let Some(slow) = &mut self.slow else { return false };
        // It left before the refusal: it says nothing of the rate since.
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

    /// The request that left at `sent_at` was refused because too many came. `wall` is the time to show.
    pub fn refused(&mut self, sent_at: Duration, now: Duration, wall: Timestamp) -> Refusal {
        self.remember(true);
        self.fill(now);
        let known = self.slow;
        if let Some(last) = known.and_then(|slow| slow.last_refusal)
            && sent_at < last + FIRST_PAUSE
        {
            return Refusal::Repeated;
        }
        // A limit far above what was sent had no part in it.
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
        let pause = FIRST_PAUSE.saturating_mul(1 << in_a_row.min(30)).min(LONGEST_PAUSE);
        self.paused_until = self.paused_until.max(now + pause);
        self.level = self.level.min(1.0);
        Refusal::Slowed
    }

    /// Whether requests leave without limit and pause.
    pub fn is_free(&self, now: Duration) -> bool {
        self.ceiling.is_none() && self.slow.is_none() && self.paused_until <= now
    }

    /// Whether a refusal keeps every request from leaving now.
    pub fn is_paused(&self, now: Duration) -> bool {
        self.paused_until > now
    }

    /// What is to be kept and shown; `None` while the ceiling is the rate.
    pub fn slowed(&mut self, now: Duration) -> Option<Slowed> {
        self.speed_up(now);
        let slow = self.slow?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Slowed {
            requests_per_second: slow.rate,
            refused_at: slow.refused_at,
            in_a_row: slow.in_a_row,
            since: slow.since,
            last_refusal: slow.last_refusal_at,
            refused: count(self.recent.iter().filter(|refused| **refused).count()),
            answers: count(self.recent.len()),
        })
    }

    /// The limit that holds now.
    fn limit(&self) -> Option<Ceiling> {
        self.slow.map(|slow| Ceiling { rate: slow.rate, burst: 1 }).or(self.ceiling)
    }

    /// Fills the bucket at the rate that held until now.
    fn fill(&mut self, now: Duration) {
        if let Some(Ceiling { rate, burst }) = self.limit() {
            let passed = now.saturating_sub(self.filled_at).as_secs_f64();
            self.level = (self.level + passed * rate).min(burst.into());
        }
        self.filled_at = now;
        self.speed_up(now);
    }

    /// Ends the slowness where the ceiling is reached, or where the last refusal is long ago.
    fn speed_up(&mut self, now: Duration) {
        let Some(slow) = self.slow else { return };
        let top = self.ceiling.map_or(2.0 * slow.refused_at, |ceiling| ceiling.rate);
        if slow.rate >= top || now >= slow.forget_at {
            self.slow = None;
        }
    }

    fn remember(&mut self, refused: bool) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(refused);
    }
}

fn forget_after(age: jiff::SignedDuration) -> Duration {
    (FORGET_AFTER - age).try_into().unwrap_or_default()
}

/// How many requests left in this second, or in the one before: the rate at which they leave.
#[derive(Debug, Default)]
struct SentLately {
    second: u64,
    count: u32,
    before: u32,
}

impl SentLately {
    fn count(&mut self, now: Duration) {
        self.turn(now);
        self.count = self.count.saturating_add(1);
    }

    fn rate(&mut self, now: Duration) -> f64 {
        self.turn(now);
        self.count.max(self.before).into()
    }

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
