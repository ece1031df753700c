//! Invariant 1: the fold of `changes` equals the mirror, and both commit together.
//!
//! Promises: invariant 1

use komoju_testkit::Installation;
use serde_json::json;

use crate::PROGRAM;

/// Promises: command sync; exit code 0
#[test]
fn first_sync_mirrors_the_api_and_the_second_changes_nothing() {
    let harness = Installation::with(PROGRAM, 57);
    let ran = harness.expect(0, &["sync"]);
    assert!(ran.stderr.contains("57 customers on 6 pages"), "{}", ran.stderr);
    harness.assert_true();
    let head = harness.head();
    harness.expect(0, &["sync"]);
    assert_eq!(harness.head(), head, "an unchanged sweep appends nothing");
    assert_eq!(harness.column("SELECT outcome FROM passes ORDER BY id"), ["complete", "complete"]);
}

#[test]
fn update_delete_create_and_restore_are_each_recorded_once() {
    let harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    let ids = harness.sandbox.world().ids();
    let head = harness.head();

    harness.sandbox.world().update(&ids[3], json!({"email": "new@example.com"}));
    harness.sandbox.world().delete(&ids[7]);
    let new = harness.sandbox.world().create(json!({"email": "late@example.com"}));
    harness.expect(0, &["sync"]);
    let mut kinds = harness.kinds_after(head);
    kinds.sort();
    assert_eq!(kinds, ["created", "deleted", "updated"]);
    assert_eq!(
        harness.one("SELECT diff ->> '$.email.to' FROM changes WHERE kind = 'updated'"),
        "new@example.com"
    );
    assert_eq!(harness.one("SELECT id FROM deleted_customers"), ids[7]);
    assert!(harness.mirror().contains_key(&new));
    harness.assert_true();

    harness.sandbox.world().restore(&ids[7]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT kind FROM changes ORDER BY seq DESC LIMIT 1"), "restored");
    harness.assert_true();
}
