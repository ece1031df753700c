//! Waits and the park timer under a wall clock that is wrong for a while.

use jiff::SignedDuration;
use komoju_sandbox::{FaultEffect, FaultedCall};
use komoju_testkit::InProcess;

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

#[tokio::test]
async fn wait_planned_by_a_fast_clock_ends_when_the_clock_is_corrected() {
    for ahead in [SignedDuration::from_hours(10), YEAR] {
        let mut harness = InProcess::open(1).await;
        harness.set_wall_by(ahead);
        let trouble = harness.waiting().await;
        harness.sandbox.world().remove_fault(trouble);
        harness.set_wall_by(-ahead);
        harness.restart();
        harness.drain().await;
        assert_eq!(harness.state("u"), "done", "{ahead}");
    }
}

#[tokio::test]
async fn wait_planned_by_a_correct_clock_is_kept() {
    let mut harness = InProcess::open(1).await;
    let trouble = harness.waiting().await;
    harness.sandbox.world().remove_fault(trouble);
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting", "the wait is not over");
    harness.advance(SignedDuration::from_secs(2));
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
}

#[tokio::test]
async fn park_timer_is_measured_by_the_boot_clock() {
    for wrong in [YEAR, -YEAR] {
        let mut harness = InProcess::open(1).await;
        harness.waiting().await;
        harness.advance(SignedDuration::from_hours(71));
        harness.set_wall_by(wrong);
        harness.restart();
        harness.drain().await;
        assert_eq!(harness.state("u"), "waiting", "{wrong}");
        harness.set_wall_by(-wrong);
        harness.advance(SignedDuration::from_mins(50));
        harness.drain().await;
        assert_eq!(harness.state("u"), "waiting", "{wrong}");
        harness.set_wall_by(wrong);
        harness.advance(SignedDuration::from_mins(15));
        harness.drain().await;
        assert_eq!(harness.state("u"), "parked", "{wrong}");
    }
}

#[tokio::test]
async fn park_timer_begun_under_a_wrong_clock_is_corrected_with_the_clock() {
    for wrong in [YEAR, -YEAR] {
        let mut harness = InProcess::open(1).await;
        harness.set_wall_by(wrong);
        harness.waiting().await;
        harness.set_wall_by(-wrong);
        harness.advance(SignedDuration::from_mins(20));
        harness.drain().await;
        assert_eq!(harness.state("u"), "waiting", "{wrong}");
        let from = harness.one("SELECT patience_from FROM outbox");
        assert_eq!(from, "2026-06-01T00:00:00.000Z", "{wrong}: the stored start is corrected");
    }
}

#[tokio::test]
async fn time_under_a_refused_key_does_not_count_for_the_park_timer() {
    let mut harness = InProcess::open(1).await;
    harness.waiting().await;
    let refusals = harness.on(FaultedCall::List, FaultEffect::status(401));
    harness.sweep().await;
    harness.advance(SignedDuration::from_hours(100));
    harness.sandbox.world().remove_fault(refusals);
    harness.sweep().await;
    harness.advance(SignedDuration::from_hours(71));
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting");
    harness.advance(SignedDuration::from_hours(1));
    harness.drain().await;
    assert_eq!(harness.state("u"), "parked");
}
