//! Attempts that our own stop or crash cut off.

use komoju_sandbox::{Call, Effect, Fault};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::once::{Cut, end_at};

fn sent(desk: &Desk, method: &str) -> usize {
    desk.sandbox.world().requests().iter().filter(|seen| seen.method == method).count()
}

#[tokio::test]
async fn update_with_a_token_that_a_crash_cut_off_is_read_back() {
    for (cut, patches) in [(Cut::AfterPush(0), 1), (Cut::BeforePush(0), 1)] {
        let mut desk = Desk::open(1).await;
        let id = desk.some_id();
        let body = json!({"email": "x@example.com", "payment_details": "tok_once"});
        desk.intend("u", "update", Some(&id), Some(body));
        end_at(&mut desk, cut).await;
        assert_eq!(desk.state("u"), "sending");
        desk.drain().await;
        assert_eq!(desk.state("u"), "done", "{cut:?}: {}", desk.of("u", "reason"));
        assert_eq!((sent(&desk, "PATCH"), desk.sandbox.world().updates()), (patches, 1), "{cut:?}");
        desk.assert_true();
    }
}

#[tokio::test]
async fn delete_of_an_unknown_id_that_a_crash_cut_off_is_done() {
    let mut desk = Desk::open(1).await;
    let new = desk.sandbox.world().create(json!({"email": "new@example.com"}));
    desk.intend("d", "delete", Some(&new), None);
    end_at(&mut desk, Cut::AfterPush(0)).await;
    desk.drain().await;
    assert_eq!((desk.state("d"), sent(&desk, "DELETE")), ("done".to_owned(), 2));
}

#[tokio::test]
async fn attempt_that_a_stop_cut_off_is_due_at_once_with_its_key() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    let held = desk.inject(Fault::new(Effect::Hold).call(Call::Create));
    let stop = CancellationToken::new();
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let stopping = async {
        desk.sandbox.until(|world| world.fired(held) > 0).await;
        stop.cancel();
    };
    let (drained, ()) = tokio::join!(pusher.drain(), stopping);
    drained.unwrap();
    drop(pusher);
    assert_eq!((desk.state("c"), desk.of("c", "next_attempt_at")), ("waiting".to_owned(), "null".to_owned()));
    assert_eq!(desk.one("SELECT outcome_unknown FROM outbox"), "1");
    let key = desk.one("SELECT key FROM outbox");
    desk.sandbox.world().clear_faults();
    desk.sandbox.until(|world| world.creates() == 1).await;
    desk.restart();
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    assert_eq!(desk.one("SELECT key FROM outbox"), key);
}
