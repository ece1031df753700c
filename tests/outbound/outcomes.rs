//! What each answer of the API makes of an intent.

use jiff::SignedDuration;
use komoju_sandbox::readings::NullEmail;
use komoju_sandbox::{Call, Effect, Fault, Payload, Readings, Refusal, Work};
use serde_json::json;

use crate::desk::Desk;

fn coded(status: u16, code: &str) -> Effect {
    answer(status, Payload::Code(code.to_owned()), None)
}

fn answer(status: u16, body: Payload, retry_after: Option<&str>) -> Effect {
    let retry_after = retry_after.map(str::to_owned);
    Effect::Status { status, body, retry_after, headers: Default::default(), work: Work::Skipped }
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
        (Effect::Reset { work: Work::Skipped }, "waiting"),
    ];
    for (effect, expected) in cases {
        let mut desk = Desk::open(1).await;
        let id = desk.some_id();
        desk.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
        let fault = desk.inject(Fault::new(effect.clone()).call(Call::Update).once());
        desk.drain().await;
        assert_eq!(desk.sandbox.world().fired(fault), 1);
        assert_eq!(desk.state("u"), expected, "{effect:?}");
        assert_eq!(desk.one("SELECT outcome FROM attempts"), expected);
        assert_ne!(desk.of("u", "reason"), "null");
        if expected == "waiting" {
            desk.advance(SignedDuration::from_secs(2));
            desk.drain().await;
            assert_eq!(desk.state("u"), "done", "{effect:?} heals");
            assert_eq!(desk.of("u", "reason"), "null");
            assert_eq!(desk.sandbox.world().truth()[&id]["email"], "x@example.com", "{effect:?}");
            desk.assert_true();
        }
    }
}

#[tokio::test]
async fn a_web_page_in_place_of_an_answer_deletes_nobody() {
    for work in [Work::Skipped, Work::Done] {
        let mut desk = Desk::open(2).await;
        let id = desk.some_id();
        desk.intend("d", "delete", Some(&id), None);
        let headers = Default::default();
        let page = Effect::Status { status: 200, body: Payload::Html, retry_after: None, headers, work };
        let fault = desk.inject(Fault::new(page).call(Call::Delete).once());
        desk.drain().await;
        assert_eq!(desk.sandbox.world().fired(fault), 1);
        assert_eq!(desk.state("d"), "waiting");
        let reason = desk.of("d", "reason");
        assert!(reason.contains("HTTP 200 (a web page, so not from the API itself)"), "{reason}");
        assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), "0");
        desk.advance(SignedDuration::from_secs(2));
        desk.drain().await;
        assert_eq!(desk.state("d"), "done");
        desk.assert_true();
    }
}

#[tokio::test]
async fn a_rejection_keeps_code_message_and_param() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"payment_details": "tok_card_declined"})));
    desk.intend("p", "create", None, Some(json!({"payment_details": "nonsense"})));
    desk.drain().await;
    assert_eq!(desk.detail("c")["code"], "card_declined");
    assert_eq!(desk.detail("c")["status"], 502);
    assert_eq!(desk.detail("p")["param"], "payment_details");
    assert!(desk.detail("p")["message"].is_string());
    assert_eq!(desk.column("SELECT status FROM attempts ORDER BY intent_id"), ["502", "422"]);
    assert_eq!(desk.sandbox.world().creates(), 0);
}

