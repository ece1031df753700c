//! Tests the deliveries of webhooks under each reading, to a receiver in the test.

use std::time::Duration;

use komoju_sandbox::readings::{EventData, Events, Readings};
use komoju_sandbox::{DeliveryState, Drift, Fault, FaultEffect, SandboxWebhook};
use ring::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Ask, ask, get, ids, page, sandbox, sandbox_with};
use crate::receiver::{Reaction, Received, Receiver};

const SECRET: &str = "webhook secret";

/// Returns a receiver that answers every delivery with 200.
async fn willing() -> Receiver {
    Receiver::tcp(|_| Reaction::Status(200)).await
}

/// Whether the signature of a delivery is the HMAC-SHA256 of its body.
fn is_signed(received: &Received) -> bool {
    let text = received.header("x-komoju-signature");
    assert!(text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    let tag: Vec<u8> = text.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &received.body, &tag).is_ok()
}

/// Readings whose failed deliveries are retried at once.
fn impatient() -> Readings {
    Readings { webhook_retry_ms: 0, ..Readings::default() }
}

#[tokio::test]
async fn new_webhook_gets_a_ping_and_then_every_event_in_order() {
    let sandbox = sandbox(1).await;
    let mut receiver = willing().await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    let ping = receiver.next().await;
    assert_eq!(ping.body, br#"{"type":"ping"}"#);
    assert_eq!((ping.line.as_str(), ping.header("x-komoju-event")), ("POST /komoju HTTP/1.1", "ping"));
    assert!(is_signed(&ping));

    let created = ask(&sandbox, "POST", "/customers").json(&json!({})).send(&sandbox).await.json();
    let id = created["id"].as_str().unwrap();
    sandbox.world().update(id, json!({"email": "b@example.jp"}));
    sandbox.world().delete(id);
    sandbox.until_deliveries_settle().await;
    let received = receiver.arrived();
    let listed = get(&sandbox, "/events").await.json()["data"].as_array().unwrap().clone();
    let bodies: Vec<Value> = received.iter().rev().map(Received::json).collect();
    assert_eq!(bodies, listed);
    for (delivery, event) in received.iter().zip(listed.iter().rev()) {
        assert!(is_signed(delivery));
        assert_eq!(delivery.header("x-komoju-event"), event["type"]);
        assert_eq!(delivery.header("user-agent"), "Komoju-Webhook");
        assert_eq!(delivery.header("content-type"), "application/json");
        assert_ne!(delivery.header("x-komoju-id"), event["id"]);
    }
}

#[tokio::test]
async fn drift_is_delivered() {
    let sandbox = sandbox(30).await;
    let mut receiver = willing().await;
    sandbox.register_webhook(&receiver.url, SECRET, &["customer.deleted"]).unwrap();
    let drift = Drift { delete: 2, update: 1, ..Drift::default() };
    sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).once());
    let first = ids(&page(&sandbox, "").await);
    sandbox.until_deliveries_settle().await;
    let deleted: Vec<String> = receiver.arrived()[1..].iter().map(Received::customer).collect();
    assert_eq!(deleted.len(), 2);
    assert!(deleted.iter().all(|id| first.contains(id)));
}

#[tokio::test]
async fn webhook_gets_only_its_types_of_its_own_account() {
    let sandbox = sandbox(0).await;
    sandbox.world().add_account("sk_test_b", 2, 0);
    let (mut own, mut other) = (willing().await, willing().await);
    sandbox.register_webhook(&own.url, SECRET, &["customer.updated", "payment.captured"]).unwrap();
    let webhook = SandboxWebhook { url: other.url.clone(), secret: SECRET.to_owned(), types: Vec::new() };
    sandbox.world().register_webhook_of("sk_test_b", webhook.clone()).unwrap();
    assert!(sandbox.world().register_webhook_of("sk_test_c", webhook).is_err());
    let id = sandbox.world().create(json!({}));
    sandbox.world().update(&id, json!({"email": null}));
    sandbox.until_deliveries_settle().await;
    let types = |received: Vec<Received>| -> Vec<String> {
        received.iter().map(|delivery| delivery.header("x-komoju-event").to_owned()).collect()
    };
    assert_eq!(types(own.arrived()), ["ping", "customer.updated"]);
    assert_eq!(types(other.arrived()), ["ping"]);
}

