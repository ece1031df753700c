//! Tests the faults of the list: missing customers, repeated ones, and changes between pages.

use std::collections::HashSet;

use komoju_sandbox::readings::Order;
use komoju_sandbox::{Drift, Echo, Fault, FaultEffect, FaultedCall, Readings, Region, Sandbox};
use serde_json::{Value, json};

use crate::client::{get, ids, page, sandbox, sandbox_with, sweep};

fn inject(sandbox: &Sandbox, effect: FaultEffect) {
    sandbox.world().inject(Fault::new(effect));
}

fn effect(effect: Value) -> FaultEffect {
    serde_json::from_value(effect).unwrap()
}

#[tokio::test]
async fn envelope_fields_are_set_to_any_json() {
    let sandbox = sandbox(5).await;
    let fields = json!({"total": -1, "last_page": 1e300, "page": "one", "per_page": null, "extra": {}});
    inject(&sandbox, effect(json!({"kind": "envelope", "fields": fields})));
    let list = get(&sandbox, "/customers").await.json();
    for (field, value) in fields.as_object().unwrap() {
        assert_eq!(&list[field], value, "{field}");
    }
    assert_eq!(list["data"].as_array().unwrap().len(), 5, "the data is right");
}

#[tokio::test]
async fn same_page_is_answered_for_ever_with_the_requested_or_its_own_number() {
    let sandbox = sandbox(50).await;
    let first = page(&sandbox, "").await;
    for (echo, number) in [(Echo::Asked, 4), (Echo::Answered, 1)] {
        sandbox.world().clear_faults();
        inject(&sandbox, FaultEffect::SamePage { page: 1, echo });
        let list = get(&sandbox, "/customers?page=4").await.json();
        assert_eq!((&list["data"], &list["page"]), (&json!(first), &json!(number)));
        assert_eq!((&list["total"], &list["last_page"]), (&json!(50), &json!(5)));
    }
}

#[tokio::test]
async fn short_or_empty_list_is_consistent_and_show_answers_all() {
    for (cut, left) in [(FaultEffect::ShortList { keep: 12 }, 12usize), (FaultEffect::EmptyList, 0)] {
        let sandbox = sandbox(40).await;
        inject(&sandbox, cut);
        let list = get(&sandbox, "/customers?per_page=5").await.json();
        assert_eq!((&list["total"], &list["last_page"]), (&json!(left), &json!(left.div_ceil(5))));
        let all = sandbox.world().ids();
        assert_eq!(ids(&sweep(&sandbox, 5).await), all[..left]);
        assert_eq!(get(&sandbox, &format!("/customers/{}", all[39])).await.status, 200);
    }
}

#[tokio::test]
async fn hidden_customers_are_missing_only_from_lists() {
    let sandbox = sandbox(30).await;
    let all = sandbox.world().ids();
    let named = [all[3].clone(), all[17].clone()];
    inject(&sandbox, FaultEffect::Hide { ids: named.to_vec(), every: None });
    let seen = ids(&sweep(&sandbox, 7).await);
    assert_eq!(seen.len(), 28);
    assert!(named.iter().all(|id| !seen.contains(id)));
    assert_eq!(get(&sandbox, "/customers").await.json()["total"], 28);
    assert_eq!(get(&sandbox, &format!("/customers/{}", named[0])).await.status, 200);

    sandbox.world().clear_faults();
    inject(&sandbox, FaultEffect::Hide { ids: Vec::new(), every: Some(3) });
    let first = ids(&sweep(&sandbox, 7).await);
    assert_eq!(first.len(), 20);
    assert_eq!(ids(&sweep(&sandbox, 10).await), first, "the same ones each time");
}

#[tokio::test]
async fn customer_is_twice_on_a_page_with_other_content() {
    let sandbox = sandbox(5).await;
    inject(&sandbox, effect(json!({"kind": "twice", "change": {"email": "other@example.jp"}})));
    let data = page(&sandbox, "").await;
    assert_eq!((data.len(), &data[5]["id"]), (6, &data[0]["id"]));
    assert_eq!(data[5]["email"], "other@example.jp");
    assert_ne!(data[0]["email"], data[5]["email"]);
}

