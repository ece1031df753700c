//! A JSON 403 that one request gets: whether it is about the key, one customer or one write.

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, KeyRefusal, Payload};
use komoju_testkit::InProcess;
use serde_json::json;

fn html(status: u16) -> FaultEffect {
    let headers = Default::default();
    FaultEffect::Status {
        status,
        body: Payload::Html,
        retry_after: None,
        headers,
        work: FaultedWork::Skipped,
    }
}

/// A harness with a create, an update and a delete that wait to be sent.
async fn harness_with_three_writes() -> InProcess {
    let harness = InProcess::open(3).await;
    let ids = harness.sandbox.world().ids();
    harness.intend("c", "create", None, Some(json!({"email": "new@example.com"})));
    harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "x@example.com"})));
    harness.intend("d", "delete", Some(&ids[1]), None);
    harness
}

#[tokio::test]
async fn forbidden_write_is_rejected_and_others_are_sent() {
    for (call, rejected) in
        [(FaultedCall::Create, "c"), (FaultedCall::Update, "u"), (FaultedCall::Delete, "d")]
    {
        let mut harness = harness_with_three_writes().await;
        harness.settings.max_concurrent_requests = 1;
        let fault = harness.on(call, FaultEffect::status(403));
        let drained = harness.drain().await;
        assert_eq!((drained.key_refused, drained.rejected, drained.done), (false, 1, 2), "{call:?}");
        assert_eq!(
            (harness.sandbox.world().fired(fault), harness.state(rejected)),
            (1, "rejected".to_owned())
        );
        let detail = harness.detail(rejected);
        assert_eq!((detail["status"].as_u64(), detail["code"].as_str()), (Some(403), Some("forbidden")));
        assert_eq!(harness.one("SELECT refused_since FROM meta"), "null", "{call:?}");
        let lists = harness.calls().iter().filter(|call| *call == "GET customers").count();
        assert_eq!(lists, 2, "a create asks for the time, and the 403 for the key: {:?}", harness.calls());
        assert!(harness.sweep().await.failure.is_none());
        assert!(harness.signals.refused.notified().now_or_never().is_none(), "{call:?}");
        harness.assert_true();
    }
}

#[tokio::test]
async fn forbidden_write_with_a_forbidden_list_refuses_the_key() {
    let mut harness = harness_with_three_writes().await;
    harness.settings.max_concurrent_requests = 1;
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Json403));
    // The first request of a create asks for the time; an update is a write at once.
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    let drained = harness.drain().await;
    assert!(drained.key_refused);
    assert_eq!(harness.calls().len(), 2, "the write and one list: {:?}", harness.calls());
    assert_eq!((harness.state("u"), harness.state("d")), ("waiting".to_owned(), "queued".to_owned()));
    assert_eq!(harness.of("u", "next_attempt_at"), "null", "it is due when a key is accepted");
    assert_ne!(harness.one("SELECT refused_since FROM meta"), "null");
    harness.signals.refused.notified().await;
    harness.advance(SignedDuration::from_secs(1));
    assert_eq!(harness.drain().await.attempts, 0, "after a refused key the drain is skipped");
    harness.sandbox.world().refuse_key(None);
    assert!(harness.sweep().await.failure.is_none());
    harness.drain().await;
    assert_eq!((harness.state("u"), harness.state("d")), ("done".to_owned(), "done".to_owned()));
}

#[tokio::test]
async fn forbidden_write_whose_list_is_not_answered_waits() {
    for list in
        [FaultEffect::status(503), html(403), html(401), FaultEffect::Reset { work: FaultedWork::Skipped }]
    {
        let mut harness = InProcess::open(2).await;
        let id = harness.some_id();
        harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
        harness.on(FaultedCall::Update, FaultEffect::status(403));
        let unanswered = harness.on(FaultedCall::List, list.clone());
        let drained = harness.drain().await;
        assert_eq!((drained.key_refused, drained.waiting), (false, 1), "{list:?}");
        assert_eq!(
            (harness.sandbox.world().fired(unanswered), harness.state("u")),
            (1, "waiting".to_owned())
        );
        assert!(harness.of("u", "reason").contains("HTTP 403"), "{}", harness.of("u", "reason"));
        harness.sandbox.world().remove_fault(unanswered);
        harness.advance(SignedDuration::from_secs(5));
        harness.drain().await;
        assert_eq!(harness.state("u"), "rejected", "{list:?}");
    }
}

