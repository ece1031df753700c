//! Rows that other programs spoilt, and columns that only the engine writes.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::InProcess;
use serde_json::json;

#[tokio::test]
async fn row_that_cannot_be_read_is_rejected_and_blocks_no_other_intent() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
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
        harness.intend(&format!("s{n}"), "update", Some(&format!("other{n}")), Some(json!({"email": "x"})));
        let dropped = harness.one("SELECT sql FROM sqlite_schema WHERE name = 'intents_transitions'");
        harness.sql(&format!(
            "DROP TRIGGER intents_transitions; UPDATE intents SET {set} WHERE id = 's{n}'; {dropped}"
        ));
    }
    // One that may have taken effect before.
    harness.intend("unknown", "update", Some("another"), Some(json!({"email": "x"})));
    let dropped = harness.one("SELECT sql FROM sqlite_schema WHERE name = 'intents_transitions'");
    harness.sql(&format!(
        "DROP TRIGGER intents_transitions; UPDATE intents SET body = '7' WHERE id = 'unknown'; {dropped};
         UPDATE outbox SET outcome_unknown = 1 WHERE position = (SELECT position FROM intents WHERE id = 'unknown')"
    ));
    // And one that never passed the door.
    let door = harness.one(
        "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE name IN ('intents_door', 'intents_accepted')",
    );
    harness.sql(&format!(
        "DROP TRIGGER intents_door; DROP TRIGGER intents_accepted;
         INSERT INTO intents (id, op, customer_id, body) VALUES ('past', 'update', 'x', 'nonsense'); {door}"
    ));
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.drain().await;
    assert_eq!(harness.state("u"), "done");
    for (n, set) in spoil.iter().enumerate() {
        let (state, attempts) = (
            harness.state(&format!("s{n}")),
            harness.one(&format!("SELECT count(*) FROM attempts WHERE intent_id = 's{n}'")),
        );
        // A time that cannot be read is never due.
        let expected = if n == 7 { ("queued", "0") } else { ("rejected", "1") };
        assert_eq!((state.as_str(), attempts.as_str()), expected, "{set}");
    }
    assert_eq!(harness.state("past"), "rejected");
    assert!(harness.of("past", "reason").contains("cannot be read"), "{}", harness.of("past", "reason"));
    assert_eq!(harness.state("unknown"), "parked", "what it did before is not known");
    assert_eq!(harness.sandbox.world().updates(), 1);
}

#[tokio::test]
async fn what_the_engine_owns_another_program_cannot_write() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x", "payment_details": "tok_7"})));
    harness.intend("r", "create", None, Some(json!({"payment_details": "nonsense"})));
    harness.on(FaultedCall::Update, FaultEffect::status(503));
    harness.drain().await;
    assert_eq!(harness.states(), ["u waiting", "r rejected"]);
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
            let said = harness.refusal(&format!("UPDATE intents SET {set} WHERE id = '{intent}'"));
            assert!(
                said.contains("a writer changes state and reason")
                    || said.contains("stays as it was dropped"),
                "{set}: {said}"
            );
        }
    }
    // A card must not come in behind the door, nor a mask go out, nor a key serve twice.
    let card = r#"{"payment_details": {"number": "4111111111111111"}}"#;
    let said =
        harness.refusal(&format!("UPDATE intents SET state = 'queued', body = '{card}' WHERE id = 'r'"));
    assert!(said.contains("stays as it was dropped"), "{said}");
    let said = harness.refusal("UPDATE intents SET state = 'queued' WHERE id = 'r'");
    assert!(said.contains("`komoju-sync intent retry`"), "{said}");
    assert!(harness.refusal("DELETE FROM attempts").contains("never shortened"));
    assert!(harness.refusal("DELETE FROM outbox").contains("never removed"));
    let created = "INSERT INTO intents (op, created_at) VALUES ('create', CAST(strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS BLOB))";
    assert!(harness.refusal(created).contains("the rest is set here"));
}

#[tokio::test]
async fn an_intent_that_another_program_says_is_sent_is_sent_all_the_same() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    harness.intend("v", "update", Some(&id), Some(json!({"email": "y"})));
    harness.sql("UPDATE intents SET state = 'sending' WHERE id = 'u'");
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.drain().await.unwrap();
    drop(pusher);
    assert_eq!(harness.states(), ["u done", "v done"]);
    harness.sweep().await;
    harness.assert_true();
}

#[tokio::test]
async fn a_retry_in_sql_is_a_new_request() {
    let mut harness = InProcess::open(0).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(Fault::new(FaultEffect::status(422)).call(FaultedCall::Create).once());
    harness.drain().await;
    assert_eq!(harness.state("c"), "rejected");
    harness.sql("UPDATE intents SET state = 'queued' WHERE id = 'c'");
    assert_eq!(
        [harness.of("c", "settled_at"), harness.of("c", "detail"), harness.one("SELECT key FROM outbox")],
        ["null"; 3]
    );
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn what_served_the_read_back_goes_with_a_cancel_in_sql_too() {
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_once"})));
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Update).once(),
    );
    harness.drain().await;
    harness.advance(SignedDuration::from_mins(1));
    harness.drain().await;
    let base = |harness: &InProcess| harness.one("SELECT base IS NOT NULL FROM outbox");
    assert_eq!((harness.state("u"), base(&harness)), ("parked".to_owned(), "1".to_owned()));
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'u'");
    assert_eq!((harness.state("u"), base(&harness)), ("cancelled".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn what_is_being_sent_moves_by_its_answer_alone() {
    use crate::inv_07_create_at_most_once::{Cut, end_at};
    for to in ["waiting", "done", "rejected", "parked"] {
        let mut harness = InProcess::open(1).await;
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        // The process is gone in mid-attempt; to another program that is the same as one that waits for the answer.
        end_at(&mut harness, Cut::AfterPush(0)).await;
        assert_eq!(harness.state("c"), "sending");
        let refused = harness.refusal(&format!("UPDATE intents SET state = '{to}'"));
        assert!(refused.contains("it is being sent: wait for the answer"), "{to}: {refused}");
        harness.drain().await;
        assert_eq!((harness.state("c").as_str(), harness.sandbox.world().creates()), ("done", 1), "{to}");
    }
}
