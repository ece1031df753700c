//! Answers to pushes that show a customer that cannot be read: what took effect is done, and nothing is guessed.

use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect, Fault, Payload, Work};
use serde_json::json;

use crate::desk::Desk;

/// Shows each customer with this email in a form that cannot be read.
fn garble(desk: &Desk, email: &str) {
    let with = Payload::Text(r#""\ud800""#.to_owned());
    desk.inject(Fault::new(Effect::Rewrite { find: format!("\"{email}\""), with }));
}

fn unreadable(desk: &Desk) -> Vec<String> {
    desk.column("SELECT id FROM unreadable_customers")
}

#[tokio::test]
async fn create_with_an_unreadable_answer_is_done_once_and_names_its_customer() {
    for too_long in [false, true] {
        let mut desk = Desk::open(3).await;
        match too_long {
            false => garble(&desk, "made@example.com"),
            true => {
                let with = Payload::Text(format!("\"locale\":\"{}\"", "x".repeat(9_000_000)));
                desk.inject(Fault::new(Effect::Rewrite { find: "\"locale\":\"ja\"".to_owned(), with }));
            }
        }
        desk.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
        desk.intend("u", "update", Some("@c"), Some(json!({"metadata": {"n": "1"}})));
        desk.drain_on(3, SignedDuration::from_mins(1)).await;
        assert_eq!(desk.states(), ["c done", "u done"], "{}", desk.of("c", "reason"));
        let creates = desk.sandbox.world().creates();
        assert_eq!((creates, desk.sandbox.world().len()), (1, 4));
        let made = desk.of("c", "result_customer_id");
        assert_eq!(desk.sandbox.world().get(&made).unwrap()["metadata"]["n"], "1");
        assert_eq!(unreadable(&desk), [made]);
        desk.sandbox.world().clear_faults();
        desk.sweep().await;
        desk.assert_true();
    }
}

#[tokio::test]
async fn update_of_a_customer_that_is_unreadable_is_sent_once() {
    let mut desk = Desk::open(3).await;
    let id = desk.some_id();
    garble(&desk, "other@example.com");
    desk.intend("u", "update", Some(&id), Some(json!({"email": "other@example.com"})));
    desk.drain_on(3, SignedDuration::from_mins(1)).await;
    assert_eq!((desk.state("u"), desk.sandbox.world().updates()), ("done".to_owned(), 1));
    assert_eq!(unreadable(&desk), [id]);
    // The mirror keeps what was last known.
    assert_eq!(desk.changes_after(3), Vec::<String>::new());
}

#[tokio::test]
async fn create_answered_without_an_id_is_found_in_the_list() {
    let mut desk = Desk::open(3).await;
    let fault = desk.on(Call::Create, Effect::Body { body: Payload::Json(json!({"id": 7})) });
    desk.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    assert!(desk.of("c", "reason").contains("its id is not a string"), "{}", desk.of("c", "reason"));
    desk.drain_on(3, SignedDuration::from_mins(1)).await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    assert_eq!(desk.sandbox.world().fired(fault), 1);
}

#[tokio::test]
async fn unexpected_state_of_an_unreadable_customer_is_not_guessed() {
    let mut desk = Desk::open(3).await;
    let id = desk.some_id();
    desk.sandbox.world().update(&id, json!({"email": "mark@example.com"}));
    garble(&desk, "mark@example.com");
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, expect) VALUES ('d', 'delete', '{id}', '{{\"email\": \"mark@example.com\"}}')"
    ));
    desk.drain().await;
    assert_eq!((desk.state("d"), desk.sandbox.world().deletes()), ("waiting".to_owned(), 0));
    desk.sandbox.world().clear_faults();
    desk.drain_on(3, SignedDuration::from_mins(20)).await;
    assert_eq!((desk.state("d"), desk.sandbox.world().deletes()), ("done".to_owned(), 1));
}

/// A create of which the answer is lost, and the key is past; meanwhile this happens. Returns its state and the creates.
async fn reconciled(tag: Option<&str>, meanwhile: impl FnOnce(&Desk)) -> (Desk, String, u64) {
    let mut desk = Desk::open(3).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    desk.intend("c", "create", None, Some(json!({"email": "made@example.com"})));
    let work = if tag.is_some() { Work::Done } else { Work::Skipped };
    desk.inject(Fault::new(Effect::Reset { work }).call(Call::Create).once());
    desk.drain().await;
    meanwhile(&desk);
    desk.restart();
    desk.advance(SignedDuration::from_hours(21));
    desk.drain_on(3, SignedDuration::from_mins(20)).await;
    let (state, creates) = (desk.state("c"), desk.sandbox.world().creates());
    (desk, state, creates)
}

#[tokio::test]
async fn unreadable_customer_in_the_window_keeps_absence_from_being_proven() {
    let others = [json!({"id": "other", "email": "mark@example.com"}), json!({"id": 7}), json!(null)];
    for other in others {
        let (desk, state, creates) = reconciled(None, |desk| {
            garble(desk, "mark@example.com");
            let mut world = desk.sandbox.world();
            world.put_raw(other.clone());
            // Two that look alike are two.
            world.put_raw(other.clone());
        })
        .await;
        assert_eq!((state.as_str(), creates), ("parked", 0), "{other}: {}", desk.of("c", "reason"));
        let reason = desk.of("c", "reason");
        assert!(other["id"].is_string() || reason.contains("cannot be read"), "{other}: {reason}");
    }
}

#[tokio::test]
async fn page_of_the_window_over_its_limit_is_read_in_parts() {
    let (desk, state, creates) = reconciled(Some("ref"), |desk| {
        let long = "x".repeat(2_000_000);
        for _ in 0..4 {
            desk.sandbox.world().create(json!({"metadata": {"k": long}}));
        }
        desk.sandbox.world().create(json!({"metadata": {"k": "x".repeat(9_000_000)}}));
    })
    .await;
    assert_eq!((state.as_str(), creates), ("done", 1), "{}", desk.of("c", "reason"));
}
