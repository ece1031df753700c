//! Lanes, references, times and holds.

use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect, Fault};
use serde_json::json;

use crate::desk::Desk;

#[tokio::test]
async fn what_takes_effect_is_in_log_and_mirror_and_is_nobody_elses_news() {
    let mut desk = Desk::open(5).await;
    let id = desk.some_id();
    let head = desk.head();
    desk.intend(
        "c",
        "create",
        None,
        Some(json!({"email": "new@example.com", "payment_details": "tok_visa"})),
    );
    desk.intend("u", "update", Some(&id), Some(json!({"email": "b@example.com"})));
    desk.intend("d", "delete", Some(&id), None);
    desk.intend("f", "update", Some("@c"), Some(json!({"metadata": {"of": "c"}})));
    let drained = desk.drain().await;
    assert_eq!((drained.done, drained.attempts), (4, 4), "{:?}", desk.states());
    let mut changes = desk.changes_after(head);
    changes.sort();
    assert_eq!(changes, ["created intent c", "deleted intent d", "updated intent f", "updated intent u"]);
    for intent in ["c", "u", "d", "f"] {
        let customer = desk.one(&format!(
            "SELECT changes.customer_id FROM changes JOIN intents ON seq = change_seq WHERE intents.id = '{intent}'"
        ));
        assert_eq!(desk.of(intent, "result_customer_id"), customer);
        assert_ne!(desk.of(intent, "settled_at"), "null");
    }
    let source = "SELECT source_brand IS NOT NULL FROM customers WHERE email = 'new@example.com'";
    assert_eq!(desk.one(source), "1", "the card is known from the answer alone");
    desk.assert_true();
    let head = desk.head();
    assert!(desk.sweep().await.failure.is_none());
    assert_eq!(desk.changes_after(head), Vec::<String>::new());
}

#[tokio::test]
async fn one_customers_intents_run_in_their_order_and_others_do_not_wait() {
    let mut desk = Desk::open(3).await;
    let ids = desk.sandbox.world().ids();
    for n in 0..8 {
        desk.intend(
            &format!("a{n}"),
            "update",
            Some(&ids[0]),
            Some(json!({"metadata": {"n": n.to_string()}})),
        );
    }
    desk.intend("b", "update", Some(&ids[1]), Some(json!({"email": "b"})));
    // The first is in trouble: those behind it wait, the other customer's does not.
    let trouble = desk.inject(Fault::new(Effect::status(500)).call(Call::Update).once());
    desk.drain().await;
    let waiting: Vec<String> = (1..8).map(|n| format!("a{n} queued")).collect();
    assert_eq!(desk.states()[1..8], waiting[..]);
    assert_eq!([desk.state("a0"), desk.state("b")], ["waiting", "done"]);
    assert_eq!(desk.of("a1", "reason"), "waits for intent a0");
    assert_eq!(desk.sandbox.world().fired(trouble), 1);
    desk.advance(SignedDuration::from_secs(10));
    desk.drain().await;
    assert!(desk.states().iter().all(|state| state.ends_with("done")), "{:?}", desk.states());
    let seen = desk.column("SELECT after ->> '$.metadata.n' FROM changes WHERE origin = 'intent' AND intent_id GLOB 'a*' ORDER BY seq");
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn rejected_ones_do_not_block_and_parked_ones_do() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("bad", "update", Some(&id), Some(json!({"payment_details": "nonsense"})));
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('conflict', 'update', '{id}', '{{\"email\": \"x\"}}', '{{\"email\": \"never\"}}')"
    ));
    desk.intend("behind", "update", Some(&id), Some(json!({"email": "y"})));
    desk.drain().await;
    assert_eq!(desk.states(), ["bad rejected", "conflict parked", "behind queued"]);
    assert_eq!(desk.of("behind", "reason"), "waits for intent conflict");
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'conflict'");
    desk.drain().await;
    assert_eq!(desk.states(), ["bad rejected", "conflict cancelled", "behind done"]);
}

#[tokio::test]
async fn followers_of_a_create_that_will_not_be_park() {
    let mut desk = Desk::open(0).await;
    desk.intend("c", "create", None, Some(json!({"payment_details": "nonsense"})));
    desk.intend("f", "update", Some("@c"), Some(json!({"email": "x"})));
    desk.intend("taken back", "create", None, Some(json!({"email": "z"})));
    desk.intend("g", "delete", Some("@taken back"), None);
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'taken back'");
    desk.drain().await;
    assert_eq!(desk.states(), ["c rejected", "f parked", "taken back cancelled", "g parked"]);
    assert_eq!(desk.sandbox.world().creates(), 0);
    // Mended: both go their way.
    let mended = komoju_core::intent::Body::new(json!({"email": "right@example.com"})).unwrap();
    desk.store()
        .write(move |tx| {
            komoju_sync::store::outbox::operator::retry(tx, "c", Some(&mended))?;
            komoju_sync::store::outbox::operator::retry(tx, "f", None)
        })
        .await
        .unwrap();
    desk.drain().await;
    assert_eq!([desk.state("c"), desk.state("f")], ["done", "done"]);
    assert_eq!(desk.one("SELECT count(*) FROM attempts WHERE intent_id = 'c'"), "2", "the history stays");
    desk.assert_true();
}

