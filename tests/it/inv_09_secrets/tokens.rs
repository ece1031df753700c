//! The token of a settled intent is in no file.

use std::path::Path;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use komoju_sync::store::file::wipe;
use komoju_sync::store::file::wipe::WipeBacklog;
use komoju_testkit::InProcess;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Returns what is recorded as not wiped yet.
fn left(harness: &InProcess) -> WipeBacklog {
    wipe::backlog(&harness.reader()).unwrap()
}

/// Returns the files of a directory that contain this text.
fn found(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file()
            && std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test]
async fn token_of_a_settled_intent_is_in_no_file() {
    let mut harness = InProcess::open(3).await;
    let ids = harness.sandbox.world().ids();
    let long = "x".repeat(1900);
    for (n, id) in ids.iter().enumerate() {
        let body = json!({"payment_details": format!("tok_canary_{n}"), "metadata": {"a": long, "b": long, "c": long}});
        harness.intend(&format!("u{n}"), "update", Some(id), Some(body));
    }
    harness.intend("c", "create", None, Some(json!({"email": "a", "payment_details": "tok_canary_c"})));
    harness.intend("r", "create", None, Some(json!({"payment_details": "tok_card_declined_canary_r"})));
    // Cancelled by another program: its SQLite does not overwrite what it frees.
    harness.intend(
        "x",
        "create",
        None,
        Some(json!({"payment_details": "tok_canary_x", "metadata": {"a": long, "b": long, "c": long}})),
    );
    let foreign = harness.writer();
    foreign
        .execute_batch("PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id = 'x'")
        .unwrap();
    assert_ne!(found(harness.directory.path(), "canary"), Vec::<String>::new());
    drop(foreign);
    harness.drain().await;
    assert!(!harness.of("x", "body").contains("canary"));
    assert!(harness.states().iter().all(|state| !state.ends_with("waiting")), "{:?}", harness.states());
    assert_eq!(found(harness.directory.path(), "canary"), Vec::<String>::new());
    assert!(!left(&harness).is_any());
    // The doors still refuse invalid statements.
    assert!(harness.refusal("DELETE FROM intents").contains("never removed"));
    assert!(harness.refusal("INSERT INTO intents (op) VALUES ('nothing')").contains("op: must be"));
    assert_eq!(harness.states().len(), 6);
}

#[tokio::test]
async fn stop_wipes_tokens_and_erased_data() {
    let harness = InProcess::open(1).await;
    let long = "x".repeat(1900);
    let body = json!({"payment_details": "tok_canary", "metadata": {"a": long, "b": long}});
    harness.intend("x", "create", None, Some(body));
    harness.sql(
        "PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id = 'x';
         UPDATE meta SET unscrubbed_erasure = 7",
    );
    assert_ne!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
    let stop = CancellationToken::new();
    stop.cancel();
    harness.pusher_at(&harness.sandbox.base_url(), stop).serve().await.unwrap();
    assert_eq!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
    assert!(!left(&harness).is_any());
}

#[tokio::test]
async fn wipe_without_a_push_leaves_no_token_and_sends_nothing() {
    let harness = InProcess::open(1).await;
    harness.intend("x", "create", None, Some(json!({"payment_details": "tok_canary"})));
    harness.sql("PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id = 'x'");
    harness.intend("queued", "create", None, Some(json!({"email": "a@example.com"})));
    assert_ne!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), CancellationToken::new());
    pusher.only_wipe().await.unwrap();
    assert_eq!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
    assert!(!left(&harness).is_any());
    assert_eq!((harness.state("queued"), harness.calls().len()), ("queued".to_owned(), 0));
}

#[tokio::test]
async fn stop_does_not_wait_for_another_writer_to_wipe() {
    let harness = InProcess::open(1).await;
    harness.intend("x", "create", None, Some(json!({"payment_details": "tok_canary"})));
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'x'");
    let writer = harness.writer();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), stop);
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(2), pusher.serve());
    stopped.await.expect("it stops within two seconds").unwrap();
    drop(writer);
    assert!(left(&harness).tokens, "the tokens that are left are recorded");
}

