//! Another account's key while intents are open.

use komoju_sandbox::{Call, Effect, Fault, Work};
use komoju_sync::store::state::account;
use serde_json::json;

use crate::desk::Desk;

/// A create whose answer is lost, and then the key of another account.
async fn swapped(customers: u32) -> Desk {
    let mut desk = Desk::open(customers).await;
    desk.intend("lost", "create", None, Some(json!({"email": "lost@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    desk.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    desk.sandbox.world().add_account("sk_test_other", 9, 4);
    desk.key = "sk_test_other".to_owned();
    desk.restart();
    desk
}

/// What may have been made in the one account is not made in the other; what was never sent is.
async fn assert_made_once(desk: &mut Desk) {
    desk.drain().await;
    assert_eq!(desk.states(), ["lost parked", "new done"]);
    assert!(
        desk.of("lost", "reason").contains("the key of another account"),
        "{}",
        desk.of("lost", "reason")
    );
    assert_eq!(desk.sandbox.world().creates(), 2);
}

#[tokio::test]
async fn a_create_that_may_have_been_made_in_one_account_is_not_made_in_the_accepted_one_by_itself() {
    let mut desk = swapped(5).await;
    assert!(desk.sweep().await.failure.is_some(), "the key is in doubt");
    desk.store().write(|tx| account::accept(tx, "2026-06-01T00:00:00.000Z")).await.unwrap();
    assert_made_once(&mut desk).await;
}

#[tokio::test]
async fn nor_in_the_one_that_an_empty_mirror_takes() {
    let mut desk = swapped(0).await;
    assert!(desk.sweep().await.failure.is_none());
    assert_made_once(&mut desk).await;
}
