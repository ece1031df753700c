//! Others who use the database, and databases that are none of ours.
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

/// Doctor complains from 128 MiB on.
const LARGER_THAN_A_WAL_SHOULD_BE: u64 = 129 << 20;

faults![
    (
        two_daemons,
        "two daemons on one database",
        "a second daemon is started beside the first",
        Unusable("`komoju-sync run` (process "),
        Done,
        |case| {
            let mut first = case.stuck_in_a_page();
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
        a_parked_reader,
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
            assert!(case.harness.head() > before, "it is recorded beside the reader");
            assert_eq!(count(&conn), before, "who reads sees what was");
            case.doctor_tells_who_reads();
            conn.execute_batch("COMMIT").unwrap();
            assert!(count(&conn) > before);
        },
    ),
    (
        a_database_cut_in_half,
        "a damaged database",
        "the second half of the database is missing",
        Unusable("is damaged"),
        Kept,
        |case| case.finds(|good| good[..good.len() / 2].to_vec()),
    ),
    (
        a_database_overwritten_inside,
        "a damaged database",
        "a page of the database was overwritten",
        Unusable("is damaged"),
        Kept,
        |case| case.finds(|good| patched(good, 8192, &[0xAA; 4096])),
    ),
    (
        a_database_without_its_beginning,
        "a damaged database",
        "the first bytes of the database are zero",
        Unusable("is damaged"),
        Kept,
        |case| case.finds(|good| patched(good, 0, &[0; 16])),
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
            case.finds(|_| fs::read(other).unwrap());
        },
    ),
    (
        no_database_at_all,
        "a foreign database",
        "the file is a text",
        Unusable("is not a komoju-sync database"),
        Kept,
        |case| case.finds(|_| b"Dear diary,\n".repeat(50)),
    ),
    (
        a_newer_programs_database,
        "a database from the future",
        "the database was written by a newer version",
        Unusable("newer komoju-sync"),
        Kept,
        |case| case.finds(|good| patched(good, 60, &99_u32.to_be_bytes())),
    ),
    (
        an_old_backup,
        "an old backup restored",
        "a backup is restored from before the intents were carried out and three customers deleted",
        Waits("3 intents are parked"),
        Parked,
        |case| {
            let file = case.harness.path("old.db");
            case.harness.expect(0, &["backup", file.to_str().unwrap()]);
            // Of those whom the backup knows.
            let known = case.harness.mirror().into_keys().filter(|id| case.is_left_alone(id));
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
            // A person looks: both were carried out, and who is missing is gone.
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
    /// The write-ahead log has grown without bound meanwhile: doctor says so, and names this process.
    fn doctor_tells_who_reads(&self) {
        // What lies behind the last frame is nothing to SQLite, and takes no room. No lock stands on this file that closing it could
        // take away; they stand on the -shm.
        let wal = File::options().write(true).open(self.harness.path("komoju.db-wal")).unwrap();
        wal.set_len(LARGER_THAN_A_WAL_SHOULD_BE).unwrap();
        drop(wal);
        let told = self.harness.run(&["doctor", "--json"]).stdout;
        let findings = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = findings.filter(|finding| finding["check"] == "wal").collect();
        let [finding] = &found[..] else { panic!("{told}") };
        assert_eq!(finding["level"], "warn", "{finding}");
        assert!(finding["finding"].as_str().unwrap().contains("a program reads without an end"), "{finding}");
        let reader = format!("(process {})", std::process::id());
        assert!(finding["advice"].as_str().unwrap().contains(&reader), "{finding}");
    }

    /// Another file lies in the place of the database, and is left as it is.
    fn finds(&mut self, other: impl FnOnce(&[u8]) -> Vec<u8>) {
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
            assert!(fs::read(&path).unwrap() == content, "it was written to by {arguments:?}");
            // What became of the intents is looked for where they are.
            fs::write(&path, &good).unwrap();
            self.conclude(ran.code, &ran.stderr);
        }
        assert!(self.harness.sandbox.world().requests().is_empty(), "nothing is asked");
    }
}
