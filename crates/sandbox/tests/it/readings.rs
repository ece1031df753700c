//! Tests each reading in both ways.

use komoju_sandbox::readings::{
    Delete, Edge, Envelope, Events, Locale, Metadata, NullEmail, Order, PastEnd, PaymentDetails, PerPageOver,
    Readings, Source,
};
use serde_json::{Value, json};

use crate::client::{ask, get, ids, page, sandbox, sandbox_with};

#[tokio::test]
async fn list_has_the_order_of_the_reading() {
    let sandbox = sandbox(5).await;
    let newest_first = sandbox.world().ids();
    assert_eq!(ids(&page(&sandbox, "").await), newest_first);
    sandbox.world().readings_mut().order = Order::OldestFirst;
    let mut expected = newest_first;
    expected.reverse();
    assert_eq!(ids(&page(&sandbox, "").await), expected);
    sandbox.world().readings_mut().order = Order::ById;
    expected.sort();
    assert_eq!(ids(&page(&sandbox, "").await), expected);
}

#[tokio::test]
async fn page_over_the_maximum_is_clamped_or_refused() {
    let sandbox = sandbox_with(30, Readings { per_page_max: 20, ..Readings::default() }).await;
    let clamped = get(&sandbox, "/customers?per_page=21").await.json();
    assert_eq!((&clamped["per_page"], clamped["data"].as_array().unwrap().len()), (&json!(20), 20));
    sandbox.world().readings_mut().per_page_over = PerPageOver::Refused;
    assert_eq!(get(&sandbox, "/customers?per_page=20").await.status, 200);
    let refused = get(&sandbox, "/customers?per_page=21").await;
    assert_eq!(refused.error(), (422, "invalid_parameter".to_owned(), json!("per_page")));
}

#[tokio::test]
async fn source_is_hidden_in_lists_and_show_and_never_in_answers_to_writes() {
    let sandbox = sandbox(0).await;
    let id = sandbox.world().create(json!({"source": {"type": "credit_card", "brand": "visa"}}));
    let path = format!("/customers/{id}");
    sandbox.world().readings_mut().list_source = Source::Hidden;
    assert_eq!(page(&sandbox, "").await[0]["source"], Value::Null);
    assert_eq!(get(&sandbox, &path).await.json()["source"]["brand"], "visa");

    sandbox.world().readings_mut().list_source = Source::Shown;
    sandbox.world().readings_mut().show_source = Source::Hidden;
    assert_eq!(page(&sandbox, "").await[0]["source"]["brand"], "visa");
    assert_eq!(get(&sandbox, &path).await.json()["source"], Value::Null);
    assert_eq!(sandbox.world().truth()[&id]["source"], Value::Null, "truth is what show says");
    assert_eq!(sandbox.world().get(&id).unwrap()["source"]["brand"], "visa");

    let updated = ask(&sandbox, "PATCH", &path).json(&json!({})).send(&sandbox).await.json();
    assert_eq!(updated["source"]["brand"], "visa");
}

#[tokio::test]
async fn metadata_is_merged_or_replaced() {
    for (reading, expected) in
        [(Metadata::Merged, json!({"a": "1", "b": "3"})), (Metadata::Replaced, json!({"b": "3"}))]
    {
        let sandbox = sandbox_with(0, Readings { metadata: reading, ..Readings::default() }).await;
        let id = sandbox.world().create(json!({"metadata": {"a": "1", "b": "2"}}));
        let patch = json!({"metadata": {"b": "3"}});
        let updated = ask(&sandbox, "PATCH", &format!("/customers/{id}")).json(&patch).send(&sandbox).await;
        assert_eq!(updated.json()["metadata"], expected);
    }
}

#[tokio::test]
async fn null_email_clears_or_is_ignored_or_refused() {
    for (reading, status, email) in [
        (NullEmail::Clears, 200, Value::Null),
        (NullEmail::Ignored, 200, json!("a@example.jp")),
        (NullEmail::Refused, 422, json!("a@example.jp")),
    ] {
        let sandbox = sandbox_with(0, Readings { null_email: reading, ..Readings::default() }).await;
        let id = sandbox.world().create(json!({"email": "a@example.jp"}));
        let path = format!("/customers/{id}");
        let updated = ask(&sandbox, "PATCH", &path).json(&json!({"email": null})).send(&sandbox).await;
        assert_eq!(updated.status, status, "{reading:?}");
        assert_eq!(sandbox.world().get(&id).unwrap()["email"], email, "{reading:?}");
    }
}

