//! The outcome of an intent for each answer of the API.

use jiff::SignedDuration;
use komoju_sandbox::readings::NullEmail;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, KeyRefusal, Payload, Readings};
use komoju_testkit::InProcess;
use serde_json::json;

fn coded(status: u16, code: &str) -> FaultEffect {
    answer(status, Payload::Code(code.to_owned()), None)
}

fn answer(status: u16, body: Payload, retry_after: Option<&str>) -> FaultEffect {
    let retry_after = retry_after.map(str::to_owned);
    FaultEffect::Status { status, body, retry_after, headers: Default::default(), work: FaultedWork::Skipped }
}

#[tokio::test]
async fn each_status_and_code_has_its_outcome() {
    let cases = [
        (coded(400, "bad_request"), "rejected"),
        (coded(402, "request_failed"), "rejected"),
        (coded(404, "not_found"), "rejected"),
        (coded(422, "invalid_parameter"), "rejected"),
        (coded(502, "card_declined"), "rejected"),
        (coded(502, "card_expired"), "rejected"),
        (coded(502, "exceeds_limit"), "rejected"),
        (coded(502, "bad_verification_value"), "rejected"),
        (coded(502, "bad_gateway"), "waiting"),
        (coded(500, "internal_server_error"), "waiting"),
        (coded(503, "service_unavailable"), "waiting"),
        (coded(504, "gateway_timeout"), "waiting"),
        (coded(409, "conflict"), "waiting"),
        (answer(502, Payload::Html, None), "waiting"),
        (answer(403, Payload::Html, None), "waiting"),
        (answer(401, Payload::Html, None), "waiting"),
        (answer(404, Payload::Html, None), "waiting"),
        (answer(429, Payload::Html, None), "waiting"),
        (answer(418, Payload::Html, None), "waiting"),
        (answer(200, Payload::Html, None), "waiting"),
        (FaultEffect::Reset { work: FaultedWork::Skipped }, "waiting"),
    ];
    for (effect, expected) in cases {
        let mut harness = InProcess::open(1).await;
        let id = harness.some_id();
        harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
        let fault = harness.inject(Fault::new(effect.clone()).call(FaultedCall::Update).once());
        harness.drain().await;
        assert_eq!(harness.sandbox.world().fired(fault), 1);
        assert_eq!(harness.state("u"), expected, "{effect:?}");
        assert_eq!(harness.one("SELECT outcome FROM attempts"), expected);
        assert_ne!(harness.of("u", "reason"), "null");
        if expected == "waiting" {
            harness.advance(SignedDuration::from_secs(2));
            harness.drain().await;
            assert_eq!(harness.state("u"), "done", "{effect:?} heals");
            assert_eq!(harness.of("u", "reason"), "null");
            assert_eq!(harness.sandbox.world().truth()[&id]["email"], "x@example.com", "{effect:?}");
            harness.assert_true();
        }
    }
}

#[tokio::test]
async fn web_page_as_the_answer_to_a_delete_deletes_no_customer() {
    for work in [FaultedWork::Skipped, FaultedWork::Done] {
        let mut harness = InProcess::open(2).await;
        let id = harness.some_id();
        harness.intend("d", "delete", Some(&id), None);
        let headers = Default::default();
        let page = FaultEffect::Status { status: 200, body: Payload::Html, retry_after: None, headers, work };
        let fault = harness.inject(Fault::new(page).call(FaultedCall::Delete).once());
        harness.drain().await;
        assert_eq!(harness.sandbox.world().fired(fault), 1);
        assert_eq!(harness.state("d"), "waiting");
        let reason = harness.of("d", "reason");
        assert!(reason.contains("HTTP 200 (a web page, so not from the API itself)"), "{reason}");
        assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
        harness.advance(SignedDuration::from_secs(2));
        harness.drain().await;
        assert_eq!(harness.state("d"), "done");
        harness.assert_true();
    }
}

#[tokio::test]
async fn rejection_keeps_code_message_and_param() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"payment_details": "tok_card_declined"})));
    harness.intend("p", "create", None, Some(json!({"payment_details": "nonsense"})));
    harness.drain().await;
    assert_eq!(harness.detail("c")["code"], "card_declined");
    assert_eq!(harness.detail("c")["status"], 502);
    assert_eq!(harness.detail("p")["param"], "payment_details");
    assert!(harness.detail("p")["message"].is_string());
    assert_eq!(harness.column("SELECT status FROM attempts ORDER BY intent_id"), ["502", "422"]);
    assert_eq!(harness.sandbox.world().creates(), 0);
}