#[tokio::test]
async fn gone_is_done_for_a_delete_and_a_rejection_for_an_update_after_which_the_mirror_looks() {
    let mut desk = Desk::open(3).await;
    let ids = desk.sandbox.world().ids();
    desk.sandbox.world().delete(&ids[0]);
    desk.sandbox.world().delete(&ids[1]);
    desk.intend("d", "delete", Some(&ids[0]), None);
    desk.intend("u", "update", Some(&ids[1]), Some(json!({"email": "x"})));
    desk.drain().await;
    assert_eq!(desk.states(), ["d done", "u rejected"]);
    assert_eq!(desk.detail("u")["code"], "not_found");
    assert_eq!(desk.of("d", "reason"), "the customer was already deleted at KOMOJU");
    desk.signals.look.notified().await;
    let deleted = format!(
        "SELECT origin || intent_id FROM changes WHERE kind = 'deleted' AND customer_id = '{}'",
        ids[0]
    );
    assert_eq!(desk.one(&deleted), "intentd");
    assert_eq!(
        desk.one(&format!("SELECT count(*) FROM customers WHERE id = '{}'", ids[1])),
        "1",
        "a 404 alone is no evidence"
    );
    assert!(desk.sweep().await.failure.is_none());
    desk.assert_true();
}

#[tokio::test]
async fn a_refused_key_stops_all_pushing_and_parks_nothing() {
    let mut desk = Desk::open(6).await;
    let ids = desk.sandbox.world().ids();
    for (n, id) in ids.iter().enumerate() {
        desk.intend(&format!("u{n}"), "update", Some(id), Some(json!({"email": "x"})));
    }
    desk.settings.max_concurrent_requests = 1;
    desk.sandbox.world().refuse_key(Some(Refusal::Json401));
    let drained = desk.drain().await;
    assert!(drained.key_refused);
    assert_eq!((drained.attempts, desk.calls().len()), (1, 1), "the first refusal is enough");
    assert_eq!(desk.state("u0"), "waiting");
    assert_ne!(desk.one("SELECT refused_since FROM meta"), "null");
    desk.signals.refused.notified().await;
    // However long it lasts, and whatever is tried: nothing leaves, nothing parks.
    desk.advance(SignedDuration::from_hours(100));
    desk.drain().await;
    assert_eq!(desk.calls().len(), 1);
    desk.sandbox.world().refuse_key(None);
    assert!(desk.sweep().await.failure.is_none());
    // The time under it does not count: one more failure does not park.
    let trouble = desk.inject(Fault::new(Effect::status(503)).call(Call::Update).once());
    desk.drain().await;
    assert_eq!((desk.sandbox.world().fired(trouble), desk.state("u0")), (1, "waiting".to_owned()));
    desk.advance(SignedDuration::from_mins(15));
    desk.drain().await;
    assert!(desk.states().iter().all(|state| state.ends_with("done")), "{:?}", desk.states());
}

#[tokio::test]
async fn another_accounts_key_pushes_nothing() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.sandbox.world().add_account("sk_test_other", 7, 2);
    desk.key = "sk_test_other".to_owned();
    desk.drain().await;
    assert_eq!((desk.state("u"), desk.calls().len()), ("queued".to_owned(), 0));
}

#[tokio::test]
async fn a_wait_that_is_asked_for_holds_for_everybody_and_is_shown() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.inject(
        Fault::new(answer(429, Payload::Code("too_many_requests".into()), Some("120")))
            .call(Call::Update)
            .once(),
    );
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting");
    assert_eq!(desk.one("SELECT throttled_until FROM meta"), "2026-06-01T00:02:00.000Z");
    assert!(
        desk.of("u", "next_attempt_at").as_str() >= "2026-06-01T00:02:00",
        "{}",
        desk.of("u", "next_attempt_at")
    );
}

