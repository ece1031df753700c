//! Reads that lag behind writes: an old state is left out, and the customer is requested again when
//! no read can be that old.

use jiff::SignedDuration;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::clock::Clock as _;
use komoju_testkit::InProcess;
use serde_json::json;

const CONSISTENCY: u32 = 60;

/// Returns a harness with customers that were all read an hour ago.
async fn harness() -> InProcess {
    let mut harness = InProcess::open(20).await;
    harness.settings.consistency = Consistency::seconds(CONSISTENCY);
    harness.advance(SignedDuration::from_hours(1));
    harness
}

fn email(harness: &InProcess, id: &str) -> String {
    harness.one(&format!("SELECT email FROM customers WHERE id = '{id}'"))
}

#[tokio::test]
async fn read_shortly_after_our_push_is_left_out_and_requested_again() {
    let mut harness = harness().await;
    let id = harness.some_id();
    harness.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    harness.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    harness.advance(SignedDuration::from_secs(30));
    harness.sweep().await;
    assert_eq!(email(&harness, &id), "ours@example.com", "what the sweep shows may be older than our push");
    assert_eq!(harness.column("SELECT customer_id FROM recheck"), std::slice::from_ref(&id));

    let wait = harness.pull().recheck().await.unwrap().unwrap();
    assert!((20..=31).contains(&wait.as_secs()), "{wait:?}");
    harness.restart();
    harness.advance(SignedDuration::from_secs(31));
    assert_eq!(harness.pull().recheck().await.unwrap(), None);
    assert_eq!(email(&harness, &id), "theirs@example.com");
    assert_eq!(harness.one("SELECT origin FROM changes ORDER BY seq DESC LIMIT 1"), "lookup");
    assert_eq!(
        harness.one("SELECT lag_exceeded_at IS NULL FROM meta"),
        "1",
        "a new state does not show a longer lag"
    );
    harness.assert_true();
}

#[tokio::test]
async fn read_of_a_replaced_state_is_left_out_and_its_lag_is_measured() {
    let mut harness = harness().await;
    let id = harness.some_id();
    let before = harness.sandbox.world().truth()[&id]["email"].clone();
    harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    harness.sweep().await;
    assert_eq!(email(&harness, &id), "new@example.com");
    harness.advance(SignedDuration::from_secs(7));
    // The state that a lagging replica would show.
    harness.sandbox.world().update(&id, json!({"email": before}));
    harness.sweep().await;
    assert_eq!(email(&harness, &id), "new@example.com");
    assert_eq!(harness.one("SELECT longest_lag_ms FROM meta"), "7000");

    harness.advance(SignedDuration::from_secs(54));
    harness.pull().recheck().await.unwrap();
    assert_eq!(json!(email(&harness, &id)), before, "the repeated read is applied");
    assert_eq!(
        harness.one("SELECT lag_exceeded_at IS NULL FROM meta"),
        "0",
        "a possibly longer lag is reported"
    );
    harness.assert_true();
}

#[tokio::test]
async fn customer_is_deleted_only_when_no_read_can_predate_its_create() {
    let mut harness = harness().await;
    harness.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    harness.drain().await;
    let id = harness.of("new", "result_customer_id");
    // Simulates a read lag: neither the list nor the GET shows the customer.
    harness.sandbox.world().delete(&id);
    harness.advance(SignedDuration::from_secs(59));
    harness.sweep().await;
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    harness.advance(SignedDuration::from_secs(2));
    harness.sweep().await;
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id]);
}

#[tokio::test]
async fn expect_mismatch_shortly_after_our_push_is_compared_again() {
    let mut harness = harness().await;
    let id = harness.some_id();
    harness.sandbox.world().readings_mut().show_lag_s = 30;
    harness.advance(SignedDuration::from_secs(40));
    harness.intend("first", "update", Some(&id), Some(json!({"email": "b@example.com"})));
    harness.writer()
        .execute(
            "INSERT INTO intents (id, op, customer_id, body, expect)
             VALUES ('second', 'update', ?1, '{\"email\": \"c@example.com\"}', '{\"email\": \"b@example.com\"}')",
            [&id],
        )
        .unwrap();
    harness.drain().await;
    harness.drain().await;
    assert_eq!(harness.state("first"), "done");
    assert_eq!(harness.state("second"), "waiting", "{}", harness.of("second", "reason"));
    assert!(harness.of("second", "reason").contains("compared again"), "{}", harness.of("second", "reason"));
    harness.advance(SignedDuration::from_secs(61));
    harness.drain().await;
    assert_eq!(harness.state("second"), "done");
}

