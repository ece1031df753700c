//! The third door, `komoju-sync intent …`: the real binary with a database that its `sync` created.

mod import;
mod operator;
mod queue;
mod wait;

use std::io::Write as _;
use std::process::Stdio;

use komoju_testkit::{Installation, Process, Ran};
use serde_json::Value;

pub(crate) fn file(harness: &Installation, name: &str, content: &str) -> String {
    let path = harness.path(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Encodes text as UTF-16 with a byte order mark, as Windows writes it.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn fed(harness: &Installation, arguments: &[&str], input: &str) -> Ran {
    let mut child = harness
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn intents(harness: &Installation) -> String {
    harness.one("SELECT count(*) FROM intents")
}

/// Starts a daemon and waits until its first pass is over. Intents with `LATER` stay queued while
/// it runs.
fn daemon(harness: &Installation) -> Process {
    let daemon = harness.spawn(&["run"]);
    let idle = "SELECT count(*) FROM pass WHERE id > 1 AND finished_at IS NOT NULL";
    assert!((0..20_000).any(|_| harness.one(idle) != "0"), "the daemon does not sweep");
    daemon
}
