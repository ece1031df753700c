//! `doctor`: before the first start, beside a daemon, and with everything broken.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use komoju_sandbox::{Effect, OldKey, Refusal};
use komoju_sync::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::house::{House, KEY, own};

/// A certificate of nobody: with it the program has some to begin with, on a machine that has none too.
const CERTIFICATE: &str = include_str!("../fixtures/nobody.pem");

/// What it said, by check; a check may say several things.
struct Told {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Told {
    fn levels(&self, check: &str) -> Vec<&str> {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    /// The one thing that is said of a check: its level, and all its words.
    fn one(&self, check: &str) -> (&str, String) {
        let found: Vec<_> = self.findings.iter().filter(|finding| finding["check"] == check).collect();
        assert_eq!(found.len(), 1, "{check}: {}", self.text);
        let words = ["finding", "advice"].map(|part| found[0][part].as_str().unwrap_or_default());
        (found[0]["level"].as_str().unwrap(), words.join(" → "))
    }

    /// Everything that is not as it should be, by check. But for the disk of the machine that runs the tests: it may be nearly full,
    /// or in memory, and that it is said is right. What is said of which disk is held beside that check.
    fn complaints(&self) -> Vec<&str> {
        let bad =
            self.findings.iter().filter(|finding| finding["level"] == "warn" || finding["level"] == "fail");
        bad.map(|finding| finding["check"].as_str().unwrap()).filter(|check| *check != "disk").collect()
    }
}

fn doctor_of(command: &mut Command) -> Told {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (told, aside) = (text(&output.stdout), text(&output.stderr));
    assert!(!told.contains(&KEY[8..]) && !aside.contains(&KEY[8..]), "the key is printed: {told}{aside}");
    let findings: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for finding in &findings {
        let needs_advice = ["warn", "fail"].contains(&finding["level"].as_str().unwrap());
        assert_eq!(finding["advice"].is_string(), needs_advice, "{finding}");
    }
    Told { code: output.status.code().unwrap(), findings, text: told + &aside }
}

fn doctor(house: &House) -> Told {
    doctor_of(&mut house.command(&["doctor", "--json"]))
}

/// The same with the key in a file, which nobody else may read.
fn with_key_file(house: &House) -> Told {
    let file = house.path("the-key");
    if !file.exists() {
        fs::write(&file, KEY).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        reconfigure(house, "[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", file.display()));
    }
    doctor_of(house.command(&["doctor", "--json"]).env_remove("KOMOJU_SECRET_KEY"))
}

fn reconfigure(house: &House, from: &str, to: &str) {
    let path = house.path("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Every file below the house with its bytes, mode, owner and times.
fn all_files(house: &House) -> BTreeMap<String, (Vec<u8>, u32, u32, i64, i64)> {
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
    walk(house.directory.path(), &mut found);
    found
}

fn assert_untouched(house: &House, before: &BTreeMap<String, (Vec<u8>, u32, u32, i64, i64)>) {
    let after = all_files(house);
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (name, facts) in before {
        assert!(after[name] == *facts, "{name} is not as it was");
    }
}

/// A house whose mirror has `customers`.
fn swept(customers: u32) -> House {
    let house = House::with(customers);
    house.expect(0, &["sync"]);
    house
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
fn before_the_first_start_nothing_is_wrong_and_nothing_is_made() {
    let house = House::with(7);
    with_key_file(&house);
    let before = all_files(&house);
    let told = with_key_file(&house);
    assert_eq!((told.code, told.complaints()), (0, vec![]), "{}", told.text);
    assert!(told.one("api").1.contains("7 customers, 10 a page"), "{}", told.text);
    assert_untouched(&house, &before);
    assert_eq!(house.sandbox.world().request_count(), 2, "one look each");
}

#[test]
fn after_a_sync_each_check_is_fine_and_nothing_is_touched() {
    let house = swept(12);
    with_key_file(&house);
    let asked = house.sandbox.world().request_count();
    let before = all_files(&house);
    let told = with_key_file(&house);
    assert_untouched(&house, &before);
    assert_eq!((told.code, told.complaints()), (0, vec![]), "{}", told.text);
    assert_eq!(CHECKS.map(|check| told.levels(check)), CHECKS.map(|_| vec!["ok"]), "{}", told.text);
    assert_eq!(house.sandbox.world().request_count(), asked + 1);
}

#[test]
fn for_people_it_is_a_line_a_check_with_what_to_do_below() {
    let house = swept(3);
    let ran = house.expect(0, &["doctor"]);
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
    let documented = include_str!("../../docs/doctor.md");
    for check in CHECKS.into_iter().chain(["disk"]) {
        assert!(documented.contains(&format!("| `{check}` |")), "{check}");
    }
}

#[test]
fn beside_a_running_daemon_it_is_fine_and_touches_nothing() {
    let house = House::with(12).inbound("sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"");
    let mut daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.request_count() > 1));
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('change_log_by_customer', 'mirror_by_email')";
    let swept =
        || house.path("spool").exists() && house.path("komoju.db").exists() && house.one(indexes) == "2";
    let clock = SystemClock::new();
    let settled = |clock: &SystemClock| {
        let before = all_files(&house);
        house.runtime.block_on(async { clock.sleep(Duration::from_millis(300)).await });
        before == all_files(&house)
    };
    while !(swept() && settled(&clock)) {
        assert!(clock.elapsed() < Duration::from_secs(30), "the daemon never rests");
    }
    let before = all_files(&house);
    let told = doctor(&house);
    assert_untouched(&house, &before);
    assert_eq!((told.code, told.complaints()), (0, vec!["key"]), "{}", told.text);
    assert!(told.one("instance").1.contains("`komoju-sync run` (process "), "{}", told.text);

    // Killed: what it had not taken over from the WAL is read from there.
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let before = all_files(&house);
    assert!(!before[&house.path("komoju.db-wal").display().to_string()].0.is_empty());
    let told = doctor(&house);
    assert_untouched(&house, &before);
    assert_eq!((told.code, told.complaints()), (0, vec!["key"]), "{}", told.text);
    assert_eq!(told.one("account").0, "ok");
    assert!(told.one("instance").1.contains("nobody"), "{}", told.text);

    // Without the -shm, the database alone would be only a part of it.
    fs::remove_file(house.path("komoju.db-shm")).unwrap();
    let before = all_files(&house);
    let told = doctor(&house);
    assert_untouched(&house, &before);
    assert_eq!(
        (told.code, told.one("permissions").0, told.one("schema").0),
        (0, "warn", "skip"),
        "{}",
        told.text
    );
}

#[test]
fn a_refused_key_exits_4() {
    let mut house = swept(3);
    house.use_key("sk_test_wrong");
    let told = doctor(&house);
    assert_eq!((told.code, told.one("api").0), (4, "fail"), "{}", told.text);
    assert!(told.one("api").1.contains("restart the daemon"), "{}", told.text);
    house.use_key("pk_test_public");
    let told = doctor(&house);
    assert_eq!(told.code, 2, "{}", told.text);
    assert!(told.findings.iter().any(|finding| finding["finding"].as_str().unwrap().contains("publishable")));
}

#[test]
fn a_key_that_is_nowhere_exits_2_and_the_units_is_found() {
    let house = House::with(3);
    let mut command = house.command(&["doctor", "--json"]);
    let told = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!((told.code, told.one("key").0, told.one("api").0), (2, "fail", "skip"), "{}", told.text);
    assert!(told.one("key").1.contains("install -m 0400"), "{}", told.text);

    let file = house.path("secret-key");
    fs::write(&file, KEY).unwrap();
    for (mode, code, level) in [(0o400, 0, "ok"), (0o440, 0, "warn"), (0o444, 1, "fail")] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let told = doctor_of(&mut command);
        assert_eq!((told.code, told.one("key").0, told.one("api").0), (code, level, "ok"), "{}", told.text);
    }
    let told = doctor_of(command.env("KOMOJU_SECRET_KEY", "sk_test_another"));
    assert!(told.text.contains("is not the one in"), "{}", told.text);
    fs::write(&file, format!("{KEY} {KEY}")).unwrap();
    let told = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!(told.code, 2);
    assert!(told.one("key").1.contains("white space"), "{}", told.text);
}

#[test]
fn what_cannot_be_reached_says_where_it_ended() {
    let house = House::with(3);
    let url = house.sandbox.base_url();
    let certificate = house.path("nobody.pem");
    fs::write(&certificate, CERTIFICATE).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut known = url.clone();
    let cases = [
        (format!("http://{nobody}/api/v1"), "see that this machine may connect to 127.0.0.1"),
        (url.replace("http:", "https:"), "ca-certificates"),
        ("https://nowhere.invalid/api/v1".to_owned(), "getent hosts nowhere.invalid"),
        (url.replace("/api/v1", "/elsewhere"), "see that api.base_url"),
    ];
    for (wrong, part) in cases {
        reconfigure(&house, &known, &wrong);
        known = wrong;
        let mut command = house.command(&["doctor", "--json"]);
        let told = doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
        assert_eq!((told.code, told.one("api").0), (1, "fail"), "{}", told.text);
        assert!(told.one("api").1.contains(part), "{part}: {}", told.text);
    }
    reconfigure(&house, &known, "https://komoju.com/api/v1\"\nproxy = \"http://me:Q1Q@PROXY");
    reconfigure(&house, "PROXY", &nobody.to_string());
    let mut command = house.command(&["doctor", "--json"]);
    let told = doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
    assert!(told.one("api").1.contains("see that the proxy http://****@127.0.0.1"), "{}", told.text);
    assert!(!told.text.contains("Q1Q"), "{}", told.text);
}

#[test]
fn a_firewall_in_front_is_no_refusal_and_one_hiccup_is_nothing() {
    let house = House::with(3);
    house.sandbox.world().refuse_key(Some(Refusal::Html403));
    let told = doctor(&house);
    assert_eq!(told.code, 1, "{}", told.text);
    assert!(told.one("api").1.contains("a firewall in front of the API"), "{}", told.text);
    house.sandbox.world().refuse_key(None);
    house.inject(komoju_sandbox::Fault::new(Effect::Reset { work: Default::default() }).once());
    assert_eq!(doctor(&house).one("api").0, "ok");
}

#[test]
fn an_api_that_never_answers_is_not_waited_for() {
    let house = House::with(3);
    reconfigure(&house, "per_page = 10\n", "per_page = 10\nrequest_timeout_s = 1\n");
    house.on_lists(Effect::Hold);
    let since = SystemClock::new();
    let told = doctor(&house);
    assert_eq!(told.code, 1, "{}", told.text);
    assert!(told.one("api").1.contains("it took too long"), "{}", told.text);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[test]
fn clocks_that_differ_are_told_by_how_much() {
    let house = House::with(3);
    for (seconds, code, level) in [(20, 0, "warn"), (300, 1, "fail"), (-300, 1, "fail")] {
        let now = SystemClock::new().now();
        house.sandbox.world().set_now(now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap());
        let told = doctor(&house);
        assert_eq!((told.code, told.one("clock").0), (code, level), "{}", told.text);
        let way = if seconds > 0 { "behind" } else { "ahead of" };
        assert!(told.one("clock").1.contains(way), "{}", told.text);
    }
}

#[test]
fn a_database_without_its_companions_warns_and_they_are_not_made() {
    let house = swept(12);
    for missing in ["komoju.db-wal", "komoju.db-shm"] {
        fs::remove_file(house.path(missing)).unwrap();
        let before = all_files(&house);
        let told = doctor(&house);
        assert_untouched(&house, &before);
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
fn what_waits_for_a_person_exits_3() {
    let house = swept(60);
    let ids = house.sandbox.world().ids();
    for id in &ids[..40] {
        house.sandbox.world().delete(id);
    }
    house.expect(3, &["sync"]);
    let told = doctor(&house);
    assert_eq!((told.code, told.one("state").0), (3, "warn"), "{}", told.text);
    assert!(told.one("state").1.contains("waiting for an operator: 40 held deletions"), "{}", told.text);
}

#[test]
fn a_key_of_another_account_is_seen_before_the_daemon_meets_it_and_after() {
    let mut house = swept(12);
    house.sandbox.world().add_account("sk_test_other", 9, 12);
    house.use_key("sk_test_other");
    let asked = house.sandbox.world().request_count();
    let told = doctor(&house);
    assert_eq!((told.code, told.one("account").0), (3, "warn"), "{}", told.text);
    assert!(told.one("account").1.contains("does not know a customer of it"), "{}", told.text);
    assert_eq!(house.sandbox.world().request_count(), asked + 2);
    house.expect(3, &["sync"]);
    let told = doctor(&house);
    assert_eq!(told.code, 3);
    assert!(told.one("account").1.contains("account accept"), "{}", told.text);

    house.use_key(KEY);
    assert_eq!(doctor(&house).one("account").0, "ok");
    house.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    house.use_key("sk_test_new");
    house.expect(0, &["sync"]);
    house.sandbox.world().rotate_key("sk_test_newer", OldKey::Revoked);
    house.use_key("sk_test_newer");
    let told = doctor(&house);
    assert!(told.one("account").1.contains("reads the same account"), "{}", told.text);
}

#[test]
fn a_key_that_is_taken_again_asks_for_a_restart() {
    let house = swept(3);
    house.sandbox.world().refuse_key(Some(Refusal::Json401));
    house.expect(4, &["sync"]);
    assert_eq!(doctor(&house).code, 4);
    house.sandbox.world().refuse_key(None);
    let told = doctor(&house);
    assert_eq!((told.code, told.one("state").0), (0, "warn"), "{}", told.text);
    assert!(told.one("state").1.contains("restart the daemon"), "{}", told.text);
}

#[test]
fn what_the_api_asked_to_wait_is_kept() {
    let house = swept(3);
    let conn = own(&house.path("komoju.db"));
    conn.execute_batch(
        "UPDATE meta SET throttled_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+10 minutes')",
    )
    .unwrap();
    let asked = house.sandbox.world().request_count();
    let told = doctor(&house);
    assert_eq!(told.one("api").0, "skip", "{}", told.text);
    assert!(told.one("api").1.contains("until 20"), "{}", told.text);
    assert_eq!(house.sandbox.world().request_count(), asked);
}

#[test]
fn a_database_that_cannot_be_used_exits_5() {
    let house = swept(5);
    let path = house.path("komoju.db");
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
        let told = doctor(&house);
        assert_eq!((told.code, told.one("schema").0), (5, "fail"), "{}", told.text);
        assert!(told.one("schema").1.contains(part), "{part}: {}", told.text);
        assert_eq!((told.one("account").0, told.one("state").0), ("skip", "skip"), "{}", told.text);
        assert!(fs::read(&path).unwrap() == content);
    }
    fs::remove_file(&path).unwrap();
    fs::write(house.path("komoju.db-wal"), "left over").unwrap();
    assert_eq!(doctor(&house).code, 5, "a WAL without its database");
    reconfigure(&house, "komoju.db", "nowhere/komoju.db");
    let told = doctor(&house);
    assert_eq!(told.code, 5, "{}", told.text);
    assert!(told.one("permissions").1.contains("install -d"), "{}", told.text);
}

#[test]
fn a_wrong_configuration_exits_2_with_every_problem_and_shows_no_secret() {
    let house = House::with(0);
    fs::write(house.path("config.toml"), format!("[api]\nper_page = 0\nsecret_key = \"{KEY}\"\n")).unwrap();
    let told = doctor(&house);
    assert_eq!((told.code, told.levels("config")), (2, vec!["fail", "warn"]), "{}", told.text);
    for part in ["api.per_page", "api.secret_key", "line 3"] {
        assert!(told.text.contains(part), "{part}: {}", told.text);
    }
    assert_eq!(told.one("state").0, "skip");
    fs::remove_file(house.path("config.toml")).unwrap();
    let told = doctor(&house);
    assert_eq!((told.code, told.levels("config")), (2, vec!["fail"]), "{}", told.text);
}

#[test]
fn programs_and_addresses_of_the_configuration_are_looked_at() {
    let house = House::with(1);
    let program = house.path("notify");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    reconfigure(
        &house,
        "[outbound]\n",
        &format!(
            "[http]\nlisten = \"0.0.0.0:9187\"\n[alerts]\ncommand = '{}'\n[outbound]\n",
            program.display()
        ),
    );
    let told = doctor(&house);
    assert_eq!((told.code, told.one("alerts").0, told.one("http").0), (1, "fail", "warn"), "{}", told.text);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(doctor(&house).one("alerts").0, "ok");
}

#[test]
fn files_that_stay_in_the_spool_are_named_with_the_reason() {
    let house = swept(1);
    let spool = house.path("spool");
    let at = |name: &str| spool.join(name);
    fs::write(at("fine.json"), "{}").unwrap();
    fs::write(at(".hidden"), "").unwrap();
    fs::write(at("notes.txt"), "").unwrap();
    fs::write(at(&format!("z-{KEY}.txt")), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("link.json")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe.json")).status().unwrap().success());
    let told = doctor(&house);
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
    assert!(of_spool(&doctor(&house))[0].contains("chmod 3770"), "{}", told.text);
}

#[test]
fn a_spool_that_two_daemons_share_fails() {
    let (first, second) = (swept(1), swept(1));
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
    let shared = |house: &House| {
        let told = doctor(house);
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
fn what_the_services_user_could_not_use_is_told_to_root() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Only root gives files away.
        return;
    }
    let house = swept(1);
    let nobody = Some(65_534);
    std::os::unix::fs::chown(house.directory.path(), nobody, nobody).unwrap();
    std::os::unix::fs::chown(house.path("spool"), nobody, nobody).unwrap();
    let file = house.path("spool").join("a.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let told = doctor(&house);
    assert_eq!((told.code, told.one("permissions").0), (5, "fail"), "{}", told.text);
    assert!(told.one("permissions").1.contains("ran as root"), "{}", told.text);
    assert!(
        told.one("spool").1.contains("belongs to root and cannot be read by nobody: `chmod g+r "),
        "{}",
        told.text
    );
}

#[test]
fn each_account_has_its_own_key() {
    let house = House::with(3);
    let shop = house.path("shop.toml");
    fs::copy(house.path("config.toml"), &shop).unwrap();
    fs::write(house.path("secret-key"), "sk_test_of_another_account").unwrap();
    fs::set_permissions(house.path("secret-key"), Permissions::from_mode(0o400)).unwrap();
    let mut command = house.command(&["doctor", "--json", "--config"]);
    command.arg(&shop).env_remove("KOMOJU_SECRET_KEY");
    let told = doctor_of(&mut command);
    assert_eq!(
        (told.code, told.one("key").0),
        (2, "fail"),
        "the first account's is not looked at: {}",
        told.text
    );
    fs::write(house.path("shop.secret-key"), KEY).unwrap();
    fs::set_permissions(house.path("shop.secret-key"), Permissions::from_mode(0o400)).unwrap();
    let told = doctor_of(&mut command);
    assert_eq!((told.code, told.one("key").0, told.one("api").0), (0, "ok", "ok"), "{}", told.text);
}

#[test]
fn whoever_keeps_the_database_locked_is_named() {
    let house = House::with(3);
    house.expect(0, &["sync"]);
    let conn = rusqlite::Connection::open(house.path("komoju.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = doctor_of(&mut house.command(&["doctor", "--json"]));
    let who = format!("(process {})", std::process::id());
    assert!(told.text.contains("is locked by") && told.text.contains(&who), "{}", told.text);
    conn.execute_batch("ROLLBACK").unwrap();
    let told = doctor_of(&mut house.command(&["doctor", "--json"]));
    assert!(!told.text.contains("is locked by"), "{}", told.text);
}