#[tokio::test]
async fn delivery_without_2xx_is_sent_again_with_the_same_id_and_body() {
    for failure in [Reaction::Status(500), Reaction::Status(302), Reaction::Close] {
        let sandbox = sandbox_with(0, impatient()).await;
        let mut receiver =
            Receiver::tcp(move |number| if number < 3 { failure } else { Reaction::Status(204) }).await;
        sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
        sandbox.until_deliveries_settle().await;
        let received = receiver.arrived();
        assert_eq!(received.len(), 4, "{failure:?}");
        let first = &received[0];
        assert!(received.iter().all(|again| {
            again.header("x-komoju-id") == first.header("x-komoju-id") && again.body == first.body
        }));
        let delivery = &sandbox.world().deliveries()[0];
        assert_eq!(
            (delivery.state, delivery.attempts, delivery.status),
            (DeliveryState::Delivered, 4, Some(204))
        );
    }
}

#[tokio::test]
async fn delivery_without_an_answer_is_sent_again_after_the_timeout() {
    let sandbox = sandbox_with(0, Readings { webhook_timeout_ms: 20, ..impatient() }).await;
    let reaction = |number| if number == 0 { Reaction::Hang } else { Reaction::Status(200) };
    let mut receiver = Receiver::tcp(reaction).await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    sandbox.until(|world| world.deliveries()[0].attempts == 1).await;
    let error = sandbox.world().deliveries()[0].error.clone();
    // The second attempt may have ended meanwhile, and it has no error.
    assert!(error.is_none_or(|error| error == "no answer within 20 ms"));
    sandbox.world().readings_mut().webhook_timeout_ms = 10_000;
    sandbox.until_deliveries_settle().await;
    assert!(receiver.arrived().len() >= 2);
    assert_eq!(sandbox.world().deliveries()[0].state, DeliveryState::Delivered);
}

#[tokio::test]
async fn delivery_fails_after_its_last_attempt_and_the_next_one_follows() {
    let sandbox = sandbox_with(0, impatient()).await;
    let mut receiver = Receiver::tcp(|_| Reaction::Status(503)).await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    sandbox.until_deliveries_settle().await;
    assert_eq!(receiver.arrived().len(), 25);
    let delivery = sandbox.world().deliveries()[0].clone();
    assert_eq!((delivery.state, delivery.attempts, delivery.status), (DeliveryState::Failed, 25, Some(503)));
    sandbox.world().readings_mut().webhook_attempts = 2;
    sandbox.world().create(json!({}));
    sandbox.until_deliveries_settle().await;
    assert_eq!(receiver.arrived().len(), 2);
}

#[tokio::test]
async fn pause_between_attempts_doubles() {
    let sandbox = sandbox_with(0, Readings { webhook_retry_ms: 8, ..Readings::default() }).await;
    let reaction = |number| Reaction::Status(if number < 4 { 500 } else { 200 });
    let receiver = Receiver::tcp(reaction).await;
    let start = Instant::now();
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    sandbox.until_deliveries_settle().await;
    assert!(start.elapsed() >= Duration::from_millis(8 + 16 + 32 + 64));
}

#[tokio::test]
async fn failing_delivery_does_not_delay_later_ones() {
    let sandbox = sandbox_with(0, Readings { webhook_retry_ms: 3_600_000, ..Readings::default() }).await;
    let reaction = |number| Reaction::Status(if number == 1 { 500 } else { 200 });
    let mut receiver = Receiver::tcp(reaction).await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    let created: Vec<String> = (0..3).map(|_| sandbox.world().create(json!({}))).collect();
    receiver.next().await;
    for id in &created {
        assert_eq!(&receiver.next().await.customer(), id);
    }
    sandbox.until(|world| world.deliveries()[3].state == DeliveryState::Delivered).await;
    assert_eq!(sandbox.world().deliveries()[1].state, DeliveryState::Pending);
    sandbox.stop().await;
}

