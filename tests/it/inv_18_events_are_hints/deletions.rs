//! A hinted customer that the API does not find: the evidence, the canary, the limit and the holds
//! of a sweep.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Payload};
use komoju_sync::store::log::holds::{self, Decision};
use komoju_sync::store::write_as_operator;
use komoju_testkit::InProcess;
use komoju_testkit::in_process::read_hinted;
use serde_json::json;

use super::{CONSISTENCY_S, following, lagging, open_hints, seconds, shown};
use crate::inv_04_delete_needs_evidence::on_show;

fn delete(harness: &InProcess, count: usize) -> Vec<String> {
    let ids: Vec<String> = harness.sandbox.world().ids().into_iter().take(count).collect();
    for id in &ids {
        assert!(harness.sandbox.world().delete(id));
    }
    ids
}

/// Returns each reason for which deletions are held, and how many are.
fn held(harness: &InProcess) -> Vec<String> {
    harness.column(
        "SELECT because || ' ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id
         WHERE state = 'held' GROUP BY because",
    )
}

fn answered(status: u16, body: Payload) -> FaultEffect {
    FaultEffect::Status {
        status,
        body,
        retry_after: None,
        headers: Default::default(),
        work: Default::default(),
    }
}

#[tokio::test]
async fn delete_is_recorded_after_a_canary_has_answered() {
    let harness = following(30).await;
    let (gone, head) = (delete(&harness, 1), harness.head());
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(harness.changes_after(head), ["deleted event"]);
    let shown = shown(&harness);
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0], gone[0]);
    assert!(harness.sandbox.world().get(&shown[1]).is_some(), "the canary is live");
    assert_eq!(harness.column("SELECT changes || ' ' || reported FROM recall"), ["1 1"]);
    harness.assert_true();
}

#[tokio::test]
async fn delete_without_a_canary_is_held() {
    let mut harness = following(30).await;
    let (gone, head) = (delete(&harness, 1), harness.head());
    harness.read_events().await;
    // The API answers so for every customer.
    let fault = harness.on(FaultedCall::Show, answered(404, Payload::Code("not_found".into())));
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(harness.sandbox.world().fired(fault), 4, "three canaries are requested");
    assert_eq!((held(&harness), harness.changes_after(head)), (vec!["unproven 1".to_owned()], vec![]));
    // A further event about a held customer requests it and changes nothing.
    harness.sandbox.world().emit("customer.deleted", &gone[0]);
    harness.advance(seconds(5));
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!((held(&harness), harness.changes_after(head)), (vec!["unproven 1".to_owned()], vec![]));
    // The sweep settles what was not proven.
    harness.sandbox.world().clear_faults();
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["deleted sweep"]);
    harness.assert_true();
}

#[tokio::test]
async fn customer_that_answers_leaves_its_hold() {
    let harness = following(30).await;
    let gone = delete(&harness, 1);
    harness.read_events().await;
    let fault = harness.on(FaultedCall::Show, FaultEffect::status(404));
    harness.read_hinted().await;
    assert_eq!(held(&harness).len(), 1);
    harness.sandbox.world().remove_fault(fault);
    harness.sandbox.world().restore(&gone[0]);
    harness.sandbox.world().emit("customer.created", &gone[0]);
    harness.advance(seconds(5));
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(held(&harness), Vec::<String>::new());
    harness.assert_true();
}

#[tokio::test]
async fn rejected_deletion_stays_rejected() {
    let harness = following(30).await;
    let (gone, head) = (delete(&harness, 1), harness.head());
    harness.read_events().await;
    let fault = harness.on(FaultedCall::Show, FaultEffect::status(404));
    harness.read_hinted().await;
    harness.sandbox.world().remove_fault(fault);
    let at = "2026-06-01T00:00:01.000Z";
    write_as_operator(&harness.database(), |tx| holds::decide(tx, None, Decision::Reject, "t", at)).unwrap();
    harness.sandbox.world().emit("customer.deleted", &gone[0]);
    harness.advance(seconds(5));
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    assert_eq!(harness.column("SELECT state FROM held_deletions"), ["rejected"]);
}

