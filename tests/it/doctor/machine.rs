//! Configuration, permissions, disk, WAL, schema, spool and other processes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Installation, KEY};

use super::{Told, doctor, doctor_of};
use crate::PROGRAM;

/// The same with the key in a file, which nobody else may read.
fn with_key_file(harness: &Installation) -> Told {
    let file = harness.path("the-key");
    if !file.exists() {
        fs::write(&file, KEY).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        harness.replace_in_config("[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", file.display()));
    }
    doctor_of(harness.command(&["doctor", "--json"]).env_remove("KOMOJU_SECRET_KEY"))
}

/// Every file below the directory with its bytes, mode, owner and times.
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
        assert!(after[name] == *facts, "{name} is not as it was");
    }
}

/// All but the disk, which is as the machine has it.
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
    let told = with_key_file(&harness);
    assert_eq!((told.code, told.complaints()), (0, vec![]), "{}", told.text);
    assert!(told.one("api").1.contains("7 customers, 10 a page"), "{}", told.text);
    assert_untouched(&harness, &before);
    assert_eq!(harness.sandbox.world().request_count(), 2, "one look each");
}

#[test]
fn doctor_after_a_sync_is_ok_and_touches_nothing() {
    let harness = Installation::swept(PROGRAM, 12);
    with_key_file(&harness);
    let asked = harness.sandbox.world().request_count();
    let before = all_files(&harness);
    let told = with_key_file(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((told.code, told.complaints()), (0, vec![]), "{}", told.text);
    assert_eq!(CHECKS.map(|check| told.levels(check)), CHECKS.map(|_| vec!["ok"]), "{}", told.text);
    assert_eq!(harness.sandbox.world().request_count(), asked + 1);
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
        assert!(clock.elapsed() < Duration::from_secs(30), "the daemon never rests");
    }
    let before = all_files(&harness);
    let told = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((told.code, told.complaints()), (0, vec!["key"]), "{}", told.text);
    assert!(told.one("instance").1.contains("`komoju-sync run` (process "), "{}", told.text);

    // Killed: what it had not taken over from the WAL is read from there.
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let before = all_files(&harness);
    assert!(!before[&harness.path("komoju.db-wal").display().to_string()].0.is_empty());
    let told = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!((told.code, told.complaints()), (0, vec!["key"]), "{}", told.text);
    assert_eq!(told.one("account").0, "ok");
    assert!(told.one("instance").1.contains("nobody"), "{}", told.text);

    // Without the -shm, the database alone would be only a part of it.
    fs::remove_file(harness.path("komoju.db-shm")).unwrap();
    let before = all_files(&harness);
    let told = doctor(&harness);
    assert_untouched(&harness, &before);
    assert_eq!(
        (told.code, told.one("permissions").0, told.one("schema").0),
        (0, "warn", "skip"),
        "{}",
        told.text
    );
}

#[test]
fn doctor_warns_of_a_missing_wal_or_shm_and_makes_none() {
    let harness = Installation::swept(PROGRAM, 12);
    for missing in ["komoju.db-wal", "komoju.db-shm"] {
        fs::remove_file(harness.path(missing)).unwrap();
        let before = all_files(&harness);
        let told = doctor(&harness);
        assert_untouched(&harness, &before);
        assert_eq!(
            (told.code, told.one("permissions").0, told.one("schema").0),
            (0, "warn", "ok"),
            "{}",
            told.text
        );
        assert!(told.one("permissions").1.contains("komoju-sync sync"), "{}", told.text);
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
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("state").0), (3, "warn"), "{}", told.text);
    assert!(told.one("state").1.contains("waiting for an operator: 40 held deletions"), "{}", told.text);
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
        let told = doctor(&harness);
        assert_eq!((told.code, told.one("schema").0), (5, "fail"), "{}", told.text);
        assert!(told.one("schema").1.contains(part), "{part}: {}", told.text);
        assert_eq!((told.one("account").0, told.one("state").0), ("skip", "skip"), "{}", told.text);
        assert!(fs::read(&path).unwrap() == content);
    }
    fs::remove_file(&path).unwrap();
    fs::write(harness.path("komoju.db-wal"), "left over").unwrap();
    assert_eq!(doctor(&harness).code, 5, "a WAL without its database");
    harness.replace_in_config("komoju.db", "nowhere/komoju.db");
    let told = doctor(&harness);
    assert_eq!(told.code, 5, "{}", told.text);
    assert!(told.one("permissions").1.contains("install -d"), "{}", told.text);
}

