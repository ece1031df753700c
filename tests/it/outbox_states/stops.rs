//! Answers that arrive at a stop, or while the database is locked.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultId, FaultedCall};
use komoju_sync::clock::Clock as _;
use komoju_testkit::{InProcess, eventually_in_task};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn stop_interrupts_unanswered_pushes_and_makes_them_due_at_once() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Update).once());
    let stop = tokio_util::sync::CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    let stopping = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(pusher.serve(), stopping);
    served.unwrap();
    assert_eq!(harness.state("u"), "waiting");
    assert_eq!(harness.of("u", "next_attempt_at"), "null", "due at once");
    drop(pusher);
    harness.sandbox.world().remove_fault(held);
    harness.restart();
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
}

/// Queues updates of two customers under their ids. Returns the ids and the faults that hold the
/// answers.
fn two_held_updates(harness: &InProcess) -> ([String; 2], [FaultId; 2]) {
    let ids: [String; 2] = harness.sandbox.world().ids().first_chunk().unwrap().clone();
    let held = [&ids[0], &ids[1]].map(|id| {
        harness.intend(id, "update", Some(id), Some(json!({"email": "x@example.com"})));
        let mut held = Fault::new(FaultEffect::Hold).call(FaultedCall::Update);
        held.on.path = Some(format!("/customers/{id}"));
        harness.inject(held)
    });
    (ids, held)
}

#[tokio::test]
async fn stop_ends_the_pusher_while_more_intents_are_due_than_may_be_sent() {
    let mut harness = InProcess::open(2).await;
    harness.settings.max_concurrent_requests = 1;
    let (ids, held) = two_held_updates(&harness);
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let stopping = async {
        harness.sandbox.until(|world| world.fired(held[0]) == 1).await;
        stop.cancel();
    };
    let both = async { tokio::join!(pusher.serve(), stopping) };
    let (served, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    served.unwrap();
    assert_eq!(harness.states(), [format!("{} waiting", ids[0]), format!("{} queued", ids[1])]);
}

/// Limits the time for which the store waits for a lock.
async fn wait_for_locks(harness: &InProcess, time: Duration) {
    harness.store().read(move |conn| Ok(conn.busy_timeout(time)?)).await.unwrap();
}

#[tokio::test]
async fn answer_is_kept_until_the_locked_database_can_be_written() {
    let harness = InProcess::open(3).await;
    // The first answer arrives while the database is locked, the second while the first waits to be
    // written.
    let (_, held) = two_held_updates(&harness);
    wait_for_locks(&harness, Duration::from_millis(50)).await;
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        harness.sandbox.until(|world| held.iter().all(|held| world.fired(*held) == 1)).await;
        let other = harness.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        for held in held {
            // On this clock time passes only in the pauses of the pusher.
            let before = harness.clock.elapsed();
            harness.sandbox.world().remove_fault(held);
            eventually_in_task(|| harness.clock.elapsed() >= before + Duration::from_secs(2)).await;
        }
        other.execute_batch("COMMIT").unwrap();
        eventually_in_task(|| harness.column("SELECT id FROM intents WHERE state <> 'done'").is_empty())
            .await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(pusher.serve(), others);
    assert_eq!(served.unwrap().done, 2);
    assert_eq!(harness.sandbox.world().updates(), 2);
    assert_eq!(harness.column("SELECT outcome FROM attempts"), ["done", "done"]);
    harness.assert_true();
}

#[tokio::test]
async fn stop_while_the_database_is_locked_records_received_answers() {
    let harness = InProcess::open(3).await;
    let (ids, held) = two_held_updates(&harness);
    wait_for_locks(&harness, Duration::from_millis(500)).await;
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        harness.sandbox.until(|world| held.iter().all(|held| world.fired(*held) == 1)).await;
        let other = harness.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // On this clock time passes only in pauses: the pause after a lock, then the pause before
        // the end.
        harness.sandbox.world().remove_fault(held[0]);
        let before = harness.clock.elapsed();
        eventually_in_task(|| harness.clock.elapsed() > before).await;
        stop.cancel();
        let before = harness.clock.elapsed();
        eventually_in_task(|| harness.clock.elapsed() > before).await;
        other.execute_batch("COMMIT").unwrap();
        harness.sandbox.world().remove_fault(held[1]);
    };
    let (served, ()) = tokio::join!(pusher.serve(), others);
    assert!(served.unwrap().done >= 1);
    assert_eq!(harness.state(&ids[0]), "done");
}

