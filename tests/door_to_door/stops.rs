//! The daemon beside others: a stop within a request, writers at the same time, files in every order.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use komoju_sync::clock::SystemClock;
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::house::{House, Process};
use crate::{eventually, rename_into_spool, stop, within, writer};

const CREATE: &str = r#"{"op": "create", "body": {"email": "a@example.jp"}}"#;

fn start(house: &House) -> Process {
    Process::start(house.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn count(house: &House, of: &str) -> String {
    house.one(&format!("SELECT count(*) FROM intents WHERE {of}"))
}

/// The daemon, once it takes files as they come.
fn watching(house: &House) -> Process {
    let daemon = start(house);
    // A file that is renamed into place is taken at once when the directory is watched, and after a second otherwise.
    let mut n = 0;
    eventually("a file is taken at once", || {
        n += 1;
        let clock = SystemClock::shared();
        rename_into_spool(house, &format!("first-{n}.json"), CREATE);
        let dropped = clock.elapsed();
        eventually("it is taken", || count(house, &format!("id GLOB 'first-{n}@*'")) == "1");
        clock.elapsed() - dropped < Duration::from_millis(500)
    });
    daemon
}

#[test]
fn two_writers_beside_the_daemon_lose_nothing() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    let mut daemon = start(&house);
    let writers = TaskTracker::new();
    for who in ["a", "b"] {
        let conn = writer(&house);
        writers.spawn_blocking_on(
            move || {
                for n in 0..100 {
                    let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)";
                    let body = format!(r#"{{"email": "{who}{n}@example.jp"}}"#);
                    conn.execute(sql, [format!("{who}{n}"), body]).unwrap();
                }
            },
            house.runtime.handle(),
        );
    }
    writers.close();
    house.runtime.block_on(writers.wait());
    assert_eq!(count(&house, "true"), "200");
    eventually("all are done", || count(&house, "state = 'done'") == "200");
    assert_eq!(stop(&mut daemon), Some(0));
    assert_eq!(house.sandbox.world().creates(), 200);
    house.assert_true();
}

#[test]
fn a_renamed_file_waits_for_an_older_one_that_is_written_in_place() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    let mut daemon = watching(&house);
    std::fs::write(house.path("spool/written.json"), CREATE).unwrap();
    // The kernel's clock for files moves in steps: the next file must not get the same drop time.
    let dropped = |name: &str| {
        let file = std::fs::metadata(house.path(name)).unwrap();
        (file.ctime(), file.ctime_nsec())
    };
    while {
        std::fs::write(house.path("later"), CREATE).unwrap();
        dropped("later") <= dropped("spool/written.json")
    } {}
    rename_into_spool(&house, "renamed.json", CREATE);
    let these = "id GLOB 'written@*' OR id GLOB 'renamed@*'";
    eventually("both are taken", || count(&house, these) == "2");
    let order =
        house.column(&format!("SELECT substr(id, 1, 7) FROM intents WHERE {these} ORDER BY position"));
    assert_eq!(order, ["written", "renamed"]);
    assert_eq!(stop(&mut daemon), Some(0));
}

#[test]
fn an_idle_daemon_wakes_for_each_single_commit() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    let mut daemon = watching(&house);
    let long = "x".repeat(1900);
    for n in 0..30 {
        let body = json!({"metadata": {"a": long, "b": long, "c": long}});
        let made = house.sandbox.world().creates();
        let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)";
        writer(&house).execute(sql, [format!("c{n}"), body.to_string()]).unwrap();
        // Nobody looks into the database meanwhile: that would wake the daemon too.
        let is_made = within(&house, Duration::from_secs(5), |world| world.creates() > made);
        assert!(is_made, "the {n}th is not sent");
    }
    assert_eq!(stop(&mut daemon), Some(0));
}
