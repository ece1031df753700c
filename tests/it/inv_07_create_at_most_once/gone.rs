//! A create whose customer was seen, and is gone again.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::InProcess;
use serde_json::json;

const BY_TAG: &str = "carries its id in intent, is gone already";

const BY_CONTENT: &str = "a customer that could be it, is gone already";

async fn is_made_once(tag: Option<&str>, hours: i64, is_noticed: bool, words: &str) {
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
    assert!(harness.of("c", "reason").contains(words), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn a_create_whose_customer_is_seen_and_gone_is_not_made_again_by_itself() {
    is_made_once(Some("intent"), 21, true, BY_TAG).await;
    is_made_once(Some("intent"), 1, true, BY_TAG).await;
    is_made_once(None, 21, true, BY_CONTENT).await;
}

#[tokio::test]
async fn nor_is_it_while_no_sweep_has_noticed_that_it_is_gone() {
    is_made_once(Some("intent"), 21, false, BY_TAG).await;
    is_made_once(None, 21, false, BY_CONTENT).await;
}

/// The daemon's own clock stands before the server's: the deletion is dated before the create.
#[tokio::test]
async fn nor_where_a_clock_that_was_set_back_dates_its_end_before_its_beginning() {
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
