//! Rows that other programs spoilt, and doors that are forced.

use std::time::Duration;

use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect, Fault, FaultId, Work};
use komoju_sync::clock::Clock as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;

/// Looks until it holds; nobody tells.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap();
}

#[tokio::test]
async fn row_that_cannot_be_read_is_rejected_and_blocks_no_other_intent() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    let spoil = [
        "body = 'no json'",
        "body = x'00ff'",
        "body = '{\"email\": 7}'",
        "customer_id = '..'",
        "customer_id = x'00'",
        "op = 'destroy'",
        "expect = '[]'",
        "not_before = 'soon', op = 'update'",
        "attempts = 'many', op = 'nothing'",
        "body = '{\"email\": \"\\ud800\"}'",
    ];
    for (n, set) in spoil.iter().enumerate() {
        desk.intend(&format!("s{n}"), "update", Some(&format!("other{n}")), Some(json!({"email": "x"})));
        let dropped = desk.one("SELECT sql FROM sqlite_schema WHERE name = 'intents_transitions'");
        desk.sql(&format!(
            "DROP TRIGGER intents_transitions; UPDATE intents SET {set} WHERE id = 's{n}'; {dropped}"
        ));
    }
    // One that may have taken effect before.
    desk.intend("unknown", "update", Some("another"), Some(json!({"email": "x"})));
    let dropped = desk.one("SELECT sql FROM sqlite_schema WHERE name = 'intents_transitions'");
    desk.sql(&format!(
        "DROP TRIGGER intents_transitions; UPDATE intents SET body = '7' WHERE id = 'unknown'; {dropped};
         UPDATE outbox SET outcome_unknown = 1 WHERE position = (SELECT position FROM intents WHERE id = 'unknown')"
    ));
    // And one that never passed the door.
    let door = desk.one(
        "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE name IN ('intents_door', 'intents_accepted')",
    );
    desk.sql(&format!(
        "DROP TRIGGER intents_door; DROP TRIGGER intents_accepted;
         INSERT INTO intents (id, op, customer_id, body) VALUES ('past', 'update', 'x', 'nonsense'); {door}"
    ));
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
    for (n, set) in spoil.iter().enumerate() {
        let (state, attempts) = (
            desk.state(&format!("s{n}")),
            desk.one(&format!("SELECT count(*) FROM attempts WHERE intent_id = 's{n}'")),
        );
        // A time that cannot be read is never due.
        let expected = if n == 7 { ("queued", "0") } else { ("rejected", "1") };
        assert_eq!((state.as_str(), attempts.as_str()), expected, "{set}");
    }
    assert_eq!(desk.state("past"), "rejected");
    assert!(desk.of("past", "reason").contains("cannot be read"), "{}", desk.of("past", "reason"));
    assert_eq!(desk.state("unknown"), "parked", "what it did before is not known");
    assert_eq!(desk.sandbox.world().updates(), 1);
}

#[tokio::test]
async fn a_stop_gives_answers_on_their_way_a_moment_and_cuts_off_the_rest() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    let held = desk.inject(Fault::new(Effect::Hold).call(Call::Update).once());
    let stop = tokio_util::sync::CancellationToken::new();
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), stop.clone());
    let stopping = async {
        desk.sandbox.until(|world| world.fired(held) == 1).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(pusher.serve(), stopping);
    served.unwrap();
    assert_eq!(desk.state("u"), "waiting");
    assert_eq!(desk.of("u", "next_attempt_at"), "null", "due at once");
    drop(pusher);
    desk.sandbox.world().remove_fault(held);
    desk.restart();
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
}

