//! When an intent that failed for now is attempted again.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{InProcess, eventually_in_task};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Queues an update of each customer.
fn update_all(harness: &InProcess) {
    for id in harness.sandbox.world().ids() {
        harness.intend(&id, "update", Some(&id), Some(json!({"email": "x@example.com"})));
    }
}

#[tokio::test]
async fn failed_intent_is_attempted_again_without_a_wake_up_when_its_wait_is_over() {
    let harness = InProcess::open(1).await;
    update_all(&harness);
    harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Update).once());
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        let is_done = || harness.column("SELECT state FROM intents") == ["done"];
        eventually_in_task(is_done).await;
        stop.cancel();
    };
    let both = async { tokio::join!(pusher.serve(), others) };
    let (served, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    served.unwrap();
    assert_eq!(harness.column("SELECT outcome FROM attempts ORDER BY n"), ["waiting", "done"]);
}

#[tokio::test]
async fn intents_that_fail_at_the_same_time_wait_for_different_times() {
    let mut harness = InProcess::open(5).await;
    update_all(&harness);
    harness.on(FaultedCall::Update, FaultEffect::status(503));
    harness.drain().await;
    let waiting = "SELECT next_attempt_at FROM intents WHERE state = 'waiting'";
    assert_eq!(harness.column(waiting).len(), 5);
    let times = harness.column("SELECT DISTINCT next_attempt_at FROM intents");
    assert!(times.len() > 1, "{times:?}");
}
