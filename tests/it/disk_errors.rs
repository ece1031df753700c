//! Disk errors under the real program, at each file call in turn. The program exits with a
//! documented code or continues; after the fault, one start recovers.

#![expect(clippy::print_stdout, reason = "the number of calls is part of the result")]

mod daemon;
mod order;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use komoju_testkit::Installation;
use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};
use serde_json::{Value, json};

use crate::PROGRAM;

/// INSTALLATIONS is the number of installations that run in parallel. A round mostly waits until a
/// file has been unchanged for a second.
const INSTALLATIONS: u64 = 4;

/// ROUNDS is the number of rounds of one kind of fault in a default run.
const ROUNDS: u64 = 8;

/// MOST_CALLS bounds the calls of one kind; it is far above the real number.
const MOST_CALLS: u64 = 5_000;

/// The number of runs by how the program ended, for the printed summary.
type Ends = BTreeMap<String, u64>;

/// Returns the ids of the intents of a round.
fn names(round: u64) -> [String; 4] {
    ["sql-create", "sql-update", "sql-delete", "file-create"].map(|name| format!("{name}-{round}"))
}

/// Prepares work for the next `sync`: an intent of each kind, and changed customers.
fn prepare(harness: &Installation, round: u64) {
    let [create, update, delete, file] = names(round);
    let mut world = harness.sandbox.world();
    let ids = world.ids();
    world.update(&ids[0], json!({"email": format!("there-{round}@example.jp")}));
    world.create(json!({"email": format!("new-{round}@example.jp")}));
    if ids.len() > 6 {
        world.delete(&ids[2]);
    }
    drop(world);
    let (token, email) = (format!("tok_{round}"), format!("sql-{round}@example.jp"));
    harness.intend(&create, "create", None, Some(json!({"email": email, "payment_details": token})));
    harness.intend(&update, "update", Some(&ids[1]), Some(json!({"metadata": {"round": round.to_string()}})));
    harness.intend(&delete, "delete", Some(&ids[3]), None);
    let spool = harness.path("spool");
    std::fs::write(spool.join(format!(".{file}")), line(&file, round)).unwrap();
    std::fs::rename(spool.join(format!(".{file}")), spool.join(format!("{file}.json"))).unwrap();
}

fn line(file: &str, round: u64) -> String {
    json!({"op": "create", "id": file, "body": {"email": format!("file-{round}@example.jp")}}).to_string()
}

/// Runs `sync` under this fault with these intents open. Returns how it ended, or `None` where the
/// program made fewer calls than the fault needs.
fn sync_under_fault(
    library: &Library,
    harness: &Installation,
    fault: DiskFault,
    intents: &[String],
) -> Option<String> {
    let mut command = harness.command(&["sync"]);
    let calls = library.under(&mut command, harness.directory.path(), fault);
    let output = command.output().unwrap();
    let end = check_end(&output, fault);
    if matches!(output.status.code(), Some(0 | 3)) {
        check_each_intent_is_done_or_named(harness, &output, fault, intents);
    }
    (calls.failed() > 0).then_some(end)
}

/// A `sync` that exits 0 or 3 has done each intent, or its log names the intent and the reason.
fn check_each_intent_is_done_or_named(
    harness: &Installation,
    output: &Output,
    fault: DiskFault,
    intents: &[String],
) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = std::io::Error::from_raw_os_error(fault.errno).to_string();
    for name in intents {
        let is_done = harness.column(&format!("SELECT state FROM intents WHERE id = '{name}'")) == ["done"];
        let is_left = is_in_spool(harness, &format!("{name}.json"));
        let is_named = stderr
            .lines()
            .any(|line| line.contains("\"WARN\"") && line.contains(name.as_str()) && line.contains(&why));
        assert!(
            is_done && !is_left || is_named,
            "{fault:?}: exit 0, and {name} is neither done nor named: {stderr}"
        );
    }
}

/// Whether the file is still in the spool directory, or in `.claimed/`.
fn is_in_spool(harness: &Installation, file: &str) -> bool {
    let spool = harness.path("spool");
    let claims = std::fs::read_dir(spool.join(".claimed")).into_iter().flatten();
    spool.join(file).exists()
        || claims.map(|claim| claim.unwrap().path()).any(|claim| claim.join(file).exists())
}

