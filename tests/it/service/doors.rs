//! SQL writers and spool files while the daemon runs.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use komoju_sync::clock::SystemClock;
use komoju_testkit::{Installation, Process, eventually, stop};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::PROGRAM;

const CREATE: &str = r#"{"op": "create", "body": {"email": "a@example.jp"}}"#;

fn start(harness: &Installation) -> Process {
    Process::start(harness.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn count(harness: &Installation, of: &str) -> String {
    harness.one(&format!("SELECT count(*) FROM intents WHERE {of}"))
}

/// Starts the daemon, and waits until it takes files as they arrive.
fn watching(harness: &Installation) -> Process {
    let daemon = start(harness);
    // A file that is renamed into place is taken at once when the directory is watched, and after a
    // second otherwise.
    let mut n = 0;
    eventually("a file is taken at once", || {
        n += 1;
        let clock = SystemClock::shared();
        harness.drop_file(&format!("first-{n}.json"), CREATE);
        let dropped = clock.elapsed();
        eventually("it is taken", || count(harness, &format!("id GLOB 'first-{n}@*'")) == "1");
        clock.elapsed() - dropped < Duration::from_millis(500)
    });
    daemon
}

#[test]
fn two_concurrent_writers_lose_no_intent() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    let mut daemon = start(&harness);
    let writers = TaskTracker::new();
    for writer in ["a", "b"] {
        let conn = harness.writer();
        writers.spawn_blocking_on(
            move || {
                for n in 0..100 {
                    let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)";
                    let body = format!(r#"{{"email": "{writer}{n}@example.jp"}}"#);
                    conn.execute(sql, [format!("{writer}{n}"), body]).unwrap();
                }
            },
            harness.runtime.handle(),
        );
    }
    writers.close();
    harness.runtime.block_on(writers.wait());
    assert_eq!(count(&harness, "true"), "200");
    eventually("all are done", || count(&harness, "state = 'done'") == "200");
    assert_eq!(stop(&mut daemon), Some(0));
    assert_eq!(harness.sandbox.world().creates(), 200);
    harness.assert_true();
}

#[test]
fn renamed_file_waits_for_an_older_one_that_is_written_in_place() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    let mut daemon = watching(&harness);
    std::fs::write(harness.path("spool/written.json"), CREATE).unwrap();
    // The kernel's clock for files moves in steps: the next file must not get the same drop time.
    let dropped = |name: &str| {
        let file = std::fs::metadata(harness.path(name)).unwrap();
        (file.ctime(), file.ctime_nsec())
    };
    while {
        std::fs::write(harness.path("later"), CREATE).unwrap();
        dropped("later") <= dropped("spool/written.json")
    } {}
    harness.drop_file("renamed.json", CREATE);
    let these = "id GLOB 'written@*' OR id GLOB 'renamed@*'";
    eventually("both are taken", || count(&harness, these) == "2");
    let order =
        harness.column(&format!("SELECT substr(id, 1, 7) FROM intents WHERE {these} ORDER BY position"));
    assert_eq!(order, ["written", "renamed"]);
    assert_eq!(stop(&mut daemon), Some(0));
}

#[test]
fn idle_daemon_wakes_for_each_commit() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    let mut daemon = watching(&harness);
    let long = "x".repeat(1900);
    for n in 0..30 {
        let body = json!({"metadata": {"a": long, "b": long, "c": long}});
        let made = harness.sandbox.world().creates();
        let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)";
        harness.writer().execute(sql, [format!("c{n}"), body.to_string()]).unwrap();
        // Do not open the database meanwhile, because that would wake the daemon, too.
        let is_made = harness.within(Duration::from_secs(5), |world| world.creates() > made);
        assert!(is_made, "the {n}th is not sent");
    }
    assert_eq!(stop(&mut daemon), Some(0));
}
