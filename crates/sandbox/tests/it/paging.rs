//! Tests that pages are right under every order and size, after changes and between time bounds.

use komoju_sandbox::Readings;
use komoju_sandbox::readings::Order;
use serde_json::{Value, json};

use crate::client::{get, ids, page, sandbox, sandbox_with, sweep};

#[tokio::test]
async fn sweep_reads_every_customer_once_in_order_for_each_page_size() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let sandbox = sandbox_with(117, Readings { order, ..Readings::default() }).await;
        let changed = {
            let mut world = sandbox.world();
            let ids = world.ids();
            assert!(world.delete(&ids[3]) && world.update(&ids[50], json!({"email": "changed@example.jp"})));
            world.create(json!({"created_at": "2020-02-02T02:02:02Z"}));
            world.create(json!({}));
            ids[50].clone()
        };
        let truth = sandbox.world().truth();
        for per_page in [1, 7, 100] {
            let seen = sweep(&sandbox, per_page).await;
            assert_eq!(seen.len(), truth.len());
            assert!(seen.iter().all(|customer| truth[customer["id"].as_str().unwrap()] == *customer));
            let place = |customer: &Value| match order {
                Order::ById => customer["id"].as_str().unwrap().to_owned(),
                _ => customer["created_at"].as_str().unwrap().to_owned(),
            };
            let places: Vec<String> = seen.iter().map(place).collect();
            match order {
                Order::NewestFirst => assert!(places.is_sorted_by(|a, b| a >= b)),
                Order::OldestFirst | Order::ById => assert!(places.is_sorted()),
            }
            let again: Vec<&Value> =
                seen.iter().filter(|customer| customer["id"] == changed.as_str()).collect();
            assert_eq!(again.len(), 1);
            assert_eq!(again[0]["email"], "changed@example.jp");
        }
    }
}

#[tokio::test]
async fn same_seed_gives_the_same_pages() {
    let first = sweep(&sandbox(60).await, 7).await;
    assert_eq!(sweep(&sandbox(60).await, 30).await, first);
}

#[tokio::test]
async fn bounds_of_time_select_by_created_at_in_every_order() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let sandbox = sandbox_with(200, Readings { order, ..Readings::default() }).await;
        let (start, end) = ("2021-01-01T00:00:00Z", "2023-01-01T00:00:00Z");
        let all = sweep(&sandbox, 100).await;
        let within = |customer: &&Value| {
            let created_at = customer["created_at"].as_str().unwrap();
            start <= created_at && created_at <= end
        };
        let expected: Vec<Value> = all.iter().filter(within).cloned().collect();
        assert!(expected.len() > 20 && expected.len() < 100);
        let query = format!("per_page=100&start_time={start}&end_time={end}");
        assert_eq!(page(&sandbox, &query).await, expected);
        let envelope = get(&sandbox, &format!("/customers?{query}")).await.json();
        assert_eq!((&envelope["start_time"], &envelope["end_time"]), (&json!(start), &json!(end)));
        assert_eq!(envelope["total"], expected.len());
    }
}

#[tokio::test]
async fn sandbox_with_a_million_customers_starts_at_once_and_answers_any_page() {
    let sandbox = sandbox(1_000_000).await;
    let envelope = get(&sandbox, "/customers?per_page=100&page=10000").await.json();
    assert_eq!((&envelope["total"], &envelope["last_page"]), (&json!(1_000_000), &json!(10_000)));
    let last = ids(envelope["data"].as_array().unwrap());
    assert_eq!(last.len(), 100);
    assert_eq!(get(&sandbox, &format!("/customers/{}", last[99])).await.json()["id"], last[99]);

    let first = page(&sandbox, "per_page=100").await;
    assert!(sandbox.world().delete(&ids(&first)[0]));
    assert_eq!(ids(&page(&sandbox, "per_page=99").await), ids(&first)[1..]);
}
