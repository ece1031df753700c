//! Other users of the database, and files that are no database of this program.
//!
//! Promises: invariant 16; exit code 5

use std::fs::{self, File};

use komoju_testkit::signal;
use rusqlite::Connection;
use serde_json::Value;

use crate::case::Case;
use crate::matrix::Ends::{Unusable, Waits};
use crate::matrix::Outbox::{Done, Kept, Parked};
use crate::matrix::faults;

/// `doctor` warns from 128 MiB on.
const LARGER_THAN_A_WAL_SHOULD_BE: u64 = 129 << 20;

faults![
    (
        two_daemons,
        "two daemons on one database",
        "a second daemon is started while the first one runs",
        Unusable("`komoju-sync run` (process "),
        Done,
        |case| {
            let mut first = case.held_in_a_page();
            let holder = format!("`komoju-sync run` (process {}) since 20", first.id());
            for arguments in [&["run"][..], &["sync"], &["rebuild"]] {
                let ran = case.harness.expect(5, arguments);
                assert!(ran.stderr.contains(&holder), "{arguments:?}: {}", ran.stderr);
                case.conclude(ran.code, &ran.stderr);
            }
            let status = case.harness.run(&["status", "--json"]).stdout;
            assert!(status.contains(&format!("(process {})", first.id())), "{status}");
            signal("TERM", first.id());
            assert!(first.wait().unwrap().success());
        },
    ),
    (
        parked_reader,
        "a parked reader",
        "another program reads, and does not end its transaction",
        Waits("settled payment tokens are still in the database file or its WAL"),
        Done,
        |case| {
            let count = |conn: &Connection| {
                conn.query_row("SELECT count(*) FROM changes", [], |row| row.get::<_, i64>(0)).unwrap()
            };
            let conn = case.harness.writer();
            conn.execute_batch("BEGIN").unwrap();
            let before = count(&conn);
            case.endure_by_binary();
            let kept = fs::metadata(case.harness.path("komoju.db-wal")).unwrap().len();
            case.fired_when(move |_| kept);
            assert!(case.harness.head() > before, "changes are recorded despite the reader");
            assert_eq!(count(&conn), before, "the reader sees the old state");
            case.doctor_names_the_reader();
            conn.execute_batch("COMMIT").unwrap();
            assert!(count(&conn) > before);
        },
    ),
    (
        database_cut_in_half,
        "a damaged database",
        "the second half of the database is missing",
        Unusable("is damaged"),
        Kept,
        |case| case.finds_file(|good| good[..good.len() / 2].to_vec()),
    ),
    (
        database_overwritten_inside,
        "a damaged database",
        "a page of the database was overwritten",
        Unusable("is damaged"),
        Kept,
        |case| case.finds_file(|good| patched(good, 8192, &[0xAA; 4096])),
    ),
    (
        database_without_its_beginning,
        "a damaged database",
        "the first bytes of the database are zero",
        Unusable("is damaged"),
        Kept,
        |case| case.finds_file(|good| patched(good, 0, &[0; 16])),
    ),
    (
        another_programs_database,
        "a foreign database",
        "the file is another program's SQLite database",
        Unusable("is not a komoju-sync database"),
        Kept,
        |case| {
            let other = case.harness.path("other.db");
            let conn = Connection::open(&other).unwrap();
            let sql = "PRAGMA journal_mode = wal; CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)";
            conn.execute_batch(sql).unwrap();
            drop(conn);
            case.finds_file(|_| fs::read(other).unwrap());
        },
    ),
    (
        text_file_in_place_of_the_database,
        "a foreign database",
        "the file is a text",
        Unusable("is not a komoju-sync database"),
        Kept,
        |case| case.finds_file(|_| b"Dear diary,\n".repeat(50)),
    ),
    (
        newer_programs_database,
        "a database from the future",
        "the database was written by a newer version",
        Unusable("newer komoju-sync"),
        Kept,
        |case| case.finds_file(|good| patched(good, 60, &99_u32.to_be_bytes())),
    ),
    (
        old_backup,
        "an old backup restored",
        "a backup is restored that is older than the pushes and the deletion of three customers",
        Waits("3 intents are parked"),
        Parked,
        |case| {
            let file = case.harness.path("old.db");
            case.harness.expect(0, &["backup", file.to_str().unwrap()]);
            // Customers that the backup contains.
            let known = case.harness.mirror().into_keys().filter(|id| case.has_no_intent(id));
            let gone: Vec<String> = known.take(3).collect();
            case.harness.expect(0, &["sync"]);
            assert_eq!(case.states(), ["done"; 3]);
            gone.iter().for_each(|id| assert!(case.harness.sandbox.world().delete(id)));
            let ran = case.harness.expect(3, &["restore", file.to_str().unwrap()]);
            case.fired_when(|harness| harness.one("SELECT count(*) FROM held_deletions").parse().unwrap());
            case.harness.sandbox.world().clear_requests();
            let sync = case.harness.expect(3, &["sync"]);
            assert!(sync.stderr.contains("deletions wait for an operator"), "{}", sync.stderr);
            assert!(case.harness.sandbox.world().requests().iter().all(|seen| seen.method == "GET"));
            assert!(gone.iter().all(|id| case.harness.mirror().contains_key(id)));
            case.conclude(sync.code, &format!("{}{}", ran.stderr, sync.stderr));
            // The operator checks: the intents were carried out, and the missing customers are
            // deleted.
            case.harness.expect(0, &["intent", "cancel", "c", "u", "d"]);
            case.harness.expect(0, &["deletions", "approve"]);
        },
    ),
];

fn patched(good: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

impl Case {
    /// Lets the write-ahead log grow. Asserts that `doctor` reports it and names this process.
    fn doctor_names_the_reader(&self) {
        // SQLite ignores bytes after the last frame, and a sparse file takes no room. Closing this
        // file releases no lock, because the locks are on the -shm.
        let wal = File::options().write(true).open(self.harness.path("komoju.db-wal")).unwrap();
        wal.set_len(LARGER_THAN_A_WAL_SHOULD_BE).unwrap();
        drop(wal);
        let output = self.harness.run(&["doctor", "--json"]).stdout;
        let findings = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = findings.filter(|finding| finding["check"] == "wal").collect();
        let [finding] = &found[..] else { panic!("{output}") };
        assert_eq!(finding["level"], "warn", "{finding}");
        assert!(finding["finding"].as_str().unwrap().contains("a program reads without an end"), "{finding}");
        let reader = format!("(process {})", std::process::id());
        assert!(finding["advice"].as_str().unwrap().contains(&reader), "{finding}");
    }

    /// Puts another file in the place of the database. Asserts that it is unchanged.
    fn finds_file(&mut self, other: impl FnOnce(&[u8]) -> Vec<u8>) {
        let path = self.harness.path("komoju.db");
        for leftover in ["komoju.db-wal", "komoju.db-shm"] {
            let _ = fs::remove_file(self.harness.path(leftover));
        }
        let good = fs::read(&path).unwrap();
        let content = other(&good);
        let differs = u64::from(content != good);
        self.fired_when(move |_| differs);
        for arguments in [&["sync"][..], &["rebuild"]] {
            fs::write(&path, &content).unwrap();
            let ran = self.harness.run(arguments);
            assert!(fs::read(&path).unwrap() == content, "{arguments:?} changed the file");
            // The intents are read from the right database.
            fs::write(&path, &good).unwrap();
            self.conclude(ran.code, &ran.stderr);
        }
        assert!(self.harness.sandbox.world().requests().is_empty(), "nothing is requested");
    }
}
