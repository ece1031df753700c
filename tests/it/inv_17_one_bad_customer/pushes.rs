//! Answers to pushes that show a customer that cannot be read: what took effect is done, and nothing is guessed.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use komoju_testkit::InProcess;
use serde_json::json;

/// Shows each customer with this email in a form that cannot be read.
fn garble(harness: &InProcess, email: &str) {
    let with = Payload::Text(r#""\ud800""#.to_owned());
    harness.inject(Fault::new(FaultEffect::Rewrite { find: format!("\"{email}\""), with }));
}

fn unreadable(harness: &InProcess) -> Vec<String> {
    harness.column("SELECT id FROM unreadable_customers")
}

#[tokio::test]
async fn create_with_an_unreadable_answer_is_done_once_and_names_its_customer() {
    for too_long in [false, true] {
        let mut harness = InProcess::open(3).await;
        match too_long {
            false => garble(&harness, "made@example.com"),
            true => {
                let with = Payload::Text(format!("\"locale\":\"{}\"", "x".repeat(9_000_000)));
                harness
                    .inject(Fault::new(FaultEffect::Rewrite { find: "\"locale\":\"ja\"".to_owned(), with }));
            }
        }
        harness.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
        harness.intend("u", "update", Some("@c"), Some(json!({"metadata": {"n": "1"}})));
        harness.drain_on(3, SignedDuration::from_mins(1)).await;
        assert_eq!(harness.states(), ["c done", "u done"], "{}", harness.of("c", "reason"));
        let creates = harness.sandbox.world().creates();
        assert_eq!((creates, harness.sandbox.world().len()), (1, 4));
        let made = harness.of("c", "result_customer_id");
        assert_eq!(harness.sandbox.world().get(&made).unwrap()["metadata"]["n"], "1");
        assert_eq!(unreadable(&harness), [made]);
        harness.sandbox.world().clear_faults();
        harness.sweep().await;
        harness.assert_true();
    }
}

#[tokio::test]
async fn update_of_a_customer_that_is_unreadable_is_sent_once() {
    let mut harness = InProcess::open(3).await;
    let id = harness.some_id();
    garble(&harness, "other@example.com");
    harness.intend("u", "update", Some(&id), Some(json!({"email": "other@example.com"})));
    harness.drain_on(3, SignedDuration::from_mins(1)).await;
    assert_eq!((harness.state("u"), harness.sandbox.world().updates()), ("done".to_owned(), 1));
    assert_eq!(unreadable(&harness), [id]);
    // The mirror keeps what was last known.
    assert_eq!(harness.changes_after(3), Vec::<String>::new());
}

#[tokio::test]
async fn create_answered_without_an_id_is_found_in_the_list() {
    let mut harness = InProcess::open(3).await;
    let fault = harness.on(FaultedCall::Create, FaultEffect::Body { body: Payload::Json(json!({"id": 7})) });
    harness.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    assert!(harness.of("c", "reason").contains("its id is not a string"), "{}", harness.of("c", "reason"));
    harness.drain_on(3, SignedDuration::from_mins(1)).await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    assert_eq!(harness.sandbox.world().fired(fault), 1);
}

#[tokio::test]
async fn unexpected_state_of_an_unreadable_customer_is_not_guessed() {
    let mut harness = InProcess::open(3).await;
    let id = harness.some_id();
    harness.sandbox.world().update(&id, json!({"email": "mark@example.com"}));
    garble(&harness, "mark@example.com");
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, expect) VALUES ('d', 'delete', '{id}', '{{\"email\": \"mark@example.com\"}}')"
    ));
    harness.drain().await;
    assert_eq!((harness.state("d"), harness.sandbox.world().deletes()), ("waiting".to_owned(), 0));
    harness.sandbox.world().clear_faults();
    harness.drain_on(3, SignedDuration::from_mins(20)).await;
    assert_eq!((harness.state("d"), harness.sandbox.world().deletes()), ("done".to_owned(), 1));
}

/// A create of which the answer is lost, and the key is past; meanwhile this happens. Returns its state and the creates.
async fn reconciled(tag: Option<&str>, meanwhile: impl FnOnce(&InProcess)) -> (InProcess, String, u64) {
    let mut harness = InProcess::open(3).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    harness.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
    let work = if tag.is_some() { FaultedWork::Done } else { FaultedWork::Skipped };
    harness.inject(Fault::new(FaultEffect::Reset { work }).call(FaultedCall::Create).once());
    harness.drain().await;
    meanwhile(&harness);
    harness.restart();
    harness.advance(SignedDuration::from_hours(21));
    harness.drain_on(3, SignedDuration::from_mins(20)).await;
    let (state, creates) = (harness.state("c"), harness.sandbox.world().creates());
    (harness, state, creates)
}

#[tokio::test]
async fn unreadable_customer_in_the_window_keeps_absence_from_being_proven() {
    let others = [json!({"id": "other", "email": "mark@example.com"}), json!({"id": 7}), json!(null)];
    for other in others {
        let (harness, state, creates) = reconciled(None, |harness| {
            garble(harness, "mark@example.com");
            let mut world = harness.sandbox.world();
            world.put_raw(other.clone());
            // Two that look alike are two.
            world.put_raw(other.clone());
        })
        .await;
        assert_eq!((state.as_str(), creates), ("parked", 0), "{other}: {}", harness.of("c", "reason"));
        let reason = harness.of("c", "reason");
        assert!(other["id"].is_string() || reason.contains("cannot be read"), "{other}: {reason}");
    }
}

#[tokio::test]
async fn page_of_the_window_over_its_limit_is_read_in_parts() {
    let (harness, state, creates) = reconciled(Some("ref"), |harness| {
        let long = "x".repeat(2_000_000);
        for _ in 0..4 {
            harness.sandbox.world().create(json!({"metadata": {"k": long}}));
        }
        harness.sandbox.world().create(json!({"metadata": {"k": "x".repeat(9_000_000)}}));
    })
    .await;
    assert_eq!((state.as_str(), creates), ("done", 1), "{}", harness.of("c", "reason"));
}