#[tokio::test]
async fn wipe_interrupted_by_a_stop_is_recorded_and_done_later() {
    let harness = InProcess::open(1).await;
    harness.intend("x", "create", None, Some(json!({"payment_details": "tok_canary"})));
    harness.sql("PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id = 'x'");
    assert_eq!(harness.store().wipe_unless(std::future::ready(())).await.unwrap(), None);
    let recorded = left(&harness);
    assert!(recorded.tokens && recorded.in_pages && !recorded.erasure && recorded.since.is_some());
    assert_eq!(harness.store().wipe_unless(std::future::pending()).await.unwrap(), Some(true));
    assert_eq!(left(&harness), WipeBacklog::default());
    assert_eq!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
}

#[tokio::test]
async fn token_that_leaves_its_row_after_the_scrub_is_recorded_as_left() {
    let mut harness = InProcess::open(1).await;
    for id in ["a", "b"] {
        harness.intend(id, "create", None, Some(json!({"payment_details": format!("tok_canary_{id}")})));
    }
    let cancel = |id: &str| harness.sql(&format!("UPDATE intents SET state = 'cancelled' WHERE id = '{id}'"));
    cancel("a");
    let reader = harness.reader();
    reader.execute_batch("BEGIN; SELECT * FROM intents;").unwrap();
    // The pages are scrubbed, but the reader keeps the WAL. Then another token leaves its row.
    assert_eq!(harness.store().wipe_unless(std::future::pending()).await.unwrap(), Some(false));
    assert!(!left(&harness).in_pages);
    cancel("b");
    assert!(left(&harness).in_pages);
    drop(reader);
    harness.drain().await;
    assert_eq!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
    assert!(!left(&harness).is_any());
}

#[tokio::test]
async fn token_repeated_by_the_api_is_masked() {
    let mut harness = InProcess::open(1).await;
    // Long enough to extend over the position where a long text is cut.
    let secret = "opaque-secret-4242-".repeat(8);
    for (id, status) in [("r", 422), ("w", 500)] {
        harness.intend(id, "create", None, Some(json!({"payment_details": format!("{secret}-{id}")})));
        let body = Payload::Text(format!(
            r#"{{"error": {{"code": "invalid_parameter", "message": "{secret}-{id} is wrong, and {}{secret}-{id}", "param": "{secret}-{id}"}}}}"#,
            "so ".repeat(80)
        ));
        let effect = FaultEffect::Status {
            status,
            body,
            retry_after: None,
            headers: Default::default(),
            work: FaultedWork::Skipped,
        };
        harness.settings.max_concurrent_requests = 1;
        harness.inject(Fault::new(effect).call(FaultedCall::Create).once());
        harness.drain().await;
    }
    assert_eq!(harness.states(), ["r rejected", "w waiting"]);
    assert!(harness.of("r", "reason").contains("**** is wrong"), "{}", harness.of("r", "reason"));
    let everything = harness.column("SELECT coalesce(reason, '') || coalesce(detail, '') || coalesce(error, '') FROM intents JOIN attempts ON id = intent_id");
    assert!(everything.iter().all(|text| !text.contains("opaque")), "{everything:?}");
}

#[tokio::test]
async fn idle_reader_delays_only_the_wipe() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a", "payment_details": "tok_canary"})));
    let reader = harness.reader();
    reader.execute_batch("BEGIN; SELECT * FROM intents;").unwrap();
    harness.drain().await;
    assert_eq!(harness.state("c"), "done");
    let kept = left(&harness);
    assert!(kept.tokens && !kept.in_pages, "the pages are clean, the WAL is not");
    drop(reader);
    harness.drain().await;
    assert_eq!(found(harness.directory.path(), "tok_canary"), Vec::<String>::new());
}
