//! Reads that lag behind writes: what they show of the past is left out, and asked for again when no read can be so old.

use jiff::SignedDuration;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Call, Effect, Fault, Work};
use komoju_sync::clock::Clock as _;
use serde_json::json;

use crate::desk::Desk;

const CONSISTENCY: u32 = 60;

/// A desk whose customers were all read long ago.
async fn desk() -> Desk {
    let mut desk = Desk::open(20).await;
    desk.settings.consistency = Consistency::seconds(CONSISTENCY);
    desk.advance(SignedDuration::from_hours(1));
    desk
}

fn email(desk: &Desk, id: &str) -> String {
    desk.one(&format!("SELECT email FROM customers WHERE id = '{id}'"))
}

#[tokio::test]
async fn read_shortly_after_our_push_is_left_out_and_requested_again() {
    let mut desk = desk().await;
    let id = desk.some_id();
    desk.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    desk.drain().await;
    desk.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    desk.advance(SignedDuration::from_secs(30));
    desk.sweep().await;
    assert_eq!(email(&desk, &id), "ours@example.com", "what the sweep shows may be older than our push");
    assert_eq!(desk.column("SELECT customer_id FROM recheck"), std::slice::from_ref(&id));

    let wait = desk.pull().recheck().await.unwrap().unwrap();
    assert!((20..=31).contains(&wait.as_secs()), "{wait:?}");
    desk.restart();
    desk.advance(SignedDuration::from_secs(31));
    assert_eq!(desk.pull().recheck().await.unwrap(), None);
    assert_eq!(email(&desk, &id), "theirs@example.com");
    assert_eq!(desk.one("SELECT origin FROM changes ORDER BY seq DESC LIMIT 1"), "lookup");
    assert_eq!(desk.one("SELECT lag_exceeded_at IS NULL FROM meta"), "1", "news is no sign of a longer lag");
    desk.assert_true();
}

#[tokio::test]
async fn read_that_shows_a_replaced_state_is_left_out_and_its_lag_is_measured() {
    let mut desk = desk().await;
    let id = desk.some_id();
    let before = desk.sandbox.world().truth()[&id]["email"].clone();
    desk.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    desk.sweep().await;
    assert_eq!(email(&desk, &id), "new@example.com");
    desk.advance(SignedDuration::from_secs(7));
    // As a replica would show it that is behind.
    desk.sandbox.world().update(&id, json!({"email": before}));
    desk.sweep().await;
    assert_eq!(email(&desk, &id), "new@example.com");
    assert_eq!(desk.one("SELECT longest_lag_ms FROM meta"), "7000");

    desk.advance(SignedDuration::from_secs(54));
    desk.pull().recheck().await.unwrap();
    assert_eq!(json!(email(&desk, &id)), before, "it is so after all");
    assert_eq!(
        desk.one("SELECT lag_exceeded_at IS NULL FROM meta"),
        "0",
        "or reads lag longer than expected"
    );
    desk.assert_true();
}

#[tokio::test]
async fn customer_is_deleted_only_once_no_read_can_be_from_before_it() {
    let mut desk = desk().await;
    desk.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    desk.drain().await;
    let id = desk.of("new", "result_customer_id");
    // Neither the list nor its own GET shows it yet.
    desk.sandbox.world().delete(&id);
    desk.advance(SignedDuration::from_secs(59));
    desk.sweep().await;
    assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), "0");
    desk.advance(SignedDuration::from_secs(2));
    desk.sweep().await;
    assert_eq!(desk.column("SELECT id FROM deleted_customers"), [id]);
}

#[tokio::test]
async fn difference_from_expect_shortly_after_our_push_is_compared_again() {
    let mut desk = desk().await;
    let id = desk.some_id();
    desk.sandbox.world().readings_mut().show_lag_s = 30;
    desk.advance(SignedDuration::from_secs(40));
    desk.intend("first", "update", Some(&id), Some(json!({"email": "b@example.com"})));
    desk.writer()
        .execute(
            "INSERT INTO intents (id, op, customer_id, body, expect)
             VALUES ('second', 'update', ?1, '{\"email\": \"c@example.com\"}', '{\"email\": \"b@example.com\"}')",
            [&id],
        )
        .unwrap();
    desk.drain().await;
    desk.drain().await;
    assert_eq!(desk.state("first"), "done");
    assert_eq!(desk.state("second"), "waiting", "{}", desk.of("second", "reason"));
    assert!(desk.of("second", "reason").contains("compared again"), "{}", desk.of("second", "reason"));
    desk.advance(SignedDuration::from_secs(61));
    desk.drain().await;
    assert_eq!(desk.state("second"), "done");
}

