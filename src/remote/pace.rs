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
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    const WALL: Timestamp = Timestamp::UNIX_EPOCH;

    fn pace(rate: f64, burst: u32) -> Pace {
        Pace::new((rate > 0.0).then_some(Ceiling { rate, burst }), None, Duration::ZERO, WALL)
    }

    /// How finely time passes in a simulation.
    const TICK: Duration = Duration::from_millis(5);

    /// A server that accepts so many requests in each second that slides, and bans for so long after each refusal.
    struct Server {
        per_second: usize,
        ban: Duration,
        /// Whether a refused request counts too.
        counts_all: bool,
        counted: Vec<Duration>,
        banned_until: Duration,
    }

    impl Server {
        fn with(per_second: usize, ban_s: u64, counts_all: bool) -> Self {
            let (ban, counted) = (Duration::from_secs(ban_s), Vec::new());
            Self { per_second, ban, counts_all, counted, banned_until: Duration::ZERO }
        }

        fn accepts(&mut self, now: Duration) -> bool {
            self.counted.retain(|sent| *sent + Duration::from_secs(1) > now);
            let accepts = now >= self.banned_until && self.counted.len() < self.per_second;
            if !accepts && !self.ban.is_zero() {
                self.banned_until = now + self.ban;
            }
            if accepts || self.counts_all {
                self.counted.push(now);
            }
            accepts
        }
    }

    #[derive(Debug, PartialEq)]
    struct Swept {
        requests: u32,
        refused: u32,
        seconds: u64,
        /// The most tries that one page took.
        tries: u32,
    }

    /// Reads so many pages with four requests under way at most, each of which takes so many milliseconds; a refused page is tried
    /// again after 100 ms doubling to 5 s.
    fn sweep(pace: &mut Pace, server: &mut Server, pages: u32, latency_ms: u64, start: Duration) -> Swept {
        enum Slot {
            Rests { until: Duration, tries: u32 },
            Waits { sent: Duration, accepted: bool, tries: u32 },
            Ended,
        }
        let mut swept = Swept { requests: 0, refused: 0, seconds: 0, tries: 0 };
        let mut left = pages;
        let mut slots: Vec<Slot> = (0..4).map(|_| Slot::Rests { until: start, tries: 0 }).collect();
        left -= 4;
        let mut now = start;
        while slots.iter().any(|slot| !matches!(slot, Slot::Ended)) {
            for slot in &mut slots {
                match *slot {
                    Slot::Waits { sent, accepted, tries }
                        if sent + Duration::from_millis(latency_ms) <= now =>
                    {
                        *slot = if !accepted {
                            swept.refused += 1;
                            pace.refused(sent, now, WALL);
                            let wait =
                                Duration::from_millis(100 << (tries - 1).min(6)).min(Duration::from_secs(5));
                            Slot::Rests { until: now + wait, tries }
                        } else {
                            pace.answered(sent, now);
                            swept.tries = swept.tries.max(tries);
                            match left.checked_sub(1) {
                                Some(rest) => {
                                    left = rest;
                                    Slot::Rests { until: now, tries: 0 }
                                }
                                None => Slot::Ended,
                            }
                        };
                    }
                    Slot::Rests { until, tries } if until <= now && pace.wait(now).is_zero() => {
                        pace.sent(now);
                        swept.requests += 1;
                        *slot = Slot::Waits { sent: now, accepted: server.accepts(now), tries: tries + 1 };
                    }
                    _ => {}
                }
            }
            now += TICK;
        }
        swept.seconds = (now - start).as_secs();
        swept
    }

    #[test]
    fn server_of_two_a_second_is_used_well_by_a_faster_client() {
        let swept = |rate, latency, counts_all| {
            let mut server = Server::with(2, 0, counts_all);
            sweep(&mut pace(rate, 4), &mut server, 200, latency, Duration::ZERO)
        };
        // 200 pages take 100 s at least.
        let expected = Swept { requests: 207, refused: 7, seconds: 124, tries: 2 };
        assert_eq!(swept(8.0, 100, false), expected);
        for (rate, latency, counts_all) in [
            (8.0, 20, false),
            (8.0, 400, false),
            (8.0, 100, true),
            (4.0, 100, false),
            (100.0, 100, false),
            (0.0, 20, false),
            (0.0, 100, true),
        ] {
            let swept = swept(rate, latency, counts_all);
            let case = format!("{rate}/s, {latency} ms, {counts_all}: {swept:?}");
            assert!(swept.refused * 10 <= swept.requests, "{case}");
            assert!(swept.seconds * 70 <= 100 * 100, "{case}");
            assert!(swept.tries <= 3, "{case}");
        }
    }

    #[test]
    fn ban_that_each_refusal_extends_is_waited_out() {
        let swept = |rate, latency, counts_all| {
            let mut server = Server::with(2, 5, counts_all);
            sweep(&mut pace(rate, 4), &mut server, 200, latency, Duration::ZERO)
        };
        assert_eq!(swept(8.0, 100, false), Swept { requests: 228, refused: 28, seconds: 279, tries: 5 });
        for (rate, latency, counts_all) in
            [(8.0, 20, false), (8.0, 100, true), (100.0, 400, true), (0.0, 100, false)]
        {
            let swept = swept(rate, latency, counts_all);
            let case = format!("{rate}/s, {latency} ms, {counts_all}: {swept:?}");
            // A request is tried ten times at most.
            assert!(swept.tries < 10 && swept.seconds < 400, "{case}");
        }
    }

    #[test]
    fn later_process_starts_at_the_learned_rate() {
        let mut server = Server::with(2, 0, false);
        let mut first = pace(8.0, 4);
        let taught = sweep(&mut first, &mut server, 100, 100, Duration::ZERO);
        let stopped = Duration::from_secs(taught.seconds);
        let learned = first.slowed(stopped).unwrap();
        let ceiling = Some(Ceiling { rate: 8.0, burst: 4 });
        let mut knows = Pace::new(ceiling, Some(&learned), stopped, WALL);
        let mut forgets = Pace::new(ceiling, None, stopped, WALL);
        let with = sweep(&mut knows, &mut server, 20, 100, stopped);
        server.counted.clear();
        let without = sweep(&mut forgets, &mut server, 20, 100, stopped);
        assert_eq!((with.refused, without.refused), (1, 3), "of 20 pages");
    }

    #[test]
    fn refusals_in_a_row_halve_the_rate_and_double_the_pause_within_bounds() {
        let mut pace = pace(8.0, 4);
        let (mut now, mut seen) = (at(100.0), Vec::new());
        for _ in 0..10 {
            now += pace.wait(now);
            pace.sent(now);
            let sent = now;
            now += at(0.1);
            assert_eq!(pace.refused(sent, now, WALL), Refusal::Slowed);
            seen.push((pace.slowed(now).unwrap().requests_per_second, pace.wait(now).as_secs_f64()));
        }
        // Where the rate is lower than one request a pause, the request waits for its turn.
        assert_eq!(
            seen,
            [
                (2.0, 1.0),
                (1.0, 2.0),
                (0.5, 4.0),
                (0.25, 8.0),
                (0.125, 16.0),
                (0.0625, 32.0),
                (0.05, 64.0),
                (0.05, 128.0),
                (0.05, 256.0),
                (0.05, 300.0)
            ]
        );
        assert_eq!(pace.slowed(now).unwrap().refused_at, 4.0, "the row began there");
    }

    #[test]
    fn requests_of_one_event_count_as_one_refusal() {
        let mut pace = pace(8.0, 4);
        let refused = |pace: &mut Pace, sent, now| pace.refused(at(sent), at(now), WALL);
        assert_eq!(refused(&mut pace, 10.0, 10.5), Refusal::Slowed);
        let rate = pace.slowed(at(10.5)).unwrap().requests_per_second;
        // One that was under way, and one that left within a second.
        assert_eq!(refused(&mut pace, 10.4, 10.6), Refusal::Repeated);
        assert_eq!(refused(&mut pace, 11.49, 11.7), Refusal::Repeated);
        // An answer to one that was under way raises nothing and ends no row.
        assert!(!pace.answered(at(10.5), at(10.7)));
        assert_eq!(pace.slowed(at(11.7)).unwrap().requests_per_second, rate);
        assert_eq!(pace.slowed(at(11.7)).unwrap().in_a_row, 1);
        assert_eq!(refused(&mut pace, 11.5, 11.8), Refusal::Slowed);
        assert_eq!(pace.slowed(at(11.8)).unwrap().in_a_row, 2);
        assert!(pace.answered(at(14.0), at(14.1)));
        assert_eq!(pace.slowed(at(14.1)).unwrap().in_a_row, 0);
    }

    #[test]
    fn answers_raise_the_rate_up_to_the_ceiling() {
        let mut pace = pace(4.0, 4);
        pace.refused(at(10.0), at(10.0), WALL);
        let mut rates = Vec::new();
        for n in 0..200 {
            let Some(slowed) = pace.slowed(at(20.0)) else { break };
            rates.push(slowed.requests_per_second);
            pace.answered(at(20.0), at(20.0 + f64::from(n)));
        }
        assert!(rates.is_sorted() && rates[0] == 2.0 && rates[1] == 2.1);
        assert_eq!(rates.len(), 42, "answers until the configured rate holds again");
        assert_eq!(pace.slowed(at(300.0)), None);

        let mut free = Pace::new(None, None, Duration::ZERO, WALL);
        free.refused(at(10.0), at(10.0), WALL);
        assert!(!free.is_free(at(12.0)));
        let answers = (1..).find(|_| {
            free.answered(at(12.0), at(12.0));
            free.is_free(at(12.0))
        });
        assert_eq!(answers, Some(542), "up to twice the rate that was refused");
    }

    #[test]
    fn rate_is_forgotten_an_hour_after_the_last_refusal() {
        let mut pace = pace(8.0, 4);
        pace.refused(at(10.0), at(10.0), WALL);
        assert!(pace.slowed(at(3609.9)).is_some());
        assert_eq!(pace.slowed(at(3610.0)), None);

        let wall: Timestamp = "2026-01-31T16:40:00Z".parse().unwrap();
        pace.refused(at(4000.0), at(4000.0), wall);
        let learned = pace.slowed(at(4000.0)).unwrap();
        let later = wall + jiff::SignedDuration::from_mins(50);
        let mut next = Pace::new(Some(Ceiling { rate: 8.0, burst: 4 }), Some(&learned), at(5.0), later);
        assert_eq!(next.slowed(at(604.9)), Some(learned));
        assert_eq!(next.slowed(at(605.0)), None);
    }

    #[test]
    fn ceiling_and_burst_hold_from_an_empty_bucket() {
        let mut pace = pace(2.0, 3);
        let mut left = |from: f64, until: f64| {
            let (mut now, mut left) = (at(from), 0);
            while now < at(until) {
                match pace.wait(now) {
                    Duration::ZERO => {
                        pace.sent(now);
                        left += 1;
                    }
                    wait => now += wait,
                }
            }
            left
        };
        assert_eq!(left(0.0, 10.2), 20, "nothing was in the bucket");
        assert_eq!(left(60.0, 60.1), 3, "the burst after a rest");
        assert_eq!(left(60.1, 65.1), 10);
        // While slowed there is none.
        pace.refused(at(70.0), at(70.0), WALL);
        assert_eq!(pace.wait(at(100.0)), Duration::ZERO);
        pace.sent(at(100.0));
        assert_eq!(pace.wait(at(100.0)), at(0.5) * 2);
    }
}