#[tokio::test]
async fn unauthorized_write_refuses_the_key_without_another_request() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    harness.on(FaultedCall::Update, FaultEffect::status(401));
    assert!(harness.drain().await.key_refused);
    assert_eq!(harness.calls().len(), 1);
}

#[tokio::test]
async fn forbidden_show_of_one_customer_delays_only_that_intent() {
    let mut harness = InProcess::open(2).await;
    let ids = harness.sandbox.world().ids();
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('e', 'update', '{}', '{{\"email\": \"x@example.com\"}}', '{{\"metadata\": {{\"no\": null}}}}')",
        ids[0]
    ));
    harness.intend("u", "update", Some(&ids[1]), Some(json!({"email": "y@example.com"})));
    harness.settings.max_concurrent_requests = 1;
    let show = harness.on(FaultedCall::Show, FaultEffect::status(403));
    let drained = harness.drain().await;
    assert!(!drained.key_refused);
    assert_eq!(harness.states(), ["e waiting", "u done"]);
    assert_eq!(harness.one("SELECT refused_since FROM meta"), "null");
    harness.sandbox.world().remove_fault(show);
    harness.advance(SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!(harness.states(), ["e done", "u done"]);
}

#[tokio::test]
async fn unauthorized_show_refuses_the_key() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('e', 'update', '{id}', '{{\"email\": \"x@example.com\"}}', '{{\"metadata\": {{\"no\": null}}}}')"
    ));
    harness.on(FaultedCall::Show, FaultEffect::status(401));
    assert!(harness.drain().await.key_refused);
    assert_eq!(harness.state("e"), "waiting");
}

#[tokio::test]
async fn forbidden_create_that_may_have_taken_effect_parks_with_its_key() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    let key = harness.one("SELECT key FROM outbox");
    // The customer looks otherwise by now, and the key lost a permission.
    let made = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().update(&made, json!({"email": "edited@example.com"}));
    harness.on(FaultedCall::Create, FaultEffect::status(403));
    harness.advance(SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!(harness.state("c"), "parked", "{}", harness.of("c", "reason"));
    assert!(harness.of("c", "reason").contains("HTTP 403"), "{}", harness.of("c", "reason"));
    // An operator retries it: it is the same request, and so no second customer.
    harness.sandbox.world().clear_faults();
    harness.store().write(|tx| komoju_sync::store::outbox::operator::retry(tx, "c", None)).await.unwrap();
    harness.drain().await;
    assert_eq!((harness.one("SELECT key FROM outbox"), harness.sandbox.world().creates()), (key, 1));
    assert_eq!(harness.state("c"), "done");
}

#[tokio::test]
async fn update_that_took_effect_before_the_key_was_refused_stays_unknown() {
    for refusal in [401, 429] {
        let mut harness = InProcess::open(1).await;
        let id = harness.some_id();
        let body = json!({"email": "x@example.com", "payment_details": "tok_1"});
        harness.intend("u", "update", Some(&id), Some(body));
        // A 2xx without a customer, and then a GET that is turned away.
        harness
            .inject(Fault::new(FaultEffect::Body { body: Payload::Empty }).call(FaultedCall::Update).once());
        harness.inject(Fault::new(FaultEffect::status(refusal)).call(FaultedCall::Show).once());
        harness.drain().await;
        assert_eq!(harness.state("u"), "waiting", "{refusal}");
        assert_eq!(harness.one("SELECT outcome_unknown FROM outbox"), "1", "{refusal}");
    }
}
