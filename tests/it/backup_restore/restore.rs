//! How the restored file replaces the database, and how the old database is kept.
//!
//! Promises: command restore

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use komoju_sandbox::FaultEffect;
use komoju_testkit::{Installation, own};
use rusqlite::Connection;

use super::{backup, delete, file, kept, names};
use crate::PROGRAM;

/// Returns the bytes of each file of the directory. Lock files are left out, because each start
/// writes its own holder into them.
fn everything(harness: &Installation) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(harness.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file() && !path.to_str().unwrap().ends_with(".lock"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn restore_keeps_the_old_database_with_its_last_commits() {
    let harness = Installation::swept(PROGRAM, 4);
    let made = backup(&harness, "b.db");
    let before = fs::read(&made).unwrap();
    fs::set_permissions(harness.path("komoju.db"), fs::Permissions::from_mode(0o660)).unwrap();
    let inode = fs::metadata(harness.path("komoju.db")).unwrap().ino();
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "after"]);
    assert!(fs::metadata(harness.path("komoju.db-wal")).unwrap().len() > 0, "the intent is in the -wal");
    let ran = harness.expect(0, &["restore", &made]);
    let kept = kept(&harness);
    assert!(ran.stderr.contains(kept.file_name().unwrap().to_str().unwrap()), "{}", ran.stderr);
    assert_eq!(fs::metadata(&kept).unwrap().ino(), inode);
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600,
        "the kept database may contain tokens"
    );
    assert!(ran.stderr.contains("payment tokens") && ran.stderr.contains("0600"), "{}", ran.stderr);
    let conn = Connection::open(&kept).unwrap();
    assert_eq!(conn.query_row("SELECT id FROM intents", [], |row| row.get::<_, String>(0)).unwrap(), "after");
    assert_eq!(harness.one("SELECT count(*) FROM intents"), "0");
    assert!(fs::read(&made).unwrap() == before, "the backup is only read");
    assert_eq!(fs::metadata(harness.path("komoju.db")).unwrap().permissions().mode() & 0o777, 0o660);
    let left: Vec<String> = names(&harness).into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn stale_wal_is_never_applied_to_the_restored_database() {
    let harness = Installation::swept(PROGRAM, 4);
    let made = backup(&harness, "b.db");
    let path = harness.path("komoju.db");
    let wal = harness.path("komoju.db-wal");
    // A damaged and a missing database, each with commits in its -wal.
    for damage in ["inside", "its head", "gone", "garbage"] {
        // While another connection is open, the -wal is not checkpointed on close.
        let reader = harness.writer();
        reader.query_row("SELECT count(*) FROM intents", [], |_| Ok(())).unwrap();
        harness.sql(&format!(
                "INSERT INTO intents (id, op, body) VALUES ('{damage}', 'create', '{{\"email\": \"a@example.com\"}}')"
            ),
        );
        let (content, log) = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
        assert!(!log.is_empty());
        drop(reader);
        let mut content = content;
        match damage {
            "inside" => content[4096..12_288].fill(0xAA),
            "its head" => content[..16].fill(0),
            "garbage" => content.fill(7),
            _ => {}
        }
        fs::write(&path, &content).unwrap();
        fs::write(&wal, &log).unwrap();
        if damage == "gone" {
            fs::remove_file(&path).unwrap();
        }
        harness.expect(0, &["restore", &made]);
        assert!(!wal.exists() || fs::metadata(&wal).unwrap().len() == 0, "{damage}");
        assert_eq!(harness.one("SELECT count(*) FROM intents"), "0", "{damage}");
        harness.assert_proven();
        harness.expect(0, &["sync"]);
        harness.assert_true();
        let kept: Vec<String> =
            names(&harness).into_iter().filter(|name| name.contains(".before-restore-")).collect();
        assert!(!kept.is_empty(), "{damage}: {kept:?}");
        if matches!(damage, "its head" | "garbage") {
            let same = kept.iter().any(|name| fs::read(harness.path(name)).unwrap() == content);
            assert!(same, "{damage}: kept byte for byte");
        }
        kept.iter().for_each(|name| fs::remove_file(harness.path(name)).unwrap());
    }
}

#[test]
fn sync_after_an_interrupted_restore_makes_no_empty_database() {
    let harness = Installation::swept(PROGRAM, 1);
    let made = backup(&harness, "b.db");
    fs::write(harness.path("komoju.db.before-restore-then-aside-wal"), "commits").unwrap();
    harness.expect(0, &["sync"]);
    ["", "-wal", "-shm"]
        .iter()
        .for_each(|end| fs::remove_file(harness.path(&format!("komoju.db{end}"))).unwrap());
    let ran = harness.expect(5, &["sync"]);
    assert!(ran.stderr.contains("before-restore-then-aside-wal"), "{}", ran.stderr);
    assert!(!harness.path("komoju.db").exists());
    harness.expect(0, &["restore", &made]);
    harness.expect(0, &["sync"]);
}

