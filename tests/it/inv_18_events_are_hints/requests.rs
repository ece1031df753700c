//! When the customer of a hint is requested, and how often.

use std::time::Duration;

use komoju_sandbox::readings::EventData;
use komoju_sandbox::{EventIds, Fault, FaultEffect, FaultedCall};
use komoju_sync::clock::Clock as _;
use komoju_sync::tasks::events::TailMemory;
use komoju_testkit::in_process::read_hinted;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::{CONSISTENCY_S, email, following, lagging, open_hints, seconds, shown, update, update_first};

#[tokio::test]
async fn event_causes_one_request_whose_answer_is_recorded() {
    let harness = following(5).await;
    let (id, head) = (harness.some_id(), harness.head());
    update(&harness, &id, "new@example.com");
    harness.advance(seconds(3));
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(shown(&harness), std::slice::from_ref(&id));
    assert_eq!(harness.changes_after(head), ["updated event"]);
    let freshness = "SELECT change_seq || ' ' || customer_id || ' ' || kind || ' ' || origin || ' ' || lag_s FROM report_freshness";
    assert_eq!(harness.column(freshness), [format!("{} {id} updated event 3.0", head + 1)]);
    assert_eq!(harness.column("SELECT changes || ' ' || reported FROM recall"), ["1 1"]);
    harness.assert_true();
}

#[tokio::test]
async fn created_customer_is_recorded_before_any_sweep_lists_it() {
    let harness = following(5).await;
    let (id, head) = (harness.sandbox.world().create(json!({"email": "new@example.com"})), harness.head());
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!((shown(&harness), harness.changes_after(head)), (vec![id], vec!["created event".to_owned()]));
    harness.assert_true();
}

#[tokio::test]
async fn values_of_an_event_are_never_used() {
    for data in [EventData::Id, EventData::Wrong, EventData::Empty] {
        let mut harness = following(30).await;
        harness.sandbox.world().readings_mut().event_data = data;
        update_first(&harness, usize::MAX);
        for _ in 0..5 {
            harness.read_events().await;
            harness.read_hinted().await;
        }
        let truth = harness.sandbox.world().truth();
        for (id, after) in harness
            .column("SELECT customer_id FROM changes WHERE origin = 'event' ORDER BY seq")
            .iter()
            .zip(harness.column("SELECT after FROM changes WHERE origin = 'event' ORDER BY seq"))
        {
            let after: serde_json::Value = serde_json::from_str(&after).unwrap();
            assert_eq!(truth[id], after, "{data:?}");
        }
        let is_empty = data == EventData::Empty;
        assert_eq!(shown(&harness).is_empty(), is_empty, "{data:?}");
        let without = harness.one("SELECT without_customer FROM event_state");
        assert_eq!(without == "30", is_empty, "{data:?}: {without}");
        harness.sweep().await;
        harness.assert_true();
    }
}

#[tokio::test]
async fn hints_within_two_seconds_after_a_request_are_merged_into_one_more() {
    let harness = following(5).await;
    let id = harness.some_id();
    let change = |n: u32| update(&harness, &id, &format!("{n}@example.com"));
    (0..3).for_each(change);
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(shown(&harness).len(), 1, "the first hint is not delayed");
    for n in 3..6 {
        harness.advance(jiff::SignedDuration::from_millis(500));
        change(n);
        harness.read_events().await;
        let wait = harness.read_hinted().await.unwrap();
        assert_eq!(wait, Duration::from_millis(3000 - 500 * u64::from(n)), "{n}");
    }
    assert_eq!(shown(&harness).len(), 1);
    harness.advance(jiff::SignedDuration::from_millis(500));
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(shown(&harness).len(), 2);
    harness.assert_true();
}

#[tokio::test]
async fn hint_that_arrives_during_its_own_request_stays() {
    let harness = following(5).await;
    let id = harness.some_id();
    update(&harness, &id, "first@example.com");
    harness.read_events().await;
    // The answer is made before the second change and arrives after its event.
    let slow = harness
        .inject(Fault::new(FaultEffect::Drip { every_ms: 20, bytes: 20 }).call(FaultedCall::Show).once());
    let meanwhile = async {
        harness.sandbox.until(|world| world.fired(slow) == 1).await;
        harness
            .sandbox
            .until(|world| {
                world.requests().iter().any(|seen| seen.path.ends_with(&id) && seen.status.is_some())
            })
            .await;
        update(&harness, &id, "second@example.com");
        harness.read_events().await.hinted
    };
    let (next, hinted) = tokio::join!(harness.read_hinted(), meanwhile);
    assert_eq!((next, hinted), (Some(Duration::from_secs(2)), 1));
    assert_eq!(email(&harness, &id), "first@example.com");
    harness.advance(seconds(2));
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(email(&harness, &id), "second@example.com");
    assert_eq!(shown(&harness).len(), 2);
    harness.assert_true();
}

