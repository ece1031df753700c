//! `outbound.hold_deletes_over`: how many deletes are sent before an operator has to approve them.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::store::outbox::operator;
use komoju_testkit::InProcess;

/// A harness whose limit is three deletes.
async fn harness_of(customers: u32) -> InProcess {
    let mut harness = InProcess::open(customers).await;
    harness.settings.hold_deletes_over = 3;
    harness
}

/// Queues deletes of these customers one by one and pushes after each, each time in another process.
async fn delete_one_by_one(harness: &mut InProcess, prefix: &str, ids: &[String]) {
    for (n, id) in ids.iter().enumerate() {
        harness.intend(&format!("{prefix}{n}"), "delete", Some(id), None);
        harness.drain().await;
        harness.restart();
        harness.advance(SignedDuration::from_millis(150));
    }
}

async fn approve_all(harness: &InProcess) -> usize {
    harness.store().write(|tx| operator::approve(tx, &[])).await.unwrap()
}

fn deletes(harness: &InProcess) -> u64 {
    harness.sandbox.world().deletes()
}

#[tokio::test]
async fn slow_loop_of_deletes_is_held_after_the_limit() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    delete_one_by_one(&mut harness, "d", &ids[..6]).await;
    assert_eq!(deletes(&harness), 3);
    assert_eq!(harness.states()[2..], ["d2 done", "d3 queued", "d4 queued", "d5 queued"]);
    let reason = harness.of("d3", "reason");
    assert!(
        reason.contains("hold_deletes_over = 3") && reason.contains("`komoju-sync intent approve`"),
        "{reason}"
    );
    // What is held waits for an operator, however long.
    harness.advance(SignedDuration::from_hours(2));
    harness.drain().await;
    assert_eq!(deletes(&harness), 3);
    assert_eq!(approve_all(&harness).await, 3);
    harness.drain().await;
    assert_eq!(deletes(&harness), 6);
    harness.assert_true();
}

#[tokio::test]
async fn sent_deletes_count_for_an_hour_of_the_boot_clock() {
    for (wait, held) in [(59, true), (61, false)] {
        let mut harness = harness_of(10).await;
        let ids = harness.sandbox.world().ids();
        delete_one_by_one(&mut harness, "d", &ids[..3]).await;
        harness.advance(SignedDuration::from_mins(wait));
        harness.intend("e", "delete", Some(&ids[3]), None);
        harness.drain().await;
        assert_eq!(harness.state("e"), if held { "queued" } else { "done" }, "{wait} minutes");
    }
}

#[tokio::test]
async fn wall_clock_that_jumps_releases_no_delete() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    delete_one_by_one(&mut harness, "d", &ids[..3]).await;
    for wall in ["2027-06-01T00:00:00Z", "2025-06-01T00:00:00Z"] {
        harness.clock.set_wall(wall.parse().unwrap());
        harness.drain().await;
    }
    harness.intend("e", "delete", Some(&ids[3]), None);
    harness.drain().await;
    assert_eq!((harness.state("e"), deletes(&harness)), ("queued".to_owned(), 3));
}

#[tokio::test]
async fn deletes_of_another_boot_do_not_count() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    delete_one_by_one(&mut harness, "d", &ids[..3]).await;
    harness.store().write(|tx| Ok(tx.execute("UPDATE outbox SET sent_boot = 'another'", [])?)).await.unwrap();
    harness.intend("e", "delete", Some(&ids[3]), None);
    harness.drain().await;
    assert_eq!(harness.state("e"), "done");
}

#[tokio::test]
async fn rejected_cancelled_and_approved_deletes_do_not_count() {
    let mut harness = harness_of(12).await;
    let ids = harness.sandbox.world().ids();
    let unknown: Vec<String> = (0..3).map(|n| format!("unknown{n}")).collect();
    delete_one_by_one(&mut harness, "r", &unknown).await;
    assert!(harness.states().iter().all(|state| state.ends_with("rejected")), "{:?}", harness.states());
    // Four at once are held; two are cancelled, two approved and sent.
    for (n, id) in ids.iter().take(4).enumerate() {
        harness.intend(&format!("h{n}"), "delete", Some(id), None);
    }
    harness.drain().await;
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id IN ('h0', 'h1')");
    assert_eq!(approve_all(&harness).await, 2);
    harness.drain().await;
    assert_eq!(deletes(&harness), 2);
    delete_one_by_one(&mut harness, "d", &ids[4..8]).await;
    assert_eq!(deletes(&harness), 5);
    assert_eq!((harness.state("d2"), harness.state("d3")), ("done".to_owned(), "queued".to_owned()));
}

#[tokio::test]
async fn open_and_sent_deletes_count_together_and_only_queued_ones_are_held() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    for id in &ids[..2] {
        let mut fails = Fault::new(FaultEffect::status(503)).call(FaultedCall::Delete);
        fails.on.path = Some(format!("/customers/{id}"));
        harness.inject(fails);
    }
    delete_one_by_one(&mut harness, "d", &ids[..5]).await;
    assert_eq!(harness.states(), ["d0 waiting", "d1 waiting", "d2 done", "d3 queued", "d4 queued"]);
    harness.sandbox.world().clear_faults();
    harness.advance(SignedDuration::from_mins(1));
    harness.drain().await;
    assert_eq!(harness.states(), ["d0 done", "d1 done", "d2 done", "d3 queued", "d4 queued"]);
}

#[tokio::test]
async fn deletes_whose_customer_was_gone_already_count() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    for id in &ids[..3] {
        harness.sandbox.world().delete(id);
    }
    delete_one_by_one(&mut harness, "d", &ids[..4]).await;
    assert_eq!(harness.states(), ["d0 done", "d1 done", "d2 done", "d3 queued"]);
}

#[tokio::test]
async fn approved_deletes_that_are_still_open_do_not_count() {
    let mut harness = harness_of(10).await;
    let ids = harness.sandbox.world().ids();
    for (n, id) in ids.iter().take(4).enumerate() {
        harness.intend(&format!("a{n}"), "delete", Some(id), None);
    }
    harness.drain().await;
    assert_eq!(approve_all(&harness).await, 4);
    harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Delete).times(4));
    harness.drain().await;
    assert_eq!(harness.states(), ["a0 waiting", "a1 waiting", "a2 waiting", "a3 waiting"]);
    for (n, id) in ids[4..7].iter().enumerate() {
        harness.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    harness.drain().await;
    assert_eq!(harness.states()[4..], ["d0 done", "d1 done", "d2 done"]);
}