#[tokio::test]
async fn payment_details_are_required_or_not() {
    let sandbox = sandbox(0).await;
    let body = json!({"email": "a@example.jp"});
    let created = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
    assert_eq!(created.json()["source"], Value::Null);
    sandbox.world().readings_mut().payment_details = PaymentDetails::Required;
    let refused = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
    assert_eq!(refused.error(), (422, "missing_parameter".to_owned(), json!("payment_details")));
}

#[tokio::test]
async fn page_past_the_end_is_empty_or_404_or_the_last() {
    let sandbox = sandbox(15).await;
    let past = || get(&sandbox, "/customers?page=9");
    let empty = past().await.json();
    assert_eq!((&empty["page"], &empty["last_page"], &empty["data"]), (&json!(9), &json!(2), &json!([])));
    sandbox.world().readings_mut().past_end = PastEnd::NotFound;
    assert_eq!(past().await.error().0, 404);
    sandbox.world().readings_mut().past_end = PastEnd::LastPage;
    let last = past().await.json();
    assert_eq!((&last["page"], last["data"].as_array().unwrap().len()), (&json!(2), 5));
}

#[tokio::test]
async fn bounds_of_time_are_inclusive_or_exclusive() {
    let sandbox = sandbox(0).await;
    for second in 1..=3 {
        sandbox.world().create(json!({"created_at": format!("2026-01-01T00:00:0{second}Z")}));
    }
    let query = "start_time=2026-01-01T00:00:01Z&end_time=2026-01-01T00:00:03Z";
    for (start_time, end_time, count) in [
        (Edge::Inclusive, Edge::Inclusive, 3),
        (Edge::Exclusive, Edge::Inclusive, 2),
        (Edge::Inclusive, Edge::Exclusive, 2),
        (Edge::Exclusive, Edge::Exclusive, 1),
    ] {
        *sandbox.world().readings_mut() = Readings { start_time, end_time, ..Readings::default() };
        assert_eq!(page(&sandbox, query).await.len(), count);
    }
}

#[tokio::test]
async fn events_are_kept_or_not() {
    let sandbox = sandbox(0).await;
    sandbox.world().create(json!({}));
    let list = get(&sandbox, "/events").await.json();
    let path = format!("/events/{}", list["data"][0]["id"].as_str().unwrap());
    sandbox.world().readings_mut().events = Events::Dropped;
    assert_eq!(get(&sandbox, "/events").await.json()["total"], 0);
    assert_eq!(get(&sandbox, &path).await.status, 404);
}

#[tokio::test]
async fn delete_answers_the_customer_or_204() {
    let sandbox = sandbox_with(1, Readings { delete: Delete::NoContent, ..Readings::default() }).await;
    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    let deleted = ask(&sandbox, "DELETE", &path).send(&sandbox).await;
    assert_eq!((deleted.status, deleted.text().as_str()), (204, ""));
    assert!(sandbox.world().is_empty());
}

#[tokio::test]
async fn metadata_keys_are_limited_also_after_a_merge() {
    let sandbox = sandbox_with(0, Readings { metadata_keys_max: Some(2), ..Readings::default() }).await;
    let id = sandbox.world().create(json!({"metadata": {"a": "1"}}));
    let path = format!("/customers/{id}");
    let patch = |metadata: Value| ask(&sandbox, "PATCH", &path).json(&json!({"metadata": metadata}));
    assert_eq!(patch(json!({"b": "2"})).send(&sandbox).await.status, 200);
    let refused = patch(json!({"c": "3"})).send(&sandbox).await;
    assert_eq!(refused.error(), (422, "invalid_parameter".to_owned(), json!("metadata")));
}

#[tokio::test]
async fn locale_is_shown_hidden_or_depends_on_the_version() {
    let sandbox = sandbox(0).await;
    let id = sandbox.world().create(json!({"locale": "ko"}));
    let path = format!("/customers/{id}");
    let locale = async |version: Option<&str>| {
        let ask = ask(&sandbox, "GET", &path);
        let ask = version.into_iter().fold(ask, |ask, version| ask.header("X-KOMOJU-API-VERSION", version));
        ask.send(&sandbox).await.json().get("locale").cloned()
    };
    assert_eq!(locale(None).await, Some(json!("ko")));
    sandbox.world().readings_mut().locale = Locale::Hidden;
    assert_eq!(locale(Some("2025-01-28")).await, None);
    sandbox.world().readings_mut().locale = Locale::ByVersion;
    assert_eq!(locale(Some("2025-01-28")).await, Some(json!("ko")));
    assert_eq!(locale(Some("2024-07-15")).await, None);
    assert_eq!(locale(None).await, None);
}

#[tokio::test]
async fn envelope_has_either_resource() {
    let sandbox = sandbox_with(1, Readings { envelope: Envelope::List, ..Readings::default() }).await;
    assert_eq!(get(&sandbox, "/customers").await.json()["resource"], "list");
}
