//! A database that is not ours, damaged, newer or in use is left as it was.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::house::{House, own};

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_persons_word_leaves_a_newer_database_as_it_was() {
    let house = House::with(5);
    house.expect(0, &["sync"]);
    let path = house.path("komoju.db");
    let conn = Connection::open(&path).unwrap();
    // Not in WAL mode: to set the mode alone would write to it.
    conn.execute_batch("PRAGMA journal_mode = delete; PRAGMA user_version = 99").unwrap();
    drop(conn);
    let before = bytes(&path);
    for arguments in [&["deletions", "approve"][..], &["deletions", "reject"], &["account", "accept"]] {
        let ran = house.expect(5, arguments);
        assert!(ran.stderr.contains("newer komoju-sync"), "{}", ran.stderr);
        assert!(bytes(&path) == before, "it was written to by {arguments:?}");
    }
}

#[test]
fn a_process_that_ended_before_its_first_migration_left_nothing_damaged() {
    let house = House::with(5);
    let conn = Connection::open(house.path("komoju.db")).unwrap();
    conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID).unwrap();
    drop(conn);
    let ran = house.expect(5, &["customers", "list"]);
    assert!(ran.stderr.contains("there is no database"), "{}", ran.stderr);
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_left_over_wal_beside_a_missing_database_is_left_as_it_is() {
    let house = House::with(5);
    std::fs::create_dir(house.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(house.path("elsewhere").join("real.db"), house.path("komoju.db")).unwrap();
    let wal = house.path("elsewhere").join("real.db-wal");
    fs::write(&wal, b"the last commits").unwrap();
    let ran = house.expect(5, &["sync"]);
    assert!(ran.stderr.contains("real.db-wal"), "{}", ran.stderr);
    assert_eq!(bytes(&wal), b"the last commits");
    fs::write(&wal, b"").unwrap();
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_persons_word_leaves_a_damaged_database_as_it_was() {
    let house = House::with(40);
    house.expect(0, &["sync"]);
    let path = house.path("komoju.db");
    let mut content = bytes(&path);
    content[8192..12_288].fill(0xAA);
    fs::write(&path, &content).unwrap();
    for arguments in [&["deletions", "approve"][..], &["account", "accept"], &["sync", "--dry-run"]] {
        let ran = house.expect(5, arguments);
        assert!(ran.stderr.contains(&format!("{} is damaged", path.display())), "{}", ran.stderr);
        assert!(bytes(&path) == content, "it was written to by {arguments:?}");
    }
}

#[test]
fn a_dry_run_is_named_to_whoever_would_start_beside_it() {
    let house = House::with(30);
    house.expect(0, &["sync"]);
    let held = house.on_lists(komoju_sandbox::Effect::Hold);
    let mut dry = house.spawn(&["sync", "--dry-run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    let ran = house.expect(5, &["sync"]);
    assert!(ran.stderr.contains("sync --dry-run"), "{}", ran.stderr);
    house.sandbox.world().clear_faults();
    assert!(dry.wait().unwrap().success());
}

#[test]
fn a_clock_that_was_set_back_does_not_tear_the_past_apart() {
    let house = House::with(3);
    house.expect(0, &["sync"]);
    let conn = own(&house.path("komoju.db"));
    conn.execute_batch("DROP TRIGGER change_log_redacts").unwrap();
    // 1 at ten, 2 at eleven by a clock that ran ahead, 3 at half past ten by the clock set right.
    for (seq, at) in [(1, "10:00"), (2, "11:00"), (3, "10:30")] {
        let at = format!("2026-01-01T{at}:00.000Z");
        conn.execute("UPDATE change_log SET observed_at = ?2 WHERE seq = ?1", rusqlite::params![seq, at])
            .unwrap();
    }
    drop(conn);
    let live = |at: &str| {
        let as_of = format!("2026-01-01T{at}:00Z");
        house.expect(0, &["customers", "list", "--as-of", &as_of]).stdout.lines().count()
    };
    assert_eq!([live("10:00"), live("10:15"), live("10:45"), live("11:15")], [1, 1, 3, 3]);
    house.expect(2, &["customers", "list", "--as-of", "2026-01-01T09:00:00Z"]);
    let ahead = house.one("SELECT customer_id FROM changes WHERE seq = 2");
    house.expect(0, &["customers", "show", &ahead, "--as-of", "2026-01-01T10:45:00Z"]);
    house.expect(1, &["customers", "show", &ahead, "--as-of", "2026-01-01T10:15:00Z"]);
    house.expect(0, &["customers", "history", &ahead, "--as-of", "2026-01-01T10:45:00Z"]);
}

#[test]
fn the_log_is_append_only_for_everybody() {
    let house = House::with(5);
    house.expect(0, &["sync"]);
    let conn = Connection::open(house.path("komoju.db")).unwrap();
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
    house.assert_proven();
}

#[test]
fn verify_finds_each_kind_of_tampering_and_rebuild_mends_the_mirror() {
    let tampering = [
        ("UPDATE mirror SET email = 'x' WHERE row = 1", "email or created_at"),
        ("UPDATE mirror SET body = json_set(body, '$.email', 'x') WHERE row = 1", "does not say"),
        ("DELETE FROM mirror WHERE row = 1", "does not say"),
        (
            "UPDATE change_log SET after = json_set(after, '$.email', 'x') WHERE seq = 2",
            "content of change 2",
        ),
        ("UPDATE change_log SET after = NULL, salt = NULL WHERE seq = 2", "change 2 was redacted"),
        ("UPDATE change_log SET digest = zeroblob(32) WHERE seq = 2", "chain breaks at change 2"),
        ("DELETE FROM change_log WHERE seq = 2", "entries are missing"),
        (
            "UPDATE change_log SET redacts = '[2]' WHERE seq = 5",
            "change 2 was redacted, and its content is there",
        ),
    ];
    for (sql, part) in tampering {
        let house = House::with(5);
        house.expect(0, &["sync"]);
        let head = house.expect(0, &["verify"]).stdout;
        let head = head.lines().last().unwrap().trim_start_matches("head ").to_owned();
        house.expect(0, &["verify", "--head", &head]);
        let conn = own(&house.path("komoju.db"));
        conn.execute_batch("DROP TRIGGER change_log_keeps; DROP TRIGGER change_log_redacts").unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
        drop(conn);
        let ran = house.expect(1, &["verify"]);
        assert!(ran.stderr.contains(part), "{sql}: {}", ran.stderr);
        if sql.contains("mirror") {
            house.expect(0, &["rebuild"]);
            assert_eq!(
                house.one("SELECT count(*) FROM listed"),
                "0",
                "nothing is recognised in the new rows"
            );
            house.expect(0, &["verify"]);
            house.assert_true();
        }
    }
}

#[test]
fn another_log_is_told_by_a_head_kept_elsewhere() {
    let house = House::with(5);
    house.expect(0, &["sync"]);
    let ran = house.expect(1, &["verify", "--head", &format!("3:{}", "0".repeat(64))]);
    assert!(ran.stderr.contains("the log is another one"), "{}", ran.stderr);
    let ran = house.expect(1, &["verify", "--head", &format!("99:{}", "0".repeat(64))]);
    assert!(ran.stderr.contains("ends at change 5"), "{}", ran.stderr);
    house.expect(2, &["verify", "--head", "what"]);
}
