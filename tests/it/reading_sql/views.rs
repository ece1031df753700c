//! The views: their columns, their indexes, and values as they came.

use komoju_testkit::Installation;

use crate::PROGRAM;

#[test]
fn after_the_first_sweep_readers_have_their_indexes() {
    let harness = Installation::with(PROGRAM, 12);
    let fault = harness.on_lists(komoju_sandbox::FaultEffect::status(422));
    harness.sweep();
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('change_log_by_customer', 'mirror_by_email')";
    assert_eq!((harness.one(indexes), harness.fired(fault)), ("0".to_owned(), 1));
    harness.sandbox.world().clear_faults();
    harness.sweep();
    assert_eq!(harness.one(indexes), "2");
    let plan = |sql: &str| {
        let reader = harness.reader();
        let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>("detail")).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (sql, index) in [
        ("SELECT * FROM customers WHERE id = 'x'", "sqlite_autoindex_mirror_1 (id=?)"),
        ("SELECT * FROM customers WHERE email = 'x'", "mirror_by_email (email=?)"),
        ("SELECT * FROM changes WHERE customer_id = 'x'", "change_log_by_customer (customer_id=?)"),
        ("SELECT count(*) FROM customers", "COVERING INDEX mirror_by_created_at"),
        (
            "SELECT strftime('%Y-%m', created_at) AS month, count(*) FROM customers GROUP BY month",
            "COVERING INDEX mirror_by_created_at",
        ),
    ] {
        assert!(plan(sql).contains(index), "{sql}: {}", plan(sql));
    }
    // What the daemon asks of each customer while many are held.
    for sql in [
        "SELECT 1 FROM held_customer WHERE state IN ('approved', 'rejected') AND customer_id = 'x'",
        "UPDATE held_customer SET state = 'seen' WHERE state IN ('held', 'approved', 'rejected') AND customer_id = 'x'",
        "SELECT count(DISTINCT customer_id) FROM held_customer WHERE state = 'held'",
    ] {
        assert!(plan(sql).contains("held_customer_by_state (state=?"), "{sql}: {}", plan(sql));
    }
}

#[test]
fn unknown_fields_odd_values_and_odd_ids_are_mirrored_as_they_came() {
    let harness = Installation::with(PROGRAM, 3);
    let odd: serde_json::Value = serde_json::from_str(
        r#"{"id":"a/../b?c#d%2e é","resource":"customer","email":null,"created_at":"2025-01-01T00:00:00Z",
            "metadata":null,"loyalty":{"points":1e400,"rate":0.10},"tags":["x"]}"#,
    )
    .unwrap();
    harness.sandbox.world().put_raw(odd);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "4");
    assert!(harness.one("SELECT body FROM customers WHERE id LIKE 'a/%'").contains(r#""rate":0.10"#));
    harness.sandbox.world().delete("a/../b?c#d%2e é");
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT id FROM deleted_customers"), "a/../b?c#d%2e é");
}
