//! The key of another account while intents are open.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::store::state::account;
use komoju_testkit::InProcess;
use serde_json::json;

/// Returns a harness with a create without an answer, and then the key of another account.
async fn harness_with_another_key(customers: u32) -> InProcess {
    let mut harness = InProcess::open(customers).await;
    harness.intend("lost", "create", None, Some(json!({"email": "lost@example.com"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    harness.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    harness.sandbox.world().add_account("sk_test_other", 9, 4);
    harness.key = "sk_test_other".to_owned();
    harness.restart();
    harness
}

/// Asserts that the create with an unknown outcome parks, and that the create that was never sent
/// is done.
async fn assert_made_once(harness: &mut InProcess) {
    harness.drain().await;
    assert_eq!(harness.states(), ["lost parked", "new done"]);
    assert!(
        harness.of("lost", "reason").contains("the key of another account"),
        "{}",
        harness.of("lost", "reason")
    );
    assert_eq!(harness.sandbox.world().creates(), 2);
}

#[tokio::test]
async fn create_with_unknown_outcome_parks_after_account_accept() {
    let mut harness = harness_with_another_key(5).await;
    assert!(harness.sweep().await.failure.is_some(), "the key reads another account");
    harness.store().write(|tx| account::accept(tx, "2026-06-01T00:00:00.000Z")).await.unwrap();
    assert_made_once(&mut harness).await;
}

#[tokio::test]
async fn create_with_unknown_outcome_parks_when_an_empty_mirror_takes_a_key() {
    let mut harness = harness_with_another_key(0).await;
    assert!(harness.sweep().await.failure.is_none());
    assert_made_once(&mut harness).await;
}
