//! Invariant 14: `changes` is append-only, and damage is found.
//!
//! Promises: invariant 14

use komoju_testkit::{Installation, own};
use rusqlite::Connection;

use crate::PROGRAM;

#[test]
fn change_log_refuses_update_delete_and_insert_by_other_programs() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    let conn = Connection::open(harness.path("komoju.db")).unwrap();
    for sql in [
        "DELETE FROM change_log WHERE seq = 2",
        "UPDATE change_log SET after = '{}' WHERE seq = 2",
        "UPDATE change_log SET after = NULL WHERE seq = 2",
        "UPDATE OR REPLACE change_log SET seq = 1 WHERE seq = 2",
        "INSERT OR REPLACE INTO change_log SELECT * FROM change_log WHERE seq = 2",
        "INSERT OR IGNORE INTO change_log SELECT 9, customer_id, kind, observed_at, origin, pass_id, intent_id, after, redacts,
         salt, digest, chain FROM change_log WHERE seq = 2",
    ] {
        let refused = conn.execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    harness.assert_proven();
}

/// Promises: command verify; command rebuild
#[test]
fn verify_finds_each_kind_of_tampering_and_rebuild_repairs_the_mirror() {
    let tampering = [
        ("UPDATE mirror SET email = 'x' WHERE row = 1", "email or created_at"),
        ("UPDATE mirror SET body = json_set(body, '$.email', 'x') WHERE row = 1", "differs from the log"),
        ("DELETE FROM mirror WHERE row = 1", "differs from the log"),
        (
            "UPDATE change_log SET after = json_set(after, '$.email', 'x') WHERE seq = 2",
            "content of change 2",
        ),
        ("UPDATE change_log SET after = NULL, salt = NULL WHERE seq = 2", "change 2 was redacted"),
        ("UPDATE change_log SET digest = zeroblob(32) WHERE seq = 2", "chain breaks at change 2"),
        ("DELETE FROM change_log WHERE seq = 2", "entries are missing"),
        (
            "UPDATE change_log SET redacts = '[2]' WHERE seq = 5",
            "change 2 was redacted, but it still has content",
        ),
    ];
    for (sql, part) in tampering {
        let harness = Installation::with(PROGRAM, 5);
        harness.expect(0, &["sync"]);
        let head = harness.expect(0, &["verify"]).stdout;
        let head = head.lines().last().unwrap().trim_start_matches("head ").to_owned();
        harness.expect(0, &["verify", "--head", &head]);
        let conn = own(&harness.path("komoju.db"));
        conn.execute_batch("DROP TRIGGER change_log_keeps; DROP TRIGGER change_log_redacts").unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
        drop(conn);
        let ran = harness.expect(1, &["verify"]);
        assert!(ran.stderr.contains(part), "{sql}: {}", ran.stderr);
        if sql.contains("mirror") {
            harness.expect(0, &["rebuild"]);
            assert_eq!(harness.one("SELECT count(*) FROM listed"), "0", "the fingerprints are cleared");
            harness.expect(0, &["verify"]);
            harness.assert_true();
        }
    }
}

#[test]
fn verify_with_the_head_of_another_log_fails() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    let ran = harness.expect(1, &["verify", "--head", &format!("3:{}", "0".repeat(64))]);
    assert!(ran.stderr.contains("this is another log"), "{}", ran.stderr);
    let ran = harness.expect(1, &["verify", "--head", &format!("99:{}", "0".repeat(64))]);
    assert!(ran.stderr.contains("ends at change 5"), "{}", ran.stderr);
    harness.expect(2, &["verify", "--head", "what"]);
}
