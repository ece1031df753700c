//! 429, with every way to say how long to wait.
//!
//! Promises: invariant 12

use std::time::Duration;

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Payload};
use komoju_sync::clock::Clock as _;
use komoju_testkit::eventually;

use crate::PROGRAM;
use crate::case::Case;
use crate::matrix::Ends::{Complete, Fails, Outlasts};
use crate::matrix::Outbox::{Done, Retried};
use crate::matrix::faults;
use crate::statuses::status;

/// The longest wait that is granted.
const MOST: Duration = Duration::from_secs(15 * 60);

/// Whether a wait was written down for `status`.
const WRITTEN_DOWN: &str = "SELECT throttled_until IS NOT NULL FROM meta";

fn throttled(retry_after: Option<&str>) -> FaultEffect {
    status(429, Payload::Code("too_many_requests".into()), retry_after)
}

faults![
    (
        throttled_without_a_word,
        "429 without Retry-After",
        "everything is answered 429, and for how long is not said",
        Fails("GET /customers page 1: the API asks to wait: HTTP 429"),
        Retried,
        |case| case.everything(throttled(None)),
    ),
    (
        throttled_for_seconds,
        "429 with seconds",
        "a list is answered 429 with `Retry-After: 3`",
        Outlasts("the API asks to wait until"),
        Done,
        |case| {
            case.inject(Fault::new(throttled(Some("3"))).call(FaultedCall::List).once());
            let sync = case.harness.spawn(&["sync"]);
            eventually("status tells", || {
                case.harness.run(&["status"]).stdout.contains("waiting   the API asked us to wait until")
            });
            let asked = case.harness.sandbox.world().requests().len();
            assert!(asked <= 4, "{asked}: nothing is sent meanwhile but what was on its way");
            let output = sync.wait_with_output().unwrap();
            case.conclude(output.status.code().unwrap(), &String::from_utf8(output.stderr).unwrap());
        },
    ),
    (
        throttled_for_hours_of_seconds,
        "429 with seconds",
        "a list is answered 429 with `Retry-After: 99999999999999999999`",
        Complete("57 live"),
        Done,
        |case| {
            let took = case.throttled_once("99999999999999999999");
            assert_eq!(case.harness.one(WRITTEN_DOWN), "1");
            assert!((MOST..MOST + Duration::from_secs(10)).contains(&took), "{took:?}");
        },
    ),
    (
        throttled_for_no_seconds,
        "429 with seconds",
        "a list is answered 429 with `Retry-After: 0`",
        Complete("57 live"),
        Done,
        |case| {
            let took = case.throttled_once("0");
            assert_eq!(case.harness.one(WRITTEN_DOWN), "0");
            assert!(took < Duration::from_secs(10), "{took:?}");
        },
    ),
    (
        throttled_for_a_number_with_a_unit,
        "429 with seconds",
        "a list is answered 429 with `Retry-After: 1 min`",
        Complete("57 live"),
        Done,
        |case| {
            let took = case.throttled_once("1 min");
            assert_eq!(case.harness.one(WRITTEN_DOWN), "1");
            assert!((Duration::from_secs(58)..Duration::from_secs(75)).contains(&took), "{took:?}");
        },
    ),
    (
        throttled_until_a_date,
        "429 with a date",
        "a list is answered 429 with a date that is a minute away by the server's clock",
        Complete("57 live"),
        Done,
        |case| {
            let until = case.harness.sandbox.world().now() + SignedDuration::from_secs(60);
            let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let took = case.throttled_once(&date);
            assert_eq!(case.harness.one(WRITTEN_DOWN), "1");
            assert!((Duration::from_secs(58)..Duration::from_secs(70)).contains(&took), "{took:?}");
        },
    ),
    (
        throttled_until_yesterday,
        "429 with a past date",
        "a list is answered 429 with a date of 2001",
        Complete("57 live"),
        Done,
        |case| {
            let took = case.throttled_once("Mon, 01 Jan 2001 00:00:00 GMT");
            assert_eq!(case.harness.one(WRITTEN_DOWN), "0");
            assert!(took < Duration::from_secs(10), "{took:?}");
        },
    ),
    (
        throttled_until_the_year_9999,
        "429 with the year 9999",
        "a list is answered 429 with a date of 9999",
        Complete("57 live"),
        Done,
        |case| {
            let took = case.throttled_once("Fri, 31 Dec 9999 23:59:59 GMT");
            assert_eq!(case.harness.one(WRITTEN_DOWN), "1");
            assert!((MOST..MOST + Duration::from_secs(10)).contains(&took), "{took:?}");
        },
    ),
    (
        a_push_that_is_throttled,
        "429 with seconds",
        "a create is answered 429 with `Retry-After: 120`",
        Complete("POST /customers: the API asks to wait: HTTP 429"),
        Retried,
        |case| {
            for push in [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete] {
                case.inject(Fault::new(throttled(Some("120"))).call(push).once());
            }
            case.endure();
        },
    ),
];

