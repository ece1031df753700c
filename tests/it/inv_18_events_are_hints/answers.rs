//! A hinted request beside our own pushes: what we pushed does not come back as another's change.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::InProcess;
use serde_json::json;

use super::{email, following, lagging, open_hints, seconds, shown, update};

/// Drains the outbox. The answer of this push is made before the events are read and the hinted
/// customers requested, and arrives after that.
async fn hinted_within_a_push(harness: &InProcess, call: FaultedCall, hinted: usize) {
    let slow = harness.inject(Fault::new(FaultEffect::Drip { every_ms: 20, bytes: 10 }).call(call).once());
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    harness.sandbox.world().clear_requests();
    let events = async {
        harness.sandbox.until(|world| world.fired(slow) == 1).await;
        harness
            .sandbox
            .until(|world| world.requests().iter().any(|seen| seen.method != "GET" && seen.status.is_some()))
            .await;
        harness.read_events().await;
        harness.read_hinted().await;
        assert_eq!(shown(harness).len(), hinted + 1, "{:?}", shown(harness));
        assert_eq!(
            harness
                .column("SELECT id FROM attempts JOIN intents ON id = intent_id WHERE status IS NULL")
                .len(),
            1,
            "the push was answered first"
        );
    };
    let (drained, ()) = tokio::join!(pusher.drain(), events);
    assert_eq!(drained.unwrap().done, 1);
}

#[tokio::test]
async fn own_update_in_flight_is_recorded_once_and_as_ours() {
    let mut harness = following(5).await;
    let (id, head) = (harness.some_id(), harness.head());
    harness.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    hinted_within_a_push(&harness, FaultedCall::Update, 1).await;
    assert_eq!(harness.changes_after(head), ["updated intent u"]);
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["updated intent u"]);
    harness.assert_true();
}

#[tokio::test]
async fn own_delete_in_flight_is_recorded_once_and_as_ours() {
    let mut harness = following(5).await;
    let (id, head) = (harness.some_id(), harness.head());
    harness.intend("d", "delete", Some(&id), None);
    hinted_within_a_push(&harness, FaultedCall::Delete, 1).await;
    assert_eq!(harness.changes_after(head), ["deleted intent d"]);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions"), "0");
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["deleted intent d"]);
    harness.assert_true();
}

#[tokio::test]
async fn customer_of_a_create_in_flight_is_recorded_once_and_as_ours() {
    let mut harness = following(5).await;
    let head = harness.head();
    harness.intend("c", "create", None, Some(json!({"email": "ours@example.com"})));
    hinted_within_a_push(&harness, FaultedCall::Create, 0).await;
    assert_eq!(harness.changes_after(head), ["created intent c"]);
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["created intent c"]);
    harness.assert_true();
}

#[tokio::test]
async fn event_of_our_own_push_records_nothing_and_counts_as_reported() {
    let mut harness = following(5).await;
    let (id, head) = (harness.some_id(), harness.head());
    harness.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    harness.advance(seconds(5));
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(harness.changes_after(head), ["updated intent u"]);
    assert_eq!(harness.one(&format!("SELECT count(*) FROM change_event WHERE seq = {}", head + 1)), "1");
    assert_eq!(harness.column("SELECT changes FROM recall"), Vec::<String>::new(), "pushes are not counted");
    assert_eq!(open_hints(&harness), "0");
    harness.assert_true();
}

#[tokio::test]
async fn change_elsewhere_within_the_lag_of_our_push_is_recorded_when_it_is_over() {
    let mut harness = lagging(5).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    harness.advance(seconds(10));
    update(&harness, &id, "theirs@example.com");
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(email(&harness, &id), "ours@example.com");
    harness.advance(SignedDuration::from_secs(61));
    harness.pull().recheck().await.unwrap();
    harness.assert_true();
}

#[tokio::test]
async fn customer_whose_hinted_read_was_left_out_is_requested_again_for_its_event() {
    let mut harness = lagging(5).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    let head = harness.head();
    harness.advance(seconds(10));
    update(&harness, &id, "theirs@example.com");
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(email(&harness, &id), "ours@example.com");
    harness.advance(seconds(61));
    harness.read_hinted().await;
    assert_eq!(harness.changes_after(head), ["updated event"]);
    harness.assert_true();
}