#[tokio::test]
async fn customer_that_had_not_changed_is_requested_once_more_after_the_lag() {
    let harness = lagging(5).await;
    harness.sandbox.world().readings_mut().show_lag_s = 50;
    harness.advance(seconds(100));
    let (id, head) = (harness.some_id(), harness.head());
    update(&harness, &id, "new@example.com");
    harness.advance(seconds(1));
    harness.read_events().await;
    harness.sandbox.world().clear_requests();
    let wait = harness.read_hinted().await.unwrap();
    assert!((60..=61).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!((shown(&harness).len(), harness.changes_after(head)), (1, vec![]));
    harness.advance(seconds(i64::from(CONSISTENCY_S) + 1));
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!((shown(&harness).len(), harness.changes_after(head)), (2, vec!["updated event".to_owned()]));
    assert_eq!(harness.column("SELECT changes || ' ' || reported FROM recall"), ["1 1"]);
    // An event without any change ends after its second request.
    harness.sandbox.world().emit("customer.updated", &id);
    harness.read_events().await;
    for _ in 0..3 {
        harness.read_hinted().await;
        harness.advance(seconds(i64::from(CONSISTENCY_S) + 1));
    }
    assert_eq!((shown(&harness).len(), open_hints(&harness)), (4, "0".to_owned()));
    harness.assert_true();
}

#[tokio::test]
async fn id_that_is_no_path_segment_is_never_requested() {
    let harness = following(5).await;
    harness.sandbox.world().put_raw(json!({"id": "..", "resource": "customer"}));
    harness.sandbox.world().emit("customer.deleted", ".");
    let report = harness.read_events().await;
    assert_eq!((report.new, report.hinted), (2, 0));
    assert_eq!(harness.read_hinted().await, None);
    assert!(harness.sandbox.world().requests().iter().all(|seen| seen.path.ends_with("/events")));
    assert_eq!(harness.one("SELECT without_customer FROM event_state"), "2");
}

#[tokio::test]
async fn customer_without_an_answer_is_requested_for_an_hour_and_a_rejected_one_once() {
    for (effect, expected) in [(FaultEffect::status(500), 120), (FaultEffect::status(403), 0)] {
        let harness = following(5).await;
        let id = harness.some_id();
        update(&harness, &id, "new@example.com");
        harness.read_events().await;
        let fault = harness.on(FaultedCall::Show, effect.clone());
        let mut requests = 0;
        while let Some(wait) = harness.read_hinted().await {
            assert_eq!(wait, Duration::from_secs(30), "{effect:?}");
            harness.advance(seconds(30));
            requests += 1;
            assert!(requests <= 120, "{effect:?}: it is never given up");
        }
        // The API would reject the same request again.
        assert_eq!((requests, harness.sandbox.world().fired(fault)), (expected, expected + 1), "{effect:?}");
    }
}

#[tokio::test]
async fn more_than_500_open_hints_are_dropped_for_one_sweep() {
    let mut harness = following(600).await;
    update_first(&harness, usize::MAX);
    let report = harness.tail(100).read(&mut TailMemory::new(harness.clock.elapsed())).await.unwrap();
    assert_eq!((report.new, report.needs_sweep), (600, true));
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(shown(&harness), Vec::<String>::new());
    let head = harness.head();
    harness.sweep().await;
    harness.assert_true();
    // Each change is one of the sweep's, and an event reported it.
    assert_eq!(harness.changes_after(head), vec!["updated sweep"; 600]);
    assert_eq!(harness.column("SELECT changes || ' ' || reported FROM recall"), ["600 600"]);
}

#[tokio::test]
async fn up_to_500_open_hints_are_all_requested() {
    let harness = following(520).await;
    update_first(&harness, 500);
    let report = harness.tail(100).read(&mut TailMemory::new(harness.clock.elapsed())).await.unwrap();
    assert_eq!((report.hinted, report.needs_sweep), (500, false));
    harness.read_hinted().await;
    assert_eq!(shown(&harness).len(), 500);
    harness.assert_true();
}

#[tokio::test]
async fn hints_pause_where_more_than_a_fifth_of_fifty_customers_are_not_found() {
    let harness = following(100).await;
    update_first(&harness, 40);
    harness.sandbox.world().flood(60, EventIds::Unknown, &mut StdRng::seed_from_u64(1));
    let tail = harness.tail(100);
    tail.read(&mut TailMemory::new(harness.clock.elapsed())).await.unwrap();
    // The answers are counted as long as the process lives.
    let pull = harness.pull();
    let wait = read_hinted(&pull).await.unwrap();
    assert_eq!(wait, Duration::from_secs(15 * 60));
    let requested = shown(&harness).len();
    assert!((50..60).contains(&requested), "{requested} were requested");
    let reason = harness.one("SELECT pause_reason FROM event_state");
    assert!(reason.contains("of the last 50 customers that events named were not found"), "{reason}");
    harness.advance(seconds(15 * 60 - 1));
    read_hinted(&pull).await;
    assert_eq!(shown(&harness).len(), requested);
    harness.advance(seconds(1));
    read_hinted(&pull).await;
    assert_eq!((shown(&harness).len(), open_hints(&harness)), (100, "0".to_owned()));
    harness.assert_true();
}

#[tokio::test]
async fn customers_of_another_account_are_not_requested() {
    let mut harness = following(8).await;
    let id = harness.some_id();
    update(&harness, &id, "new@example.com");
    harness.read_events().await;
    harness.sandbox.world().add_account("sk_test_other", 7, 8);
    let own = std::mem::replace(&mut harness.key, "sk_test_other".to_owned());
    harness.restart();
    let head = harness.head();
    harness.sandbox.world().clear_requests();
    assert_eq!(harness.read_hinted().await, Some(Duration::from_secs(60)));
    // Five known customers are requested with the new key. That is the check of the account.
    assert_eq!((shown(&harness).len(), harness.head()), (5, head));
    harness.sandbox.world().clear_requests();
    harness.advance(seconds(60));
    harness.read_hinted().await;
    assert_eq!((shown(&harness).len(), harness.head(), open_hints(&harness)), (0, head, "1".to_owned()));

    // With the right key the hint is followed.
    harness.key = own;
    harness.restart();
    harness.read_hinted().await;
    harness.assert_true();
}
