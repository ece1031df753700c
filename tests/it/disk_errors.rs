//! The disk fails the real program, at each call by turn: it ends as it says or goes on, and once the disk is well, one start heals.

#![expect(clippy::print_stdout, reason = "how many calls there were is part of the result")]

mod daemon;
mod order;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use komoju_testkit::Installation;
use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};
use serde_json::{Value, json};

use crate::PROGRAM;

/// Installations that work side by side: most of a round is waiting for a file to be still.
const INSTALLATIONS: u64 = 4;

/// So many rounds make a default run of one kind of fault.
const ROUNDS: u64 = 8;

/// Far above how many calls of one kind there are.
const MOST: u64 = 5_000;

/// How a program ended, for the sum that is printed.
type Ends = BTreeMap<String, u64>;

/// What is dropped in a round, by name.
fn names(round: u64) -> [String; 4] {
    ["sql-create", "sql-update", "sql-delete", "file-create"].map(|name| format!("{name}-{round}"))
}

/// A harness with something to do for the next `sync`: an intent of each kind, and customers that were changed.
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

/// One `sync` under this fault, with these intents to carry out. Returns its end in short, or `None` where the program made fewer
/// calls than that.
fn sync_in_trouble(
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
        check_nothing_is_passed_over(harness, &output, fault, intents);
    }
    (calls.failed() > 0).then_some(end)
}

/// Whoever says that all is well has done everything, or names what was left and why.
fn check_nothing_is_passed_over(
    harness: &Installation,
    output: &Output,
    fault: DiskFault,
    intents: &[String],
) {
    let told = String::from_utf8_lossy(&output.stderr);
    let why = std::io::Error::from_raw_os_error(fault.errno).to_string();
    for name in intents {
        let is_done = harness.column(&format!("SELECT state FROM intents WHERE id = '{name}'")) == ["done"];
        let lies = lies_in_spool(harness, &format!("{name}.json"));
        let is_named = told
            .lines()
            .any(|line| line.contains("\"WARN\"") && line.contains(name.as_str()) && line.contains(&why));
        assert!(is_done && !lies || is_named, "{fault:?}: exit 0, and not a word of {name}: {told}");
    }
}

/// Whether the dropped file lies where it was dropped, or claimed.
fn lies_in_spool(harness: &Installation, file: &str) -> bool {
    let spool = harness.path("spool");
    let claims = std::fs::read_dir(spool.join(".claimed")).into_iter().flatten();
    spool.join(file).exists()
        || claims.map(|claim| claim.unwrap().path()).any(|claim| claim.join(file).exists())
}

/// No panic, an exit code of the contract, and a sentence that says what failed and what to do.
fn check_end(output: &Output, fault: DiskFault) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!told.contains("panicked"), "{fault:?}: {told}");
    let code = output.status.code().unwrap_or_else(|| panic!("{fault:?}: {:?} {told}", output.status));
    // A full disk passes. SQLite takes a failed read for damage, and a file system that is read-only needs an operator.
    let codes: &[i32] = if fault.errno == libc::ENOSPC { &[0, 1, 3] } else { &[0, 1, 3, 5] };
    assert!(codes.contains(&code), "{fault:?}: exit {code}: {told}");
    // Everything was done but the wipe of settled tokens, which is recorded and named.
    let is_left = told.contains("still in the database file or its WAL");
    assert!(code != 3 || is_left, "{fault:?}: exit {code}: {told}");
    if [1, 5].contains(&code) {
        let last = told.lines().rfind(|line| line.contains("error")).unwrap_or_default();
        let words: &[&str] = match fault.errno {
            // SQLite does not tell everywhere why it failed; then all there is to look at is named.
            libc::ENOSPC => {
                &["Make room; the service", "make room on its disk, then start", "quota is full,"]
            }
            libc::EROFS => &["writable"],
            _ => &["kernel's log"],
        };
        assert!(last.contains("komoju.db"), "{fault:?}: which file? {told}");
        assert!(words.iter().any(|words| last.contains(words)), "{fault:?}: what to do? {told}");
        assert!(!last.contains("is damaged") || last.contains("or its disk failed"), "{fault:?}: {told}");
    }
    format!("exit {code}")
}

