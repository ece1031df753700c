//! A customer that a create made, and somebody deleted before its answer was known.

use jiff::SignedDuration;
use komoju_sync::sandbox::{Call, Effect, Fault, Work};
use serde_json::json;

use crate::desk::Desk;

const BY_TAG: &str = "carries its id in intent, is gone already";

async fn is_made_once(tag: Option<&str>, hours: i64, is_noticed: bool, words: &str) {
    let mut desk = Desk::open(3).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    assert!(desk.sweep().await.failure.is_none());
    let made = desk.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    desk.sandbox.world().delete(&made);
    if is_noticed {
        assert!(desk.sweep().await.failure.is_none());
    }
    assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), if is_noticed { "1" } else { "0" });
    desk.advance(SignedDuration::from_hours(hours));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("parked".to_owned(), 1), "{tag:?}");
    assert!(desk.of("c", "reason").contains(words), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn a_create_whose_customer_is_seen_and_gone_is_not_made_again_by_itself() {
    is_made_once(Some("intent"), 21, true, BY_TAG).await;
    is_made_once(Some("intent"), 1, true, BY_TAG).await;
    is_made_once(None, 21, true, "some of them gone already").await;
}

#[tokio::test]
async fn nor_is_it_while_no_sweep_has_noticed_that_it_is_gone() {
    is_made_once(Some("intent"), 21, false, BY_TAG).await;
    is_made_once(None, 21, false, "some of them gone already").await;
}

/// The daemon's own clock stands before the server's: the deletion is dated before the create.
#[tokio::test]
async fn nor_where_a_clock_that_was_set_back_dates_its_end_before_its_beginning() {
    let mut desk = Desk::open(3).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    assert!(desk.sweep().await.failure.is_none());
    let made = desk.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    desk.sandbox.world().delete(&made);
    desk.clock.set_wall("2026-05-01T00:00:00Z".parse().unwrap());
    assert!(desk.sweep().await.failure.is_none());
    assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), "1");
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("parked".to_owned(), 1));
}