#[tokio::test]
async fn create_is_looked_up_only_when_no_read_can_predate_its_attempt() {
    let mut harness = harness().await;
    harness.settings.reconcile_tag = Some("intent".to_owned());
    harness.sandbox.world().readings_mut().list_lag_s = 30;
    harness.advance(SignedDuration::from_secs(40));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    harness.drain().await;
    harness.advance(SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!(harness.state("new"), "waiting");
    assert!(
        harness.of("new", "reason").contains("is checked once no read can be older"),
        "{}",
        harness.of("new", "reason")
    );
    harness.advance(SignedDuration::from_secs(61));
    harness.drain().await;
    assert_eq!(harness.state("new"), "done");
    assert_eq!(harness.sandbox.world().creates(), 1);
}

#[tokio::test]
async fn push_answered_without_a_customer_records_no_read_that_may_lag() {
    let mut harness = harness().await;
    let id = harness.some_id();
    harness.sandbox.world().readings_mut().show_lag_s = 30;
    harness.advance(SignedDuration::from_secs(40));
    let (body, headers) = (Default::default(), Default::default());
    let empty =
        FaultEffect::Status { status: 204, body, retry_after: None, headers, work: FaultedWork::Done };
    harness.inject(Fault::new(empty).call(FaultedCall::Update).once());
    let head = harness.head();
    harness.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    assert_eq!((harness.state("ours").as_str(), harness.head()), ("done", head));
    harness.advance(SignedDuration::from_secs(61));
    harness.pull().recheck().await.unwrap();
    assert_eq!(email(&harness, &id), "ours@example.com");
    harness.assert_true();
}

#[tokio::test]
async fn customer_left_out_under_a_fast_clock_is_requested_again() {
    let mut harness = harness().await;
    let id = harness.some_id();
    let right = harness.clock.now();
    harness.clock.set_wall(right + SignedDuration::from_hours(9));
    harness.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    harness.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    harness.sweep().await;
    harness.clock.set_wall(right);

    // The request waits, because a read may still be behind our push.
    let wait = harness.pull().recheck().await.unwrap().unwrap();
    assert!((55..=60).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(email(&harness, &id), "ours@example.com");
    harness.advance(SignedDuration::from_secs(61));
    // A customer without a usable answer is requested again only after a pause.
    let silent = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Show));
    let wait = harness.pull().recheck().await.unwrap().unwrap();
    assert!(wait.as_secs() >= 30, "{wait:?}");
    harness.sandbox.world().remove_fault(silent);
    harness.advance(SignedDuration::from_secs(61));
    assert_eq!(harness.pull().recheck().await.unwrap(), None);
    assert_eq!(email(&harness, &id), "theirs@example.com");
    harness.assert_true();
}

#[tokio::test]
async fn card_recorded_by_a_recheck_is_not_removed_by_the_same_sweep() {
    let harness = InProcess::open(30).await;
    let truth = harness.sandbox.world().truth();
    let ids = harness.sandbox.world().ids();
    let id = ids[..10].iter().find(|id| !truth[*id]["source"].is_null()).unwrap().clone();
    let mut card = truth[&id]["source"].clone();
    card["last_four_digits"] = json!("0007");
    harness.sandbox.world().update(&id, json!({"source": null}));
    // The recheck is due while the sweep reads.
    let due = harness.clock.now() + SignedDuration::from_secs(10);
    harness.sql(&format!("INSERT INTO recheck (customer_id, due_at) VALUES ('{id}', '{due:.3}')"));
    let head = harness.head();
    // The customer gets a card after the list has shown it without one.
    let last = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3));
    let pull = harness.pull();
    let (report, ()) = tokio::join!(pull.sweep(), async {
        harness.sandbox.until(|world| world.fired(last) > 0).await;
        harness.advance(SignedDuration::from_secs(20));
        harness.sandbox.world().update(&id, json!({"source": card}));
        harness.sandbox.world().clear_faults();
    });
    assert!(report.unwrap().failure.is_none());
    assert_eq!(harness.changes_after(head), ["updated lookup"]);
    harness.assert_true();
}

#[tokio::test]
async fn rechecks_stop_for_a_minute_after_three_customers_without_a_usable_answer() {
    let mut harness = harness().await;
    let ids: Vec<String> = harness.sandbox.world().ids().into_iter().take(5).collect();
    for (n, id) in ids.iter().enumerate() {
        let body = json!({"email": format!("ours{n}@example.com")});
        harness.intend(&format!("u{n}"), "update", Some(id), Some(body));
    }
    harness.drain().await;
    for id in &ids {
        harness.sandbox.world().update(id, json!({"email": "theirs@example.com"}));
    }
    harness.advance(SignedDuration::from_secs(30));
    harness.sweep().await;
    assert_eq!(harness.one("SELECT count(*) FROM recheck"), "5");
    harness.advance(SignedDuration::from_secs(61));
    let fault = harness.on(FaultedCall::Show, FaultEffect::status(500));
    let wait = harness.pull().recheck().await.unwrap();
    assert_eq!((wait.map(|wait| wait.as_secs()), harness.sandbox.world().fired(fault)), (Some(60), 3));
    harness.sandbox.world().remove_fault(fault);
    harness.advance(SignedDuration::from_secs(61));
    assert_eq!(harness.pull().recheck().await.unwrap(), None);
    harness.assert_true();
}