/// The disk is well again: one `sync`, and everything is as if nothing had been.
fn check_healed(harness: &Installation, round: u64, made_before: u64, fault: DiskFault) {
    let ran = harness.run(&["sync"]);
    assert_eq!(ran.code, 0, "{fault:?}: {}{}", ran.stdout, ran.stderr);
    harness.assert_true();
    for name in names(round) {
        let state = harness.column(&format!("SELECT state FROM intents WHERE id = '{name}'"));
        assert_eq!(state, ["done"], "{fault:?}: {name}");
    }
    let world = harness.sandbox.world();
    assert_eq!(world.creates() - made_before, 2, "{fault:?}: each create once");
    let truth = world.truth();
    drop(world);
    for door in ["sql", "file"] {
        let email = format!("{door}-{round}@example.jp");
        let made = truth.values().filter(|theirs| theirs["email"] == email).count();
        assert_eq!(made, 1, "{fault:?}: {email}");
    }
    let of_round = |theirs: &&Value| theirs["metadata"]["round"].as_str() == Some(&round.to_string());
    let updated = truth.values().filter(of_round).count();
    assert_eq!(updated, 1, "{fault:?}: the update is done and did nothing");
    let deleted = harness.one(&format!("SELECT customer_id FROM intents WHERE id = 'sql-delete-{round}'"));
    assert!(!truth.contains_key(&deleted), "{fault:?}: the delete is done and its customer lives");
    let lies = std::fs::read_dir(harness.path("spool")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut lies: Vec<_> = lies.collect();
    lies.sort();
    assert_eq!(lies, [".claimed", "receipts", "rejected"], "{fault:?}");
    assert_eq!(std::fs::read_dir(harness.path("spool/.claimed")).unwrap().count(), 0, "{fault:?}");
    let receipt = harness.path("spool/receipts").join(format!("file-create-{round}.json.json"));
    let receipt = std::fs::read_to_string(receipt).unwrap();
    assert!(receipt.contains("\"done\""), "{fault:?}: {receipt}");
}

fn every_call() -> bool {
    std::env::var_os("EVERY_CALL").is_some()
}

/// Rounds of this fault at the first call of its kind, a later one, and so on to the last. Each round is a `sync` in fault and one
/// that heals.
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
                    assert!(fault.nth < MOST, "it never ends");
                    prepare(&harness, round);
                    let made_before = harness.sandbox.world().creates();
                    let end = sync_in_trouble(library, &harness, fault, &names(round));
                    check_healed(&harness, round, made_before, fault);
                    let Some(end) = end else { return };
                    *ends.lock().unwrap().entry(end).or_default() += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    let rounds: u64 = ends.values().sum();
    println!("{kinds} errno {errno} {lasts:?}: {calls} calls, {rounds} of them failed by turn: {ends:?}");
    assert!(rounds >= ROUNDS / 2, "{quiet:?}: only {rounds} rounds");
    let expected = if kinds == "r" { "exit 5" } else { "exit 1" };
    assert!(ends.contains_key(expected), "{quiet:?}: {ends:?}");
}

/// The same for the first start, which makes the database: each time anew.
fn at_each_call_of_the_first_start(library: &Library, kinds: &'static str, errno: i32) {
    let (mut nth, mut rounds, mut ends) = (1, 0, Ends::new());
    loop {
        let harness = Installation::with(PROGRAM, 3);
        let fault = DiskFault { place: FaultPlace::Everywhere, kinds, errno, lasts: FaultCount::Once, nth };
        let end = sync_in_trouble(library, &harness, fault, &[]);
        harness.expect(0, &["sync"]);
        harness.assert_true();
        let Some(end) = end else { break };
        *ends.entry(end).or_default() += 1;
        rounds += 1;
        nth += if every_call() { 1 } else { 1 + nth };
        assert!(nth < MOST, "it never ends");
    }
    println!("first start, {kinds} errno {errno}: {rounds} calls failed by turn: {ends:?}");
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

/// Before anything is asked or sent it is known that nothing of it could be written down.
fn nothing_is_started_on_what_cannot_be_written(library: &Library) {
    let harness = Installation::swept(PROGRAM, 8);
    prepare(&harness, 0);
    harness.sandbox.world().clear_requests();
    let (place, lasts) = (FaultPlace::Everywhere, FaultCount::FromThenOn);
    let fault = DiskFault { place, kinds: "wtcoum", errno: libc::EROFS, lasts, nth: 1 };
    let mut command = harness.command(&["sync"]);
    library.under(&mut command, harness.directory.path(), fault);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{told}");
    let words = "komoju.db.lock cannot be opened; the directory must exist and be writable (mount its file system writable, then \
                 start again)";
    assert!(told.contains(words), "{told}");
    assert!(harness.sandbox.world().requests().is_empty(), "KOMOJU was asked: {told}");
}

#[test]
fn sync_on_a_read_only_file_system_exits_5_and_recovers() {
    let library = Library::load();
    nothing_is_started_on_what_cannot_be_written(&library);
    at_each_call(&library, "wtcoum", libc::EROFS, FaultCount::FromThenOn);
    at_each_call_of_the_first_start(&library, "wtcoum", libc::EROFS);
}
