//! A JSON 403 that one request gets: whether it is about the key, one customer or one write.

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect, Fault, Payload, Refusal, Work};
use serde_json::json;

use crate::desk::Desk;

fn html(status: u16) -> Effect {
    let headers = Default::default();
    Effect::Status { status, body: Payload::Html, retry_after: None, headers, work: Work::Skipped }
}

/// A desk with a create, an update and a delete that wait to be sent.
async fn desk_with_three_writes() -> Desk {
    let desk = Desk::open(3).await;
    let ids = desk.sandbox.world().ids();
    desk.intend("c", "create", None, Some(json!({"email": "new@example.com"})));
    desk.intend("u", "update", Some(&ids[0]), Some(json!({"email": "x@example.com"})));
    desk.intend("d", "delete", Some(&ids[1]), None);
    desk
}

#[tokio::test]
async fn forbidden_write_is_rejected_and_others_are_sent() {
    for (call, rejected) in [(Call::Create, "c"), (Call::Update, "u"), (Call::Delete, "d")] {
        let mut desk = desk_with_three_writes().await;
        desk.settings.max_concurrent_requests = 1;
        let fault = desk.on(call, Effect::status(403));
        let drained = desk.drain().await;
        assert_eq!((drained.key_refused, drained.rejected, drained.done), (false, 1, 2), "{call:?}");
        assert_eq!((desk.sandbox.world().fired(fault), desk.state(rejected)), (1, "rejected".to_owned()));
        let detail = desk.detail(rejected);
        assert_eq!((detail["status"].as_u64(), detail["code"].as_str()), (Some(403), Some("forbidden")));
        assert_eq!(desk.one("SELECT refused_since FROM meta"), "null", "{call:?}");
        let lists = desk.calls().iter().filter(|call| *call == "GET customers").count();
        assert_eq!(lists, 2, "a create asks for the time, and the 403 for the key: {:?}", desk.calls());
        assert!(desk.sweep().await.failure.is_none());
        assert!(desk.signals.refused.notified().now_or_never().is_none(), "{call:?}");
        desk.assert_true();
    }
}

#[tokio::test]
async fn forbidden_write_with_a_forbidden_list_refuses_the_key() {
    let mut desk = desk_with_three_writes().await;
    desk.settings.max_concurrent_requests = 1;
    desk.sandbox.world().refuse_key(Some(Refusal::Json403));
    // The first request of a create asks for the time; an update is a write at once.
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    let drained = desk.drain().await;
    assert!(drained.key_refused);
    assert_eq!(desk.calls().len(), 2, "the write and one list: {:?}", desk.calls());
    assert_eq!((desk.state("u"), desk.state("d")), ("waiting".to_owned(), "queued".to_owned()));
    assert_eq!(desk.of("u", "next_attempt_at"), "null", "it is due when a key is accepted");
    assert_ne!(desk.one("SELECT refused_since FROM meta"), "null");
    desk.signals.refused.notified().await;
    desk.advance(SignedDuration::from_secs(1));
    assert_eq!(desk.drain().await.attempts, 0, "after a refused key the drain is skipped");
    desk.sandbox.world().refuse_key(None);
    assert!(desk.sweep().await.failure.is_none());
    desk.drain().await;
    assert_eq!((desk.state("u"), desk.state("d")), ("done".to_owned(), "done".to_owned()));
}

#[tokio::test]
async fn forbidden_write_whose_list_is_not_answered_waits() {
    for list in [Effect::status(503), html(403), html(401), Effect::Reset { work: Work::Skipped }] {
        let mut desk = Desk::open(2).await;
        let id = desk.some_id();
        desk.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
        desk.on(Call::Update, Effect::status(403));
        let unanswered = desk.on(Call::List, list.clone());
        let drained = desk.drain().await;
        assert_eq!((drained.key_refused, drained.waiting), (false, 1), "{list:?}");
        assert_eq!((desk.sandbox.world().fired(unanswered), desk.state("u")), (1, "waiting".to_owned()));
        assert!(desk.of("u", "reason").contains("HTTP 403"), "{}", desk.of("u", "reason"));
        desk.sandbox.world().remove_fault(unanswered);
        desk.advance(SignedDuration::from_secs(5));
        desk.drain().await;
        assert_eq!(desk.state("u"), "rejected", "{list:?}");
    }
}

