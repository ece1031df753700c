//! A hinted request and a pass at the same time: the older answer is not applied over the newer
//! one.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::InProcess;

use super::{email, following, lagging, open_hints, shown, update};

/// Returns an effect that sends an answer slowly. The answer is made before it is sent.
fn slowly(bytes: usize) -> FaultEffect {
    FaultEffect::Drip { every_ms: 20, bytes }
}

/// Waits until the answer of the first request to a path with this end is made.
async fn until_answered(harness: &InProcess, end: &str) {
    harness
        .sandbox
        .until(|world| world.requests().iter().any(|seen| seen.path.ends_with(end) && seen.status.is_some()))
        .await;
}

/// Runs a sweep whose first page is made before `change` and arrives after the hinted request.
async fn change_during_a_page(change: impl FnOnce(&InProcess, &str), expected: &[&str]) {
    let mut harness = following(20).await;
    let (id, head) = (harness.some_id(), harness.head());
    let slow = harness.inject(Fault::new(slowly(100)).call(FaultedCall::List).page(1).once());
    let pull = harness.pull();
    let hinted = async {
        until_answered(&harness, "/customers").await;
        change(&harness, &id);
        harness.read_events().await;
        harness.read_hinted().await;
        let changes = harness.changes_after(head);
        assert_eq!(changes, expected, "the page arrived first");
    };
    let (report, ()) = tokio::join!(pull.sweep(), hinted);
    assert!(report.unwrap().failure.is_none());
    assert_eq!(harness.sandbox.world().fired(slow), 1);
    assert_eq!(harness.changes_after(head), expected, "the older page was applied");
    harness.assert_true();
    // The next sweep finds nothing new.
    drop(pull);
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), expected);
}

#[tokio::test]
async fn older_page_does_not_undo_a_hinted_update() {
    change_during_a_page(|harness, id| update(harness, id, "new@example.com"), &["updated event"]).await;
}

#[tokio::test]
async fn older_page_does_not_undo_a_hinted_delete() {
    change_during_a_page(|harness, id| assert!(harness.sandbox.world().delete(id)), &["deleted event"]).await;
}

#[tokio::test]
async fn older_page_does_not_undo_two_hinted_updates() {
    let harness = following(20).await;
    let (id, head) = (harness.some_id(), harness.head());
    harness.inject(Fault::new(slowly(60)).call(FaultedCall::List).page(1).once());
    let pull = harness.pull();
    let hinted = async {
        until_answered(&harness, "/customers").await;
        for n in 0..2 {
            update(&harness, &id, &format!("{n}@example.com"));
            harness.read_events().await;
            harness.read_hinted().await;
            harness.advance(super::seconds(3));
        }
    };
    let (report, ()) = tokio::join!(pull.sweep(), hinted);
    assert!(report.unwrap().failure.is_none());
    assert_eq!(harness.changes_after(head), ["updated event", "updated event"]);
    harness.assert_true();
}

#[tokio::test]
async fn hinted_answer_that_a_page_overtakes_is_not_applied_and_requested_again() {
    let harness = following(20).await;
    let (id, head) = (harness.some_id(), harness.head());
    update(&harness, &id, "old@example.com");
    harness.read_events().await;
    harness.inject(Fault::new(slowly(10)).call(FaultedCall::Show).once());
    let pull = harness.pull();
    let swept = async {
        until_answered(&harness, &id).await;
        update(&harness, &id, "new@example.com");
        assert!(pull.sweep().await.unwrap().failure.is_none());
        assert_eq!(email(&harness, &id), "new@example.com");
        assert_eq!(harness.changes_after(head), ["updated sweep"], "the hinted answer arrived first");
    };
    tokio::join!(harness.read_hinted(), swept);
    assert_eq!(harness.changes_after(head), ["updated sweep"]);
    assert_eq!((shown(&harness).len(), open_hints(&harness)), (2, "0".to_owned()));
    harness.assert_true();
}

