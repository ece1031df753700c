//! Which intents are due, and what becomes of intents that wait for a create's customer.

use komoju_testkit::InProcess;
use serde_json::json;

#[tokio::test]
async fn follower_parks_when_its_create_is_cancelled() {
    let harness = InProcess::open(0).await;
    harness.sql("INSERT INTO intents (id, op, body, not_before) VALUES ('c', 'create', '{\"email\": \"a\"}', '2030-01-01T00:00:00Z')");
    harness.intend("f", "update", Some("@c"), Some(json!({"email": "x"})));
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    assert_eq!(harness.states(), ["c cancelled", "f parked"]);
}

#[tokio::test]
async fn held_delete_that_parks_with_its_create_is_no_longer_held() {
    let mut harness = InProcess::open(0).await;
    harness.settings.hold_deletes_over = 0;
    harness.sql("INSERT INTO intents (id, op, body, not_before) VALUES ('c', 'create', '{\"email\": \"a\"}', '2030-01-01T00:00:00Z')");
    harness.intend("d", "delete", Some("@c"), None);
    harness.drain().await;
    let held =
        |harness: &InProcess| harness.one("SELECT count(*) FROM outbox WHERE held = 1 AND is_open = 1");
    assert_eq!((held(&harness), harness.state("d")), ("1".to_owned(), "queued".to_owned()));
    harness.sql("UPDATE intents SET state = 'cancelled' WHERE id = 'c'");
    assert_eq!((held(&harness), harness.state("d")), ("0".to_owned(), "parked".to_owned()));
}

#[tokio::test]
async fn next_intents_are_found_by_index() {
    let harness = InProcess::open(1).await;
    let reader = harness.reader();
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
    // After each statement the first open intent of each lane, and no other, is its head.
    let wrong = "SELECT count(*) FROM outbox WHERE is_head <> (is_open = 1 AND position =
        (SELECT min(position) FROM outbox AS first WHERE first.lane = outbox.lane AND first.is_open = 1))";
    for n in 0..6 {
        harness.intend(
            &format!("i{n}"),
            "update",
            Some(if n % 2 == 0 { "a" } else { "b" }),
            Some(json!({"email": "x"})),
        );
        assert_eq!(harness.one(wrong), "0");
    }
    for (id, state) in
        [("i2", "cancelled"), ("i0", "cancelled"), ("i1", "parked"), ("i1", "queued"), ("i1", "cancelled")]
    {
        harness.sql(&format!("UPDATE intents SET state = '{state}' WHERE id = '{id}'"));
        assert_eq!(harness.one(wrong), "0", "{id} {state}");
    }
}
