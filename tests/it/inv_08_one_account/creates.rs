//! Another account's key while intents are open.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::store::state::account;
use komoju_testkit::InProcess;
use serde_json::json;

/// A create whose answer is lost, and then the key of another account.
async fn swapped(customers: u32) -> InProcess {
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

/// What may have been made in the one account is not made in the other; what was never sent is.
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
async fn a_create_that_may_have_been_made_in_one_account_is_not_made_in_the_accepted_one_by_itself() {
    let mut harness = swapped(5).await;
    assert!(harness.sweep().await.failure.is_some(), "the key is in doubt");
    harness.store().write(|tx| account::accept(tx, "2026-06-01T00:00:00.000Z")).await.unwrap();
    assert_made_once(&mut harness).await;
}

#[tokio::test]
async fn nor_in_the_one_that_an_empty_mirror_takes() {
    let mut harness = swapped(0).await;
    assert!(harness.sweep().await.failure.is_none());
    assert_made_once(&mut harness).await;
}