#[tokio::test]
async fn answer_that_is_not_the_apis_own_deletes_nothing_and_holds_nothing() {
    for body in [Payload::Html, Payload::Empty, Payload::Json(json!({}))] {
        let harness = following(30).await;
        let (gone, head) = (delete(&harness, 1), harness.head());
        harness.read_events().await;
        let fault = harness.inject(on_show(answered(404, body.clone()), &gone[0]));
        assert_eq!(harness.read_hinted().await, Some(Duration::from_secs(30)), "{body:?}");
        assert_eq!((held(&harness), harness.changes_after(head)), (vec![], vec![]), "{body:?}");
        harness.sandbox.world().remove_fault(fault);
        harness.advance(seconds(30));
        harness.read_hinted().await;
        assert_eq!(harness.changes_after(head), ["deleted event"], "{body:?}");
        harness.assert_true();
    }
}

#[tokio::test]
async fn young_customer_is_deleted_only_by_a_request_after_the_lag() {
    let harness = lagging(30).await;
    let id = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    harness.advance(seconds(1));
    harness.read_events().await;
    harness.read_hinted().await;
    let head = harness.head();
    assert_eq!(harness.one(&format!("SELECT count(*) FROM customers WHERE id = '{id}'")), "1");
    harness.advance(seconds(10));
    // As a read answers that is from before the create.
    let fault = harness.inject(on_show(FaultEffect::status(404), &id));
    harness.sandbox.world().emit("customer.updated", &id);
    harness.read_events().await;
    let wait = harness.read_hinted().await.unwrap();
    assert_eq!((held(&harness), harness.changes_after(head)), (vec![], vec![]));
    assert!((60..=61).contains(&wait.as_secs()), "{wait:?}");
    // It is there after all.
    harness.sandbox.world().remove_fault(fault);
    harness.advance(seconds(i64::from(CONSISTENCY_S) + 1));
    harness.read_hinted().await;
    harness.assert_true();

    // A customer that is deleted while it is young is recorded by the second request.
    let id = harness.sandbox.world().create(json!({"email": "short@example.com"}));
    harness.read_events().await;
    harness.read_hinted().await;
    harness.advance(seconds(10));
    let head = harness.head();
    harness.sandbox.world().delete(&id);
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    harness.advance(seconds(i64::from(CONSISTENCY_S) + 1));
    harness.read_hinted().await;
    assert_eq!(harness.changes_after(head), ["deleted event"]);
    harness.assert_true();
}

#[tokio::test]
async fn more_deletes_than_a_sweep_may_record_are_held() {
    let mut harness = following(60).await;
    let head = harness.head();
    delete(&harness, 13);
    // In two readings: the deletions since the last sweep count together.
    harness.tail(100).read(&mut komoju_sync::tasks::events::TailMemory::default()).await.unwrap();
    harness.read_hinted().await;
    assert_eq!(harness.changes_after(head), vec!["deleted event"; 10]);
    assert_eq!(held(&harness), ["too_many 3"]);
    harness.advance(seconds(5));
    delete(&harness, 1);
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!(held(&harness), ["too_many 4"]);
    assert_eq!(open_hints(&harness), "0");
    // A sweep leaves the holds to an operator.
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many 4"]);
    assert_eq!(harness.changes_after(head), vec!["deleted event"; 10]);
    let at = "2026-06-01T00:00:09.000Z";
    write_as_operator(&harness.database(), |tx| holds::decide(tx, None, Decision::Approve, "t", at)).unwrap();
    harness.sweep().await;
    harness.assert_true();
}

#[tokio::test]
async fn deletes_count_together_where_the_wall_clock_is_set_back_after_the_sweep() {
    let harness = following(60).await;
    let head = harness.head();
    harness.set_wall_by(seconds(-365 * 24 * 3600));
    let pull = harness.pull();
    for _ in 0..2 {
        delete(&harness, 7);
        harness.read_events().await;
        read_hinted(&pull).await;
        harness.advance(seconds(5));
    }
    assert_eq!(harness.changes_after(head), vec!["deleted event"; 10]);
    assert_eq!(held(&harness), ["too_many 4"]);
}

#[tokio::test]
async fn all_deletes_are_held_after_a_restore() {
    let mut harness = following(30).await;
    harness.sql("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'");
    let head = harness.head();
    delete(&harness, 2);
    harness.read_events().await;
    harness.read_hinted().await;
    assert_eq!((held(&harness), harness.changes_after(head)), (vec!["restored 2".to_owned()], vec![]));
    harness.sweep().await;
    assert_eq!((held(&harness), harness.changes_after(head)), (vec!["restored 2".to_owned()], vec![]));
}

