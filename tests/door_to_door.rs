//! The whole way, from each door to KOMOJU and back: the real binary, killed and stopped at any moment, with the local KOMOJU.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs every room")]
mod house;

#[path = "door_to_door/canary.rs"]
mod canary;
#[path = "door_to_door/kills.rs"]
mod kills;
#[path = "door_to_door/memory.rs"]
mod memory;
#[path = "door_to_door/search.rs"]
mod search;
#[path = "door_to_door/signals.rs"]
mod signals;
#[path = "door_to_door/stops.rs"]
mod stops;

use std::process::{Child, Command};
use std::time::Duration;

use house::House;
use komoju_sandbox::World;
use rusqlite::Connection;

/// Looks until it holds, for half a minute at most; whether it did.
fn looked_until(mut holds: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        let held = holds();
        if !held {
            std::thread::sleep(Duration::from_millis(10));
        }
        held
    })
}

fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(looked_until(holds), "never: {what}");
}

/// Waits until it holds of the sandbox; whether it did in this time.
fn within(house: &House, time: Duration, holds: impl FnMut(&World) -> bool) -> bool {
    house.runtime.block_on(async { tokio::time::timeout(time, house.sandbox.until(holds)).await.is_ok() })
}

/// A connection of another program.
fn writer(house: &House) -> Connection {
    let conn = Connection::open(house.path("komoju.db")).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn
}

/// SIGTERM; returns the exit code.
fn stop(daemon: &mut Child) -> Option<i32> {
    let told = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
    assert!(told.unwrap().success());
    daemon.wait().unwrap().code()
}

/// Writes a file beside its place and renames it there.
fn rename_into_spool(house: &House, name: &str, content: &str) {
    let spool = house.path("spool");
    let beside = spool.join(format!(".{name}"));
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, spool.join(name)).unwrap();
}

/// Adds lines below `[outbound]`, and whole tables after it.
fn configure(house: &House, lines: &str) {
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(house.path("config.toml"), format!("{text}{lines}\n")).unwrap();
}
