//! The daemon on a disk that fails and works again.

use std::process::{Command, Stdio};

use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};
use komoju_testkit::{Installation, Process, looked_until};

use super::{check_end, check_recovered, names, prepare};
use crate::PROGRAM;

fn stop(mut daemon: Process) -> std::process::Output {
    let killed = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
    assert!(killed.unwrap().success() || daemon.try_wait().unwrap().is_some());
    daemon.wait_with_output().unwrap()
}

fn is_done(harness: &Installation, round: u64) -> bool {
    let done = names(round).map(|name| format!("'{name}'")).join(", ");
    harness.one(&format!("SELECT count(*) FROM intents WHERE state = 'done' AND id IN ({done})")) == "4"
}

/// Runs the daemon under a persistent fault that begins after its first sweep. The fault ends while
/// the daemon runs or after it exits. Returns `continued` or `exit 5`.
fn run_under_fault(
    library: &Library,
    (place, kinds, errno, later): (FaultPlace, &'static str, i32, u64),
    expected: &str,
) -> String {
    let harness = Installation::swept(PROGRAM, 8);
    let round = 0;
    let fault = DiskFault { place, kinds, errno, lasts: FaultCount::FromThenOn, nth: 0 };
    let sweeps =
        |harness: &Installation| harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'");
    let (before, made_before) = (sweeps(&harness), harness.sandbox.world().creates());
    let mut command = harness.command(&["run"]);
    let calls = library.under(&mut command, harness.directory.path(), fault);
    // On a full disk an existing block, such as that of the lock file, can still be written.
    command.env("CALLS_BUT", ".lock");
    let mut daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    assert!(looked_until(|| sweeps(&harness) != before), "{fault:?}: the daemon never sweeps");
    // The fault begins this many calls after the first sweep, while the intents are processed.
    calls.begin_after(later);
    prepare(&harness, round);
    let mut ended = None;
    assert!(
        looked_until(|| {
            ended = daemon.try_wait().unwrap();
            ended.is_some() || is_done(&harness, round) || calls.failed() > 0
        }),
        "{fault:?}: nothing happens"
    );
    assert!(calls.failed() > 0, "{fault:?}: nothing failed in {} calls", calls.count());
    if expected == "exit 5" {
        assert!(looked_until(|| ended.is_some() || {
            ended = daemon.try_wait().unwrap();
            ended.is_some()
        }));
    } else if place == FaultPlace::Everywhere {
        let status =
            || serde_json::from_str::<serde_json::Value>(&harness.run(&["status", "--json"]).stdout).unwrap();
        assert!(
            looked_until(|| status()["database_trouble"].is_string()),
            "{fault:?}: status does not report it"
        );
        assert_eq!(harness.run(&["status"]).code, 1, "{fault:?}");
        ended = daemon.try_wait().unwrap();
    }
    calls.lift();
    let result = match ended {
        Some(_) => {
            let end = check_end(&daemon.wait_with_output().unwrap(), fault);
            assert_eq!(end, "exit 5", "{fault:?}: the daemon does not report why it exits");
            end
        }
        None => {
            // The daemon scans the spool directory every minute and after each event; cause an
            // event.
            std::fs::write(harness.path("spool/something"), "").unwrap();
            std::fs::remove_file(harness.path("spool/something")).unwrap();
            assert!(
                looked_until(|| is_done(&harness, round)),
                "{fault:?}: the daemon does not recover by itself"
            );
            assert_eq!(
                harness.run(&["status", "--json"]).stdout.matches("\"database_trouble\":null").count(),
                1
            );
            let end = check_end(&stop(daemon), fault);
            assert_eq!(end, "exit 0", "{fault:?}");
            "continued".to_owned()
        }
    };
    check_recovered(&harness, round, made_before, fault);
    result
}

#[test]
fn daemon_waits_while_the_disk_fails_and_recovers_afterwards() {
    let library = Library::load();
    let faults = [
        (FaultPlace::Everywhere, "wtc", libc::ENOSPC, 10),
        (FaultPlace::Everywhere, "wtc", libc::ENOSPC, 60),
        (FaultPlace::Everywhere, "wtc", libc::EDQUOT, 20),
        (FaultPlace::Everywhere, "r", libc::EIO, 5),
        (FaultPlace::Everywhere, "rws", libc::EIO, 40),
        (FaultPlace::Everywhere, "s", libc::EIO, 1),
        // A fault of the spool directory only delays files; the database works.
        (FaultPlace::Spool, "wtc", libc::ENOSPC, 1),
        (FaultPlace::Spool, "r", libc::EIO, 1),
        (FaultPlace::Spool, "wtcoum", libc::EROFS, 1),
    ];
    for fault in faults {
        assert_eq!(run_under_fault(&library, fault, "continued"), "continued", "{fault:?}");
    }
}

#[test]
fn daemon_ends_when_its_file_system_becomes_read_only() {
    let fault = (FaultPlace::Everywhere, "wtcoum", libc::EROFS, 10);
    assert_eq!(run_under_fault(&Library::load(), fault, "exit 5"), "exit 5");
}

#[test]
fn full_disk_is_reported_to_the_alert_command_once() {
    let library = Library::load();
    let harness = Installation::swept(PROGRAM, 8);
    let (config, log) = (harness.path("config.toml"), harness.path("alerts"));
    let text = std::fs::read_to_string(&config).unwrap();
    let alerts = format!("[alerts]\ncommand = ['/bin/sh', '-c', 'cat >> {}']\n", log.display());
    std::fs::write(&config, text + &alerts).unwrap();
    let (place, lasts) = (FaultPlace::Everywhere, FaultCount::FromThenOn);
    let fault = DiskFault { place, kinds: "wtc", errno: libc::ENOSPC, lasts, nth: 1 };
    let mut command = harness.command(&["run"]);
    let calls = library.under(&mut command, harness.directory.path(), fault);
    calls.lift();
    let before = harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'");
    command.env("CALLS_BUT", ".lock");
    let daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    assert!(looked_until(|| harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") != before));
    calls.strike();
    let made_before = harness.sandbox.world().creates();
    prepare(&harness, 0);
    let alerts = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(looked_until(|| alerts().ends_with('\n')), "no alert is sent");
    let alert: serde_json::Value = serde_json::from_str(&alerts()).unwrap();
    assert_eq!(alert["alert"], "database_unusable");
    assert!(alert["sentence"].as_str().unwrap().contains("there is no room to write"), "{alert}");
    let keys: Vec<_> = alert.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["alert", "at", "count", "database", "host", "new", "oldest", "sentence", "since"]);
    calls.lift();
    assert!(looked_until(|| is_done(&harness, 0)), "the daemon does not recover by itself");
    let ended = stop(daemon);
    assert_eq!(ended.status.code(), Some(0));
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(log.matches("the database is usable again").count(), 1, "{log}");
    assert_eq!(alerts().lines().count(), 1);
    check_recovered(&harness, 0, made_before, fault);
}

/// Limits how many files a process may have open.
fn limit_files(daemon: &Process, most: &str) {
    let limit = format!("--nofile={most}");
    let set = Command::new("prlimit").args(["--pid", &daemon.id().to_string(), &limit]).status();
    assert!(set.unwrap().success());
}

#[test]
fn daemon_without_file_handles_continues_when_the_limit_rises() {
    let harness = Installation::swept(PROGRAM, 8);
    let before = harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'");
    let mut command = harness.command(&["run"]);
    let mut daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    assert!(looked_until(|| harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") != before));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    // No new file handle can be opened.
    limit_files(&daemon, &format!("3:{}", fields[4]));
    let made_before = harness.sandbox.world().creates();
    prepare(&harness, 0);
    // The daemon can neither read the spool directory nor open a connection, but still polls.
    assert!(looked_until(|| harness
        .one("SELECT count(*) FROM intents WHERE id LIKE 'sql-%-0' AND state <> 'queued'")
        != "0"));
    assert!(daemon.try_wait().unwrap().is_none(), "the daemon exited");
    limit_files(&daemon, &format!("{}:{}", fields[3], fields[4]));
    std::fs::write(harness.path("spool/something"), "").unwrap();
    std::fs::remove_file(harness.path("spool/something")).unwrap();
    assert!(looked_until(|| is_done(&harness, 0)), "the daemon does not recover by itself");
    assert_eq!(stop(daemon).status.code(), Some(0));
    let fault = DiskFault {
        place: FaultPlace::Everywhere,
        kinds: "",
        errno: libc::EMFILE,
        lasts: FaultCount::FromThenOn,
        nth: 0,
    };
    check_recovered(&harness, 0, made_before, fault);
}

#[test]
fn command_without_file_handles_exits_1_and_names_them() {
    let harness = Installation::swept(PROGRAM, 8);
    let mut refused = 0;
    // Each limit lets another open call fail.
    for most in 4..20 {
        let mut command = Command::new("prlimit");
        let config = harness.path("config.toml");
        let rebuild = [PROGRAM, "--config", config.to_str().unwrap(), "rebuild"];
        let output = command.arg(format!("--nofile={most}")).args(rebuild).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!([Some(0), Some(1)].contains(&output.status.code()), "{most}: {:?} {stderr}", output.status);
        if output.status.code() == Some(1) {
            assert!(
                stderr.contains("file handles are exhausted") || stderr.contains("Too many open files"),
                "{stderr}"
            );
            refused += 1;
        }
    }
    assert!(refused > 2, "{refused}");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