#[tokio::test]
async fn share_of_deliveries_is_dropped_or_sent_twice() {
    for (drop, duplicate, sent) in [(100, 0, 0..=0), (0, 100, 200..=200), (30, 50, 80..=130)] {
        let readings = Readings {
            webhook_drop_percent: drop,
            webhook_duplicate_percent: duplicate,
            ..Readings::default()
        };
        let sandbox = sandbox_with(0, readings).await;
        let mut receiver = willing().await;
        sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
        (0..100).for_each(|_| std::mem::drop(sandbox.world().create(json!({}))));
        sandbox.until_deliveries_settle().await;
        assert!(sent.contains(&(receiver.arrived().len() - 1)));
        let deliveries = sandbox.world().deliveries();
        let in_state = |state| deliveries.iter().filter(|delivery| delivery.state == state).count();
        assert_eq!(in_state(DeliveryState::Dropped) + in_state(DeliveryState::Delivered), deliveries.len());
        assert_eq!(in_state(DeliveryState::Dropped) > 0, drop > 0);
        assert_eq!(get(&sandbox, "/events").await.json()["total"], 100, "the list has them");
    }
}

#[tokio::test]
async fn disorder_changes_the_order_of_deliveries() {
    let sandbox = sandbox_with(0, Readings { webhook_disorder_ms: 100, ..Readings::default() }).await;
    let mut receiver = willing().await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    let created: Vec<String> = (0..30).map(|_| sandbox.world().create(json!({}))).collect();
    sandbox.until_deliveries_settle().await;
    let received = receiver.arrived();
    let mut delivered: Vec<String> = received
        .iter()
        .filter(|delivery| delivery.header("x-komoju-event") != "ping")
        .map(Received::customer)
        .collect();
    assert_ne!(delivered, created);
    delivered.sort();
    let mut created = created;
    created.sort();
    assert_eq!(delivered, created);
}