#[tokio::test]
async fn not_found_settles_a_delete_and_rejects_an_update() {
    let mut harness = InProcess::open(3).await;
    let ids = harness.sandbox.world().ids();
    harness.sandbox.world().delete(&ids[0]);
    harness.sandbox.world().delete(&ids[1]);
    harness.intend("d", "delete", Some(&ids[0]), None);
    harness.intend("u", "update", Some(&ids[1]), Some(json!({"email": "x"})));
    harness.drain().await;
    assert_eq!(harness.states(), ["d done", "u rejected"]);
    assert_eq!(harness.detail("u")["code"], "not_found");
    assert_eq!(harness.of("d", "reason"), "the customer was already deleted at KOMOJU");
    harness.signals.extra_sweep.notified().await;
    let deleted = format!(
        "SELECT origin || intent_id FROM changes WHERE kind = 'deleted' AND customer_id = '{}'",
        ids[0]
    );
    assert_eq!(harness.one(&deleted), "intentd");
    assert_eq!(
        harness.one(&format!("SELECT count(*) FROM customers WHERE id = '{}'", ids[1])),
        "1",
        "a 404 alone is no evidence"
    );
    assert!(harness.sweep().await.failure.is_none());
    harness.assert_true();
}

#[tokio::test]
async fn refused_key_stops_pushing_and_parks_nothing() {
    let mut harness = InProcess::open(6).await;
    let ids = harness.sandbox.world().ids();
    for (n, id) in ids.iter().enumerate() {
        harness.intend(&format!("u{n}"), "update", Some(id), Some(json!({"email": "x"})));
    }
    harness.settings.max_concurrent_requests = 1;
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Json401));
    let drained = harness.drain().await;
    assert!(drained.key_refused);
    assert_eq!((drained.attempts, harness.calls().len()), (1, 1), "nothing is sent after the first refusal");
    assert_eq!(harness.state("u0"), "waiting");
    assert_ne!(harness.one("SELECT refused_since FROM meta"), "null");
    harness.signals.refused.notified().await;
    // While the key is refused nothing is sent and nothing parks, however long that lasts.
    harness.advance(SignedDuration::from_hours(100));
    harness.drain().await;
    assert_eq!(harness.calls().len(), 1);
    harness.sandbox.world().refuse_key(None);
    assert!(harness.sweep().await.failure.is_none());
    // The time under the refusal does not count: one more failure does not park.
    let trouble = harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Update).once());
    harness.drain().await;
    assert_eq!((harness.sandbox.world().fired(trouble), harness.state("u0")), (1, "waiting".to_owned()));
    harness.advance(SignedDuration::from_mins(15));
    harness.drain().await;
    assert!(harness.states().iter().all(|state| state.ends_with("done")), "{:?}", harness.states());
}

#[tokio::test]
async fn key_of_another_account_pushes_nothing() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.sandbox.world().add_account("sk_test_other", 7, 2);
    harness.key = "sk_test_other".to_owned();
    harness.drain().await;
    assert_eq!((harness.state("u"), harness.calls().len()), ("queued".to_owned(), 0));
}

#[tokio::test]
async fn retry_after_delays_the_intent_and_is_recorded() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.inject(
        Fault::new(answer(429, Payload::Code("too_many_requests".into()), Some("120")))
            .call(FaultedCall::Update)
            .once(),
    );
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting");
    assert_eq!(harness.one("SELECT throttled_until FROM meta"), "2026-06-01T00:02:00.000Z");
    assert!(
        harness.of("u", "next_attempt_at").as_str() >= "2026-06-01T00:02:00",
        "{}",
        harness.of("u", "next_attempt_at")
    );
}

