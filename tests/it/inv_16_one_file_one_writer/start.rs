//! Incomplete files that a start finds, and what it does with them.

use std::fs;

use komoju_testkit::Installation;
use rusqlite::Connection;

use crate::PROGRAM;
use crate::exit_codes::bytes;

#[test]
fn database_without_its_first_migration_is_migrated_by_sync() {
    let harness = Installation::with(PROGRAM, 5);
    let conn = Connection::open(harness.path("komoju.db")).unwrap();
    conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID).unwrap();
    drop(conn);
    let ran = harness.expect(5, &["customers", "list"]);
    assert!(ran.stderr.contains("there is no database"), "{}", ran.stderr);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn stale_wal_without_its_database_exits_5_and_is_kept() {
    let harness = Installation::with(PROGRAM, 5);
    std::fs::create_dir(harness.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(harness.path("elsewhere").join("real.db"), harness.path("komoju.db")).unwrap();
    let wal = harness.path("elsewhere").join("real.db-wal");
    fs::write(&wal, b"the last commits").unwrap();
    let ran = harness.expect(5, &["sync"]);
    assert!(ran.stderr.contains("real.db-wal"), "{}", ran.stderr);
    assert_eq!(bytes(&wal), b"the last commits");
    fs::write(&wal, b"").unwrap();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