#[tokio::test]
async fn deletion_that_a_sweep_holds_between_404_and_canary_stays_held() {
    let harness = following(60).await;
    let head = harness.head();
    delete(&harness, 13);
    harness.tail(100).read(&mut komoju_sync::tasks::events::TailMemory::default()).await.unwrap();
    // Two customers are found to be missing. The answer about the third waits for the sweep.
    let third = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(2).once());
    let pull = harness.pull();
    let swept = async {
        harness.sandbox.until(|world| world.fired(third) == 1).await;
        assert_eq!(pull.sweep().await.unwrap().held, 13);
        harness.sandbox.world().remove_fault(third);
    };
    tokio::join!(harness.read_hinted(), swept);
    assert_eq!((held(&harness), harness.changes_after(head)), (vec!["too_many 13".to_owned()], vec![]));
    assert_eq!(open_hints(&harness), "0");
}

#[tokio::test]
async fn customer_that_the_mirror_does_not_know_or_has_deleted_is_no_suspect() {
    let harness = following(30).await;
    let gone = delete(&harness, 1);
    harness.read_events().await;
    harness.read_hinted().await;
    let head = harness.head();
    harness.advance(seconds(5));
    harness.sandbox.world().clear_requests();
    harness.sandbox.world().emit("customer.deleted", &gone[0]);
    harness.sandbox.world().emit("customer.updated", "unknown");
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    let mut shown = shown(&harness);
    shown.sort();
    let mut expected = [gone[0].clone(), "unknown".to_owned()];
    expected.sort();
    assert_eq!(shown, expected, "no canary is requested");
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
}

#[tokio::test]
async fn push_that_is_queued_after_the_404_is_left_to_itself() {
    let harness = following(30).await;
    let (gone, head) = (delete(&harness, 1), harness.head());
    harness.read_events().await;
    // The canary's answer waits until a push of the customer is in flight.
    let canary = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(1).once());
    let meanwhile = async {
        harness.sandbox.until(|world| world.fired(canary) == 1).await;
        harness.intend("d", "delete", Some(&gone[0]), None);
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        assert_eq!(pusher.drain().await.unwrap().done, 1);
        harness.sandbox.world().remove_fault(canary);
    };
    tokio::join!(harness.read_hinted(), meanwhile);
    assert_eq!(harness.changes_after(head), ["deleted intent d"]);
    assert_eq!((held(&harness), open_hints(&harness)), (vec![], "0".to_owned()));
    harness.assert_true();
}

#[tokio::test]
async fn push_that_waits_for_a_retry_is_left_to_itself() {
    let mut harness = following(30).await;
    harness.waiting().await;
    let (id, head) = (harness.of("u", "customer_id"), harness.head());
    assert!(harness.sandbox.world().delete(&id));
    harness.sandbox.world().clear_requests();
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(shown(&harness), [id], "no canary is requested");
    assert_eq!((held(&harness), harness.changes_after(head)), (vec![], vec![]));
}

#[tokio::test]
async fn push_that_is_rejected_after_the_404_leaves_the_deletion_to_a_later_request() {
    let harness = following(30).await;
    let (gone, head) = (delete(&harness, 1), harness.head());
    harness.read_events().await;
    let canary = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(1).once());
    let meanwhile = async {
        harness.sandbox.until(|world| world.fired(canary) == 1).await;
        harness.intend("u", "update", Some(&gone[0]), Some(json!({"email": "new@example.com"})));
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        pusher.drain().await.unwrap();
        assert_eq!(harness.state("u"), "rejected");
        harness.sandbox.world().remove_fault(canary);
    };
    tokio::join!(harness.read_hinted(), meanwhile);
    // The 404 is older than the push, and the evidence must be newer.
    assert_eq!((held(&harness), harness.changes_after(head)), (vec![], vec![]));
    let mut harness = harness;
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["deleted sweep"]);
    harness.assert_true();
}

#[tokio::test]
async fn customers_that_never_answer_as_canaries_do_not_hold_every_deletion() {
    let harness = following(30).await;
    let rows = harness.column("SELECT id FROM mirror ORDER BY row");
    // As many as the canaries of one deletion.
    for id in &rows[..3] {
        harness.inject(on_show(FaultEffect::status(400), id));
    }
    let (pull, head) = (harness.pull(), harness.head());
    for id in &rows[24..] {
        assert!(harness.sandbox.world().delete(id));
        harness.read_events().await;
        read_hinted(&pull).await;
        harness.advance(seconds(5));
    }
    assert_eq!(harness.changes_after(head), vec!["deleted event"; 6]);
    assert_eq!(held(&harness), Vec::<String>::new());
}
