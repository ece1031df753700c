//! How long a key is good, by every clock, and a process that ends in between.

use std::time::Duration;

use jiff::SignedDuration;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::readings::ServerErrors;
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, FaultedWork, Readings};
use komoju_sync::clock::Clock as _;
use komoju_testkit::{InProcess, START};
use serde_json::json;

use super::{Cut, Ending, drain_until_over, end_at, lost, minutes};

/// Loses the first answer, waits so long, and goes on with this tag; returns the creates.
async fn create_after(
    wait: SignedDuration,
    tag: Option<&str>,
    effect: FaultEffect,
    readings: Readings,
) -> (InProcess, u64) {
    let mut harness = InProcess::reading(3, readings).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com", "metadata": {"n": "1"}})));
    let fault = harness.inject(Fault::new(effect).call(FaultedCall::Create).once());
    harness.drain().await;
    assert_eq!((harness.sandbox.world().fired(fault), harness.state("c")), (1, "waiting".to_owned()));
    harness.restart();
    harness.advance(wait);
    harness.drain_on(75, minutes(20)).await;
    let creates = harness.sandbox.world().creates();
    (harness, creates)
}

#[tokio::test]
async fn at_every_age_of_the_key_one_create_is_made() {
    let effects = [
        FaultEffect::Reset { work: FaultedWork::Done },
        FaultEffect::Reset { work: FaultedWork::Skipped },
        FaultEffect::Status {
            status: 500,
            body: Default::default(),
            retry_after: None,
            headers: Default::default(),
            work: FaultedWork::Done,
        },
        FaultEffect::status(500),
    ];
    for stored in [ServerErrors::Stored, ServerErrors::Forgotten] {
        for age in [1, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1, 50 * 60] {
            for tag in [None, Some("intent")] {
                for effect in &effects {
                    let readings = Readings { server_errors: stored, ..Readings::default() };
                    let (harness, creates) = create_after(minutes(age), tag, effect.clone(), readings).await;
                    let case =
                        format!("{stored:?} {age} {tag:?} {effect:?}: {:?}", harness.of("c", "reason"));
                    assert_eq!((harness.state("c").as_str(), creates), ("done", 1), "{case}");
                    assert_eq!(harness.sandbox.world().len(), 4, "{case}");
                    let made = harness.of("c", "result_customer_id");
                    assert_eq!(
                        harness.sandbox.world().get(&made).unwrap()["email"],
                        "a@example.com",
                        "{case}"
                    );
                    harness.assert_true();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_gives_no_key_more_time() {
    // A day passed. The wall clock says: an hour before the first attempt; half a minute after it.
    for wall in ["2026-05-31T23:00:00Z", "2026-06-01T00:00:30Z"] {
        let mut harness = InProcess::open(1).await;
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        harness.inject(lost(FaultedCall::Create));
        harness.drain().await;
        harness.restart();
        // Another boot: the steady clock says nothing.
        harness.sql("UPDATE outbox SET first_boot = 'another'; UPDATE intents SET next_attempt_at = NULL");
        harness.sandbox.world().advance(std::time::Duration::from_secs(25 * 3600));
        harness.clock.set_wall(wall.parse().unwrap());
        harness.drain().await;
        let case = format!("{wall}: {}", harness.of("c", "reason"));
        assert_eq!((harness.state("c").as_str(), harness.sandbox.world().creates()), ("done", 1), "{case}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_back_a_year_keeps_nothing_waiting_so_long() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Update).once());
    harness.drain().await;
    harness.clock.set_wall("2025-06-01T00:00:00Z".parse().unwrap());
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
}

#[tokio::test]
async fn a_window_that_keeps_moving_is_looked_at_again_about_every_minute() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Create).once());
    harness.drain().await;
    let drift = Drift { insert: 1, ..Drift::default() };
    let moving = harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List));
    for attempts in 2..=12 {
        harness.advance(minutes(2));
        harness.drain().await;
        assert_eq!(harness.one("SELECT max(n) FROM attempts"), attempts.to_string());
        let reason = harness.of("c", "reason");
        assert!(reason.contains("the list keeps moving"), "{reason}");
    }
    assert!(harness.sandbox.world().fired(moving) > 0);
    let next: jiff::Timestamp = harness.of("c", "next_attempt_at").parse().unwrap();
    let wait = next.duration_since(harness.clock.now());
    assert!(wait > SignedDuration::from_secs(40) && wait < SignedDuration::from_secs(80), "{wait:?}");
    // One that takes long to read is left alone for longer: others want to ask something, too.
    harness.advance(minutes(2));
    let slow = Ending { list_takes: Duration::from_secs(30), ..Ending::of(&harness, None) };
    drain_until_over(&mut harness, slow).await;
    let next: jiff::Timestamp = harness.of("c", "next_attempt_at").parse().unwrap();
    let wait = next.duration_since(harness.clock.now());
    assert!(wait >= SignedDuration::from_secs(4 * 30) && wait < SignedDuration::from_mins(30), "{wait:?}");
    harness.sandbox.world().remove_fault(moving);
    harness.advance(wait);
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn a_process_that_ends_between_any_two_commits_of_a_create_makes_one() {
    let cuts = [Cut::BeforePush(0), Cut::AfterPush(0), Cut::BeforeList(0), Cut::BeforeList(1)];
    for age in [0, 19 * 60 + 59, 20 * 60 + 1, 24 * 60 + 1] {
        for first in cuts {
            for second in cuts {
                let mut harness = InProcess::open(1).await;
                harness.intend(
                    "c",
                    "create",
                    None,
                    Some(json!({"email": "a@example.com", "payment_details": "tok_1"})),
                );
                end_at(&mut harness, first).await;
                let case = format!("{age} {first:?} {second:?}");
                assert_eq!(harness.one("SELECT count(*) FROM attempts"), "1", "{case}");
                harness.advance(minutes(age));
                end_at(&mut harness, second).await;
                harness.advance(minutes(age));
                harness.drain_on(75, minutes(20)).await;
                assert_eq!(
                    (harness.state("c").as_str(), harness.sandbox.world().creates()),
                    ("done", 1),
                    "{case}: {}",
                    harness.of("c", "reason")
                );
                harness.assert_true();
            }
        }
    }
}

#[tokio::test]
async fn a_create_that_was_cut_off_at_a_server_that_tells_no_time_is_not_made_twice() {
    // Sent or not; looked for while its key is good, or when it may be forgotten.
    for (cut, tag, after, expected) in [
        (Cut::BeforePush(0), None, minutes(5), ("done", 1)),
        (Cut::AfterPush(0), None, minutes(5), ("done", 1)),
        (Cut::AfterPush(0), Some("intent"), minutes(5), ("done", 1)),
        (Cut::BeforePush(0), None, minutes(25 * 60), ("parked", 0)),
        (Cut::AfterPush(0), None, minutes(25 * 60), ("parked", 1)),
    ] {
        let mut harness = InProcess::open(1).await;
        harness.settings.reconcile_tag = tag.map(str::to_owned);
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        let silent = Ending { tells_time: false, ..Ending::of(&harness, Some(cut)) };
        drain_until_over(&mut harness, silent).await;
        harness.advance(after);
        // This one tells the time again: it is not that of the first attempt.
        harness.drain().await;
        harness.advance(minutes(25 * 60));
        harness.drain().await;
        let ended = (harness.state("c"), harness.sandbox.world().creates());
        assert_eq!(
            (ended.0.as_str(), ended.1),
            expected,
            "{cut:?} {tag:?} {after}: {}",
            harness.of("c", "reason")
        );
        if expected.0 == "parked" {
            let reason = harness.of("c", "reason");
            assert!(reason.contains("by KOMOJU's clock, is not known: look for the customer"), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_at_a_server_that_tells_no_time_is_dated_by_no_later_attempt() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(lost(FaultedCall::Create));
    let silent = Ending { tells_time: false, ..Ending::of(&harness, None) };
    drain_until_over(&mut harness, silent).await;
    // The answer is lost again, now that the time is told.
    harness.inject(lost(FaultedCall::Create));
    harness.advance(minutes(60));
    harness.drain().await;
    harness.advance(minutes(25 * 60));
    harness.drain().await;
    assert_eq!((harness.state("c").as_str(), harness.sandbox.world().creates()), ("parked", 1));
}

#[tokio::test]
async fn what_was_cut_off_is_due_at_once_with_its_key_and_says_so() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    end_at(&mut harness, Cut::BeforePush(0)).await;
    assert_eq!(harness.state("c"), "sending");
    let key = harness.one("SELECT key FROM outbox");
    harness.drain().await;
    assert_eq!(harness.state("c"), "done");
    assert_eq!(harness.one("SELECT key FROM outbox"), key);
    assert_eq!(harness.column("SELECT outcome FROM attempts ORDER BY n"), ["waiting", "done"]);
    assert_eq!(harness.column("SELECT error FROM attempts ORDER BY n")[0], "the process ended within it");
}

#[tokio::test]
async fn a_clock_that_was_ahead_at_the_first_attempt_hides_nobody() {
    for (ahead, later, tag, lag_s) in [
        (60, 0, None, 0),
        (60, 0, Some("intent"), 0),
        (25 * 60, 0, None, 0),
        (6 * 60, 27 * 60, None, 0),
        (25 * 60, 0, None, 30),
        (60, 0, Some("intent"), 30),
    ] {
        let mut harness = InProcess::open(1).await;
        harness.settings.reconcile_tag = tag.map(str::to_owned);
        if lag_s > 0 {
            harness.settings.consistency = Consistency::seconds(60);
            harness.sandbox.world().readings_mut().list_lag_s = lag_s;
            harness.advance(minutes(10));
        }
        harness.clock.set_wall(START.parse::<jiff::Timestamp>().unwrap() + minutes(ahead));
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        harness.inject(lost(FaultedCall::Create));
        harness.drain().await;
        harness.restart();
        harness.clock.set_wall(START.parse().unwrap());
        harness.advance(minutes(later));
        // Where reads lag, the wait is `consistency_s`, and not until the clock reaches the time that it told at first.
        harness.drain_on(if lag_s > 0 { 4 } else { 80 }, minutes(30)).await;
        let case = format!("{ahead} {later} {tag:?} {lag_s}: {}", harness.of("c", "reason"));
        assert_eq!((harness.state("c").as_str(), harness.sandbox.world().creates()), ("done", 1), "{case}");
    }
}