#[tokio::test]
async fn nothing_is_sent_before_its_time() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, not_before)
         VALUES ('later', 'update', '{id}', '{{\"email\": \"x\"}}', '2026-06-01T11:00:00+09:00')"
    ));
    desk.drain().await;
    assert_eq!((desk.state("later"), desk.calls().len()), ("queued".to_owned(), 0));
    assert_eq!(desk.of("later", "reason"), "waits for its time, 2026-06-01T11:00:00+09:00");
    desk.advance(SignedDuration::from_mins(119));
    desk.drain().await;
    assert_eq!(desk.state("later"), "queued");
    desk.advance(SignedDuration::from_mins(1));
    desk.drain().await;
    assert_eq!(desk.state("later"), "done");
}

#[tokio::test]
async fn too_many_deletes_wait_for_a_person_one_or_all() {
    let mut desk = Desk::open(10).await;
    desk.settings.hold_deletes_over = 3;
    let ids = desk.sandbox.world().ids();
    for (n, id) in ids.iter().take(4).enumerate() {
        desk.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    desk.intend("u", "update", Some(&ids[9]), Some(json!({"email": "x"})));
    desk.drain().await;
    assert_eq!(desk.states(), ["d0 queued", "d1 queued", "d2 queued", "d3 queued", "u done"]);
    assert!(desk.of("d0", "reason").contains("`komoju-sync intent approve`"), "{}", desk.of("d0", "reason"));
    let approve = |ids: &'static [&'static str]| {
        move |tx: &komoju_sync::store::Tx<'_>| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            komoju_sync::store::outbox::operator::approve(tx, &ids)
        }
    };
    assert_eq!(desk.store().write(approve(&["d1"])).await.unwrap(), 1);
    desk.drain().await;
    assert_eq!(
        desk.states()[..4],
        ["d0 queued", "d1 done", "d2 queued", "d3 queued"],
        "one approval is no other's"
    );
    assert_eq!(desk.store().write(approve(&[])).await.unwrap(), 3);
    desk.drain().await;
    assert_eq!(desk.sandbox.world().deletes(), 4);
    // Up to the limit nobody is asked.
    for (n, id) in ids[4..7].iter().enumerate() {
        desk.intend(&format!("e{n}"), "delete", Some(id), None);
    }
    desk.drain().await;
    assert_eq!(desk.sandbox.world().deletes(), 7);
    desk.assert_true();
}

#[tokio::test]
async fn a_drain_attempts_each_intent_once_and_takes_what_comes_meanwhile() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let trouble = desk.on(Call::Update, Effect::status(500));
    let drained = desk.drain().await;
    assert_eq!((drained.attempts, drained.waiting, desk.sandbox.world().fired(trouble)), (1, 1, 1));
    assert_eq!(desk.of("u", "attempts"), "1");
}

#[tokio::test]
async fn with_pushing_switched_off_nothing_is_accepted_and_nothing_leaves() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.settings.enabled = false;
    desk.drain().await;
    assert_eq!((desk.state("u"), desk.calls().len()), ("queued".to_owned(), 0));
    let said = desk.refusal("INSERT INTO intents (op, body) VALUES ('create', '{}')");
    assert!(said.contains("outbound.enabled = false"), "{said}");
    desk.settings.enabled = true;
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
}

#[tokio::test]
async fn a_parked_delete_is_not_held_and_not_approved_with_the_others() {
    let mut desk = Desk::open(6).await;
    desk.settings.hold_deletes_over = 2;
    let ids = desk.sandbox.world().ids();
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, expect) VALUES ('p', 'delete', '{}', '{{\"email\": \"never\"}}')",
        ids[0]
    ));
    desk.drain().await;
    assert_eq!(desk.state("p"), "parked");
    for (n, id) in ids.iter().enumerate().take(3).skip(1) {
        desk.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    desk.drain().await;
    assert_eq!(desk.states(), ["p parked", "d1 queued", "d2 queued"]);
    let held = |conn: &komoju_sync::store::Conn| komoju_sync::store::outbox::engine::held_deletes(conn);
    assert_eq!(desk.store().read(held).await.unwrap(), 2);
    assert_eq!(
        desk.store().write(|tx| komoju_sync::store::outbox::operator::approve(tx, &[])).await.unwrap(),
        2
    );
    desk.drain().await;
    assert_eq!(desk.states(), ["p parked", "d1 done", "d2 done"]);
    assert_eq!(desk.one("SELECT approved FROM outbox ORDER BY position LIMIT 1"), "0");
}
