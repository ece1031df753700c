//! Lanes, references, times and holds.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::InProcess;
use serde_json::json;

#[tokio::test]
async fn what_takes_effect_is_in_log_and_mirror_and_is_nobody_elses_news() {
    let mut harness = InProcess::open(5).await;
    let id = harness.some_id();
    let head = harness.head();
    harness.intend(
        "c",
        "create",
        None,
        Some(json!({"email": "new@example.com", "payment_details": "tok_visa"})),
    );
    harness.intend("u", "update", Some(&id), Some(json!({"email": "b@example.com"})));
    harness.intend("d", "delete", Some(&id), None);
    harness.intend("f", "update", Some("@c"), Some(json!({"metadata": {"of": "c"}})));
    let drained = harness.drain().await;
    assert_eq!((drained.done, drained.attempts), (4, 4), "{:?}", harness.states());
    let mut changes = harness.changes_after(head);
    changes.sort();
    assert_eq!(changes, ["created intent c", "deleted intent d", "updated intent f", "updated intent u"]);
    for intent in ["c", "u", "d", "f"] {
        let customer = harness.one(&format!(
            "SELECT changes.customer_id FROM changes JOIN intents ON seq = change_seq WHERE intents.id = '{intent}'"
        ));
        assert_eq!(harness.of(intent, "result_customer_id"), customer);
        assert_ne!(harness.of(intent, "settled_at"), "null");
    }
    let source = "SELECT source_brand IS NOT NULL FROM customers WHERE email = 'new@example.com'";
    assert_eq!(harness.one(source), "1", "the card is known from the answer alone");
    harness.assert_true();
    let head = harness.head();
    assert!(harness.sweep().await.failure.is_none());
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
}

#[tokio::test]
async fn one_customers_intents_run_in_their_order_and_others_do_not_wait() {
    let mut harness = InProcess::open(3).await;
    let ids = harness.sandbox.world().ids();
    for n in 0..8 {
        harness.intend(
            &format!("a{n}"),
            "update",
            Some(&ids[0]),
            Some(json!({"metadata": {"n": n.to_string()}})),
        );
    }
    harness.intend("b", "update", Some(&ids[1]), Some(json!({"email": "b"})));
    // The first is in trouble: those behind it wait, the other customer's does not.
    let trouble = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Update).once());
    harness.drain().await;
    let waiting: Vec<String> = (1..8).map(|n| format!("a{n} queued")).collect();
    assert_eq!(harness.states()[1..8], waiting[..]);
    assert_eq!([harness.state("a0"), harness.state("b")], ["waiting", "done"]);
    assert_eq!(harness.of("a1", "reason"), "waits for intent a0");
    assert_eq!(harness.sandbox.world().fired(trouble), 1);
    harness.advance(SignedDuration::from_secs(10));
    harness.drain().await;
    assert!(harness.states().iter().all(|state| state.ends_with("done")), "{:?}", harness.states());
    let seen = harness.column("SELECT after ->> '$.metadata.n' FROM changes WHERE origin = 'intent' AND intent_id GLOB 'a*' ORDER BY seq");
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn rejected_ones_do_not_block_and_parked_ones_do() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("bad", "update", Some(&id), Some(json!({"payment_details": "nonsense"})));
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('conflict', 'update', '{id}', '{{\"email\": \"x\"}}', '{{\"email\": \"never\"}}')"
    ));
    harness.intend("behind", "update", Some(&id), Some(json!({"email": "y"})));
    harness.drain().await;
    assert_eq!(harness.states(), ["bad rejected", "conflict parked", "behind queued"]);
    assert_eq!(harness.of("behind", "reason"), "waits for intent conflict");
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'conflict'");
    harness.drain().await;
    assert_eq!(harness.states(), ["bad rejected", "conflict cancelled", "behind done"]);
}

#[tokio::test]
async fn followers_of_a_create_that_will_not_be_park() {
    let mut harness = InProcess::open(0).await;
    harness.intend("c", "create", None, Some(json!({"payment_details": "nonsense"})));
    harness.intend("f", "update", Some("@c"), Some(json!({"email": "x"})));
    harness.intend("taken back", "create", None, Some(json!({"email": "z"})));
    harness.intend("g", "delete", Some("@taken back"), None);
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'taken back'");
    harness.drain().await;
    assert_eq!(harness.states(), ["c rejected", "f parked", "taken back cancelled", "g parked"]);
    assert_eq!(harness.sandbox.world().creates(), 0);
    // Mended: both go their way.
    let mended = komoju_core::intent::Body::new(json!({"email": "right@example.com"})).unwrap();
    harness
        .store()
        .write(move |tx| {
            komoju_sync::store::outbox::operator::retry(tx, "c", Some(&mended))?;
            komoju_sync::store::outbox::operator::retry(tx, "f", None)
        })
        .await
        .unwrap();
    harness.drain().await;
    assert_eq!([harness.state("c"), harness.state("f")], ["done", "done"]);
    assert_eq!(harness.one("SELECT count(*) FROM attempts WHERE intent_id = 'c'"), "2", "the history stays");
    harness.assert_true();
}