#[tokio::test]
async fn create_is_looked_for_only_once_no_read_can_be_older_than_its_attempt() {
    let mut desk = desk().await;
    desk.settings.reconcile_tag = Some("intent".to_owned());
    desk.sandbox.world().readings_mut().list_lag_s = 30;
    desk.advance(SignedDuration::from_secs(40));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.intend("new", "create", None, Some(json!({"email": "new@example.com"})));
    desk.drain().await;
    desk.advance(SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!(desk.state("new"), "waiting");
    assert!(desk.of("new", "reason").contains("looked for"), "{}", desk.of("new", "reason"));
    desk.advance(SignedDuration::from_secs(61));
    desk.drain().await;
    assert_eq!(desk.state("new"), "done");
    assert_eq!(desk.sandbox.world().creates(), 1);
}

#[tokio::test]
async fn push_answered_without_a_customer_records_no_read_that_may_lag() {
    let mut desk = desk().await;
    let id = desk.some_id();
    desk.sandbox.world().readings_mut().show_lag_s = 30;
    desk.advance(SignedDuration::from_secs(40));
    let (body, headers) = (Default::default(), Default::default());
    let empty = Effect::Status { status: 204, body, retry_after: None, headers, work: Work::Done };
    desk.inject(Fault::new(empty).call(Call::Update).once());
    let head = desk.head();
    desk.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    desk.drain().await;
    assert_eq!((desk.state("ours").as_str(), desk.head()), ("done", head));
    desk.advance(SignedDuration::from_secs(61));
    desk.pull().recheck().await.unwrap();
    assert_eq!(email(&desk, &id), "ours@example.com");
    desk.assert_true();
}

#[tokio::test]
async fn customer_left_out_while_the_clock_was_ahead_is_requested_again_once_it_is_right() {
    let mut desk = desk().await;
    let id = desk.some_id();
    let right = desk.clock.now();
    desk.clock.set_wall(right + SignedDuration::from_hours(9));
    desk.intend("ours", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    desk.drain().await;
    desk.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    desk.sweep().await;
    desk.clock.set_wall(right);

    // Not at once: a read may still be behind our push.
    let wait = desk.pull().recheck().await.unwrap().unwrap();
    assert!((55..=60).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(email(&desk, &id), "ours@example.com");
    desk.advance(SignedDuration::from_secs(61));
    // One that gives no usable answer is not requested without a pause.
    let silent = desk.inject(Fault::new(Effect::status(500)).call(Call::Show));
    let wait = desk.pull().recheck().await.unwrap().unwrap();
    assert!(wait.as_secs() >= 30, "{wait:?}");
    desk.sandbox.world().remove_fault(silent);
    desk.advance(SignedDuration::from_secs(61));
    assert_eq!(desk.pull().recheck().await.unwrap(), None);
    assert_eq!(email(&desk, &id), "theirs@example.com");
    desk.assert_true();
}

#[tokio::test]
async fn card_that_a_recheck_has_just_recorded_is_not_taken_away_by_its_sweep() {
    let desk = Desk::open(30).await;
    let truth = desk.sandbox.world().truth();
    let ids = desk.sandbox.world().ids();
    let id = ids[..10].iter().find(|id| !truth[*id]["source"].is_null()).unwrap().clone();
    let mut card = truth[&id]["source"].clone();
    card["last_four_digits"] = json!("0007");
    desk.sandbox.world().update(&id, json!({"source": null}));
    // Due while the sweep reads.
    let due = desk.clock.now() + SignedDuration::from_secs(10);
    desk.sql(&format!("INSERT INTO recheck (customer_id, due_at) VALUES ('{id}', '{due:.3}')"));
    let head = desk.head();
    // The list has shown the customer without a card when it gets one.
    let last = desk.inject(Fault::new(Effect::Hold).call(Call::List).page(3));
    let pull = desk.pull();
    let (report, ()) = tokio::join!(pull.sweep(), async {
        desk.sandbox.until(|world| world.fired(last) > 0).await;
        desk.advance(SignedDuration::from_secs(20));
        desk.sandbox.world().update(&id, json!({"source": card}));
        desk.sandbox.world().clear_faults();
    });
    assert!(report.unwrap().failure.is_none());
    assert_eq!(desk.changes_after(head), ["updated lookup"]);
    desk.assert_true();
}
