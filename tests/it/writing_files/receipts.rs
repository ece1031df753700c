//! Receipts of accepted files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use komoju_sync::clock::Clock as _;
use komoju_sync::store::outbox::engine;
use komoju_sync::store::outbox::operator;
use serde_json::{Value, json};

use super::{CREATE, DAY, SpoolHarness, digest, holds};

#[tokio::test]
async fn receipt_names_each_intent_and_is_rewritten_when_the_last_settles() {
    let harness = SpoolHarness::open().await;
    let lines = [
        r#"{"op": "create", "id": "n1", "body": {"payment_details": "tok_secret1"}}"#,
        "",
        r#"{"op": "update", "id": "u1", "customer_id": "@n1", "body": {"email": null}}"#,
        r#"{"op": "delete", "id": "d1", "customer_id": "c9"}"#,
    ];
    harness.drop_file("a.jsonl", lines.join("\n"));
    assert_eq!(harness.scan().await.intents, 3);
    let entry = |line: u64, id: &str, state: &str, customer: Value, reason: Value| json!({"line": line, "id": id, "state": state, "customer": customer, "reason": reason});
    let receipt = harness.receipt("a.jsonl");
    assert_eq!(receipt["file"], "a.jsonl");
    assert_eq!(receipt["taken_at"], komoju_core::time::written(harness.clock.now()));
    assert_eq!(
        receipt["intents"],
        json!([
            entry(1, "n1", "queued", Value::Null, Value::Null),
            entry(3, "u1", "queued", json!("@n1"), Value::Null),
            entry(4, "d1", "queued", json!("c9"), Value::Null),
        ])
    );
    let mode = fs::metadata(harness.at("receipts/a.jsonl.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);

    harness.cancel("d1").await;
    harness.cancel("n1").await;
    harness.store.write(engine::park_orphans).await.unwrap();
    harness.spool.update_receipts().await.unwrap();
    assert_eq!(harness.receipt("a.jsonl"), receipt, "a parked intent is not settled");
    harness.cancel("u1").await;
    harness.spool.update_receipts().await.unwrap();
    let cancelled = |line, id, customer| entry(line, id, "cancelled", customer, json!("cancelled by ****"));
    assert_eq!(
        harness.receipt("a.jsonl")["intents"],
        json!([
            cancelled(1, "n1", Value::Null),
            cancelled(3, "u1", json!("@n1")),
            cancelled(4, "d1", json!("c9"))
        ])
    );
    assert!(!holds(&harness.at(""), "tok_"), "no token is left");
    fs::remove_file(harness.at("receipts/a.jsonl.json")).unwrap();
    harness.spool.update_receipts().await.unwrap();
    assert_eq!(harness.names("receipts"), [""; 0], "a settled receipt is not written again");
}

#[tokio::test]
async fn receipt_is_kept_for_thirty_days_after_its_last_intent_settles() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", r#"{"op": "create", "id": "a", "body": {"email": "a"}}"#);
    harness.scan().await;
    harness.clock.advance(40 * DAY);
    harness.spool.update_receipts().await.unwrap();
    assert_eq!(harness.names("receipts"), ["a.json.json"], "the intent is not settled");
    harness.cancel("a").await;
    harness.clock.advance(29 * DAY);
    harness.spool.update_receipts().await.unwrap();
    assert_eq!(harness.names("receipts"), ["a.json.json"]);
    harness.clock.advance(2 * DAY);
    harness.spool.update_receipts().await.unwrap();
    assert_eq!(harness.names("receipts"), [""; 0]);
    let rows: i64 = harness
        .sql()
        .query_row(
            "SELECT (SELECT count(*) FROM spool_file) + (SELECT count(*) FROM spool_intent)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!((rows, harness.ids()), (0, vec!["a".to_owned()]), "the intent is kept");
}

#[tokio::test]
async fn retried_intent_updates_its_receipt_when_it_settles() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", r#"{"op": "create", "id": "a", "body": {"email": "a"}}"#);
    harness.scan().await;
    let reject = |reason: &'static str| {
        harness.store.write(move |tx| {
            tx.execute("UPDATE intents SET state = 'sending'", [])?;
            tx.execute("UPDATE intents SET state = 'rejected', reason = ?1", [reason])?;
            Ok(())
        })
    };
    for reason in ["first", "second"] {
        reject(reason).await.unwrap();
        harness.spool.update_receipts().await.unwrap();
        assert_eq!(harness.receipt("a.json")["intents"][0]["reason"], reason);
        harness.store.write(|tx| operator::retry(tx, "a", None)).await.unwrap();
    }
}

#[tokio::test]
async fn receipt_that_cannot_be_written_keeps_the_file_claimed() {
    let harness = SpoolHarness::open().await;
    fs::create_dir_all(harness.at("receipts/a.json.json/in the way")).unwrap();
    harness.drop_file("a.json", CREATE);
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.intents), (1, 1), "the intents are accepted");
    let why = SpoolHarness::why(&summary, "a.json");
    assert!(why.starts_with("its intents were accepted, but its receipt cannot be written"), "{why}");
    assert_eq!(harness.claimed().len(), 1);
    fs::remove_dir_all(harness.at("receipts/a.json.json")).unwrap();
    let summary = harness.scan().await;
    assert_eq!((summary.intents, summary.skipped), (0, vec![]));
    assert_eq!(harness.ids().len(), 1);
    assert!(harness.claimed().is_empty() && harness.at("receipts/a.json.json").exists());
    assert!(harness.receipt("a.json").get("note").is_none(), "the content is not repeated");
}

#[tokio::test]
async fn repeated_content_has_a_receipt_that_says_so() {
    let harness = SpoolHarness::open().await;
    let (a, b) = (CREATE.to_owned(), format!("{CREATE} "));
    for (text, is_repeat) in [(&a, false), (&b, false), (&a, true)] {
        harness.drop_file("a.json", text);
        let summary = harness.scan().await;
        assert_eq!((summary.taken, summary.intents), (1, u64::from(!is_repeat)));
        let receipt = harness.receipt("a.json");
        let note = receipt["note"].as_str();
        let says =
            |note: &str| note.contains("nothing new was accepted") && note.contains("another file name");
        assert_eq!(note.is_some_and(says), is_repeat, "{receipt}");
        assert_eq!(receipt["intents"][0]["repeated"], if is_repeat { json!(true) } else { Value::Null });
    }
    // The note is kept when the intent settles.
    harness.cancel(&format!("a@{}", digest(&a))).await;
    harness.spool.update_receipts().await.unwrap();
    let receipt = harness.receipt("a.json");
    assert_eq!((&receipt["intents"][0]["state"], receipt["note"].is_string()), (&json!("cancelled"), true));
}