#[test]
fn restore_from_a_hard_link_to_the_database_is_refused() {
    let harness = Installation::swept(PROGRAM, 1);
    fs::hard_link(harness.path("komoju.db"), harness.path("other.db")).unwrap();
    let ran = harness.expect(2, &["restore", &file(&harness, "other.db")]);
    assert!(ran.stderr.contains("belongs to the database itself"), "{}", ran.stderr);
}

#[test]
fn restore_names_customers_that_were_erased_since_the_backup() {
    let harness = Installation::swept(PROGRAM, 60);
    let gone = delete(&harness, 2);
    harness.expect(0, &["sync"]);
    harness.expect(0, &["erase", &gone[0]]);
    let between = backup(&harness, "between.db");
    harness.expect(0, &["erase", &gone[1]]);
    let ran = harness.expect(3, &["restore", &between]);
    let named = |id: &str| ran.stderr.contains(&format!("komoju-sync erase {id}"));
    assert!(named(&gone[1]) && !named(&gone[0]), "{}", ran.stderr);
    harness.run(&["sync"]);
    harness.run(&["erase", &gone[1]]);
    assert_eq!(
        harness.one(&format!(
            "SELECT count(after) FROM change_log WHERE customer_id = '{}' AND kind <> 'erased'",
            gone[1]
        )),
        "0"
    );
    // A backup that contains both erasures names none.
    kept(&harness);
    let both = backup(&harness, "both.db");
    let ran = harness.expect(0, &["restore", &both]);
    assert!(!ran.stderr.contains("komoju-sync erase"), "{}", ran.stderr);
}

#[test]
fn restore_while_another_program_reads_the_database_exits_5() {
    let harness = Installation::swept(PROGRAM, 4);
    let made = backup(&harness, "b.db");
    let reader = harness.writer();
    reader.execute_batch("BEGIN; SELECT * FROM customers").unwrap();
    let log_id = harness.one("SELECT log_id FROM mirror_info");
    let ran = harness.expect(5, &["restore", &made]);
    assert!(ran.stderr.contains("another program that has it open"), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT log_id FROM mirror_info"), log_id);
    drop(reader);
    harness.expect(0, &["restore", &made]);
}

#[test]
fn refused_restore_names_the_reason_and_touches_nothing() {
    let harness = Installation::swept(PROGRAM, 40);
    let made = backup(&harness, "b.db");
    let good = fs::read(&made).unwrap();
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let tampered = {
        let path = harness.path("tampered.db");
        fs::write(&path, &good).unwrap();
        let conn = own(&path);
        conn.execute_batch("UPDATE mirror SET email = 'x' WHERE row = 1").unwrap();
        drop(conn);
        fs::read(&path).unwrap()
    };
    let empty_of_ours = {
        let path = harness.path("empty.db");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID)
            .unwrap();
        drop(conn);
        fs::read(&path).unwrap()
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("newer", patched(60, &99_u32.to_be_bytes()), "newer komoju-sync"),
        ("cut in half", good[..good.len() / 2].to_vec(), "cannot be restored: it is damaged"),
        ("overwritten inside", patched(8192, &[0xAA; 4096]), "cannot be restored: it is damaged"),
        ("without its first bytes", patched(0, &[0; 16]), "cannot be restored: it is damaged"),
        ("a text file", b"Dear diary,\n".repeat(50), "cannot be restored: it is not an SQLite database"),
        ("another program's", patched(68, &[1, 2, 3, 4]), "another program's SQLite database"),
        ("empty", Vec::new(), "cannot be restored: it is empty"),
        ("of ours and empty", empty_of_ours, "cannot be restored: it is empty"),
        ("tampered with", tampered, "email or created_at"),
    ];
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "after"]);
    for (what, content, part) in cases {
        fs::write(harness.path("bad.db"), &content).unwrap();
        let before = everything(&harness);
        let ran = harness.expect(5, &["restore", &file(&harness, "bad.db")]);
        assert!(ran.stderr.contains(part) && ran.stderr.contains("bad.db"), "{what}: {}", ran.stderr);
        assert!(everything(&harness) == before, "{what}: something was touched");
        assert!(names(&harness).iter().all(|name| !name.starts_with('.')), "{what}: {:?}", names(&harness));
    }
    fs::create_dir(harness.path("directory")).unwrap();
    harness.expect(5, &["restore", &file(&harness, "directory")]);
    harness.expect(2, &["restore", &file(&harness, "missing.db")]);
    harness.expect(2, &["restore", "-"]);
    for own in ["komoju.db", "komoju.db-wal"] {
        let ran = harness.expect(2, &["restore", &file(&harness, own)]);
        assert!(ran.stderr.contains("belongs to the database itself"), "{}", ran.stderr);
    }
    assert_eq!(harness.one("SELECT id FROM intents"), "after");
}