/// Asserts that the program did not panic, exited with a documented code, and named what failed and
/// what to do. Returns `exit CODE`.
fn check_end(output: &Output, fault: DiskFault) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{fault:?}: {stderr}");
    let code = output.status.code().unwrap_or_else(|| panic!("{fault:?}: {:?} {stderr}", output.status));
    // A full disk may be temporary. SQLite reports a failed read as damage, and a read-only file
    // system needs an operator; both may exit 5.
    let codes: &[i32] = if fault.errno == libc::ENOSPC { &[0, 1, 3] } else { &[0, 1, 3, 5] };
    assert!(codes.contains(&code), "{fault:?}: exit {code}: {stderr}");
    // Exit 3 means that only the wipe of settled tokens is unfinished, which is recorded and named.
    let is_left = stderr.contains("still in the database file or its WAL");
    assert!(code != 3 || is_left, "{fault:?}: exit {code}: {stderr}");
    if [1, 5].contains(&code) {
        let last = stderr.lines().rfind(|line| line.contains("error")).unwrap_or_default();
        let advice: &[&str] = match fault.errno {
            // SQLite does not always report the cause; then the message names every possible one.
            libc::ENOSPC => {
                &["Make room; the service", "make room on its disk, then start", "quota is full,"]
            }
            libc::EROFS => &["writable"],
            _ => &["kernel's log"],
        };
        assert!(last.contains("komoju.db"), "{fault:?}: the message names no file: {stderr}");
        assert!(
            advice.iter().any(|part| last.contains(part)),
            "{fault:?}: the message has no advice: {stderr}"
        );
        assert!(!last.contains("is damaged") || last.contains("or its disk failed"), "{fault:?}: {stderr}");
    }
    format!("exit {code}")
}

/// Asserts that one `sync` without a fault completes everything, each effect exactly once.
fn check_recovered(harness: &Installation, round: u64, made_before: u64, fault: DiskFault) {
    let ran = harness.run(&["sync"]);
    assert_eq!(ran.code, 0, "{fault:?}: {}{}", ran.stdout, ran.stderr);
    harness.assert_true();
    for name in names(round) {
        let state = harness.column(&format!("SELECT state FROM intents WHERE id = '{name}'"));
        assert_eq!(state, ["done"], "{fault:?}: {name}");
    }
    let world = harness.sandbox.world();
    assert_eq!(world.creates() - made_before, 2, "{fault:?}: each create took effect once");
    let truth = world.truth();
    drop(world);
    for door in ["sql", "file"] {
        let email = format!("{door}-{round}@example.jp");
        let made = truth.values().filter(|theirs| theirs["email"] == email).count();
        assert_eq!(made, 1, "{fault:?}: {email}");
    }
    let of_round = |theirs: &&Value| theirs["metadata"]["round"].as_str() == Some(&round.to_string());
    let updated = truth.values().filter(of_round).count();
    assert_eq!(updated, 1, "{fault:?}: the update is done without effect");
    let deleted = harness.one(&format!("SELECT customer_id FROM intents WHERE id = 'sql-delete-{round}'"));
    assert!(!truth.contains_key(&deleted), "{fault:?}: the delete is done and its customer is live");
    let left = std::fs::read_dir(harness.path("spool")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, [".claimed", "receipts", "rejected"], "{fault:?}");
    assert_eq!(std::fs::read_dir(harness.path("spool/.claimed")).unwrap().count(), 0, "{fault:?}");
    let receipt = harness.path("spool/receipts").join(format!("file-create-{round}.json.json"));
    let receipt = std::fs::read_to_string(receipt).unwrap();
    assert!(receipt.contains("\"done\""), "{fault:?}: {receipt}");
}

fn every_call() -> bool {
    std::env::var_os("EVERY_CALL").is_some()
}

