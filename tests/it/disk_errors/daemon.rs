//! The daemon on a disk that fails and is well again.

use std::process::{Command, Stdio};

use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};
use komoju_testkit::{Installation, Process, looked_until};

use super::{check_end, check_healed, names, prepare};
use crate::PROGRAM;

fn stop(mut daemon: Process) -> std::process::Output {
    let told = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
    assert!(told.unwrap().success() || daemon.try_wait().unwrap().is_some());
    daemon.wait_with_output().unwrap()
}

fn is_done(harness: &Installation, round: u64) -> bool {
    let done = names(round).map(|name| format!("'{name}'")).join(", ");
    harness.one(&format!("SELECT count(*) FROM intents WHERE state = 'done' AND id IN ({done})")) == "4"
}

/// Persistent fault that begins while the daemon runs, and ends while it still does or after it ended.
fn in_trouble(
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
    // A block that is written already can be written on a full disk.
    command.env("CALLS_BUT", ".lock");
    let mut daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    assert!(looked_until(|| sweeps(&harness) != before), "{fault:?}: it never sweeps");
    // So many calls after the first sweep: within what is dropped then.
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
    let how = match ended {
        Some(_) => {
            let told = check_end(&daemon.wait_with_output().unwrap(), fault);
            assert_eq!(told, "exit 5", "{fault:?}: it says why it ends");
            told
        }
        None => {
            // It looks at the spool directory once a minute by itself, and whenever something comes.
            std::fs::write(harness.path("spool/something"), "").unwrap();
            std::fs::remove_file(harness.path("spool/something")).unwrap();
            assert!(looked_until(|| is_done(&harness, round)), "{fault:?}: it does not heal by itself");
            assert_eq!(
                harness.run(&["status", "--json"]).stdout.matches("\"database_trouble\":null").count(),
                1
            );
            let told = check_end(&stop(daemon), fault);
            assert_eq!(told, "exit 0", "{fault:?}");
            "continued".to_owned()
        }
    };
    check_healed(&harness, round, made_before, fault);
    how
}

#[test]
fn daemon_waits_while_the_disk_fails_and_recovers_afterwards() {
    let library = Library::load();
    let troubles = [
        (FaultPlace::Everywhere, "wtc", libc::ENOSPC, 10),
        (FaultPlace::Everywhere, "wtc", libc::ENOSPC, 60),
        (FaultPlace::Everywhere, "wtc", libc::EDQUOT, 20),
        (FaultPlace::Everywhere, "r", libc::EIO, 5),
        (FaultPlace::Everywhere, "rws", libc::EIO, 40),
        (FaultPlace::Everywhere, "s", libc::EIO, 1),
        // What it cannot take or write there waits; the database is well.
        (FaultPlace::Spool, "wtc", libc::ENOSPC, 1),
        (FaultPlace::Spool, "r", libc::EIO, 1),
        (FaultPlace::Spool, "wtcoum", libc::EROFS, 1),
    ];
    for fault in troubles {
        assert_eq!(in_trouble(&library, fault, "continued"), "continued", "{fault:?}");
    }
}

#[test]
fn daemon_ends_when_its_file_system_becomes_read_only() {
    let fault = (FaultPlace::Everywhere, "wtcoum", libc::EROFS, 10);
    assert_eq!(in_trouble(&Library::load(), fault, "exit 5"), "exit 5");
}

#[test]
fn full_disk_is_reported_to_the_alert_command_once() {
    let library = Library::load();
    let harness = Installation::swept(PROGRAM, 8);
    let (config, told) = (harness.path("config.toml"), harness.path("told"));
    let text = std::fs::read_to_string(&config).unwrap();
    let alerts = format!("[alerts]\ncommand = ['/bin/sh', '-c', 'cat >> {}']\n", told.display());
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
    let alerts = || std::fs::read_to_string(&told).unwrap_or_default();
    assert!(looked_until(|| alerts().ends_with('\n')), "no alert is sent");
    let alert: serde_json::Value = serde_json::from_str(&alerts()).unwrap();
    assert_eq!(alert["alert"], "database_unusable");
    assert!(alert["sentence"].as_str().unwrap().contains("there is no room to write"), "{alert}");
    let keys: Vec<_> = alert.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["alert", "at", "count", "database", "host", "new", "oldest", "sentence", "since"]);
    calls.lift();
    assert!(looked_until(|| is_done(&harness, 0)), "it does not heal by itself");
    assert_eq!(stop(daemon).status.code(), Some(0));
    assert_eq!(alerts().lines().count(), 1);
    check_healed(&harness, 0, made_before, fault);
}

/// Sets the most files that a process may have open.
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
    // None above the highest that is in use now.
    limit_files(&daemon, &format!("3:{}", fields[4]));
    let made_before = harness.sandbox.world().creates();
    prepare(&harness, 0);
    // It can neither read the spool directory nor open a connection; it polls all the same.
    assert!(looked_until(|| harness
        .one("SELECT count(*) FROM intents WHERE id LIKE 'sql-%-0' AND state <> 'queued'")
        != "0"));
    assert!(daemon.try_wait().unwrap().is_none(), "it ended");
    limit_files(&daemon, &format!("{}:{}", fields[3], fields[4]));
    std::fs::write(harness.path("spool/something"), "").unwrap();
    std::fs::remove_file(harness.path("spool/something")).unwrap();
    assert!(looked_until(|| is_done(&harness, 0)), "it does not heal by itself");
    assert_eq!(stop(daemon).status.code(), Some(0));
    let fault = DiskFault {
        place: FaultPlace::Everywhere,
        kinds: "",
        errno: libc::EMFILE,
        lasts: FaultCount::FromThenOn,
        nth: 0,
    };
    check_healed(&harness, 0, made_before, fault);
}

#[test]
fn command_without_file_handles_exits_1_and_names_them() {
    let harness = Installation::swept(PROGRAM, 8);
    let mut refused = 0;
    // Each limit fails another open.
    for most in 4..20 {
        let mut command = Command::new("prlimit");
        let config = harness.path("config.toml");
        let rebuild = [PROGRAM, "--config", config.to_str().unwrap(), "rebuild"];
        let output = command.arg(format!("--nofile={most}")).args(rebuild).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!([Some(0), Some(1)].contains(&output.status.code()), "{most}: {:?} {told}", output.status);
        if output.status.code() == Some(1) {
            assert!(
                told.contains("file handles are exhausted") || told.contains("Too many open files"),
                "{told}"
            );
            refused += 1;
        }
    }
    assert!(refused > 2, "{refused}");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
