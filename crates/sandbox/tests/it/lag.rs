//! Tests reads from a state that lags by some seconds, while writes take effect at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use komoju_sandbox::readings::{Deleted, Readings};
use komoju_sandbox::{Drift, Fault, FaultEffect, Region, Sandbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::client::{Ask, ask, get, ids, page, sandbox_with, sweep};

async fn lagging(customers: u32, list_lag_s: u64, show_lag_s: u64) -> Sandbox {
    sandbox_with(customers, Readings { list_lag_s, show_lag_s, ..Readings::default() }).await
}

fn advance(sandbox: &Sandbox, milliseconds: u64) {
    sandbox.world().advance(Duration::from_millis(milliseconds));
}

#[tokio::test]
async fn create_is_shown_by_lists_and_show_after_their_own_lags() {
    let sandbox = lagging(2, 4, 2).await;
    let created = ask(&sandbox, "POST", "/customers").json(&json!({})).send(&sandbox).await;
    assert_eq!(created.status, 200);
    let created = created.json();
    let path = format!("/customers/{}", created["id"].as_str().unwrap());
    for (wait, total, status) in [(0, 2, 404), (1999, 2, 404), (1, 2, 200), (1999, 2, 200), (1, 3, 200)] {
        advance(&sandbox, wait);
        assert_eq!(get(&sandbox, "/customers").await.json()["total"], total);
        let shown = get(&sandbox, &path).await;
        assert_eq!(shown.status, status);
        if status == 200 {
            assert_eq!(shown.json(), created);
        }
    }
}

#[tokio::test]
async fn write_takes_effect_at_once_and_its_answer_shows_it() {
    let sandbox = lagging(1, 60, 60).await;
    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    let before = get(&sandbox, &path).await.json();
    let patch = json!({"email": "new@example.jp"});
    let updated = ask(&sandbox, "PATCH", &path).json(&patch).send(&sandbox).await.json();
    assert_eq!(updated["email"], "new@example.jp");
    assert_eq!(get(&sandbox, &path).await.json(), before);
    assert_eq!(page(&sandbox, "").await, std::slice::from_ref(&before));
    assert_eq!(ask(&sandbox, "DELETE", &path).send(&sandbox).await.json(), updated);
    assert_eq!(ask(&sandbox, "PATCH", &path).json(&patch).send(&sandbox).await.status, 404);
    assert_eq!(get(&sandbox, &path).await.json(), before, "show is behind");
    assert_eq!(get(&sandbox, "/events").await.json()["total"], 2, "events are not");

    // The update and the delete were made within the same millisecond, so they are seen together.
    advance(&sandbox, 60_000);
    assert_eq!(get(&sandbox, &path).await.status, 404);
    assert!(page(&sandbox, "").await.is_empty());
}

#[tokio::test]
async fn deleted_customer_is_shown_until_the_lag_is_over() {
    let sandbox = lagging(0, 0, 5).await;
    sandbox.world().readings_mut().deleted = Deleted::Gone;
    let id = sandbox.world().create(json!({}));
    let path = format!("/customers/{id}");
    advance(&sandbox, 2000);
    sandbox.world().delete(&id);
    for (wait, status) in [(0, 404), (3000, 200), (2000, 410)] {
        advance(&sandbox, wait);
        assert_eq!(get(&sandbox, &path).await.status, status);
    }
}

#[tokio::test]
async fn list_is_the_whole_state_from_before_the_lag() {
    let sandbox = lagging(60, 7, 3).await;
    let mut rng = StdRng::seed_from_u64(3);
    let mut states: VecDeque<BTreeMap<String, Value>> = VecDeque::from(vec![sandbox.world().truth(); 8]);
    for step in 0..60 {
        advance(&sandbox, 1000);
        {
            let mut world = sandbox.world();
            world.trickle(&mut rng);
            match step {
                20 => {
                    let id = world.ids()[3].clone();
                    assert!(world.delete(&id));
                }
                30 => world.remove_all(),
                40 => world.put_raw(json!({"id": "raw", "created_at": "2026-01-01T00:00:00Z"})),
                _ => {}
            }
            states.push_front(world.truth());
        }
        states.truncate(8);
        let listed = sweep(&sandbox, 100).await;
        let listed: BTreeMap<String, Value> = ids(&listed).into_iter().zip(listed).collect();
        assert_eq!(listed, states[7], "step {step}");
        for id in states[3].keys().chain(states[0].keys()) {
            let shown = get(&sandbox, &format!("/customers/{id}")).await;
            let expected = states[3].get(id);
            assert_eq!(shown.status, if expected.is_some() { 200 } else { 404 }, "step {step}");
            if let Some(expected) = expected {
                assert_eq!(&shown.json(), expected, "step {step}");
            }
        }
    }
}

#[tokio::test]
async fn share_of_reads_shows_the_newest_state() {
    let sandbox = lagging(1, 10, 10).await;
    sandbox.world().readings_mut().lag_percent = 30;
    let id = sandbox.world().create(json!({}));
    let mut behind = [0, 0];
    for _ in 0..200 {
        behind[0] += u32::from(page(&sandbox, "").await.len() == 1);
        behind[1] += u32::from(get(&sandbox, &format!("/customers/{id}")).await.status == 404);
    }
    assert!(behind.iter().all(|count| (40..80).contains(count)), "{behind:?}");
    sandbox.world().readings_mut().lag_percent = 0;
    for _ in 0..20 {
        assert_eq!(page(&sandbox, "").await.len(), 2);
    }
}

#[tokio::test]
async fn lag_is_switched_on_and_off_at_run_time() {
    let sandbox = lagging(1, 0, 0).await;
    sandbox.world().create(json!({}));
    sandbox.world().readings_mut().list_lag_s = 10;
    sandbox.world().create(json!({}));
    assert_eq!(page(&sandbox, "").await.len(), 2, "no older than the moment of the switch");
    advance(&sandbox, 6000);
    sandbox.world().create(json!({}));
    sandbox.world().readings_mut().list_lag_s = 6;
    assert_eq!(page(&sandbox, "").await.len(), 3, "a shorter lag catches up");
    sandbox.world().readings_mut().list_lag_s = 10;
    assert_eq!(page(&sandbox, "").await.len(), 3, "a longer one does not go back");
    sandbox.world().readings_mut().list_lag_s = 0;
    assert_eq!(page(&sandbox, "").await.len(), 4);
}

#[tokio::test]
async fn every_kind_of_change_lags() {
    let sandbox = lagging(5, 10, 10).await;
    sandbox.world().add_account("sk_test_b", 1, 2);
    let other = async || {
        let list = Ask::new("GET", "/api/v1/customers").key("sk_test_b").send(&sandbox).await;
        list.json()["total"].as_u64().unwrap()
    };
    let now = sandbox.world().now();
    sandbox.world().account("sk_test_b").unwrap().create(now, json!({}));
    let all = sandbox.world().ids();
    assert_eq!(
        Ask::new("DELETE", format!("/_sandbox/customers/{}", all[0])).send(&sandbox).await.status,
        200
    );
    let drift = Drift { delete: 2, place: Region::Served, ..Drift::default() };
    sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).once());
    assert_eq!(ids(&page(&sandbox, "").await), all, "the drift is after this page");
    assert_eq!(sandbox.world().len(), 2, "it chose among the living");
    assert_eq!((ids(&page(&sandbox, "").await), other().await), (all, 2));
    advance(&sandbox, 10_000);
    assert_eq!((ids(&page(&sandbox, "").await), other().await), (sandbox.world().ids(), 3));
}

#[tokio::test]
async fn clock_set_back_does_not_stop_the_replica() {
    let sandbox = lagging(0, 10, 10).await;
    sandbox.world().create(json!({}));
    sandbox.world().set_now("2020-01-01T00:00:00Z".parse().unwrap());
    assert!(page(&sandbox, "").await.is_empty());
    advance(&sandbox, 10_000);
    assert_eq!(page(&sandbox, "").await.len(), 1);
}