#[tokio::test]
async fn waits_double_and_are_kept_across_restarts_until_patience_ends() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let trouble = desk.on(Call::Update, Effect::status(503));
    let mut waits = Vec::new();
    for _ in 0..4 {
        desk.drain().await;
        let wait = "SELECT round((julianday(next_attempt_at) - julianday((SELECT max(finished_at) FROM attempts))) * 86400, 1) FROM intents";
        waits.push(desk.one(wait).parse::<f64>().unwrap());
        desk.restart();
        let before = desk.sandbox.world().fired(trouble);
        desk.drain().await;
        assert_eq!(desk.sandbox.world().fired(trouble), before, "it is not due yet");
        desk.advance(SignedDuration::from_secs(10));
    }
    for (n, wait) in waits.iter().enumerate() {
        let nominal = f64::from(1_u32 << n);
        assert!((0.8 * nominal - 0.06..=1.2 * nominal + 0.06).contains(wait), "{waits:?}");
    }
    desk.advance(SignedDuration::from_hours(71));
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting");
    desk.advance(SignedDuration::from_hours(1));
    desk.drain().await;
    assert_eq!(desk.state("u"), "parked");
    assert!(
        desk.of("u", "reason")
            .starts_with("no attempt succeeded within 72 hours; the last: PATCH /customers/"),
        "{}",
        desk.of("u", "reason")
    );
    // A person tries it once more, with all its patience again.
    desk.store().write(|tx| komoju_sync::store::outbox::operator::retry(tx, "u", None)).await.unwrap();
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting");
}

#[tokio::test]
async fn an_expectation_that_fails_parks_with_all_three_versions_and_sends_nothing() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.sandbox.world().update(&id, json!({"email": "theirs@example.com", "metadata": {"a": "1"}}));
    let expect = |id: &str, intent: &str, expect: &str| {
        format!(
            "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('{intent}', 'update', '{id}', '{{\"email\": \"ours@example.com\"}}', '{expect}')"
        )
    };
    desk.sql(&expect(&id, "wrong", r#"{"email": "base@example.com", "metadata": {"b": null}}"#));
    desk.drain().await;
    assert_eq!(desk.state("wrong"), "parked");
    assert_eq!(
        desk.of("wrong", "reason"),
        "the customer is not as expected: email differs; nothing was sent"
    );
    let detail = desk.detail("wrong");
    assert_eq!(detail["base"]["email"], "base@example.com");
    assert_eq!(detail["theirs"]["email"], "theirs@example.com");
    assert_eq!(detail["ours"]["email"], "ours@example.com");
    assert_eq!(desk.sandbox.world().updates(), 0);
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'wrong'");
    desk.sql(&expect(&id, "right", r#"{"email": "theirs@example.com", "metadata": {"a": "1", "b": null}}"#));
    desk.drain().await;
    assert_eq!(desk.state("right"), "done");
    desk.sql(&format!("INSERT INTO intents (id, op, customer_id, expect) VALUES ('d', 'delete', '{id}', '{{\"metadata\": {{\"a\": \"2\"}}}}')"));
    desk.drain().await;
    assert_eq!((desk.state("d"), desk.sandbox.world().deletes()), ("parked".to_owned(), 0));
}

#[tokio::test]
async fn our_own_lost_answer_is_no_conflict() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    let email = desk.one("SELECT email FROM customers");
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect)
         VALUES ('u', 'update', '{id}', '{{\"email\": \"x@example.com\"}}', '{{\"email\": \"{email}\"}}')"
    ));
    let lost = desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Update).once());
    desk.drain().await;
    assert_eq!((desk.sandbox.world().fired(lost), desk.state("u")), (1, "waiting".to_owned()));
    desk.advance(SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!(desk.state("u"), "done", "{}", desk.of("u", "reason"));
}

#[tokio::test]
async fn what_was_not_applied_stands_in_the_detail() {
    let ignores = Readings { null_email: NullEmail::Ignored, ..Readings::default() };
    let mut desk = Desk::reading(1, ignores).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": null, "metadata": {"k": "v"}})));
    desk.intend("v", "update", Some(&id), Some(json!({"metadata": {"k": "w"}})));
    desk.drain().await;
    assert_eq!(desk.states(), ["u done", "v done"]);
    assert_eq!(desk.detail("u"), json!({"not_applied": {"email": null}}));
    assert_eq!(desk.of("v", "detail"), "null");
    desk.assert_true();
}