#[tokio::test]
async fn any_value_is_inserted_into_a_page() {
    let sandbox = sandbox(5).await;
    let odd: Value = serde_json::from_str(r#"{"id": "../x", "metadata": [], "huge": 1e400}"#).unwrap();
    inject(&sandbox, FaultEffect::Splice { customer: odd.clone(), at: Some(1) });
    inject(&sandbox, FaultEffect::Splice { customer: json!(null), at: None });
    let data = page(&sandbox, "").await;
    assert_eq!((data.len(), &data[1], &data[6]), (7, &odd, &Value::Null));
}

/// Reads two pages with a drift in between. Returns how many live customers were missed, and how
/// many were read twice.
async fn missed_and_doubled(order: Order, drift: Drift) -> (usize, usize) {
    let sandbox = sandbox_with(40, Readings { order, ..Readings::default() }).await;
    let fault = sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).page(1).once());
    let before: HashSet<String> = sandbox.world().ids().into_iter().collect();
    let seen = ids(&sweep(&sandbox, 20).await);
    let world = sandbox.world();
    assert_eq!(world.fired(fault), 1);
    let distinct: HashSet<&String> = seen.iter().collect();
    let living = world.ids();
    let missed = living.iter().filter(|id| before.contains(*id) && !distinct.contains(id)).count();
    (missed, seen.len() - distinct.len())
}

#[tokio::test]
async fn customer_that_moves_between_two_pages_is_missed_or_read_twice() {
    let drift = |drift: Value| serde_json::from_value::<Drift>(drift).unwrap();
    for order in [Order::NewestFirst, Order::OldestFirst] {
        for (what, missed, doubled) in [
            (json!({"delete": 3, "place": "served"}), 3, 0),
            (json!({"delete": 3, "place": "coming"}), 0, 0),
            (json!({"insert": 3, "place": "served"}), 0, 3),
            (json!({"insert": 3, "place": "coming"}), 0, 0),
            (json!({"update": 3, "place": "served"}), 0, 0),
            (json!({"update": 3, "place": "coming"}), 0, 0),
            // Three customers that were read move to the end and are read again. Three of the next
            // page take their place and are missed.
            (json!({"reorder": 3, "place": "served"}), 3, 3),
            // Three unread customers move to the start. They push three that were read onto the
            // next page.
            (json!({"reorder": 3, "place": "coming"}), 3, 3),
        ] {
            let result = missed_and_doubled(order, drift(what.clone())).await;
            assert_eq!(result, (missed, doubled), "{order:?} {what}");
        }
    }
}

#[tokio::test]
async fn drift_changes_the_given_number_of_customers() {
    let sandbox = sandbox(40).await;
    let drift = Drift { delete: 2, insert: 5, update: 3, place: Region::Coming, ..Drift::default() };
    sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).once());
    get(&sandbox, "/customers?per_page=20").await;
    assert_eq!(sandbox.world().len(), 43);
    let events = get(&sandbox, "/events?per_page=100").await.json();
    let count = |kind: &str| {
        let events = events["data"].as_array().unwrap().iter();
        events.filter(|event| event["type"] == kind).count()
    };
    let counts = ["customer.deleted", "customer.created", "customer.updated"].map(count);
    assert_eq!(counts, [2, 5, 3]);
}

#[tokio::test]
async fn random_drift_is_the_same_for_the_same_seed() {
    let run = async |seed: u64| {
        let sandbox = sandbox(100).await;
        let drift = json!({"kind": "random_drift", "seed": seed, "delete": 3, "insert": 3, "update": 3, "reorder": 2});
        sandbox.world().inject(Fault::new(effect(drift)).call(FaultedCall::List));
        let seen = sweep(&sandbox, 10).await;
        (seen, sandbox.world().truth())
    };
    let first = run(1).await;
    assert_eq!(run(1).await, first);
    let second = run(2).await;
    assert_ne!(second, first);
    assert_ne!(ids(&second.0), second.1.keys().cloned().collect::<Vec<_>>());
}

/// The number that rules out absence as evidence: at this rate almost every sweep misses a live
/// customer.
#[tokio::test]
async fn eight_deletes_during_a_sweep_hide_a_customer() {
    let sandbox = sandbox(2_000).await;
    for page in 1..=8 {
        let drift = Drift { delete: 1, ..Drift::default() };
        sandbox.world().inject(Fault::new(FaultEffect::Drift(drift)).page(page * 9).once());
    }
    let seen: HashSet<String> = ids(&sweep(&sandbox, 25).await).into_iter().collect();
    let missed = sandbox.world().ids().iter().filter(|id| !seen.contains(*id)).count();
    assert_eq!(missed, 8, "each delete on a page already read hides one");
}