#[tokio::test]
async fn unauthorized_write_refuses_the_key_without_another_request() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    desk.on(Call::Update, Effect::status(401));
    assert!(desk.drain().await.key_refused);
    assert_eq!(desk.calls().len(), 1);
}

#[tokio::test]
async fn forbidden_show_of_one_customer_delays_only_that_intent() {
    let mut desk = Desk::open(2).await;
    let ids = desk.sandbox.world().ids();
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('e', 'update', '{}', '{{\"email\": \"x@example.com\"}}', '{{\"metadata\": {{\"no\": null}}}}')",
        ids[0]
    ));
    desk.intend("u", "update", Some(&ids[1]), Some(json!({"email": "y@example.com"})));
    desk.settings.max_concurrent_requests = 1;
    let show = desk.on(Call::Show, Effect::status(403));
    let drained = desk.drain().await;
    assert!(!drained.key_refused);
    assert_eq!(desk.states(), ["e waiting", "u done"]);
    assert_eq!(desk.one("SELECT refused_since FROM meta"), "null");
    desk.sandbox.world().remove_fault(show);
    desk.advance(SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!(desk.states(), ["e done", "u done"]);
}

#[tokio::test]
async fn unauthorized_show_refuses_the_key() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('e', 'update', '{id}', '{{\"email\": \"x@example.com\"}}', '{{\"metadata\": {{\"no\": null}}}}')"
    ));
    desk.on(Call::Show, Effect::status(401));
    assert!(desk.drain().await.key_refused);
    assert_eq!(desk.state("e"), "waiting");
}

#[tokio::test]
async fn forbidden_create_that_may_have_taken_effect_parks_with_its_key() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    let key = desk.one("SELECT key FROM outbox");
    // The customer looks otherwise by now, and the key lost a permission.
    let made = desk.sandbox.world().ids()[0].clone();
    desk.sandbox.world().update(&made, json!({"email": "edited@example.com"}));
    desk.on(Call::Create, Effect::status(403));
    desk.advance(SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!(desk.state("c"), "parked", "{}", desk.of("c", "reason"));
    assert!(desk.of("c", "reason").contains("HTTP 403"), "{}", desk.of("c", "reason"));
    // An operator retries it: it is the same request, and so no second customer.
    desk.sandbox.world().clear_faults();
    desk.store().write(|tx| komoju_sync::store::outbox::operator::retry(tx, "c", None)).await.unwrap();
    desk.drain().await;
    assert_eq!((desk.one("SELECT key FROM outbox"), desk.sandbox.world().creates()), (key, 1));
    assert_eq!(desk.state("c"), "done");
}

#[tokio::test]
async fn update_that_took_effect_before_the_key_was_refused_stays_unknown() {
    for refusal in [401, 429] {
        let mut desk = Desk::open(1).await;
        let id = desk.some_id();
        let body = json!({"email": "x@example.com", "payment_details": "tok_1"});
        desk.intend("u", "update", Some(&id), Some(body));
        // A 2xx without a customer, and then a GET that is turned away.
        desk.inject(Fault::new(Effect::Body { body: Payload::Empty }).call(Call::Update).once());
        desk.inject(Fault::new(Effect::status(refusal)).call(Call::Show).once());
        desk.drain().await;
        assert_eq!(desk.state("u"), "waiting", "{refusal}");
        assert_eq!(desk.one("SELECT outcome_unknown FROM outbox"), "1", "{refusal}");
    }
}
