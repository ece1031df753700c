//! Tests requests in the shapes of the official SDKs; see `tests/fixtures/sdk/README.md`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use komoju_sandbox::Sandbox;
use serde_json::{Value, json};

use crate::client::{Reply, ids, sandbox, send_raw, sweep};

const SDKS: [&str; 3] = ["ruby", "node", "php"];

async fn replay(sandbox: &Sandbox, name: &str, customer: &str) -> Reply {
    let path = format!("{}/tests/fixtures/sdk/{name}.http", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (head, body) = text.split_once("\n\n").unwrap();
    let body = body.trim_end();
    let credentials = BASE64_STANDARD.encode(format!("{}:", sandbox.key()));
    let head = head
        .replace("{{HOST}}", &sandbox.address().to_string())
        .replace("{{AUTHORIZATION}}", &format!("Basic {credentials}"))
        .replace("{{CUSTOMER_ID}}", customer)
        .replace("{{LENGTH}}", &body.len().to_string())
        // So that the end of the connection is the end of the answer.
        .replace("Connection: keep-alive\n", "")
        .replace('\n', "\r\n");
    send_raw(sandbox, format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes()).await
}

fn assert_customer(customer: &Value) {
    for field in ["id", "resource", "email", "source", "metadata", "created_at"] {
        assert!(customer.get(field).is_some(), "{field} is missing: {customer}");
    }
    assert_eq!(customer["resource"], "customer");
}

#[tokio::test]
async fn every_sdk_lists_and_shows() {
    for sdk in SDKS {
        let sandbox = sandbox(60).await;
        let list = replay(&sandbox, &format!("{sdk}-list"), "").await;
        assert_eq!(list.status, 200, "{sdk}: {}", list.text());
        let customers = list.json()["data"].as_array().unwrap().clone();
        assert_eq!(customers.len(), 10);
        customers.iter().for_each(assert_customer);

        let id = &ids(&customers)[3];
        let shown = replay(&sandbox, &format!("{sdk}-show"), id).await.json();
        assert_eq!(shown, customers[3], "{sdk}");
    }
}

#[tokio::test]
async fn every_sdk_selects_the_same_window_of_time() {
    let sandbox = sandbox(60).await;
    let all = sweep(&sandbox, 100).await;
    let within = |customer: &&Value| {
        let created_at = customer["created_at"].as_str().unwrap();
        ("2019-01-01T00:00:00Z"..="2026-01-01T00:00:00Z").contains(&created_at)
    };
    let expected: Vec<Value> = all.iter().filter(within).skip(20).take(20).cloned().collect();
    assert_eq!(expected.len(), 20);
    for sdk in SDKS {
        let list = replay(&sandbox, &format!("{sdk}-list-window"), "").await.json();
        assert_eq!((&list["page"], &list["per_page"]), (&json!(2), &json!(20)), "{sdk}");
        assert_eq!(list["data"], json!(expected), "{sdk}");
    }
}

#[tokio::test]
async fn every_sdk_creates_updates_and_deletes() {
    for sdk in SDKS {
        let sandbox = sandbox(0).await;
        let created = replay(&sandbox, &format!("{sdk}-create"), "").await;
        assert_eq!(created.status, 200, "{sdk}: {}", created.text());
        let created = created.json();
        assert_customer(&created);
        assert_eq!(created["email"], "taro@example.jp");
        assert_eq!(created["metadata"], json!({"order_id": "A/1", "氏名": "山田"}), "{sdk}");
        assert_eq!(
            created["source"],
            json!({"type": "credit_card", "brand": "visa", "last_four_digits": "1111", "month": 12, "year": 2030})
        );

        let id = created["id"].as_str().unwrap();
        let updated = replay(&sandbox, &format!("{sdk}-update"), id).await.json();
        assert_eq!(updated["email"], "hanako@example.jp");
        assert_eq!(updated["metadata"], json!({"order_id": "A/2", "氏名": "山田"}), "{sdk}");

        let deleted = replay(&sandbox, &format!("{sdk}-delete"), id).await;
        assert_eq!((deleted.status, deleted.json()), (200, updated), "{sdk}");
        assert!(sandbox.world().is_empty());
    }
}

#[tokio::test]
async fn every_sdk_lists_events() {
    for sdk in SDKS {
        let sandbox = sandbox(0).await;
        sandbox.world().set_now("2025-06-01T00:00:00Z".parse().unwrap());
        for _ in 0..25 {
            sandbox.world().create(json!({}));
        }
        let list = replay(&sandbox, &format!("{sdk}-events"), "").await;
        assert_eq!(list.status, 200, "{sdk}: {}", list.text());
        let events = list.json()["data"].as_array().unwrap().clone();
        assert_eq!(events.len(), 5, "the second page of twenty-five");
        for event in events {
            assert_eq!((&event["type"], &event["resource"]), (&json!("customer.created"), &json!("event")));
            assert_customer(&event["data"]);
        }
    }
}
