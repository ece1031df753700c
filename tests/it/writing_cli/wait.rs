//! `--wait`: the exit code is the outcome of the intent.

use std::io::{BufRead as _, BufReader, Read as _};

use komoju_testkit::{Installation, Process, signal};

use super::{daemon, lines};
use crate::PROGRAM;

/// Starts a command with `--wait`. Returns the process when it waits, and the rest of its output.
fn waiting(harness: &Installation, arguments: &[&str]) -> (Process, BufReader<std::process::ChildStderr>) {
    let mut child = harness.spawn(arguments);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ctrl-C ends the waiting") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the command ended without waiting");
    }
    (child, stderr)
}

fn ended(mut child: Process, mut stderr: BufReader<std::process::ChildStderr>) -> (Option<i32>, String) {
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

const LATER: [&str; 2] = ["--not-before", "2099-01-01T00:00:00Z"];

/// Starts an `intent create` with this id that waits.
fn create_and_wait(harness: &Installation, id: &str) -> (Process, BufReader<std::process::ChildStderr>) {
    waiting(harness, &[&["intent", "create", "--email", "a", "--id", id, "--wait"], &LATER[..]].concat())
}

#[test]
fn wait_without_a_daemon_ends_at_once_with_3() {
    let harness = Installation::swept(PROGRAM, 0);
    let ran = harness.expect(3, &["intent", "create", "--email", "a", "--id", "n1", "--wait", "--json"]);
    for part in ["not waiting, because no daemon runs; intent n1 stays queued", "intent show n1"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert_eq!(lines(&ran.stdout)[0]["state"], "queued");
}

#[test]
fn wait_exits_with_the_outcome_of_the_intent() {
    let harness = Installation::swept(PROGRAM, 0);
    let _daemon = daemon(&harness);
    for (id, code, how) in [
        (
            "done",
            0,
            "BEGIN; UPDATE intents SET state = 'sending' WHERE id = 'done';
             UPDATE intents SET state = 'done' WHERE id = 'done'; COMMIT",
        ),
        (
            "rejected",
            1,
            "BEGIN; UPDATE intents SET state = 'sending' WHERE id = 'rejected';
             UPDATE intents SET state = 'rejected', reason = 'said no' WHERE id = 'rejected'; COMMIT",
        ),
        ("parked", 3, "UPDATE intents SET state = 'parked', reason = 'a conflict' WHERE id = 'parked'"),
    ] {
        let (child, stderr) = create_and_wait(&harness, id);
        harness.sql(how);
        let (ended, rest) = ended(child, stderr);
        assert_eq!(ended, Some(code), "{id}: {rest}");
        assert!(rest.contains(id), "{rest}");
    }
    let (child, stderr) = create_and_wait(&harness, "withdrawn");
    harness.expect(0, &["intent", "cancel", "withdrawn"]);
    let (code, rest) = ended(child, stderr);
    assert_eq!(code, Some(1));
    assert!(rest.contains("cancelled by uid"), "{rest}");
    // A settled intent is reported at once.
    let again =
        [&["intent", "create", "--email", "a", "--id", "parked", "--wait", "--json"], &LATER[..]].concat();
    let again = harness.expect(3, &again);
    assert_eq!(lines(&again.stdout)[0]["state"], "parked");
    assert!(again.stderr.contains("a conflict"), "{}", again.stderr);
}

#[test]
fn ctrl_c_ends_the_wait_and_leaves_the_intent_queued() {
    let harness = Installation::swept(PROGRAM, 0);
    let _daemon = daemon(&harness);
    let (child, stderr) = create_and_wait(&harness, "n1");
    signal("INT", child.id());
    let (code, rest) = ended(child, stderr);
    assert_eq!(code, Some(3));
    assert!(rest.contains("intent n1 stays queued"), "{rest}");
    assert_eq!(harness.one("SELECT state FROM intents"), "queued");
}
