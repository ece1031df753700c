//! Tests what KOMOJU documents or shows in its samples. No reading changes it.

use serde_json::{Value, json};

use crate::client::{ask, get, ids, page, sandbox};

#[tokio::test]
async fn body_without_a_type_is_a_form() {
    let sandbox = sandbox(0).await;
    let form = "email=taro%40example.jp&metadata[order_id]=x";
    let created = ask(&sandbox, "POST", "/customers").untyped(form).send(&sandbox).await.json();
    assert_eq!(
        (&created["email"], &created["metadata"]),
        (&json!("taro@example.jp"), &json!({"order_id": "x"}))
    );
    let path = format!("/customers/{}", created["id"].as_str().unwrap());
    let updated = ask(&sandbox, "PATCH", &path).untyped("metadata[order_id]=y").send(&sandbox).await.json();
    assert_eq!(updated["metadata"], json!({"order_id": "y"}));
    // The JSON is then the name of an unknown parameter.
    let json = ask(&sandbox, "PATCH", &path).untyped(r#"{"email":"b@example.jp"}"#).send(&sandbox).await;
    assert_eq!((json.status, &json.json()["email"]), (200, &json!("taro@example.jp")));
}

#[tokio::test]
async fn envelope_of_events_is_a_list() {
    let sandbox = sandbox(0).await;
    assert_eq!(get(&sandbox, "/events").await.json()["resource"], "list");
}

#[tokio::test]
async fn expiration_lists_the_customers_whose_card_expires_then() {
    let sandbox = sandbox(1000).await;
    let all = sandbox.world().ids();
    sandbox.world().update(&all[5], json!({"source": {"type": "credit_card", "month": 7, "year": 2029}}));
    sandbox.world().update(&all[6], json!({"source": null}));
    let truth = sandbox.world().truth();
    let expires = |id: &&String| {
        let source = &truth[*id]["source"];
        (&source["month"], &source["year"]) == (&json!(7), &json!(2029))
    };
    let expected: Vec<String> = all.iter().filter(expires).cloned().collect();
    assert!(expected.len() > 2 && expected.contains(&all[5]), "{expected:?}");
    let listed = ids(&page(&sandbox, "per_page=100&expiration=0729").await);
    assert_eq!(listed, expected);
    let list = get(&sandbox, "/customers?per_page=2&page=2&expiration=0729").await.json();
    assert_eq!(list["total"], expected.len());
    assert_eq!(ids(list["data"].as_array().unwrap()), expected[2..4.min(expected.len())]);
    assert!(page(&sandbox, "expiration=0799").await.is_empty());
    assert_eq!(get(&sandbox, "/customers?expiration=").await.json()["total"], 1000);
    let refused = get(&sandbox, "/customers?expiration=1329").await;
    assert_eq!(refused.error(), (422, "invalid_parameter".to_owned(), json!("expiration")));
}

#[tokio::test]
async fn every_type_of_credit_card_is_saved_unchanged() {
    let sandbox = sandbox(0).await;
    for kind in ["credit_card", "credit_card_korea", "credit_card_terminal", "credit_card_brazil"] {
        let card = json!({"type": kind, "number": "4111111111111111", "month": 12, "year": 2030});
        let body = json!({"payment_details": card});
        let created = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
        assert_eq!(
            created.json()["source"],
            json!({"type": kind, "brand": "visa", "last_four_digits": "1111", "month": 12, "year": 2030})
        );
    }
    let konbini = json!({"payment_details": {"type": "konbini", "number": "4111111111111111"}});
    let refused = ask(&sandbox, "POST", "/customers").json(&konbini).send(&sandbox).await;
    assert_eq!(refused.error(), (422, "invalid_parameter".to_owned(), json!("payment_details[type]")));
}

/// Returns the keys of the objects in a JSON text in order, without those in `metadata`.
fn keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for part in text.split('"').collect::<Vec<_>>().windows(2).skip(1).step_by(2) {
        if part[1].starts_with(':') {
            keys.push(part[0].to_owned());
        }
    }
    keys
}

#[tokio::test]
async fn objects_have_their_keys_in_the_documented_order() {
    let sandbox = sandbox(1).await;
    let customer =
        ["id", "resource", "email", "source", "metadata", "created_at", "locale"].map(str::to_owned);
    let seeded = sandbox.world().ids()[0].clone();
    sandbox
        .world()
        .update(&seeded, json!({"source": null, "metadata": {}, "locale": "ja", "zebra": 1, "ant": 2}));
    let shown = get(&sandbox, &format!("/customers/{seeded}")).await.text();
    assert_eq!(keys(&shown), [&customer[..6], &["ant", "locale", "zebra"].map(str::to_owned)].concat());

    sandbox.world().remove_all();
    let card = json!({"type": "credit_card", "number": "4111111111111111", "month": 12, "year": 2030});
    let body = json!({"payment_details": card});
    let created = ask(&sandbox, "POST", "/customers").json(&body).send(&sandbox).await;
    let source = ["type", "brand", "last_four_digits", "month", "year"].map(str::to_owned);
    let expected = [&customer[..4], &source, &customer[4..]].concat();
    assert_eq!(keys(&created.text()), expected);
    let path = format!("/customers/{}", created.json()["id"].as_str().unwrap());
    for text in [get(&sandbox, &path).await.text(), get(&sandbox, "/customers").await.text()] {
        assert!(text.contains(&created.text()), "{text}");
    }
    let list = get(&sandbox, "/events?per_page=1").await;
    let event: &Value = &list.json()["data"][0];
    let shown = get(&sandbox, &format!("/events/{}", event["id"].as_str().unwrap())).await.text();
    let event = [
        &["id", "type", "resource", "data"].map(str::to_owned)[..],
        &expected,
        &["created_at", "reason"].map(str::to_owned),
    ];
    assert_eq!(keys(&shown), event.concat());
    assert!(list.text().contains(&shown));
}