#[tokio::test]
async fn nothing_is_sent_before_its_time() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, not_before)
         VALUES ('later', 'update', '{id}', '{{\"email\": \"x\"}}', '2026-06-01T11:00:00+09:00')"
    ));
    harness.drain().await;
    assert_eq!((harness.state("later"), harness.calls().len()), ("queued".to_owned(), 0));
    assert_eq!(harness.of("later", "reason"), "waits for its time, 2026-06-01T11:00:00+09:00");
    harness.advance(SignedDuration::from_mins(119));
    harness.drain().await;
    assert_eq!(harness.state("later"), "queued");
    harness.advance(SignedDuration::from_mins(1));
    harness.drain().await;
    assert_eq!(harness.state("later"), "done");
}

#[tokio::test]
async fn too_many_deletes_wait_for_a_person_one_or_all() {
    let mut harness = InProcess::open(10).await;
    harness.settings.hold_deletes_over = 3;
    let ids = harness.sandbox.world().ids();
    for (n, id) in ids.iter().take(4).enumerate() {
        harness.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    harness.intend("u", "update", Some(&ids[9]), Some(json!({"email": "x"})));
    harness.drain().await;
    assert_eq!(harness.states(), ["d0 queued", "d1 queued", "d2 queued", "d3 queued", "u done"]);
    assert!(
        harness.of("d0", "reason").contains("`komoju-sync intent approve`"),
        "{}",
        harness.of("d0", "reason")
    );
    let approve = |ids: &'static [&'static str]| {
        move |tx: &komoju_sync::store::Tx<'_>| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            komoju_sync::store::outbox::operator::approve(tx, &ids)
        }
    };
    assert_eq!(harness.store().write(approve(&["d1"])).await.unwrap(), 1);
    harness.drain().await;
    assert_eq!(
        harness.states()[..4],
        ["d0 queued", "d1 done", "d2 queued", "d3 queued"],
        "one approval is no other's"
    );
    assert_eq!(harness.store().write(approve(&[])).await.unwrap(), 3);
    harness.drain().await;
    assert_eq!(harness.sandbox.world().deletes(), 4);
    // Up to the limit nobody is asked.
    for (n, id) in ids[4..7].iter().enumerate() {
        harness.intend(&format!("e{n}"), "delete", Some(id), None);
    }
    harness.drain().await;
    assert_eq!(harness.sandbox.world().deletes(), 7);
    harness.assert_true();
}

#[tokio::test]
async fn a_drain_attempts_each_intent_once_and_takes_what_comes_meanwhile() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let trouble = harness.on(FaultedCall::Update, FaultEffect::status(500));
    let drained = harness.drain().await;
    assert_eq!((drained.attempts, drained.waiting, harness.sandbox.world().fired(trouble)), (1, 1, 1));
    assert_eq!(harness.of("u", "attempts"), "1");
}

#[tokio::test]
async fn with_pushing_switched_off_nothing_is_accepted_and_nothing_leaves() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.settings.enabled = false;
    harness.drain().await;
    assert_eq!((harness.state("u"), harness.calls().len()), ("queued".to_owned(), 0));
    let said = harness.refusal("INSERT INTO intents (op, body) VALUES ('create', '{}')");
    assert!(said.contains("outbound.enabled = false"), "{said}");
    harness.settings.enabled = true;
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
}

#[tokio::test]
async fn a_parked_delete_is_not_held_and_not_approved_with_the_others() {
    let mut harness = InProcess::open(6).await;
    harness.settings.hold_deletes_over = 2;
    let ids = harness.sandbox.world().ids();
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, expect) VALUES ('p', 'delete', '{}', '{{\"email\": \"never\"}}')",
        ids[0]
    ));
    harness.drain().await;
    assert_eq!(harness.state("p"), "parked");
    for (n, id) in ids.iter().enumerate().take(3).skip(1) {
        harness.intend(&format!("d{n}"), "delete", Some(id), None);
    }
    harness.drain().await;
    assert_eq!(harness.states(), ["p parked", "d1 queued", "d2 queued"]);
    let held = |conn: &komoju_sync::store::Conn| komoju_sync::store::outbox::engine::held_deletes(conn);
    assert_eq!(harness.store().read(held).await.unwrap(), 2);
    assert_eq!(
        harness.store().write(|tx| komoju_sync::store::outbox::operator::approve(tx, &[])).await.unwrap(),
        2
    );
    harness.drain().await;
    assert_eq!(harness.states(), ["p parked", "d1 done", "d2 done"]);
    assert_eq!(harness.one("SELECT approved FROM outbox ORDER BY position LIMIT 1"), "0");
}
