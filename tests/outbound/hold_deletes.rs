//! `outbound.hold_deletes_over`: how many deletes are sent before an operator has to approve them.

use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect, Fault};
use komoju_sync::store::outbox::operator;

use crate::desk::Desk;

/// A desk whose limit is three deletes.
async fn desk_of(customers: u32) -> Desk {
    let mut desk = Desk::open(customers).await;
    desk.settings.hold_deletes_over = 3;
    desk
}

/// Queues deletes of these customers one by one and pushes after each, each time in another process.
async fn delete_one_by_one(desk: &mut Desk, prefix: &str, ids: &[String]) {
    for (n, id) in ids.iter().enumerate() {
        desk.intend(&format!("{prefix}{n}"), "delete", Some(id), None);
        desk.drain().await;
        desk.restart();
        desk.advance(SignedDuration::from_millis(150));
    }
}

async fn approve_all(desk: &Desk) -> usize {
    desk.store().write(|tx| operator::approve(tx, &[])).await.unwrap()
}

fn deletes(desk: &Desk) -> u64 {
    desk.sandbox.world().deletes()
}

#[tokio::test]
async fn slow_loop_of_deletes_is_held_after_the_limit() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    delete_one_by_one(&mut desk, "d", &ids[..6]).await;
    assert_eq!(deletes(&desk), 3);
    assert_eq!(desk.states()[2..], ["d2 done", "d3 queued", "d4 queued", "d5 queued"]);
    let reason = desk.of("d3", "reason");
    assert!(
        reason.contains("hold_deletes_over = 3") && reason.contains("`komoju-sync intent approve`"),
        "{reason}"
    );
    // What is held waits for an operator, however long.
    desk.advance(SignedDuration::from_hours(2));
    desk.drain().await;
    assert_eq!(deletes(&desk), 3);
    assert_eq!(approve_all(&desk).await, 3);
    desk.drain().await;
    assert_eq!(deletes(&desk), 6);
    desk.assert_true();
}

#[tokio::test]
async fn sent_deletes_count_for_an_hour_of_the_boot_clock() {
    for (wait, held) in [(59, true), (61, false)] {
        let mut desk = desk_of(10).await;
        let ids = desk.sandbox.world().ids();
        delete_one_by_one(&mut desk, "d", &ids[..3]).await;
        desk.advance(SignedDuration::from_mins(wait));
        desk.intend("e", "delete", Some(&ids[3]), None);
        desk.drain().await;
        assert_eq!(desk.state("e"), if held { "queued" } else { "done" }, "{wait} minutes");
    }
}

#[tokio::test]
async fn wall_clock_that_jumps_releases_no_delete() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    delete_one_by_one(&mut desk, "d", &ids[..3]).await;
    for wall in ["2027-06-01T00:00:00Z", "2025-06-01T00:00:00Z"] {
        desk.clock.set_wall(wall.parse().unwrap());
        desk.drain().await;
    }
    desk.intend("e", "delete", Some(&ids[3]), None);
    desk.drain().await;
    assert_eq!((desk.state("e"), deletes(&desk)), ("queued".to_owned(), 3));
}

#[tokio::test]
async fn deletes_of_another_boot_do_not_count() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    delete_one_by_one(&mut desk, "d", &ids[..3]).await;
    desk.store().write(|tx| Ok(tx.execute("UPDATE outbox SET sent_boot = 'another'", [])?)).await.unwrap();
    desk.intend("e", "delete", Some(&ids[3]), None);
    desk.drain().await;
    assert_eq!(desk.state("e"), "done");
}

#[tokio::test]
async fn rejected_cancelled_and_approved_deletes_do_not_count() {
    let mut desk = desk_of(12).await;
    let ids = desk.sandbox.world().ids();
    let unknown: Vec<String> = (0..3).map(|n| format!("unknown{n}")).collect();
    delete_one_by_one(&mut desk, "r", &unknown).await;
    assert!(desk.states().iter().all(|state| state.ends_with("rejected")), "{:?}", desk.states());
    // Four at once are held; two are cancelled, two approved and sent.
    for (n, id) in ids.iter().take(4).enumerate() {
        desk.intend(&format!("h{n}"), "delete", Some(id), None);
    }
    desk.drain().await;
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id IN ('h0', 'h1')");
    assert_eq!(approve_all(&desk).await, 2);
    desk.drain().await;
    assert_eq!(deletes(&desk), 2);
    delete_one_by_one(&mut desk, "d", &ids[4..8]).await;
    assert_eq!(deletes(&desk), 5);
    assert_eq!((desk.state("d2"), desk.state("d3")), ("done".to_owned(), "queued".to_owned()));
}

#[tokio::test]
async fn open_and_sent_deletes_count_together_and_only_queued_ones_are_held() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    for id in &ids[..2] {
        let mut fails = Fault::new(Effect::status(503)).call(Call::Delete);
        fails.on.path = Some(format!("/customers/{id}"));
        desk.inject(fails);
    }
    delete_one_by_one(&mut desk, "d", &ids[..5]).await;
    assert_eq!(desk.states(), ["d0 waiting", "d1 waiting", "d2 done", "d3 queued", "d4 queued"]);
    desk.sandbox.world().clear_faults();
    desk.advance(SignedDuration::from_mins(1));
    desk.drain().await;
    assert_eq!(desk.states(), ["d0 done", "d1 done", "d2 done", "d3 queued", "d4 queued"]);
}

#[tokio::test]
async fn deletes_whose_customer_was_gone_already_count() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    for id in &ids[..3] {
        desk.sandbox.world().delete(id);
    }
    delete_one_by_one(&mut desk, "d", &ids[..4]).await;
    assert_eq!(desk.states(), ["d0 done", "d1 done", "d2 done", "d3 queued"]);
}

#[tokio::test]
async fn approved_deletes_that_are_still_open_do_not_count() {
    let mut desk = desk_of(10).await;
    let ids = desk.sandbox.world().ids();
    for (n, id) in ids.iter().take(4).enumerate() {
        desk.intend(&format!("a{n}"), "delete", Some(id), None);
    }
    desk.drain().await;
    assert_eq!(approve_all(&desk).await, 4);
    desk.inject(Fault::new(Effect::status(503)).call(Call::Delete).times(4));
    desk.drain().await;
    assert_eq!(desk.states(), ["a0 waiting", "a1 waiting", "a2 waiting", "a3 waiting"]);
    for (n, id) in ids[4..7].iter().enumerate() {
        desk.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    desk.drain().await;
    assert_eq!(desk.states()[4..], ["d0 done", "d1 done", "d2 done"]);
}
