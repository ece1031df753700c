//! Rows that other programs spoilt, and doors that are forced.

use komoju_sync::sandbox::{Call, Effect, Fault};
use serde_json::json;

use crate::desk::Desk;

#[tokio::test]
async fn a_row_that_another_program_spoilt_is_parked_and_stops_nobody() {
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
        // A time that is none never comes; everything else is for a person.
        let expected = if n == 7 { "queued" } else { "parked" };
        assert_eq!((state.as_str(), attempts.as_str()), (expected, "0"), "{set}");
    }
    assert_eq!(desk.state("past"), "parked");
    assert!(desk.of("past", "reason").contains("another program"), "{}", desk.of("past", "reason"));
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