#[tokio::test]
async fn what_the_engine_owns_another_program_cannot_write() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x", "payment_details": "tok_7"})));
    desk.intend("r", "create", None, Some(json!({"payment_details": "nonsense"})));
    desk.on(Call::Update, Effect::status(503));
    desk.drain().await;
    assert_eq!(desk.states(), ["u waiting", "r rejected"]);
    for set in [
        "attempts = 0",
        "attempts = 4294967295",
        "next_attempt_at = x'ff'",
        "next_attempt_at = '2026-01-01'",
        "settled_at = '2026-01-01'",
        "result_customer_id = 'x'",
        "change_seq = 7",
        "detail = '{}'",
        "reason = x'00'",
        "body = '{\"email\": \"forged\"}'",
    ] {
        for intent in ["u", "r"] {
            let said = desk.refusal(&format!("UPDATE intents SET {set} WHERE id = '{intent}'"));
            assert!(
                said.contains("a writer changes state and reason")
                    || said.contains("stays as it was dropped"),
                "{set}: {said}"
            );
        }
    }
    // A card must not come in behind the door, nor a mask go out, nor a key serve twice.
    let card = r#"{"payment_details": {"number": "4111111111111111"}}"#;
    let said = desk.refusal(&format!("UPDATE intents SET state = 'queued', body = '{card}' WHERE id = 'r'"));
    assert!(said.contains("stays as it was dropped"), "{said}");
    let said = desk.refusal("UPDATE intents SET state = 'queued' WHERE id = 'r'");
    assert!(said.contains("`komoju-sync intent retry`"), "{said}");
    assert!(desk.refusal("DELETE FROM attempts").contains("never shortened"));
    assert!(desk.refusal("DELETE FROM outbox").contains("never removed"));
    let created = "INSERT INTO intents (op, created_at) VALUES ('create', CAST(strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS BLOB))";
    assert!(desk.refusal(created).contains("the rest is set here"));
}

#[tokio::test]
async fn an_intent_that_another_program_says_is_sent_is_sent_all_the_same() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.intend("v", "update", Some(&id), Some(json!({"email": "y"})));
    desk.sql("UPDATE intents SET state = 'sending' WHERE id = 'u'");
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
    pusher.drain().await.unwrap();
    drop(pusher);
    assert_eq!(desk.states(), ["u done", "v done"]);
    desk.sweep().await;
    desk.assert_true();
}

#[tokio::test]
async fn a_retry_in_sql_is_a_new_request() {
    let mut desk = Desk::open(0).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::status(422)).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.state("c"), "rejected");
    desk.sql("UPDATE intents SET state = 'queued' WHERE id = 'c'");
    assert_eq!(
        [desk.of("c", "settled_at"), desk.of("c", "detail"), desk.one("SELECT key FROM outbox")],
        ["null"; 3]
    );
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn followers_park_with_the_create_that_they_wait_for() {
    let desk = Desk::open(0).await;
    desk.sql("INSERT INTO intents (id, op, body, not_before) VALUES ('c', 'create', '{\"email\": \"a\"}', '2030-01-01T00:00:00Z')");
    desk.intend("f", "update", Some("@c"), Some(json!({"email": "x"})));
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    assert_eq!(desk.states(), ["c cancelled", "f parked"]);
}

#[tokio::test]
async fn a_held_delete_that_parks_with_its_create_waits_for_no_approval_any_more() {
    let mut desk = Desk::open(0).await;
    desk.settings.hold_deletes_over = 0;
    desk.sql("INSERT INTO intents (id, op, body, not_before) VALUES ('c', 'create', '{\"email\": \"a\"}', '2030-01-01T00:00:00Z')");
    desk.intend("d", "delete", Some("@c"), None);
    desk.drain().await;
    let held = |desk: &Desk| desk.one("SELECT count(*) FROM outbox WHERE held = 1 AND is_open = 1");
    assert_eq!((held(&desk), desk.state("d")), ("1".to_owned(), "queued".to_owned()));
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    assert_eq!((held(&desk), desk.state("d")), ("0".to_owned(), "parked".to_owned()));
}

