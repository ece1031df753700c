//! A customer that a create made, and somebody deleted before its answer was known.

use jiff::SignedDuration;
use komoju_core::{CustomerId, Origin};
use komoju_sandbox::{Call, Effect, Fault, Work};
use komoju_sync::store::Tx;
use komoju_sync::store::log::changes::{Cause, recording};
use serde_json::json;

use crate::desk::{Desk, START};

const BY_TAG: &str = "carries its id in intent, is gone already";
const BY_CONTENT: &str = "a customer that could be it, is gone already";

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

#[tokio::test]
async fn delete_of_an_id_that_never_existed_is_rejected() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    let wrong = [id.to_uppercase(), "nosuchcustomer".to_owned()];
    for (n, id) in wrong.iter().enumerate() {
        desk.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    let head = desk.head();
    let drained = desk.drain().await;
    assert_eq!(
        (drained.rejected, desk.states()),
        (2, vec!["d0 rejected".to_owned(), "d1 rejected".to_owned()])
    );
    let reason = desk.of("d1", "reason");
    assert!(reason.contains("HTTP 404 not_found") && reason.contains("the mirror never had"), "{reason}");
    assert_eq!(desk.detail("d1")["code"], "not_found");
    assert_eq!(desk.column("SELECT DISTINCT outcome || status FROM attempts"), ["rejected404"]);
    assert_eq!(desk.changes_after(head), Vec::<String>::new());
    desk.assert_true();
}

#[tokio::test]
async fn delete_of_an_unknown_id_after_a_lost_answer_is_done() {
    let mut desk = Desk::open(1).await;
    // The mirror does not know it: it came after the sweep.
    let new = desk.sandbox.world().create(json!({"email": "new@example.com"}));
    desk.intend("d", "delete", Some(&new), None);
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Delete).once());
    desk.drain().await;
    assert_eq!((desk.state("d"), desk.sandbox.world().deletes()), ("waiting".to_owned(), 1));
    desk.advance(SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!(desk.state("d"), "done", "{}", desk.of("d", "reason"));
}

#[tokio::test]
async fn delete_of_an_erased_customer_is_done() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.sandbox.world().delete(&id);
    assert!(desk.sweep().await.failure.is_none());
    let erased = CustomerId::new(id.as_str()).unwrap();
    let cause =
        Cause { observed_at: START.to_owned(), origin: Origin::Operator, pass_id: None, intent_id: None };
    let erase =
        move |tx: &Tx<'_>| recording(tx, cause, |recorder| recorder.erase(&erased).map(drop)).map(drop);
    desk.store().write(erase).await.unwrap();
    assert_eq!(desk.one("SELECT count(*) FROM mirror"), "1");
    desk.intend("d", "delete", Some(&id), None);
    desk.drain().await;
    assert_eq!(desk.state("d"), "done", "{}", desk.of("d", "reason"));
}
