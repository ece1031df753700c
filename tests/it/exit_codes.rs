//! Exit code 5: an operator's decision is entered, and the database cannot be used.
//!
//! Promises: exit code 5

use std::fs;
use std::path::Path;

use komoju_testkit::Installation;
use rusqlite::Connection;

use crate::PROGRAM;

pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn decision_on_a_newer_database_exits_5_and_writes_nothing() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    let path = harness.path("komoju.db");
    let conn = Connection::open(&path).unwrap();
    // The file is not in WAL mode, because setting that mode would be a write.
    conn.execute_batch("PRAGMA journal_mode = delete; PRAGMA user_version = 99").unwrap();
    drop(conn);
    let before = bytes(&path);
    for arguments in [&["deletions", "approve"][..], &["deletions", "reject"], &["account", "accept"]] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains("newer komoju-sync"), "{}", ran.stderr);
        assert!(bytes(&path) == before, "{arguments:?} wrote to the database");
    }
}

#[test]
fn decision_on_a_damaged_database_exits_5_and_writes_nothing() {
    let harness = Installation::with(PROGRAM, 40);
    harness.expect(0, &["sync"]);
    let path = harness.path("komoju.db");
    let mut content = bytes(&path);
    content[8192..12_288].fill(0xAA);
    fs::write(&path, &content).unwrap();
    for arguments in [&["deletions", "approve"][..], &["account", "accept"], &["sync", "--dry-run"]] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains(&format!("{} is damaged", path.display())), "{}", ran.stderr);
        assert!(bytes(&path) == content, "{arguments:?} wrote to the database");
    }
}
