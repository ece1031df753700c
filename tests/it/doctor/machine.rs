//! The checks of configuration, permissions, disk, WAL, schema, spool and other processes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Installation, KEY};

use super::{DoctorReport, doctor, doctor_of};
use crate::PROGRAM;

/// Runs `doctor` with the key in a file that no other user can read.
fn with_key_file(harness: &Installation) -> DoctorReport {
    let file = harness.path("the-key");
    if !file.exists() {
        fs::write(&file, KEY).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        harness.replace_in_config("[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", file.display()));
    }
    doctor_of(harness.command(&["doctor", "--json"]).env_remove("KOMOJU_SECRET_KEY"))
}

/// Returns each file below the directory with its bytes, mode, owner and modification time.
fn all_files(harness: &Installation) -> BTreeMap<String, (Vec<u8>, u32, u32, i64, i64)> {
    fn walk(directory: &Path, found: &mut BTreeMap<String, (Vec<u8>, u32, u32, i64, i64)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is = fs::symlink_metadata(&path).unwrap();
            let bytes = if is.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let facts = (bytes, is.mode(), is.uid(), is.mtime(), is.mtime_nsec());
            found.insert(path.display().to_string(), facts);
            if is.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(harness.directory.path(), &mut found);
    found
}

fn assert_untouched(harness: &Installation, before: &BTreeMap<String, (Vec<u8>, u32, u32, i64, i64)>) {
    let after = all_files(harness);
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (name, facts) in before {
        assert!(after[name] == *facts, "{name} was changed");
    }
}

/// CHECKS are all checks except `disk`: its finding depends on the machine.
const CHECKS: [&str; 11] = [
    "config",
    "key",
    "permissions",
    "spool",
    "schema",
    "wal",
    "instance",
    "api",
    "clock",
    "account",
    "state",
];

#[test]
fn doctor_before_the_first_start_is_ok_and_makes_no_file() {
    let harness = Installation::with(PROGRAM, 7);
    with_key_file(&harness);
    let before = all_files(&harness);
    let report = with_key_file(&harness);
    assert_eq!((report.code, report.complaints()), (0, vec![]), "{}", report.text);
    assert!(report.one("api").1.contains("7 customers, 10 a page"), "{}", report.text);
    assert_untouched(&harness, &before);
    assert_eq!(harness.sandbox.world().request_count(), 2, "each run sends one request");
}

#[test]
fn doctor_after_a_sync_is_ok_and_touches_nothing() {
    let harness = Installation::swept(PROGRAM, 12);
    with_key_file(&harness);
    let requests = harness.sandbox.world().request_count();
    let before = all_files(&harness);
    let report = with_key_file(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((report.code, report.complaints()), (0, vec![]), "{}", report.text);
    assert_eq!(CHECKS.map(|check| report.levels(check)), CHECKS.map(|_| vec!["ok"]), "{}", report.text);
    assert_eq!(harness.sandbox.world().request_count(), requests + 1);
}

#[test]
fn doctor_text_has_a_line_for_each_check_and_advice_below() {
    let harness = Installation::swept(PROGRAM, 3);
    let ran = harness.expect(0, &["doctor"]);
    for check in CHECKS {
        assert!(
            ran.stdout.lines().any(|line| line.starts_with(&format!("ok    {check}"))) || check == "key",
            "{check}"
        );
    }
    assert!(
        ran.stdout.contains("\nwarn  key            the key comes from $KOMOJU_SECRET_KEY (a test key"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("\n                     → root, this user"), "{}", ran.stdout);
    let warned: Vec<&str> =
        ran.stdout.lines().filter_map(|line| line.strip_prefix("warn  ")?.split(' ').next()).collect();
    assert!(warned.iter().all(|check| ["key", "disk"].contains(check)), "{}", ran.stdout);
    assert_eq!(
        ran.stderr,
        if warned.len() == 1 { "1 warning\n".to_owned() } else { format!("{} warnings\n", warned.len()) }
    );
    let documented = include_str!("../../../docs/doctor.md");
    for check in CHECKS.into_iter().chain(["disk"]) {
        assert!(documented.contains(&format!("| `{check}` |")), "{check}");
    }
}

#[test]
fn doctor_beside_a_running_daemon_is_ok_and_touches_nothing() {
    let harness =
        Installation::with(PROGRAM, 12).inbound("sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"");
    let mut daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() > 1));
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('change_log_by_customer', 'mirror_by_email')";
    let swept = || {
        harness.path("spool").exists() && harness.path("komoju.db").exists() && harness.one(indexes) == "2"
    };
    let clock = SystemClock::new();
    let settled = |clock: &SystemClock| {
        let before = all_files(&harness);
        harness.runtime.block_on(async { clock.sleep(Duration::from_millis(300)).await });
        before == all_files(&harness)
    };
    while !(swept() && settled(&clock)) {
        assert!(clock.elapsed() < Duration::from_secs(30), "the daemon is never idle");
    }
    let before = all_files(&harness);
    let report = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((report.code, report.complaints()), (0, vec!["key"]), "{}", report.text);
    assert!(report.one("instance").1.contains("`komoju-sync run` (process "), "{}", report.text);

    // After a kill, doctor reads the commits that are still in the WAL.
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let before = all_files(&harness);
    assert!(!before[&harness.path("komoju.db-wal").display().to_string()].0.is_empty());
    let report = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((report.code, report.complaints()), (0, vec!["key"]), "{}", report.text);
    assert_eq!(report.one("account").0, "ok");
    assert!(report.one("instance").1.contains("no process"), "{}", report.text);

    // Without the -shm, the database file alone is not the whole database.
    fs::remove_file(harness.path("komoju.db-shm")).unwrap();
    let before = all_files(&harness);
    let report = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!(
        (report.code, report.one("permissions").0, report.one("schema").0),
        (0, "warn", "skip"),
        "{}",
        report.text
    );
}

#[test]
fn doctor_warns_of_a_missing_wal_or_shm_and_makes_none() {
    let harness = Installation::swept(PROGRAM, 12);
    for missing in ["komoju.db-wal", "komoju.db-shm"] {
        fs::remove_file(harness.path(missing)).unwrap();
        let before = all_files(&harness);
        let report = doctor(&harness);
        assert_untouched(&harness, &before);
        assert_eq!(
            (report.code, report.one("permissions").0, report.one("schema").0),
            (0, "warn", "ok"),
            "{}",
            report.text
        );
        assert!(report.one("permissions").1.contains("komoju-sync sync"), "{}", report.text);
    }
}

#[test]
fn doctor_with_held_deletions_exits_3() {
    let harness = Installation::swept(PROGRAM, 60);
    let ids = harness.sandbox.world().ids();
    for id in &ids[..40] {
        harness.sandbox.world().delete(id);
    }
    harness.expect(3, &["sync"]);
    let report = doctor(&harness);
    assert_eq!((report.code, report.one("state").0), (3, "warn"), "{}", report.text);
    assert!(report.one("state").1.contains("waiting for an operator: 40 held deletions"), "{}", report.text);
}

#[test]
fn doctor_warns_of_a_missing_index_until_a_sweep_makes_it() {
    let harness = Installation::swept(PROGRAM, 5);
    harness.writer().execute_batch("DROP INDEX mirror_by_email").unwrap();
    let report = doctor(&harness);
    assert_eq!(report.one("schema").0, "warn", "{}", report.text);
    assert!(report.one("schema").1.contains("lacks mirror_by_email"), "{}", report.text);
    harness.expect(0, &["sync"]);
    assert_eq!(doctor(&harness).one("schema").0, "ok");
}

#[test]
fn doctor_with_an_unusable_database_exits_5() {
    let harness = Installation::swept(PROGRAM, 5);
    let path = harness.path("komoju.db");
    let good = fs::read(&path).unwrap();
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let cases = [
        (patched(60, &99_u32.to_be_bytes()), "newer komoju-sync"),
        (b"Dear diary,\n".repeat(50), "is not a komoju-sync database"),
        (patched(8192, &[0xAA; 4096]), "is damaged"),
    ];
    for (content, part) in cases {
        fs::write(&path, &content).unwrap();
        let report = doctor(&harness);
        assert_eq!((report.code, report.one("schema").0), (5, "fail"), "{}", report.text);
        assert!(report.one("schema").1.contains(part), "{part}: {}", report.text);
        assert_eq!((report.one("account").0, report.one("state").0), ("skip", "skip"), "{}", report.text);
        assert!(fs::read(&path).unwrap() == content);
    }
    fs::remove_file(&path).unwrap();
    fs::write(harness.path("komoju.db-wal"), "left over").unwrap();
    assert_eq!(doctor(&harness).code, 5, "a WAL without its database is not reported");
    harness.replace_in_config("komoju.db", "nowhere/komoju.db");
    let report = doctor(&harness);
    assert_eq!(report.code, 5, "{}", report.text);
    assert!(report.one("permissions").1.contains("install -d"), "{}", report.text);
}

#[test]
fn doctor_with_a_wrong_configuration_exits_2_and_shows_no_secret() {
    let harness = Installation::with(PROGRAM, 0);
    fs::write(harness.path("config.toml"), format!("[api]\nper_page = 0\nsecret_key = \"{KEY}\"\n")).unwrap();
    let report = doctor(&harness);
    assert_eq!((report.code, report.levels("config")), (2, vec!["fail", "warn"]), "{}", report.text);
    for part in ["api.per_page", "api.secret_key", "line 3"] {
        assert!(report.text.contains(part), "{part}: {}", report.text);
    }
    assert_eq!(report.one("state").0, "skip");
    fs::remove_file(harness.path("config.toml")).unwrap();
    let report = doctor(&harness);
    assert_eq!((report.code, report.levels("config")), (2, vec!["fail"]), "{}", report.text);
}

#[test]
fn doctor_checks_the_alert_program_and_the_http_address() {
    let harness = Installation::with(PROGRAM, 1);
    let program = harness.path("notify");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    harness.replace_in_config(
        "[outbound]\n",
        &format!(
            "[http]\nlisten = \"0.0.0.0:9187\"\n[alerts]\ncommand = '{}'\n[outbound]\n",
            program.display()
        ),
    );
    let report = doctor(&harness);
    assert_eq!(
        (report.code, report.one("alerts").0, report.one("http").0),
        (1, "fail", "warn"),
        "{}",
        report.text
    );
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(doctor(&harness).one("alerts").0, "ok");
}

#[test]
fn doctor_names_files_that_stay_in_the_spool_with_the_reason() {
    let harness = Installation::swept(PROGRAM, 1);
    let spool = harness.path("spool");
    let at = |name: &str| spool.join(name);
    fs::write(at("fine.json"), "{}").unwrap();
    fs::write(at(".hidden"), "").unwrap();
    fs::write(at("notes.txt"), "").unwrap();
    fs::write(at(&format!("z-{KEY}.txt")), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("link.json")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe.json")).status().unwrap().success());
    let report = doctor(&harness);
    let of_spool = |report: &DoctorReport| {
        let lines = report.findings.iter().filter(|finding| finding["check"] == "spool");
        lines.map(|finding| format!("{} {}", finding["finding"], finding["advice"])).collect::<Vec<_>>()
    };
    let lines = of_spool(&report);
    assert_eq!((report.code, lines.len()), (0, 4), "{}", report.text);
    for (line, part) in lines.iter().zip(["link.json stays", "notes.txt stays", "pipe.json stays", "z-****"])
    {
        assert!(line.contains(part), "{line}");
    }
    fs::set_permissions(&spool, Permissions::from_mode(0o777)).unwrap();
    assert!(of_spool(&doctor(&harness))[0].contains("chmod 3770"), "{}", report.text);
}

#[test]
fn doctor_fails_when_two_daemons_share_a_spool() {
    let (first, second) = (Installation::swept(PROGRAM, 1), Installation::swept(PROGRAM, 1));
    let config = fs::read_to_string(second.path("config.toml")).unwrap();
    let own = second.path("spool").display().to_string();
    fs::write(second.path("config.toml"), config.replace(&own, &first.path("spool").display().to_string()))
        .unwrap();
    let taking = first.spawn(&["run"]);
    // Polls for at most half a minute, because a lock of another process gives no signal.
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        assert!(
            (0..3000).any(|_| holds() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }),
            "{what}"
        );
    };
    let shared = |harness: &Installation| {
        let report = doctor(harness);
        let (level, finding) = report.one("spool");
        (level.to_owned(), finding.to_owned())
    };
    // Before the second daemon starts, doctor sees the lock; afterwards the daemon records the
    // problem.
    eventually("the lock is taken", &|| shared(&second).0 == "fail");
    let waiting = second.spawn(&["run"]);
    eventually("the second daemon records the problem", &|| {
        second.one("SELECT spool_problem IS NOT NULL FROM meta") == "1"
    });
    assert_eq!((shared(&second).0, shared(&first).0), ("fail".to_owned(), "ok".to_owned()));
    let report = second.run(&["status"]).stdout;
    assert!(report.contains("no file is taken") && report.contains("another komoju-sync"), "{report}");
    drop((taking, waiting));
}

#[test]
fn doctor_as_root_names_files_that_the_service_cannot_use() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Only root can change the owner of a file.
        return;
    }
    let harness = Installation::swept(PROGRAM, 1);
    let service = Some(65_534);
    std::os::unix::fs::chown(harness.directory.path(), service, service).unwrap();
    std::os::unix::fs::chown(harness.path("spool"), service, service).unwrap();
    let file = harness.path("spool").join("a.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let report = doctor(&harness);
    assert_eq!((report.code, report.one("permissions").0), (5, "fail"), "{}", report.text);
    assert!(report.one("permissions").1.contains("ran as root"), "{}", report.text);
    assert!(
        // word: the name of a user of the system
        report.one("spool").1.contains("belongs to root and cannot be read by nobody: `chmod g+r "),
        "{}",
        report.text
    );
}

#[test]
fn doctor_names_the_process_that_locks_the_database() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let conn = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let report = doctor_of(&mut harness.command(&["doctor", "--json"]));
    let holder = format!("(process {})", std::process::id());
    assert!(report.text.contains("is locked by") && report.text.contains(&holder), "{}", report.text);
    conn.execute_batch("ROLLBACK").unwrap();
    let report = doctor_of(&mut harness.command(&["doctor", "--json"]));
    assert!(!report.text.contains("is locked by"), "{}", report.text);
}