#[tokio::test]
async fn hinted_404_that_a_page_overtakes_is_requested_again() {
    let harness = following(20).await;
    let (id, head) = (harness.some_id(), harness.head());
    harness.sandbox.world().delete(&id);
    harness.read_events().await;
    harness.inject(Fault::new(slowly(4)).call(FaultedCall::Show).once());
    let pull = harness.pull();
    let swept = async {
        until_answered(&harness, &id).await;
        harness.sandbox.world().restore(&id);
        update(&harness, &id, "new@example.com");
        assert!(pull.sweep().await.unwrap().failure.is_none());
        assert_eq!(harness.changes_after(head), ["updated sweep"], "the hinted answer arrived first");
    };
    tokio::join!(harness.read_hinted(), swept);
    assert_eq!(harness.changes_after(head), ["updated sweep"]);
    assert_eq!((shown(&harness).first(), open_hints(&harness)), (Some(&id), "0".to_owned()));
    harness.assert_true();
}

#[tokio::test]
async fn hinted_404_is_requested_again_where_an_older_page_is_applied_before_its_canary_answers() {
    let harness = following(20).await;
    let (id, head) = (harness.some_id(), harness.head());
    update(&harness, &id, "new@example.com");
    harness.inject(Fault::new(slowly(100)).call(FaultedCall::List).page(1).once());
    let canary = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(1).once());
    let pull = harness.pull();
    let swept = async {
        assert!(pull.sweep().await.unwrap().failure.is_none());
        assert_eq!(harness.changes_after(head), ["updated sweep"]);
        harness.sandbox.until(|world| world.fired(canary) == 1).await;
        harness.sandbox.world().remove_fault(canary);
    };
    let hinted = async {
        until_answered(&harness, "/customers").await;
        assert!(harness.sandbox.world().delete(&id));
        harness.read_events().await;
        harness.read_hinted().await
    };
    let ((), next) = tokio::join!(swept, hinted);
    assert_eq!(next, None);
    // The deletion does not wait for the next sweep.
    assert_eq!(harness.changes_after(head), ["updated sweep", "deleted event"]);
    harness.assert_true();
}

#[tokio::test]
async fn change_before_the_first_complete_sweep_is_recorded_and_a_404_is_left_to_the_sweep() {
    let mut harness = following(20).await;
    harness.sql("UPDATE pass SET outcome = 'failed'");
    let (ids, head) = (harness.sandbox.world().ids(), harness.head());
    update(&harness, &ids[0], "new@example.com");
    harness.sandbox.world().delete(&ids[1]);
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, None);
    assert_eq!(harness.changes_after(head), ["updated event"]);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions"), "0");
    assert_eq!(shown(&harness).len(), 2, "no canary is requested");
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["updated event", "deleted sweep"]);
    harness.assert_true();
}

#[tokio::test]
async fn page_is_applied_where_an_earlier_hinted_answer_was_left_out() {
    let mut harness = lagging(20).await;
    let id = harness.some_id();
    let before = harness.sandbox.world().truth()[&id]["email"].as_str().unwrap().to_owned();
    update(&harness, &id, "second@example.com");
    harness.sweep().await;
    harness.advance(super::seconds(5));
    let head = harness.head();
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(1).once());
    let pull = harness.pull();
    let hinted = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        // The state that a lagging replica would show.
        update(&harness, &id, &before);
        harness.read_events().await;
        harness.read_hinted().await;
        assert_eq!(shown(&harness).last(), Some(&id), "the hint caused a request");
        assert_eq!(email(&harness, &id), "second@example.com", "its answer was left out");
        update(&harness, &id, "third@example.com");
        harness.sandbox.world().remove_fault(held);
    };
    let (report, ()) = tokio::join!(pull.sweep(), hinted);
    assert!(report.unwrap().failure.is_none());
    assert_eq!(email(&harness, &id), "third@example.com");
    assert_eq!(harness.changes_after(head), ["updated sweep"]);
    harness.assert_true();
}