#[tokio::test]
async fn what_served_the_read_back_goes_with_a_cancel_in_sql_too() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_once"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Update).once());
    desk.drain().await;
    desk.advance(SignedDuration::from_mins(1));
    desk.drain().await;
    let base = |desk: &Desk| desk.one("SELECT base IS NOT NULL FROM outbox");
    assert_eq!((desk.state("u"), base(&desk)), ("parked".to_owned(), "1".to_owned()));
    desk.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'u'");
    assert_eq!((desk.state("u"), base(&desk)), ("cancelled".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn the_next_intents_are_found_without_looking_at_the_others() {
    let desk = Desk::open(1).await;
    let reader = desk.reader();
    let plan: Vec<String> = reader
        .prepare(
            "EXPLAIN QUERY PLAN SELECT outbox.position FROM outbox CROSS JOIN intents USING (position)
             WHERE is_head = 1 AND held = 0 AND is_follower = 0 AND state IN ('queued', 'waiting')
               AND NOT EXISTS (SELECT 1 FROM outbox AS sent WHERE sent.lane = outbox.lane AND sent.is_sending = 1)
             ORDER BY outbox.position",
        )
        .unwrap()
        .query_map([], |row| row.get("detail"))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let plan = plan.join("; ");
    assert!(plan.contains("USING INDEX outbox_heads") && plan.contains("outbox_sending"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    // Whatever is said of them, the first open one of each lane is its head, and no other.
    let wrong = "SELECT count(*) FROM outbox WHERE is_head <> (is_open = 1 AND position =
        (SELECT min(position) FROM outbox AS first WHERE first.lane = outbox.lane AND first.is_open = 1))";
    for n in 0..6 {
        desk.intend(
            &format!("i{n}"),
            "update",
            Some(if n % 2 == 0 { "a" } else { "b" }),
            Some(json!({"email": "x"})),
        );
        assert_eq!(desk.one(wrong), "0");
    }
    for (id, state) in
        [("i2", "cancelled"), ("i0", "cancelled"), ("i1", "parked"), ("i1", "queued"), ("i1", "cancelled")]
    {
        desk.sql(&format!("UPDATE intents SET state = '{state}' WHERE id = '{id}'"));
        assert_eq!(desk.one(wrong), "0", "{id} {state}");
    }
}

#[tokio::test]
async fn what_is_being_sent_moves_by_its_answer_alone() {
    use crate::once::{Cut, end_at};
    for to in ["waiting", "done", "rejected", "parked"] {
        let mut desk = Desk::open(1).await;
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        // The process is gone in mid-attempt; to another program that is the same as one that waits for the answer.
        end_at(&mut desk, Cut::AfterPush(0)).await;
        assert_eq!(desk.state("c"), "sending");
        let refused = desk.refusal(&format!("UPDATE intents SET state = '{to}'"));
        assert!(refused.contains("it is being sent: wait for the answer"), "{to}: {refused}");
        desk.drain().await;
        assert_eq!((desk.state("c").as_str(), desk.sandbox.world().creates()), ("done", 1), "{to}");
    }
}

/// Updates of two customers, named by their ids, and the faults that hold them.
fn two_held_updates(desk: &Desk) -> ([String; 2], [FaultId; 2]) {
    let ids: [String; 2] = desk.sandbox.world().ids().first_chunk().unwrap().clone();
    let held = [&ids[0], &ids[1]].map(|id| {
        desk.intend(id, "update", Some(id), Some(json!({"email": "x@example.com"})));
        let mut held = Fault::new(Effect::Hold).call(Call::Update);
        held.on.path = Some(format!("/customers/{id}"));
        desk.inject(held)
    });
    (ids, held)
}

/// Nobody waits longer for a lock than this.
async fn wait_for_locks(desk: &Desk, time: Duration) {
    desk.store().read(move |conn| Ok(conn.busy_timeout(time)?)).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_at_once_is_kept_until_it_can() {
    let desk = Desk::open(3).await;
    // The first is answered while the database is locked, the second while the first waits to be written.
    let (_, held) = two_held_updates(&desk);
    wait_for_locks(&desk, Duration::from_millis(50)).await;
    let stop = CancellationToken::new();
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        desk.sandbox.until(|world| held.iter().all(|held| world.fired(*held) == 1)).await;
        let other = desk.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        for held in held {
            // By this clock nothing but its pauses takes time.
            let before = desk.clock.elapsed();
            desk.sandbox.world().remove_fault(held);
            eventually(|| desk.clock.elapsed() >= before + Duration::from_secs(2)).await;
        }
        other.execute_batch("COMMIT").unwrap();
        eventually(|| desk.column("SELECT id FROM intents WHERE state <> 'done'").is_empty()).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(pusher.serve(), others);
    assert_eq!(served.unwrap().done, 2);
    assert_eq!(desk.sandbox.world().updates(), 2);
    assert_eq!(desk.column("SELECT outcome FROM attempts"), ["done", "done"]);
    desk.assert_true();
}

#[tokio::test]
async fn a_stop_while_the_database_is_locked_still_writes_what_was_answered() {
    let desk = Desk::open(3).await;
    let (ids, held) = two_held_updates(&desk);
    wait_for_locks(&desk, Duration::from_millis(500)).await;
    let stop = CancellationToken::new();
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), stop.clone());
    pusher.recover().await.unwrap();
    let others = async {
        desk.sandbox.until(|world| held.iter().all(|held| world.fired(*held) == 1)).await;
        let other = desk.writer();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // By this clock nothing but pauses takes time: the one after a lock, then the one before the end.
        desk.sandbox.world().remove_fault(held[0]);
        let before = desk.clock.elapsed();
        eventually(|| desk.clock.elapsed() > before).await;
        stop.cancel();
        let before = desk.clock.elapsed();
        eventually(|| desk.clock.elapsed() > before).await;
        other.execute_batch("COMMIT").unwrap();
        desk.sandbox.world().remove_fault(held[1]);
    };
    let (served, ()) = tokio::join!(pusher.serve(), others);
    assert!(served.unwrap().done >= 1);
    assert_eq!(desk.state(&ids[0]), "done");
}

#[tokio::test]
async fn a_drain_gives_up_on_a_database_that_stays_locked() {
    let desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    let held = desk.inject(Fault::new(Effect::Hold).call(Call::Update));
    wait_for_locks(&desk, Duration::from_millis(20)).await;
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    let other = desk.writer();
    let others = async {
        desk.sandbox.until(|world| world.fired(held) == 1).await;
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        desk.sandbox.world().remove_fault(held);
    };
    let both = async { tokio::join!(pusher.drain(), others) };
    let (drained, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert!(drained.is_err_and(|e| e.is_busy()));
    other.execute_batch("COMMIT").unwrap();
    // What was answered and could not be written is asked again by the next process.
    let mut desk = desk;
    drop(pusher);
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
}

#[tokio::test]
async fn of_one_lane_nothing_is_sent_while_another_is_under_way() {
    // As when a create is done at last while its customer, seen by a sweep meanwhile, is being changed.
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("first", "update", Some(&id), Some(json!({"email": "x"})));
    desk.intend("second", "update", Some(&id), Some(json!({"email": "y"})));
    desk.sql("UPDATE intents SET state = 'sending' WHERE id = 'second'; INSERT INTO attempts (intent_id, n, started_at) VALUES ('second', 1, '2026-06-01T00:00:00.000Z')");
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
    pusher.drain().await.unwrap();
    drop(pusher);
    assert_eq!(
        (desk.states(), desk.calls().len()),
        (vec!["first queued".to_owned(), "second sending".to_owned()], 0)
    );
    // The next process finds that nobody sends it.
    desk.drain().await;
    assert_eq!(desk.states(), ["first done", "second done"]);
}