#[test]
fn restore_of_a_plain_copy_with_its_wal_makes_a_new_database() {
    let harness = Installation::swept(PROGRAM, 6);
    harness.expect(0, &["intent", "create", "--email", "a@example.com", "--id", "open"]);
    // A plain copy, as `cp` makes it, with the -wal that contains the last commits.
    assert!(fs::metadata(harness.path("komoju.db-wal")).unwrap().len() > 0);
    let other = Installation::with(PROGRAM, 0);
    for suffix in ["", "-wal"] {
        fs::copy(harness.path(&format!("komoju.db{suffix}")), other.path(&format!("copy.db{suffix}")))
            .unwrap();
    }
    let wal = fs::read(other.path("copy.db-wal")).unwrap();
    let ran = other.expect(3, &["restore", &file(&other, "copy.db")]);
    assert!(ran.stderr.contains("6 live customers") && !ran.stderr.contains("is kept as"), "{}", ran.stderr);
    assert_eq!(other.one("SELECT state FROM intents WHERE id = 'open'"), "parked");
    // The intent is newer than the sweep.
    let as_of = format!("6 live customers, as of {};", other.one("SELECT created_at FROM intents"));
    assert!(ran.stderr.contains(&as_of), "{as_of}: {}", ran.stderr);
    assert!(fs::read(other.path("copy.db-wal")).unwrap() == wal);
    assert_eq!(fs::metadata(other.path("komoju.db")).unwrap().permissions().mode() & 0o777, 0o640);
    other.expect(0, &["verify"]);
}

#[test]
fn restore_of_an_older_schema_migrates_it() {
    let harness = Installation::with(PROGRAM, 0);
    let conn = Connection::open(harness.path("old.db")).unwrap();
    conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID).unwrap();
    conn.execute_batch(include_str!("../../../migrations/01-inbound/up.sql")).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    drop(conn);
    let before = fs::read(harness.path("old.db")).unwrap();
    harness.expect(0, &["restore", &file(&harness, "old.db")]);
    assert_eq!(
        harness.one("SELECT schema_version FROM mirror_info"),
        komoju_sync::store::file::migrations::known_version().to_string()
    );
    assert!(fs::read(harness.path("old.db")).unwrap() == before);
}

#[test]
fn restore_of_a_database_in_use_exits_5() {
    let harness = Installation::swept(PROGRAM, 20);
    let other = Installation::with(PROGRAM, 0);
    let held = harness.on_lists(FaultEffect::Hold);
    let mut at_work = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    let ran = other.expect(5, &["restore", &file(&harness, "komoju.db")]);
    assert!(ran.stderr.contains("is in use by `komoju-sync sync`"), "{}", ran.stderr);
    harness.sandbox.world().clear_faults();
    at_work.wait().unwrap();
    other.expect(0, &["restore", &file(&harness, "komoju.db")]);
}

#[test]
fn restore_by_root_keeps_the_owner_of_the_database() {
    let harness = Installation::swept(PROGRAM, 2);
    let made = backup(&harness, "b.db");
    let path = harness.path("komoju.db");
    if std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).is_err() {
        // Only root can change the owner of a file.
        return;
    }
    harness.expect(0, &["restore", &made]);
    let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    assert_eq!(owner(&path), (12_345, 12_346));
    assert_eq!(owner(&harness.path("komoju.db.lock")), (12_345, 12_346));
    // Where no database exists yet, it gets the owner of its directory.
    let none = Installation::with(PROGRAM, 0);
    std::os::unix::fs::chown(none.directory.path(), Some(12_345), Some(12_346)).unwrap();
    none.expect(0, &["restore", &made]);
    assert_eq!(owner(&none.path("komoju.db")), (12_345, 12_346));
}

#[test]
fn restore_keeps_a_symlink_to_the_database() {
    let harness = Installation::swept(PROGRAM, 3);
    let made = backup(&harness, "b.db");
    fs::create_dir(harness.path("disk")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        fs::rename(
            harness.path(&format!("komoju.db{suffix}")),
            harness.path(&format!("disk/real.db{suffix}")),
        )
        .unwrap();
    }
    std::os::unix::fs::symlink("disk/real.db", harness.path("komoju.db")).unwrap();
    harness.expect(0, &["restore", &made]);
    assert!(fs::symlink_metadata(harness.path("komoju.db")).unwrap().is_symlink());
    assert!(names(&harness).iter().all(|name| !name.contains("before-restore")));
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