#[tokio::test]
async fn waits_double_and_survive_restarts_until_the_park_timer_ends() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let trouble = harness.on(FaultedCall::Update, FaultEffect::status(503));
    let mut waits = Vec::new();
    for _ in 0..4 {
        harness.drain().await;
        let wait = "SELECT round((julianday(next_attempt_at) - julianday((SELECT max(finished_at) FROM attempts))) * 86400, 1) FROM intents";
        waits.push(harness.one(wait).parse::<f64>().unwrap());
        harness.restart();
        let before = harness.sandbox.world().fired(trouble);
        harness.drain().await;
        assert_eq!(harness.sandbox.world().fired(trouble), before, "it is not due");
        harness.advance(SignedDuration::from_secs(10));
    }
    for (n, wait) in waits.iter().enumerate() {
        let nominal = f64::from(1_u32 << n);
        assert!((0.8 * nominal - 0.06..=1.2 * nominal + 0.06).contains(wait), "{waits:?}");
    }
    harness.advance(SignedDuration::from_hours(71));
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting");
    harness.advance(SignedDuration::from_hours(1));
    harness.drain().await;
    assert_eq!(harness.state("u"), "parked");
    assert!(
        harness
            .of("u", "reason")
            .starts_with("no attempt succeeded within 72 hours; the last: PATCH /customers/"),
        "{}",
        harness.of("u", "reason")
    );
    // An operator's retry starts the park timer again.
    harness.store().write(|tx| komoju_sync::store::outbox::operator::retry(tx, "u", None)).await.unwrap();
    harness.drain().await;
    assert_eq!(harness.state("u"), "waiting");
}

#[tokio::test]
async fn failed_expectation_parks_with_three_versions_and_sends_nothing() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.sandbox.world().update(&id, json!({"email": "theirs@example.com", "metadata": {"a": "1"}}));
    let expect = |id: &str, intent: &str, expect: &str| {
        format!(
            "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('{intent}', 'update', '{id}', '{{\"email\": \"ours@example.com\"}}', '{expect}')"
        )
    };
    harness.sql(&expect(&id, "wrong", r#"{"email": "base@example.com", "metadata": {"b": null}}"#));
    harness.drain().await;
    assert_eq!(harness.state("wrong"), "parked");
    assert_eq!(
        harness.of("wrong", "reason"),
        "the customer is not as expected: email differs; nothing was sent"
    );
    let detail = harness.detail("wrong");
    assert_eq!(detail["base"]["email"], "base@example.com");
    assert_eq!(detail["theirs"]["email"], "theirs@example.com");
    assert_eq!(detail["ours"]["email"], "ours@example.com");
    assert_eq!(harness.sandbox.world().updates(), 0);
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'wrong'");
    harness.sql(&expect(
        &id,
        "right",
        r#"{"email": "theirs@example.com", "metadata": {"a": "1", "b": null}}"#,
    ));
    harness.drain().await;
    assert_eq!(harness.state("right"), "done");
    harness.sql(&format!("INSERT INTO intents (id, op, customer_id, expect) VALUES ('d', 'delete', '{id}', '{{\"metadata\": {{\"a\": \"2\"}}}}')"));
    harness.drain().await;
    assert_eq!((harness.state("d"), harness.sandbox.world().deletes()), ("parked".to_owned(), 0));
}

#[tokio::test]
async fn lost_answer_to_our_own_push_is_no_conflict() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    let email = harness.one("SELECT email FROM customers");
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('u', 'update', '{id}', '{{\"email\": \"x@example.com\"}}', '{{\"email\": \"{email}\"}}')"
    ));
    let lost = harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Update).once());
    harness.drain().await;
    assert_eq!((harness.sandbox.world().fired(lost), harness.state("u")), (1, "waiting".to_owned()));
    harness.advance(SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!(harness.state("u"), "done", "{}", harness.of("u", "reason"));
}

#[tokio::test]
async fn parameters_that_were_not_applied_are_in_the_detail() {
    let ignores = Readings { null_email: NullEmail::Ignored, ..Readings::default() };
    let mut harness = InProcess::reading(1, ignores).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": null, "metadata": {"k": "v"}})));
    harness.intend("v", "update", Some(&id), Some(json!({"metadata": {"k": "w"}})));
    harness.drain().await;
    assert_eq!(harness.states(), ["u done", "v done"]);
    assert_eq!(harness.detail("u"), json!({"not_applied": {"email": null}}));
    assert_eq!(harness.of("v", "detail"), "null");
    harness.assert_true();
}