#[tokio::test]
async fn drain_fails_when_the_database_stays_locked() {
    let harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Update));
    wait_for_locks(&harness, Duration::from_millis(20)).await;
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    let other = harness.writer();
    let others = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        harness.sandbox.world().remove_fault(held);
    };
    let both = async { tokio::join!(pusher.drain(), others) };
    let (drained, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert!(drained.is_err_and(|e| e.is_busy()));
    other.execute_batch("COMMIT").unwrap();
    // The next process repeats the request, because its answer was not recorded.
    let mut harness = harness;
    drop(pusher);
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
}

#[tokio::test]
async fn drain_retries_while_the_database_is_locked_for_a_short_time() {
    let harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Update));
    wait_for_locks(&harness, Duration::from_millis(500)).await;
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    let others = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        let other = harness.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        harness.sandbox.world().remove_fault(held);
        // On this clock time passes only in the pauses of the pusher.
        let before = harness.clock.elapsed();
        eventually_in_task(|| harness.clock.elapsed() > before).await;
        other.execute_batch("COMMIT").unwrap();
    };
    let drained = async { pusher.drain().await.unwrap() };
    let (drained, ()) = tokio::join!(drained, others);
    assert_eq!((drained.done, harness.state("u")), (1, "done".to_owned()));
    assert_eq!(harness.sandbox.world().updates(), 1);
}

#[tokio::test]
async fn create_that_meets_a_locked_database_before_it_is_sent_is_sent_later() {
    let harness = InProcess::open(0).await;
    harness.intend("c", "create", None, Some(json!({"email": "x@example.com"})));
    // Before its first request, a create records the server's time, which this answer shows.
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List));
    wait_for_locks(&harness, Duration::from_millis(50)).await;
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        let other = harness.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        harness.sandbox.world().remove_fault(held);
        // On this clock time passes only in pauses: the first one follows the end of the attempt.
        let before = harness.clock.elapsed();
        eventually_in_task(|| harness.clock.elapsed() > before).await;
        assert_eq!(harness.sandbox.world().ids().len(), 0, "nothing was sent");
        other.execute_batch("COMMIT").unwrap();
        eventually_in_task(|| harness.state("c") == "done").await;
        stop.cancel();
    };
    let served = async { pusher.serve().await.unwrap() };
    tokio::join!(served, others);
    assert_eq!(harness.sandbox.world().ids().len(), 1);
    assert_eq!(harness.of("c", "attempts"), "2");
}

#[tokio::test]
async fn intent_is_not_sent_while_another_of_its_customer_is_sending() {
    // This happens when a create is settled late: a sweep has shown its customer, and an update of
    // that customer is being sent.
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("first", "update", Some(&id), Some(json!({"email": "x"})));
    harness.intend("second", "update", Some(&id), Some(json!({"email": "y"})));
    harness.sql("UPDATE intents SET state = 'sending' WHERE id = 'second'; INSERT INTO attempts (intent_id, n, started_at) VALUES ('second', 1, '2026-06-01T00:00:00.000Z')");
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.drain().await.unwrap();
    drop(pusher);
    assert_eq!(
        (harness.states(), harness.calls().len()),
        (vec!["first queued".to_owned(), "second sending".to_owned()], 0)
    );
    // The next process finds that no process sends it.
    harness.drain().await;
    assert_eq!(harness.states(), ["first done", "second done"]);
}
