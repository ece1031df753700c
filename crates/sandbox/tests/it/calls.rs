//! Tests every call of the API without faults, and its refusals.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, KeyRefusal, OldKey};
use serde_json::{Value, json};

use crate::client::{Ask, ask, get, page, sandbox};

fn card() -> Value {
    json!({"type": "credit_card", "number": "4111111111111111", "month": 12, "year": 2030})
}

#[tokio::test]
async fn list_has_the_whole_envelope() {
    let sandbox = sandbox(25).await;
    let list = get(&sandbox, "/customers?page=3").await.json();
    assert_eq!(list["resource"], "customer_list");
    assert_eq!((&list["total"], &list["page"]), (&json!(25), &json!(3)));
    assert_eq!((&list["per_page"], &list["last_page"]), (&json!(10), &json!(3)));
    assert_eq!((&list["start_time"], &list["end_time"]), (&Value::Null, &Value::Null));
    assert_eq!(list["data"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn customer_is_shown_as_it_is_listed() {
    let sandbox = sandbox(30).await;
    for listed in page(&sandbox, "per_page=100").await {
        let shown = get(&sandbox, &format!("/customers/{}", listed["id"].as_str().unwrap())).await;
        assert_eq!((shown.status, shown.json()), (200, listed.clone()));
        assert_eq!(sandbox.world().truth()[listed["id"].as_str().unwrap()], listed);
    }
}

#[tokio::test]
async fn create_is_answered_200_with_its_source_and_listed_first() {
    let sandbox = sandbox(3).await;
    let body = json!({
        "email": "taro@example.jp", "payment_details": "tok_abc", "currency": "JPY",
        "metadata": {"氏名": "山田"}, "unknown": 1,
    });
    let created = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
    assert_eq!(created.status, 200);
    let customer = created.json();
    assert_eq!(customer["email"], "taro@example.jp");
    assert_eq!(customer["metadata"], json!({"氏名": "山田"}));
    assert_eq!(customer["source"]["type"], "credit_card");
    assert_eq!(customer["created_at"], "2026-06-01T00:00:00Z");
    assert_eq!((customer.get("currency"), customer.get("unknown")), (None, None));
    assert_eq!(page(&sandbox, "per_page=1").await[0], customer);
    assert_eq!(sandbox.world().creates(), 1);
}

#[tokio::test]
async fn form_has_the_same_effect_as_json() {
    let sandbox = sandbox(0).await;
    let form = "email=taro%40example.jp&metadata[order_id]=x&metadata[%E6%B0%8F%E5%90%8D]=%E5%B1%B1%E7%94%B0\
                &payment_details[type]=credit_card&payment_details[number]=4111111111111111\
                &payment_details[month]=12&payment_details[year]=2030";
    let json = json!({
        "email": "taro@example.jp", "metadata": {"order_id": "x", "氏名": "山田"}, "payment_details": card(),
    });
    let mut by_form = ask(&sandbox, "POST", "/customers").form(form).send(&sandbox).await.json();
    let mut by_json = ask(&sandbox, "POST", "/customers").json(&json).send(&sandbox).await.json();
    assert_ne!(by_form["id"], by_json["id"]);
    (by_form["id"], by_json["id"]) = (Value::Null, Value::Null);
    assert_eq!(by_form, by_json);

    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    let updated = ask(&sandbox, "PATCH", &path).form("metadata[order_id]=y").send(&sandbox).await.json();
    assert_eq!(updated["metadata"]["order_id"], "y");
}

#[tokio::test]
async fn update_keeps_fields_that_it_does_not_name() {
    let sandbox = sandbox(0).await;
    let id = sandbox.world().create(json!({"email": "a@example.jp", "metadata": {"a": "1"}}));
    let path = format!("/customers/{id}");
    let updated =
        ask(&sandbox, "PATCH", &path).json(&json!({"payment_details": card()})).send(&sandbox).await;
    assert_eq!(updated.status, 200);
    let customer = updated.json();
    assert_eq!((&customer["email"], &customer["metadata"]), (&json!("a@example.jp"), &json!({"a": "1"})));
    assert_eq!(customer["source"]["last_four_digits"], "1111");
    assert_eq!(get(&sandbox, &path).await.json(), customer);
    assert_eq!(sandbox.world().updates(), 1);
}

#[tokio::test]
async fn delete_answers_the_customer_which_is_then_gone() {
    let sandbox = sandbox(2).await;
    let id = sandbox.world().ids()[0].clone();
    let path = format!("/customers/{id}");
    let before = get(&sandbox, &path).await.json();
    let deleted = ask(&sandbox, "DELETE", &path).send(&sandbox).await;
    assert_eq!((deleted.status, deleted.json()), (200, before));
    for method in ["GET", "PATCH", "DELETE"] {
        let again = ask(&sandbox, method, &path).send(&sandbox).await;
        assert_eq!(again.error(), (404, "not_found".to_owned(), Value::Null), "{method}");
    }
    let world = sandbox.world();
    assert_eq!((world.deletes(), world.len()), (1, 1));
}

#[tokio::test]
async fn unknown_path_is_answered_404_in_json() {
    let sandbox = sandbox(1).await;
    for path in ["/customers/unknown", "/payments", "/customers/%2e%2e", "/customers/a/b", "/events/nothing"]
    {
        assert_eq!(get(&sandbox, path).await.error(), (404, "not_found".to_owned(), Value::Null), "{path}");
    }
}

#[tokio::test]
async fn id_with_any_characters_is_one_segment() {
    let sandbox = sandbox(0).await;
    sandbox.world().put_raw(json!({"id": "a/b?é 🎁%"}));
    let shown = get(&sandbox, "/customers/a%2Fb%3F%C3%A9%20%F0%9F%8E%81%25").await;
    assert_eq!(shown.json()["id"], "a/b?é 🎁%");
}

#[tokio::test]
async fn invalid_parameter_is_refused_by_name() {
    let sandbox = sandbox(0).await;
    let long = "長".repeat(2001);
    for (body, code, param) in [
        (json!({"email": 1}), "invalid_parameter", "email"),
        (json!({"metadata": []}), "invalid_parameter", "metadata"),
        (json!({"metadata": {"a": 1}}), "invalid_parameter", "metadata"),
        (json!({"metadata": {"k".repeat(31): "v"}}), "invalid_parameter", "metadata"),
        (json!({"metadata": {"a": long}}), "invalid_parameter", "metadata"),
        (json!({"currency": "Yen!"}), "invalid_parameter", "currency"),
        (json!({"payment_details": "card_1"}), "invalid_parameter", "payment_details"),
        (json!({"payment_details": 5}), "invalid_parameter", "payment_details"),
        (json!({"payment_details": {"number": "1"}}), "missing_parameter", "payment_details[type]"),
    ] {
        let refused = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
        assert_eq!(refused.error(), (422, code.to_owned(), json!(param)), "{body}");
    }
    let longest = json!({"metadata": {"鍵".repeat(30): "長".repeat(2000)}});
    assert_eq!(ask(&sandbox, "POST", "/customers").json(&longest).send(&sandbox).await.status, 200);
    let incomplete = ask(&sandbox, "POST", "/customers").header("Content-Type", "application/json");
    assert_eq!(incomplete.form("{").send(&sandbox).await.error().0, 400);
    assert_eq!(sandbox.world().creates(), 1, "only the longest was created");
}

#[tokio::test]
async fn token_is_valid_for_one_write_and_a_refused_card_is_a_502() {
    let sandbox = sandbox(1).await;
    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    let token = json!({"payment_details": "tok_once"});
    assert_eq!(ask(&sandbox, "POST", "/customers").json(&token).send(&sandbox).await.status, 200);
    let again = ask(&sandbox, "PATCH", &path).json(&token).send(&sandbox).await;
    assert_eq!(again.error(), (422, "invalid_parameter".to_owned(), json!("payment_details")));

    for code in ["card_declined", "card_expired", "exceeds_limit", "bad_verification_value"] {
        let body = json!({"payment_details": format!("tok_{code}_1")});
        let refused = ask(&sandbox, "PATCH", &path).json(&body).send(&sandbox).await;
        assert_eq!(refused.error(), (502, code.to_owned(), Value::Null));
    }
    let world = sandbox.world();
    assert_eq!((world.creates(), world.updates()), (1, 0));
}

#[tokio::test]
async fn events_are_listed_newest_first() {
    let sandbox = sandbox(1).await;
    let created = ask(&sandbox, "POST", "/customers").json(&json!({})).send(&sandbox).await.json();
    let path = format!("/customers/{}", created["id"].as_str().unwrap());
    sandbox.world().advance(Duration::from_secs(60));
    ask(&sandbox, "PATCH", &path).json(&json!({"email": "b@example.jp"})).send(&sandbox).await;
    ask(&sandbox, "DELETE", &path).send(&sandbox).await;

    let list = get(&sandbox, "/events?per_page=2").await.json();
    assert_eq!((&list["total"], &list["last_page"]), (&json!(3), &json!(2)));
    let events = list["data"].as_array().unwrap();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["customer.deleted", "customer.updated"]);
    assert_eq!(events[1]["data"]["email"], "b@example.jp");
    assert_eq!((&events[1]["resource"], &events[1]["reason"]), (&json!("event"), &Value::Null));
    assert_eq!(events[1]["created_at"], "2026-06-01T00:01:00Z");

    let shown = get(&sandbox, &format!("/events/{}", events[0]["id"].as_str().unwrap())).await;
    assert_eq!(shown.json(), events[0]);
    let first = get(&sandbox, "/events?end_time=2026-06-01T00:00:30Z").await.json();
    assert_eq!((&first["total"], &first["data"][0]["data"]), (&json!(1), &created));
}

#[tokio::test]
async fn unknown_key_is_answered_401_in_json() {
    let sandbox = sandbox(1).await;
    let path = format!("/api/v1/customers/{}", sandbox.world().ids()[0]);
    for (method, path) in
        [("GET", "/api/v1/customers"), ("POST", "/api/v1/customers"), ("DELETE", &path), ("GET", "/api/v1/x")]
    {
        for ask in [Ask::new(method, path), Ask::new(method, path).key("sk_test_other")] {
            let reply = ask.send(&sandbox).await;
            assert_eq!(reply.error(), (401, "unauthorized".to_owned(), Value::Null));
            assert!(reply.header("www-authenticate").is_some());
        }
    }
    assert_eq!(sandbox.world().len(), 1);
}

#[tokio::test]
async fn key_alone_selects_the_account() {
    let sandbox = sandbox(3).await;
    sandbox.world().add_account("sk_test_b", 1, 2);
    let list = |key: &'static str| Ask::new("GET", "/api/v1/customers").key(key).send(&sandbox);
    assert_eq!(list("sk_test_b").await.json()["total"], 2);
    let ours = sandbox.world().ids();
    for id in &ours {
        let foreign =
            Ask::new("GET", format!("/api/v1/customers/{id}")).key("sk_test_b").send(&sandbox).await;
        assert_eq!(foreign.error().1, "not_found");
    }

    sandbox.world().rotate_key("sk_test_new", OldKey::Kept);
    assert_eq!(list("sk_test_sandbox").await.json()["total"], 3);
    sandbox.world().rotate_key("sk_test_newer", OldKey::Revoked);
    assert_eq!(list("sk_test_new").await.status, 401);
    assert_eq!(list("sk_test_newer").await.json()["total"], 3);

    sandbox.world().refuse_key(Some(KeyRefusal::Html403));
    let refused = list("sk_test_newer").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<html>"));
    sandbox.world().refuse_key(None);
    assert_eq!(list("sk_test_newer").await.status, 200);
}

#[tokio::test]
async fn date_header_is_the_time_of_the_sandbox() {
    let sandbox = sandbox(0).await;
    assert_eq!(get(&sandbox, "/customers").await.header("date"), Some("Mon, 01 Jun 2026 00:00:00 GMT"));
    sandbox.world().set_now("1999-12-31T23:59:59Z".parse().unwrap());
    assert_eq!(get(&sandbox, "/customers").await.header("date"), Some("Fri, 31 Dec 1999 23:59:59 GMT"));
}

#[tokio::test]
async fn date_fault_changes_the_header_and_not_the_clock() {
    let sandbox = sandbox(0).await;
    let fault = Fault::new(FaultEffect::Date { ahead_s: 1800 }).call(FaultedCall::List);
    sandbox.world().inject(fault);
    assert_eq!(get(&sandbox, "/customers").await.header("date"), Some("Mon, 01 Jun 2026 00:30:00 GMT"));
    assert_eq!(get(&sandbox, "/events").await.header("date"), Some("Mon, 01 Jun 2026 00:00:00 GMT"));
    assert_eq!(sandbox.world().now().to_string(), "2026-06-01T00:00:00Z");
}