/// Runs rounds of this fault, from the first call of its kind to the last. Each round is a `sync`
/// under the fault and one without it.
fn at_each_call(library: &Library, kinds: &'static str, errno: i32, lasts: FaultCount) {
    let quiet = DiskFault { place: FaultPlace::Everywhere, kinds, errno, lasts, nth: 0 };
    let calls = {
        let harness = Installation::swept(PROGRAM, 8);
        prepare(&harness, 0);
        let mut command = harness.command(&["sync"]);
        let calls = library.under(&mut command, harness.directory.path(), quiet);
        assert_eq!(command.output().unwrap().status.code(), Some(0));
        calls.count()
    };
    assert!(calls > 5, "{quiet:?}: {calls} calls");
    let stride = if every_call() { 1 } else { calls.div_ceil(ROUNDS) };
    let next = AtomicU64::new(0);
    let ends = std::sync::Mutex::new(Ends::new());
    std::thread::scope(|scope| {
        for _ in 0..INSTALLATIONS {
            scope.spawn(|| {
                let harness = Installation::swept(PROGRAM, 8);
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    let fault = DiskFault { nth: 1 + round * stride, ..quiet };
                    assert!(fault.nth < MOST_CALLS, "the program never makes fewer calls");
                    prepare(&harness, round);
                    let made_before = harness.sandbox.world().creates();
                    let end = sync_under_fault(library, &harness, fault, &names(round));
                    check_recovered(&harness, round, made_before, fault);
                    let Some(end) = end else { return };
                    *ends.lock().unwrap().entry(end).or_default() += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    let rounds: u64 = ends.values().sum();
    println!("{kinds} errno {errno} {lasts:?}: {calls} calls, {rounds} of them failed in turn: {ends:?}");
    assert!(rounds >= ROUNDS / 2, "{quiet:?}: only {rounds} rounds");
    let expected = if kinds == "r" { "exit 5" } else { "exit 1" };
    assert!(ends.contains_key(expected), "{quiet:?}: {ends:?}");
}

/// Runs such rounds for the first start, which makes the database; each round has a new
/// installation.
fn at_each_call_of_the_first_start(library: &Library, kinds: &'static str, errno: i32) {
    let (mut nth, mut rounds, mut ends) = (1, 0, Ends::new());
    loop {
        let harness = Installation::with(PROGRAM, 3);
        let fault = DiskFault { place: FaultPlace::Everywhere, kinds, errno, lasts: FaultCount::Once, nth };
        let end = sync_under_fault(library, &harness, fault, &[]);
        harness.expect(0, &["sync"]);
        harness.assert_true();
        let Some(end) = end else { break };
        *ends.entry(end).or_default() += 1;
        rounds += 1;
        nth += if every_call() { 1 } else { 1 + nth };
        assert!(nth < MOST_CALLS, "the program never makes fewer calls");
    }
    println!("first start, {kinds} errno {errno}: {rounds} calls failed in turn: {ends:?}");
    assert!(rounds >= 4, "{kinds} {errno}: only {rounds} rounds");
}

#[test]
fn sync_after_enospc_at_each_write_recovers() {
    let library = Library::load();
    at_each_call(&library, "wtc", libc::ENOSPC, FaultCount::Once);
    at_each_call(&library, "wtc", libc::ENOSPC, FaultCount::FromThenOn);
    at_each_call_of_the_first_start(&library, "wtc", libc::ENOSPC);
}

#[test]
fn sync_after_eio_at_each_read_write_and_sync_recovers() {
    let library = Library::load();
    for kinds in ["r", "w", "s"] {
        at_each_call(&library, kinds, libc::EIO, FaultCount::Once);
    }
    at_each_call(&library, "rwstoc", libc::EIO, FaultCount::FromThenOn);
    at_each_call_of_the_first_start(&library, "rws", libc::EIO);
}

/// A read-only file system is detected before the first request is sent.
fn read_only_from_the_start_sends_no_request(library: &Library) {
    let harness = Installation::swept(PROGRAM, 8);
    prepare(&harness, 0);
    harness.sandbox.world().clear_requests();
    let (place, lasts) = (FaultPlace::Everywhere, FaultCount::FromThenOn);
    let fault = DiskFault { place, kinds: "wtcoum", errno: libc::EROFS, lasts, nth: 1 };
    let mut command = harness.command(&["sync"]);
    library.under(&mut command, harness.directory.path(), fault);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    let message = "komoju.db.lock cannot be opened; the directory must exist and be writable (mount its file system writable, then \
                 start again)";
    assert!(stderr.contains(message), "{stderr}");
    assert!(harness.sandbox.world().requests().is_empty(), "a request was sent: {stderr}");
}

#[test]
fn sync_on_a_read_only_file_system_exits_5_and_recovers() {
    let library = Library::load();
    read_only_from_the_start_sends_no_request(&library);
    at_each_call(&library, "wtcoum", libc::EROFS, FaultCount::FromThenOn);
    at_each_call_of_the_first_start(&library, "wtcoum", libc::EROFS);
}
