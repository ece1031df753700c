//! `sync --dry-run` prints the plan and writes nothing.
//!
//! Promises: command sync

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::Effect;
use komoju_testkit::{Installation, Process, signal};
use serde_json::json;

use super::json_lines;
use crate::PROGRAM;

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let harness = Installation::with(PROGRAM, 12);
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert_eq!(ran.stdout.lines().count(), 12);
    let mut files: Vec<_> =
        std::fs::read_dir(harness.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.toml"]);

    harness.expect(0, &["sync"]);
    let content = |name: &str| std::fs::read(harness.path(name)).unwrap();
    let before = (content("komoju.db"), content("komoju.db-wal"));
    let id = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().delete(&id);
    let planned = json_lines(&harness.expect(0, &["sync", "--dry-run", "--json"]).stdout);
    assert_eq!(
        (planned.len(), &planned[0]["kind"], &planned[0]["customer_id"]),
        (1, &json!("deleted"), &json!(id))
    );
    assert!((content("komoju.db"), content("komoju.db-wal")) == before);
    assert_eq!(harness.head(), 12);
}

#[test]
fn two_signals_at_once_stop_a_dry_run_in_order_and_its_copy_is_removed() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let directory = tempfile::TempDir::new().unwrap();
    let held = harness.on_lists(Effect::Hold);
    let mut command = harness.command(&["sync", "--dry-run"]);
    let dry = Process::start(command.env("TMPDIR", directory.path()).stderr(Stdio::piped()));
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    // Both reach it together: it is stopped until they have.
    for name in ["STOP", "INT", "TERM", "CONT"] {
        signal(name, dry.id());
    }
    let output = dry.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("interrupted") && !told.contains("stopped at once"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn second_signal_after_a_second_ends_a_stuck_dry_run_at_once_and_its_copy_is_removed() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    for n in 0..1000 {
        harness.sandbox.world().create(serde_json::json!({"email": format!("customer-{n}@example.jp")}));
    }
    let directory = tempfile::TempDir::new().unwrap();
    let mut command = harness.command(&["sync", "--dry-run"]);
    command.env("TMPDIR", directory.path()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut dry = Process::start(&mut command);
    // Its plan is larger than a pipe, and the pipe is not read to its end: it is stuck.
    let mut stdout = dry.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
    signal("INT", dry.id());
    // The rule is about time, and a command that is stuck gives no signal: within a second, a second one does not count.
    std::thread::sleep(Duration::from_millis(1200));
    signal("TERM", dry.id());
    let output = dry.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("stopped at once by a second signal"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_dry_runs_copy_is_nobody_elses_and_goes_with_the_next_one_where_it_was_killed() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let directory = tempfile::TempDir::new().unwrap();
    let held = harness.on_lists(Effect::Hold);
    let dry = |harness: &Installation| {
        let mut command = harness.command(&["sync", "--dry-run"]);
        Process::start(command.env("TMPDIR", directory.path()).stderr(Stdio::null()).stdout(Stdio::null()))
    };
    let copies = || -> Vec<_> {
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut killed = dry(&harness);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    let left = copies();
    assert_eq!(left.len(), 1);
    let mode = std::fs::metadata(&left[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it holds what the database holds");
    signal("KILL", killed.id());
    killed.wait().unwrap();
    harness.sandbox.world().clear_faults();
    assert!(dry(&harness).wait().unwrap().success());
    assert_eq!(copies(), Vec::<std::path::PathBuf>::new());
}
