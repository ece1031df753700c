//! Updates and deletes whose outcome is unknown.

use jiff::SignedDuration;
use komoju_core::{CustomerId, Origin};
use komoju_sandbox::readings::Source;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Readings};
use komoju_sync::store::Tx;
use komoju_sync::store::log::changes::{Cause, recording};
use komoju_testkit::{InProcess, START};
use serde_json::json;

use crate::inv_07_create_at_most_once::{lost, minutes};

#[tokio::test]
async fn a_delete_that_is_repeated_says_no_more_than_is_known() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("d", "delete", Some(&id), None);
    harness.inject(lost(FaultedCall::Delete));
    harness.drain().await;
    harness.advance(minutes(1));
    harness.drain().await;
    assert_eq!(harness.state("d"), "done");
    let reason = harness.of("d", "reason");
    assert!(reason.contains("an attempt whose answer was lost deleted it, or somebody else did"), "{reason}");
    harness.assert_true();
}

#[tokio::test]
async fn an_update_with_a_token_is_read_back_before_anything_is_repeated() {
    let token = |token: &str| json!({"email": "b@example.com", "payment_details": token});
    for (work, patches) in [(FaultedWork::Done, 1), (FaultedWork::Skipped, 2)] {
        let mut harness = InProcess::open(1).await;
        let id = harness.some_id();
        harness.intend("u", "update", Some(&id), Some(token("tok_a")));
        harness.inject(Fault::new(FaultEffect::Reset { work }).call(FaultedCall::Update).once());
        harness.drain().await;
        harness.restart();
        harness.advance(minutes(1));
        harness.drain().await;
        assert_eq!(harness.state("u"), "done", "{work:?} {}", harness.of("u", "reason"));
        let calls = harness.calls();
        assert_eq!(calls.iter().filter(|call| call.starts_with("PATCH")).count(), patches, "{calls:?}");
        assert_eq!(harness.sandbox.world().updates(), 1);
    }
    // Nothing but the token was asked for, and the API does not show cards: nobody can tell.
    let hidden = Readings { list_source: Source::Hidden, show_source: Source::Hidden, ..Readings::default() };
    let mut harness = InProcess::reading(1, hidden).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_b"})));
    harness.inject(lost(FaultedCall::Update));
    harness.drain().await;
    harness.advance(minutes(1));
    harness.drain().await;
    assert_eq!((harness.state("u"), harness.sandbox.world().updates()), ("parked".to_owned(), 1));
    assert!(
        harness.of("u", "reason").contains("payment token can be used once"),
        "{}",
        harness.of("u", "reason")
    );
    // As it is it would be looked at once more; with another token it is a new update.
    let body = komoju_core::intent::Body::new(json!({"payment_details": "tok_c"})).unwrap();
    harness
        .store()
        .write(move |tx| komoju_sync::store::outbox::operator::retry(tx, "u", Some(&body)))
        .await
        .unwrap();
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
}

#[tokio::test]
async fn an_update_that_took_effect_unseen_is_looked_at_until_it_is_seen() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    harness.inject(
        Fault::new(FaultEffect::Body { body: komoju_sandbox::Payload::Empty })
            .call(FaultedCall::Update)
            .once(),
    );
    harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Show).once());
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting");
    harness.advance(minutes(1));
    let head = harness.head();
    harness.drain().await;
    assert_eq!(
        (harness.state("u"), harness.changes_after(head)),
        ("done".to_owned(), vec!["updated intent u".to_owned()])
    );
}

#[tokio::test]
async fn delete_of_an_id_that_never_existed_is_rejected() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    let wrong = [id.to_uppercase(), "nosuchcustomer".to_owned()];
    for (n, id) in wrong.iter().enumerate() {
        harness.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    let head = harness.head();
    let drained = harness.drain().await;
    assert_eq!(
        (drained.rejected, harness.states()),
        (2, vec!["d0 rejected".to_owned(), "d1 rejected".to_owned()])
    );
    let reason = harness.of("d1", "reason");
    assert!(reason.contains("HTTP 404 not_found") && reason.contains("the mirror never had"), "{reason}");
    assert_eq!(harness.detail("d1")["code"], "not_found");
    assert_eq!(harness.column("SELECT DISTINCT outcome || status FROM attempts"), ["rejected404"]);
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    harness.assert_true();
}

#[tokio::test]
async fn delete_of_an_unknown_id_after_a_lost_answer_is_done() {
    let mut harness = InProcess::open(1).await;
    // The mirror does not know it: it came after the sweep.
    let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    harness.intend("d", "delete", Some(&new), None);
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Delete).once());
    harness.drain().await;
    assert_eq!((harness.state("d"), harness.sandbox.world().deletes()), ("waiting".to_owned(), 1));
    harness.advance(SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!(harness.state("d"), "done", "{}", harness.of("d", "reason"));
}

#[tokio::test]
async fn delete_of_an_erased_customer_is_done() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.sandbox.world().delete(&id);
    assert!(harness.sweep().await.failure.is_none());
    let erased = CustomerId::new(id.as_str()).unwrap();
    let cause =
        Cause { observed_at: START.to_owned(), origin: Origin::Operator, pass_id: None, intent_id: None };
    let erase =
        move |tx: &Tx<'_>| recording(tx, cause, |recorder| recorder.erase(&erased).map(drop)).map(drop);
    harness.store().write(erase).await.unwrap();
    assert_eq!(harness.one("SELECT count(*) FROM mirror"), "1");
    harness.intend("d", "delete", Some(&id), None);
    harness.drain().await;
    assert_eq!(harness.state("d"), "done", "{}", harness.of("d", "reason"));
}