#[tokio::test]
async fn delivery_is_delayed() {
    let sandbox = sandbox_with(0, Readings { webhook_delay_ms: 50, ..Readings::default() }).await;
    let mut receiver = willing().await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    sandbox.until_deliveries_settle().await;
    let start = Instant::now();
    let id = sandbox.world().create(json!({}));
    assert_eq!(receiver.next().await.header("x-komoju-event"), "ping");
    assert_eq!(receiver.next().await.customer(), id);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn share_of_signatures_is_wrong() {
    let sandbox = sandbox_with(0, Readings { webhook_wrong_signature_percent: 50, ..impatient() }).await;
    let mut receiver = willing().await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    (0..60).for_each(|_| drop(sandbox.world().create(json!({}))));
    sandbox.until_deliveries_settle().await;
    let wrong = receiver.arrived().iter().filter(|delivery| !is_signed(delivery)).count();
    assert!((15..45).contains(&wrong), "{wrong}");
    let counted: u32 = sandbox.world().deliveries().iter().map(|delivery| delivery.wrong_signatures).sum();
    assert_eq!(counted as usize, wrong);
}

#[tokio::test]
async fn webhook_delivers_what_the_list_lost_or_delays() {
    for readings in [
        Readings { event_loss_percent: 100, ..Readings::default() },
        Readings { event_lag_ms: 60_000, ..Readings::default() },
        Readings { events: Events::Dropped, ..Readings::default() },
        Readings { event_retention_s: Some(0), ..Readings::default() },
    ] {
        let sandbox = sandbox_with(0, readings).await;
        sandbox.world().readings_mut().event_data = EventData::Id;
        let mut receiver = willing().await;
        sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
        let id = sandbox.world().create(json!({}));
        sandbox.until_deliveries_settle().await;
        sandbox.world().advance(Duration::from_secs(1));
        assert_eq!(receiver.arrived()[1].json()["data"], json!({"id": id}));
        assert_eq!(get(&sandbox, "/events").await.json()["total"], 0);
    }
}

#[tokio::test]
async fn events_are_kept_only_for_a_webhook_that_subscribes() {
    let sandbox = sandbox_with(0, Readings { events: Events::WithWebhook, ..Readings::default() }).await;
    let receiver = willing().await;
    let id = sandbox.world().create(json!({}));
    let webhook = sandbox.register_webhook(&receiver.url, SECRET, &["customer.updated"]).unwrap();
    sandbox.world().update(&id, json!({"email": null}));
    sandbox.world().delete(&id);
    sandbox.world().remove_webhook(webhook);
    sandbox.world().create(json!({}));
    let listed = get(&sandbox, "/events").await.json();
    assert_eq!((&listed["total"], &listed["data"][0]["type"]), (&json!(1), &json!("customer.updated")));
}

#[tokio::test]
async fn unix_socket_receives_deliveries() {
    let sandbox = sandbox(0).await;
    let path = std::env::temp_dir().join(format!("komoju-sandbox-{}.sock", std::process::id()));
    let mut receiver = Receiver::unix(&path, |_| Reaction::Status(200));
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    let ping = receiver.next().await;
    assert_eq!((ping.line.as_str(), ping.header("host")), ("POST /komoju HTTP/1.1", "localhost"));
    sandbox.until_deliveries_settle().await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn removed_webhook_gets_nothing_more() {
    let sandbox = sandbox_with(0, Readings { webhook_delay_ms: 3_600_000, ..Readings::default() }).await;
    let mut receiver = willing().await;
    let webhook = sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    receiver.next().await;
    sandbox.world().create(json!({}));
    assert!(!sandbox.world().deliveries_are_settled());
    assert!(sandbox.world().remove_webhook(webhook));
    assert!(!sandbox.world().remove_webhook(webhook));
    sandbox.until_deliveries_settle().await;
    sandbox.world().create(json!({}));
    let states: Vec<DeliveryState> = sandbox.world().deliveries().iter().map(|one| one.state).collect();
    assert_eq!(states[1..], [DeliveryState::Canceled]);
}

#[tokio::test]
async fn deliveries_end_with_the_sandbox() {
    let sandbox = sandbox_with(0, Readings { webhook_timeout_ms: 3_600_000, ..Readings::default() }).await;
    let mut receiver = Receiver::tcp(|_| Reaction::Hang).await;
    sandbox.register_webhook(&receiver.url, SECRET, &[]).unwrap();
    receiver.next().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn webhooks_are_controlled_over_http() {
    let sandbox = sandbox(0).await;
    let mut receiver = willing().await;
    let control = async |method: &'static str, path: &str, body: Value| {
        let reply = Ask::new(method, format!("/_sandbox/{path}")).json(&body).send(&sandbox).await;
        (reply.status, reply.json())
    };
    let webhook = json!({"url": receiver.url, "secret": SECRET, "types": ["customer.created"]});
    let (_, id) = control("POST", "webhooks", webhook).await;
    let (_, listed) = control("GET", "webhooks", json!(null)).await;
    assert_eq!((&listed[0]["id"], &listed[0]["url"]), (&id["id"], &json!(receiver.url)));
    control("POST", "customers", json!({})).await;
    let (_, settled) = control("GET", "deliveries/settled", json!(null)).await;
    let states: Vec<&Value> = settled.as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["delivered", "delivered"]);
    assert_eq!((&settled[1]["type"], &settled[1]["status"]), (&json!("customer.created"), &json!(200)));
    assert_eq!(receiver.arrived().len(), 2);

    assert_eq!(control("DELETE", "deliveries", json!(null)).await.0, 200);
    assert_eq!(control("GET", "deliveries", json!(null)).await.1, json!([]));
    assert_eq!(control("DELETE", &format!("webhooks/{}", id["id"]), json!(null)).await.0, 200);
    assert_eq!(control("DELETE", &format!("webhooks/{}", id["id"]), json!(null)).await.0, 404);
    let remote = json!({"url": "https://example.com/", "secret": SECRET});
    let (status, refused) = control("POST", "webhooks", remote).await;
    assert_eq!(status, 400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("not a receiver on this machine"));
}
