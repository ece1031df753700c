//! `sync --dry-run` prints the plan and writes nothing.
//!
//! Promises: command sync

mod histories;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, Process, signal};
use serde_json::{Value, json};

use super::json_lines;
use crate::PROGRAM;

/// Returns the content of each file below a directory. The content of `-shm` is left out, because
/// readers write their positions into it.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false if name.ends_with("-shm") => drop(files.insert(name, Vec::new())),
            false => drop(files.insert(name, std::fs::read(&path).unwrap())),
        }
    }
    files
}

#[test]
fn dry_run_prints_the_plan_and_writes_nothing() {
    let harness = Installation::with(PROGRAM, 12);
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert_eq!(ran.stdout.lines().count(), 12);
    let expected = "dry run: would record 12 created; nothing was written";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    let mut names: Vec<_> =
        std::fs::read_dir(harness.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.toml"]);

    harness.expect(0, &["sync"]);
    let before = files(harness.directory.path());
    let id = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().delete(&id);
    let planned = json_lines(&harness.expect(0, &["sync", "--dry-run", "--json"]).stdout);
    assert_eq!(
        (planned.len(), &planned[0]["kind"], &planned[0]["customer_id"]),
        (1, &json!("deleted"), &json!(id))
    );
    assert!(files(harness.directory.path()) == before);
    assert_eq!(harness.head(), 12);
}

#[test]
fn planned_changes_have_the_keys_and_values_of_changes() {
    let harness = Installation::swept(PROGRAM, 4);
    let ids = harness.sandbox.world().ids();
    harness.sandbox.world().delete(&ids[0]);
    harness.expect(0, &["sync"]);
    let mut world = harness.sandbox.world();
    world.restore(&ids[0]);
    world.update(&ids[1], json!({"email": "new@example.jp", "metadata": {"k": "v"}}));
    world.delete(&ids[2]);
    world.create(json!({"email": "created@example.jp"}));
    drop(world);
    let head = harness.head().to_string();
    let ran = harness.expect(0, &["sync", "--dry-run", "--json"]);
    let expected = "dry run: would record 1 created, 1 updated, 1 deleted, 1 restored; nothing was written";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    let shown = |line: &Value| {
        let keys = ["customer_id", "kind", "origin", "diff", "before", "after"];
        keys.map(|key| line.get(key).unwrap_or_else(|| panic!("{line} lacks {key}")).clone())
    };
    let planned: Vec<_> = json_lines(&ran.stdout).iter().map(shown).collect();
    harness.expect(0, &["sync"]);
    let changes = harness.expect(0, &["changes", "--since", &head, "--json"]);
    let recorded: Vec<_> = json_lines(&changes.stdout).iter().map(shown).collect();
    assert_eq!(planned, recorded);
}

#[test]
fn dry_run_beside_a_daemon_changes_no_file_and_blocks_no_process() {
    let harness = Installation::swept(PROGRAM, 12);
    harness.expect(0, &["intent", "create", "--email", "new@example.jp"]);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).once());
    let dry = harness.spawn(&["sync", "--dry-run"]);
    harness.until(|world| world.fired(held) > 0);
    // While the dry run waits for a list page, a daemon starts, sweeps and pushes.
    let daemon = harness.spawn(&["run"]);
    harness.until(|world| world.creates() == 1);
    harness.sandbox.world().clear_faults();
    let ran = dry.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));

    let is_done = || harness.column("SELECT state FROM intents") == ["done"];
    komoju_testkit::eventually("the intent is done", is_done);
    signal("STOP", daemon.id());
    let before = files(harness.directory.path());
    harness.sandbox.world().create(json!({"email": "later@example.jp"}));
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert!(ran.stdout.contains("later@example.jp"), "{}", ran.stdout);
    assert!(files(harness.directory.path()) == before);
    signal("CONT", daemon.id());
}