#[test]
fn doctor_with_a_wrong_configuration_exits_2_and_shows_no_secret() {
    let harness = Installation::with(PROGRAM, 0);
    fs::write(harness.path("config.toml"), format!("[api]\nper_page = 0\nsecret_key = \"{KEY}\"\n")).unwrap();
    let told = doctor(&harness);
    assert_eq!((told.code, told.levels("config")), (2, vec!["fail", "warn"]), "{}", told.text);
    for part in ["api.per_page", "api.secret_key", "line 3"] {
        assert!(told.text.contains(part), "{part}: {}", told.text);
    }
    assert_eq!(told.one("state").0, "skip");
    fs::remove_file(harness.path("config.toml")).unwrap();
    let told = doctor(&harness);
    assert_eq!((told.code, told.levels("config")), (2, vec!["fail"]), "{}", told.text);
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
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("alerts").0, told.one("http").0), (1, "fail", "warn"), "{}", told.text);
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
    let told = doctor(&harness);
    let of_spool = |told: &Told| {
        let lines = told.findings.iter().filter(|finding| finding["check"] == "spool");
        lines.map(|finding| format!("{} {}", finding["finding"], finding["advice"])).collect::<Vec<_>>()
    };
    let lines = of_spool(&told);
    assert_eq!((told.code, lines.len()), (0, 4), "{}", told.text);
    for (line, part) in lines.iter().zip(["link.json stays", "notes.txt stays", "pipe.json stays", "z-****"])
    {
        assert!(line.contains(part), "{line}");
    }
    fs::set_permissions(&spool, Permissions::from_mode(0o777)).unwrap();
    assert!(of_spool(&doctor(&harness))[0].contains("chmod 3770"), "{}", told.text);
}

#[test]
fn doctor_fails_when_two_daemons_share_a_spool() {
    let (first, second) = (Installation::swept(PROGRAM, 1), Installation::swept(PROGRAM, 1));
    let config = fs::read_to_string(second.path("config.toml")).unwrap();
    let own = second.path("spool").display().to_string();
    fs::write(second.path("config.toml"), config.replace(&own, &first.path("spool").display().to_string()))
        .unwrap();
    let taking = first.spawn(&["run"]);
    // Polls for at most half a minute: the daemons are other processes, and a lock gives no signal.
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
        let told = doctor(harness);
        let (level, finding) = told.one("spool");
        (level.to_owned(), finding.to_owned())
    };
    // Before the second daemon starts, the lock says it; while it runs, it says so itself.
    eventually("the lock is taken", &|| shared(&second).0 == "fail");
    let waiting = second.spawn(&["run"]);
    eventually("the second daemon says so", &|| {
        second.one("SELECT spool_problem IS NOT NULL FROM meta") == "1"
    });
    assert_eq!((shared(&second).0, shared(&first).0), ("fail".to_owned(), "ok".to_owned()));
    let told = second.run(&["status"]).stdout;
    assert!(told.contains("no file is taken") && told.contains("another komoju-sync"), "{told}");
    drop((taking, waiting));
}

#[test]
fn doctor_as_root_names_files_that_the_service_cannot_use() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Only root gives files away.
        return;
    }
    let harness = Installation::swept(PROGRAM, 1);
    let nobody = Some(65_534);
    std::os::unix::fs::chown(harness.directory.path(), nobody, nobody).unwrap();
    std::os::unix::fs::chown(harness.path("spool"), nobody, nobody).unwrap();
    let file = harness.path("spool").join("a.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("permissions").0), (5, "fail"), "{}", told.text);
    assert!(told.one("permissions").1.contains("ran as root"), "{}", told.text);
    assert!(
        told.one("spool").1.contains("belongs to root and cannot be read by nobody: `chmod g+r "),
        "{}",
        told.text
    );
}

#[test]
fn doctor_names_the_process_that_locks_the_database() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let conn = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = doctor_of(&mut harness.command(&["doctor", "--json"]));
    let who = format!("(process {})", std::process::id());
    assert!(told.text.contains("is locked by") && told.text.contains(&who), "{}", told.text);
    conn.execute_batch("ROLLBACK").unwrap();
    let told = doctor_of(&mut harness.command(&["doctor", "--json"]));
    assert!(!told.text.contains("is locked by"), "{}", told.text);
}