impl Case {
    /// One list is answered so; returns how long the pass took by its own clock.
    fn throttled_once(&mut self, retry_after: &str) -> Duration {
        self.inject(Fault::new(throttled(Some(retry_after))).call(FaultedCall::List).once());
        let start = self.clock.elapsed();
        self.endure();
        let bounded = "SELECT coalesce(throttled_until, '') FROM meta";
        let most = komoju_core::time::written(self.clock.now() + SignedDuration::from_mins(15));
        assert!(self.harness.one(bounded) <= most);
        // The harness itself lets a minute pass.
        self.clock.elapsed() - start - Duration::from_secs(60)
    }
}

#[test]
fn a_pause_that_a_stopped_process_was_asked_for_holds_for_the_next() {
    let harness = komoju_testkit::Installation::with(PROGRAM, 5);
    harness.inject(Fault::new(throttled(Some("2"))).call(FaultedCall::List).once());
    let mut first = harness.spawn(&["sync"]);
    eventually("it is written down", || {
        harness.run(&["status"]).stdout.contains("the API asked us to wait until")
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let clock = komoju_sync::clock::SystemClock::new();
    let mut second = harness.spawn(&["sync"]);
    harness.until(|world| world.request_count() == 2);
    assert!(clock.elapsed() > Duration::from_millis(500), "it did not wait");
    assert!(second.wait().unwrap().success());
}

#[test]
fn learned_rate_is_shown_and_holds_for_the_next_process() {
    let harness = komoju_testkit::Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    assert!(!harness.run(&["status"]).stdout.contains("slowed"));
    assert_eq!(harness.one("SELECT slowed IS NULL FROM meta"), "1");

    // A process that is killed has stored it: after the refusal, not only at the end of its pass.
    harness.inject(Fault::new(throttled(Some("600"))).call(FaultedCall::List).once());
    let mut first = harness.spawn(&["sync"]);
    eventually("it is stored", || harness.one("SELECT slowed IS NOT NULL FROM meta") == "1");
    first.kill().unwrap();
    first.wait().unwrap();
    let status = harness.run(&["status"]).stdout;
    let shown = status.lines().find(|line| line.starts_with("rate")).unwrap();
    assert!(shown.starts_with("rate      slowed to 2.00 requests/s since 20"), "{shown}");
    assert!(shown.ends_with(": 1 of the last 1 was refused"), "{shown}");
    let status: serde_json::Value = serde_json::from_str(&harness.run(&["status", "--json"]).stdout).unwrap();
    let slowed = &status["slowed"];
    assert_eq!(
        (slowed["requests_per_second"].as_f64(), slowed["refused_at"].as_f64()),
        (Some(2.0), Some(4.0))
    );

    // The next process does not wait for what the killed one was asked for, so that its rate is seen.
    let own = komoju_testkit::own(&harness.path("komoju.db"));
    own.execute_batch("UPDATE meta SET throttled_until = NULL").unwrap();
    drop(own);
    let (clock, before) = (komoju_sync::clock::SystemClock::new(), harness.sandbox.world().requests().len());
    harness.expect(0, &["sync"]);
    let requests = harness.sandbox.world().requests().len() - before;
    // At up to 4 requests a second, from an empty bucket.
    let least = Duration::from_secs_f64(requests as f64 / 4.0);
    assert!(clock.elapsed() >= least, "{requests} requests in {:?}", clock.elapsed());
}