#[test]
fn dry_run_of_a_database_without_wal_makes_no_file() {
    let harness = Installation::swept(PROGRAM, 3);
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(harness.path(&format!("komoju.db{suffix}"))).unwrap();
    }
    let before = files(harness.directory.path());
    harness.expect(0, &["sync", "--dry-run"]);
    assert!(files(harness.directory.path()) == before);
    // Without a WAL the dry run cannot detect a change of the file, so it blocks other writers.
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).once());
    let dry = harness.spawn(&["sync", "--dry-run"]);
    harness.until(|world| world.fired(held) > 0);
    let refused = harness.expect(5, &["sync"]);
    assert!(refused.stderr.contains("is being read by"), "{}", refused.stderr);
    harness.sandbox.world().clear_faults();
    assert_eq!(dry.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn dry_run_of_an_older_schema_fails_like_other_reading_commands() {
    let harness = Installation::with(PROGRAM, 3);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-2.db");
    std::fs::copy(fixture, harness.path("komoju.db")).unwrap();
    let requests = harness.sandbox.world().request_count();
    let [dry, reading] =
        [&["sync", "--dry-run"][..], &["customers", "list"]].map(|arguments| harness.run(arguments));
    assert_eq!((dry.code, dry.stderr), (reading.code, reading.stderr));
    assert_ne!(dry.code, 0);
    assert_eq!(harness.sandbox.world().request_count(), requests);
}

#[test]
fn dry_run_prints_holds_with_their_reason_and_exits_3() {
    let harness = Installation::swept(PROGRAM, 40);
    let ids = harness.sandbox.world().ids();
    for id in &ids[..15] {
        harness.sandbox.world().delete(id);
    }
    let ran = harness.expect(3, &["sync", "--dry-run"]);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("held      sweep     ")).count(), 15);
    assert!(
        ran.stdout.contains("more customers are missing than a sweep may delete by itself"),
        "{}",
        ran.stdout
    );
    let expected = "dry run: would record nothing; 15 deletions would be held; nothing was written";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions"), "0");
    let held = json_lines(&harness.expect(3, &["sync", "--dry-run", "--json"]).stdout);
    assert_eq!((&held[0]["kind"], &held[0]["reason"]), (&json!("held"), &json!("too_many")));
}

#[test]
fn dry_run_ends_with_the_plan_of_the_outbox() {
    let harness = Installation::swept(PROGRAM, 1);
    harness.intend("new", "create", None, Some(json!({"email": "new@example.jp"})));
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert!(
        ran.stdout.contains("POST /customers") && ran.stdout.contains("next: send under its key"),
        "{}",
        ran.stdout
    );
    let expected = "dry run: would record nothing; 1 request would be sent; nothing was written";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(harness.sandbox.world().creates(), 0);
}

#[test]
fn dry_run_with_a_refused_key_exits_4_and_notes_nothing() {
    let mut harness = Installation::swept(PROGRAM, 3);
    let before = files(harness.directory.path());
    harness.inject(Fault::new(FaultEffect::status(401)));
    harness.expect(4, &["sync", "--dry-run"]);
    harness.sandbox.world().clear_faults();
    harness.use_key("sk_test_other");
    harness.sandbox.world().add_account("sk_test_other", 7, 2);
    let ran = harness.expect(3, &["sync", "--dry-run"]);
    assert!(ran.stderr.contains("this key reads another account"), "{}", ran.stderr);
    let mut after = files(harness.directory.path());
    let config = harness.path("config.toml").display().to_string();
    after.insert(config.clone(), before[&config].clone());
    assert!(after == before);
}

#[test]
fn dry_run_does_not_resume_an_interrupted_sweep() {
    let harness = Installation::swept(PROGRAM, 12);
    harness.sql(
        "INSERT INTO pass (kind, started_at, since_at, finished_at, outcome, pages, last_page)
         VALUES ('sweep', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', 'interrupted', 1, 2)",
    );
    harness.sandbox.world().clear_requests();
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert!(ran.stderr.contains("the dry run does not resume it"), "{}", ran.stderr);
    assert_eq!(harness.sandbox.world().requests()[0].page, Some(1));
}

#[test]
fn two_signals_at_once_stop_a_dry_run_cleanly() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let held = harness.on_lists(FaultEffect::Hold);
    let mut command = harness.command(&["sync", "--dry-run"]);
    let dry = Process::start(command.stderr(Stdio::piped()));
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    // The process is stopped until both signals are pending, so that it receives them together.
    for name in ["STOP", "INT", "TERM", "CONT"] {
        signal(name, dry.id());
    }
    let output = dry.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("interrupted") && !stderr.contains("stopped at once"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn second_signal_after_one_second_ends_a_stuck_dry_run_at_once() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    for _ in 0..1000 {
        harness.sandbox.world().create(json!({"metadata": {"k": "x".repeat(1000)}}));
    }
    let mut command = harness.command(&["sync", "--dry-run", "--json"]);
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    let started = harness.sandbox.world().request_count();
    let dry = Process::start(&mut command);
    // The plan is larger than the pipe, which is not read. A blocked process gives no signal, so a
    // second without a request counts as blocked.
    let requests = || harness.sandbox.world().request_count();
    komoju_testkit::eventually("the dry run is stuck", || {
        let before = requests();
        std::thread::sleep(Duration::from_secs(1));
        before > started && requests() == before
    });
    signal("INT", dry.id());
    // A second signal counts only after more than a second, and a stuck command gives no signal to
    // wait for.
    std::thread::sleep(Duration::from_millis(1200));
    signal("TERM", dry.id());
    let output = dry.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("stopped at once by a second signal"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn dry_run_beside_a_sweep_does_not_call_it_interrupted() {
    let harness = Installation::swept(PROGRAM, 12);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once());
    let mut sync = harness.spawn(&["sync"]);
    harness.until(|world| world.fired(held) > 0);
    let ran = harness.expect(0, &["sync", "--dry-run"]);
    assert!(!ran.stderr.contains("interrupted"), "{}", ran.stderr);
    harness.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
}
