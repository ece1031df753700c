//! Invariant 13: the probe reads the newest customers and concludes nothing from absence.
//!
//! Promises: invariant 13

use komoju_testkit::Installation;
use serde_json::json;

use crate::PROGRAM;

#[test]
fn probe_records_new_customers_and_deletes_no_missing_one() {
    let harness = Installation::with(PROGRAM, 30);
    let ran = harness.expect(1, &["sync", "--probe"]);
    assert!(
        ran.stderr.contains("komoju-sync sync"),
        "a probe does not run before one sweep is complete: {}",
        ran.stderr
    );
    harness.expect(0, &["sync"]);
    let newest = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().delete(&newest);
    let new = harness.sandbox.world().create(json!({"email": "late@example.com"}));
    harness.sandbox.world().clear_requests();
    harness.expect(0, &["sync", "--probe"]);
    assert!(harness.mirror().contains_key(&new));
    assert!(harness.mirror().contains_key(&newest), "a probe never deletes");
    assert_eq!(harness.one("SELECT origin FROM changes ORDER BY seq DESC LIMIT 1"), "probe");
    assert!(harness.sandbox.world().requests().iter().all(|seen| seen.query.contains("start_time=")));
}

#[test]
fn probe_with_a_created_at_in_the_future_starts_no_later_than_now() {
    let harness = Installation::with(PROGRAM, 12);
    harness
        .sandbox
        .world()
        .put_raw(json!({"id": "tomorrow", "resource": "customer", "created_at": "2099-01-01T00:00:00Z"}));
    harness.expect(0, &["sync"]);
    harness.sandbox.world().clear_requests();
    harness.expect(0, &["sync", "--probe"]);
    let from = "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', max(created_at), '-60 seconds') FROM customers WHERE created_at < '2099'";
    let query = harness.sandbox.world().requests()[0].query.replace("%3A", ":");
    assert!(query.contains(&format!("start_time={}", harness.one(from))), "{query}");
}
