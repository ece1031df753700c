//! Attempts that our own stop or crash cut off.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::InProcess;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::inv_07_create_at_most_once::{Cut, end_at};

fn sent(harness: &InProcess, method: &str) -> usize {
    harness.sandbox.world().requests().iter().filter(|seen| seen.method == method).count()
}

#[tokio::test]
async fn update_with_a_token_that_a_crash_cut_off_is_read_back() {
    for (cut, patches) in [(Cut::AfterPush(0), 1), (Cut::BeforePush(0), 1)] {
        let mut harness = InProcess::open(1).await;
        let id = harness.some_id();
        let body = json!({"email": "x@example.com", "payment_details": "tok_once"});
        harness.intend("u", "update", Some(&id), Some(body));
        end_at(&mut harness, cut).await;
        assert_eq!(harness.state("u"), "sending");
        harness.drain().await;
        assert_eq!(harness.state("u"), "done", "{cut:?}: {}", harness.of("u", "reason"));
        assert_eq!((sent(&harness, "PATCH"), harness.sandbox.world().updates()), (patches, 1), "{cut:?}");
        harness.assert_true();
    }
}

#[tokio::test]
async fn delete_of_an_unknown_id_that_a_crash_cut_off_is_done() {
    let mut harness = InProcess::open(1).await;
    let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    harness.intend("d", "delete", Some(&new), None);
    end_at(&mut harness, Cut::AfterPush(0)).await;
    harness.drain().await;
    assert_eq!((harness.state("d"), sent(&harness, "DELETE")), ("done".to_owned(), 2));
}

#[tokio::test]
async fn attempt_that_a_stop_cut_off_is_due_at_once_with_its_key() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let stop = CancellationToken::new();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let stopping = async {
        harness.sandbox.until(|world| world.fired(held) > 0).await;
        stop.cancel();
    };
    let (drained, ()) = tokio::join!(pusher.drain(), stopping);
    drained.unwrap();
    drop(pusher);
    assert_eq!(
        (harness.state("c"), harness.of("c", "next_attempt_at")),
        ("waiting".to_owned(), "null".to_owned())
    );
    assert_eq!(harness.one("SELECT outcome_unknown FROM outbox"), "1");
    let key = harness.one("SELECT key FROM outbox");
    harness.sandbox.world().clear_faults();
    harness.sandbox.until(|world| world.creates() == 1).await;
    harness.restart();
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    assert_eq!(harness.one("SELECT key FROM outbox"), key);
}
