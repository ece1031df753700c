//! A create with an unknown outcome. Its customer was seen and then deleted.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::InProcess;
use serde_json::json;

const BY_TAG: &str = "carries its id in intent, no longer exists";

const BY_CONTENT: &str = "a customer that could be it, no longer exists";

/// Loses the answer of a create, deletes its customer, and asserts that the create parks for the
/// expected reason.
async fn check_parked(tag: Option<&str>, hours: i64, is_noticed: bool, expected: &str) {
    let mut harness = InProcess::open(3).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    assert!(harness.sweep().await.failure.is_none());
    let made = harness.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    harness.sandbox.world().delete(&made);
    if is_noticed {
        assert!(harness.sweep().await.failure.is_none());
    }
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), if is_noticed { "1" } else { "0" });
    harness.advance(SignedDuration::from_hours(hours));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("parked".to_owned(), 1), "{tag:?}");
    assert!(harness.of("c", "reason").contains(expected), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn create_with_a_seen_and_deleted_customer_parks() {
    check_parked(Some("intent"), 21, true, BY_TAG).await;
    check_parked(Some("intent"), 1, true, BY_TAG).await;
    check_parked(None, 21, true, BY_CONTENT).await;
}

#[tokio::test]
async fn create_with_a_customer_deleted_unnoticed_parks() {
    check_parked(Some("intent"), 21, false, BY_TAG).await;
    check_parked(None, 21, false, BY_CONTENT).await;
}

/// The daemon's clock is slow, so the deletion has an earlier time than the create.
#[tokio::test]
async fn create_with_a_customer_deleted_under_a_slow_clock_parks() {
    let mut harness = InProcess::open(3).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    assert!(harness.sweep().await.failure.is_none());
    let made = harness.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    harness.sandbox.world().delete(&made);
    harness.clock.set_wall("2026-05-01T00:00:00Z".parse().unwrap());
    assert!(harness.sweep().await.failure.is_none());
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "1");
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("parked".to_owned(), 1));
}
