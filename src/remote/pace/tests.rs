use super::*;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

const WALL: Timestamp = Timestamp::UNIX_EPOCH;

fn pace(rate: f64, burst: u32) -> Pace {
    Pace::new((rate > 0.0).then_some(Ceiling { rate, burst }), None, Duration::ZERO, WALL)
}

/// TICK controls the step of time in a simulation.
const TICK: Duration = Duration::from_millis(5);

/// A server that accepts `per_second` requests in any second, and refuses all for the time `ban`
/// after each refusal.
struct SimulatedServer {
    per_second: usize,
    ban: Duration,
    /// Whether refused requests count too.
    counts_all: bool,
    /// When the counted requests of the last second arrived.
    counted: Vec<Duration>,
    banned_until: Duration,
}

impl SimulatedServer {
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

/// The result of a simulated sweep.
#[derive(Debug, PartialEq)]
struct SweepResult {
    requests: u32,
    refused: u32,
    seconds: u64,
    /// The most tries that one page needed.
    tries: u32,
}

/// Reads `pages` pages with at most four requests in flight, each of which takes `latency_ms`. A
/// refused page is retried after 100 ms doubling to 5 s.
fn sweep(
    pace: &mut Pace,
    server: &mut SimulatedServer,
    pages: u32,
    latency_ms: u64,
    start: Duration,
) -> SweepResult {
    enum Slot {
        Rests { until: Duration, tries: u32 },
        Waits { sent: Duration, accepted: bool, tries: u32 },
        Ended,
    }
    let mut swept = SweepResult { requests: 0, refused: 0, seconds: 0, tries: 0 };
    let mut left = pages;
    let mut slots: Vec<Slot> = (0..4).map(|_| Slot::Rests { until: start, tries: 0 }).collect();
    left -= 4;
    let mut now = start;
    while slots.iter().any(|slot| !matches!(slot, Slot::Ended)) {
        for slot in &mut slots {
            match *slot {
                Slot::Waits { sent, accepted, tries } if sent + Duration::from_millis(latency_ms) <= now => {
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
        let mut server = SimulatedServer::with(2, 0, counts_all);
        sweep(&mut pace(rate, 4), &mut server, 200, latency, Duration::ZERO)
    };
    // 200 pages take 100 s at least.
    let expected = SweepResult { requests: 207, refused: 7, seconds: 124, tries: 2 };
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
fn client_waits_until_a_ban_that_each_refusal_extends_is_over() {
    let swept = |rate, latency, counts_all| {
        let mut server = SimulatedServer::with(2, 5, counts_all);
        sweep(&mut pace(rate, 4), &mut server, 200, latency, Duration::ZERO)
    };
    assert_eq!(swept(8.0, 100, false), SweepResult { requests: 228, refused: 28, seconds: 279, tries: 5 });
    for (rate, latency, counts_all) in
        [(8.0, 20, false), (8.0, 100, true), (100.0, 400, true), (0.0, 100, false)]
    {
        let swept = swept(rate, latency, counts_all);
        let case = format!("{rate}/s, {latency} ms, {counts_all}: {swept:?}");
        // The product tries a request at most ten times.
        assert!(swept.tries < 10 && swept.seconds < 400, "{case}");
    }
}

#[test]
fn later_process_starts_at_the_learned_rate() {
    let mut server = SimulatedServer::with(2, 0, false);
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
        assert_eq!(pace.refused(sent, now, WALL), RefusalEffect::Slowed);
        seen.push((pace.slowed(now).unwrap().requests_per_second, pace.wait(now).as_secs_f64()));
    }
    // If the rate is lower than one request in a pause, the request waits longer than the pause.
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
    assert_eq!(refused(&mut pace, 10.0, 10.5), RefusalEffect::Slowed);
    let rate = pace.slowed(at(10.5)).unwrap().requests_per_second;
    // The first request was in flight, and the second one was sent within a second.
    assert_eq!(refused(&mut pace, 10.4, 10.6), RefusalEffect::Repeated);
    assert_eq!(refused(&mut pace, 11.49, 11.7), RefusalEffect::Repeated);
    // The answer to a request in flight raises no rate and ends no series.
    assert!(!pace.answered(at(10.5), at(10.7)));
    assert_eq!(pace.slowed(at(11.7)).unwrap().requests_per_second, rate);
    assert_eq!(pace.slowed(at(11.7)).unwrap().in_a_row, 1);
    assert_eq!(refused(&mut pace, 11.5, 11.8), RefusalEffect::Slowed);
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
    assert_eq!(left(0.0, 10.2), 20, "the bucket was empty");
    assert_eq!(left(60.0, 60.1), 3, "the burst after idle time");
    assert_eq!(left(60.1, 65.1), 10);
    // There is no burst at a reduced rate.
    pace.refused(at(70.0), at(70.0), WALL);
    assert_eq!(pace.wait(at(100.0)), Duration::ZERO);
    pace.sent(at(100.0));
    assert_eq!(pace.wait(at(100.0)), at(0.5) * 2);
}
