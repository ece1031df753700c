//! Alerts: whom they run, when, how often, and with what.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault, Work};
use komoju_sync::clock::SystemClock;
use serde_json::Value;

use crate::house::{House, KEY, own};
use crate::metrics::eventually_is;
use crate::{Daemon, configure, eventually};

/// Longer than any change takes to be told: that nothing is told, only time can show.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// A program that keeps what it is told, and then does this.
fn program(house: &House, then: &str) -> PathBuf {
    let path = house.path("notify");
    let told = house.path("told");
    let script = format!("#!/bin/sh\ncat >> '{}'\n{then}\n", told.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn alerting(house: &House, then: &str) {
    let path = program(house, then);
    configure(house, &format!("[alerts]\ncommand = ['{}', '--from', 'here']", path.display()));
}

fn told(house: &House) -> Vec<Value> {
    let text = std::fs::read_to_string(house.path("told")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn kinds(house: &House) -> Vec<String> {
    told(house).iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
}

fn sql(house: &House, statements: &str) {
    own(&house.path("komoju.db")).execute_batch(statements).unwrap();
}

/// Drops an intent that will park, `id` ending with the number of its customer: one that is parked keeps those behind it.
fn park(house: &House, id: &str) {
    let customer = house.sandbox.world().ids()[usize::from(id.as_bytes()[1] - b'0')].clone();
    sql(
        house,
        &format!(
            "INSERT INTO intents (id, op, customer_id, body, expect)
             VALUES ('{id}', 'update', '{customer}', '{{\"email\": \"secret@example.jp\"}}', '{{\"locale\": \"xx\"}}')"
        ),
    );
}

fn parks(house: &House, id: &str) {
    park(house, id);
    eventually("it is parked", || {
        house.one(&format!("SELECT state FROM intents WHERE id = '{id}'")) == "parked"
    });
}

/// Every list is refused for good: a sweep fails at once.
fn no_lists() -> Fault {
    Fault::new(Effect::Status {
        status: 422,
        body: Default::default(),
        retry_after: None,
        headers: Default::default(),
        work: Work::Skipped,
    })
    .call(Call::List)
}

#[test]
fn a_parked_intent_is_told_once_until_it_clears_and_another_one_within_the_hour_after() {
    let house = House::with(3);
    alerting(&house, "");
    let mut daemon = Daemon::start(&house);
    eventually("the first sweep", || house.path("komoju.db").exists() && daemon.said().contains("complete"));
    parks(&house, "p0");
    eventually("the alert is sent", || kinds(&house) == ["parked_intents"]);
    let alert = &told(&house)[0];
    assert_eq!((&alert["count"], &alert["new"], &alert["oldest"]), (&1.into(), &1.into(), &"p0".into()));
    assert!(
        alert["sentence"].as_str().unwrap().contains("1 intent is parked and waits for an operator"),
        "{alert}"
    );
    assert!(
        alert["sentence"].as_str().unwrap().contains("komoju-sync intent list --state parked"),
        "{alert}"
    );
    assert_eq!(alert["database"], house.path("komoju.db").to_str().unwrap());
    assert!(!alert["host"].as_str().unwrap().is_empty());

    // Neither time, nor a restart, nor another one at once tells again.
    parks(&house, "p1");
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = Daemon::start(&house);
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(told(&house).len(), 1);
    // An hour later the other one is.
    sql(
        &house,
        "UPDATE alert SET told_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-61 minutes') WHERE told_at IS NOT NULL",
    );
    eventually("the other one is told", || told(&house).len() == 2);
    let alert = &told(&house)[1];
    assert_eq!((&alert["count"], &alert["new"], &alert["oldest"]), (&2.into(), &1.into(), &"p0".into()));

    // What cleared is forgotten; what comes up then is told at once.
    house.expect(0, &["intent", "cancel", "p0"]);
    house.expect(0, &["intent", "cancel", "p1"]);
    eventually("it has cleared", || house.one("SELECT count(*) FROM alert") == "0");
    parks(&house, "p2");
    eventually("the alert is sent", || told(&house).len() == 3);
    assert_eq!(told(&house)[2]["oldest"], "p2");
    eventually("that is noted", || house.one("SELECT count(*) FROM alert WHERE told_at IS NULL") == "0");

    // Nothing is written while nothing changes.
    let before = std::fs::metadata(house.path("komoju.db-wal")).unwrap().modified().unwrap();
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(std::fs::metadata(house.path("komoju.db-wal")).unwrap().modified().unwrap(), before);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn each_kind_is_told_with_what_to_do_and_the_documentation_tells_its_keys() {
    let mut house = House::with(60);
    house.expect(0, &["sync"]);
    alerting(&house, "");
    configure(&house, "");
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(
        house.path("config.toml"),
        text.replace("[outbound]\n", "[outbound]\nhold_deletes_over = 0\n"),
    )
    .unwrap();
    let ids = house.sandbox.world().ids();
    for id in &ids[..20] {
        assert!(house.sandbox.world().delete(id));
    }
    sql(&house, &format!("INSERT INTO intents (id, op, customer_id) VALUES ('d1', 'delete', '{}')", ids[30]));
    park(&house, "p0");
    let mut daemon = Daemon::start(&house);
    eventually("three are told", || told(&house).len() == 3);
    daemon.stop();

    // Another key, which knows none of them: another account.
    sql(&house, "UPDATE account SET fingerprint = zeroblob(32)");
    for id in &ids[20..] {
        house.sandbox.world().delete(id);
    }
    let mut daemon = Daemon::start(&house);
    eventually("the stopped account is told", || told(&house).len() == 4);
    daemon.stop();
    house.use_key("sk_test_another_key");
    sql(
        &house,
        "UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'; UPDATE account SET candidate = NULL, stopped_at = NULL",
    );
    configure_cron(&house, "* * * * * *");
    let mut daemon = Daemon::start(&house);
    eventually("the refused key and the stale mirror are told", || told(&house).len() == 6);
    daemon.stop();

    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md")).unwrap();
    let firsts = |after: &str| -> BTreeSet<String> {
        let table = text.split(after).nth(1).unwrap().lines().skip(2);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
    };
    let alerts = told(&house);
    let mut seen = BTreeSet::new();
    for alert in &alerts {
        let keys: BTreeSet<String> = alert.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, firsts("| key | type | means |"), "{alert}");
        let kind = alert["alert"].as_str().unwrap();
        assert!(seen.insert(kind.to_owned()), "{kind} twice: {alerts:?}");
        let (part, count, oldest) = match kind {
            "held_deletions" => {
                ("20 deletions wait for an operator: look at `komoju-sync deletions list`", 20, Some("1"))
            }
            "held_deletes" => ("1 delete intent waits for an operator", 1, Some("d1")),
            "parked_intents" => ("`komoju-sync intent retry ID` or `cancel ID`", 1, Some("p0")),
            "key_refused" => ("put the right secret key in place", 1, None),
            "account_stopped" => ("`komoju-sync account accept`", 1, None),
            "stale_mirror" => ("no sweep was complete since 2020-01-01T00:00:00.000Z", 1, None),
            other => panic!("{other}"),
        };
        assert!(alert["sentence"].as_str().unwrap().contains(part), "{alert}");
        assert_eq!((alert["count"].as_u64(), alert["oldest"].as_str()), (Some(count), oldest), "{alert}");
        assert_eq!(alert["new"], 1, "{alert}");
        let said = alert.to_string();
        assert!(
            !said.contains(KEY) && !said.contains("example.jp") && !ids.iter().any(|id| said.contains(id)),
            "{said}"
        );
    }
    // A disk that fails is played by `io_errors`.
    seen.insert("database_unusable".to_owned());
    // A test of its own needs no other alert: `wipe_that_a_reader_blocks_is_told_and_measured`.
    seen.insert("unfinished_wipe".to_owned());
    assert_eq!(seen, firsts("| `alert` | stands while | counts as new |"));
}

#[test]
fn wipe_that_a_reader_blocks_is_told_and_measured() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    alerting(&house, "");
    let (mut daemon, address) = Daemon::listening(&house);
    let parked = rusqlite::Connection::open(house.path("komoju.db")).unwrap();
    parked.execute_batch("BEGIN; SELECT * FROM intents").unwrap();
    sql(
        &house,
        "INSERT INTO intents (id, op, body) VALUES ('t', 'create', '{\"payment_details\": \"tok_canary\"}')",
    );
    let tokens = "komoju_sync_unfinished_wipes{of=\"tokens\"}";
    eventually_is(&address, tokens, 1.0);
    eventually("the alert is sent", || kinds(&house) == ["unfinished_wipe"]);
    let alert = &told(&house)[0];
    let sentence = alert["sentence"].as_str().unwrap();
    let me = format!("(process {}) reads an old state of the database", std::process::id());
    assert!(
        sentence.starts_with("payment tokens of settled intents are still in") && sentence.contains(&me),
        "{alert}"
    );
    assert_eq!(alert["since"], house.one("SELECT wipe_since FROM meta"));
    house.expect(3, &["status"]);
    assert!(daemon.said().contains(&me), "{}", daemon.said());
    drop(parked);
    eventually_is(&address, tokens, 0.0);
    eventually_is(&address, "komoju_sync_unfinished_wipes{of=\"erasure\"}", 0.0);
    house.expect(0, &["status"]);
    eventually("it is forgotten", || house.one("SELECT count(*) FROM alert") == "0");
    assert_eq!(daemon.stop(), Some(0));
}

fn configure_cron(house: &House, cron: &str) {
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(
        house.path("config.toml"),
        text.replace("sweep_cron = \"0 0 0 1 1 *\"", &format!("sweep_cron = \"{cron}\"")),
    )
    .unwrap();
}

#[test]
fn a_stale_mirror_is_told_when_a_sweep_failed_and_a_new_database_has_its_time() {
    // A stale one, and an API that gives no lists.
    let house = House::with(2);
    house.expect(0, &["sync"]);
    sql(&house, "UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'");
    alerting(&house, "");
    let fault = house.inject(no_lists());
    let daemon = Daemon::start(&house);
    // A new one.
    let new = House::with(2);
    alerting(&new, "");
    new.inject(no_lists());
    let _fails = Daemon::start(&new);
    // A new one whose first sweep goes on, though three periods are over.
    let slow = House::with(2);
    alerting(&slow, "");
    configure_cron(&slow, "* * * * * *");
    let held = slow.on_lists(Effect::Hold);
    let slowly = Daemon::start(&slow);
    // A new one that has had its time.
    let late = House::with(2);
    alerting(&late, "");
    configure_cron(&late, "* * * * * *");
    late.inject(no_lists());
    let _late = Daemon::start(&late);

    eventually("the alert is sent", || kinds(&house) == ["stale_mirror"]);
    assert_eq!(told(&house)[0]["since"], "2020-01-01T00:00:00.000Z");
    eventually("the late one too", || kinds(&late) == ["stale_mirror"]);
    assert!(told(&late)[0]["sentence"].as_str().unwrap().contains("no sweep was complete yet"));
    std::thread::sleep(LONG_ENOUGH);
    assert!(daemon.said().matches("sweep").count() > 0);
    assert_eq!(kinds(&house).len(), 1, "however often it fails, and while it tries again");
    assert_eq!(kinds(&late).len(), 1);
    assert_eq!((kinds(&new).len(), kinds(&slow).len()), (0, 0));
    slow.sandbox.world().remove_fault(held);
    eventually("the first sweep ends", || slowly.said().contains("complete"));
    house.sandbox.world().remove_fault(fault);
    eventually("it has cleared", || house.one("SELECT count(*) FROM alert") == "0");
}

#[test]
fn stale_mirror_whose_next_sweep_is_partial_is_told() {
    let house = House::with(5);
    house.expect(0, &["sync"]);
    sql(&house, "UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'");
    alerting(&house, "");
    let ids = vec![house.sandbox.world().ids()[2].clone()];
    house.on_lists(Effect::Hide { ids, every: None });
    house.inject(Fault::new(Effect::status(403)).call(Call::Show));
    let _daemon = Daemon::start(&house);
    eventually("the alert is sent", || kinds(&house) == ["stale_mirror"]);
    assert_eq!(house.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "partial");
}

#[test]
fn the_program_knows_no_secret_and_is_given_what_it_needs() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    alerting(
        &house,
        &format!(
            "env > '{0}/env'; echo \"$@\" > '{0}/arguments'; pwd > '{0}/pwd'; ls -l /proc/self/fd > '{0}/fds'; tr '\\0' '\\n' < /proc/$PPID/cmdline > /dev/null; echo done > '{0}/done'",
            house.directory.path().display()
        ),
    );
    configure(&house, "[http]\nlisten = \"127.0.0.1:0\"");
    let mut command = house.command(&["run"]);
    for name in [
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "JOURNAL_STREAM",
        "LD_PRELOAD",
        "SOME_TOKEN",
    ] {
        command.env(name, format!("secret-{name}"));
    }
    command
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("LD_PRELOAD")
        .env("LANG", "ja_JP.UTF-8")
        .env("HOME", "/nowhere");
    let mut daemon = Daemon::spawn(&house, command);
    eventually("it runs", || daemon.said().contains("complete"));
    parks(&house, "p0");
    eventually("it is done", || house.path("done").exists());
    let read = |name: &str| std::fs::read_to_string(house.path(name)).unwrap();
    let names: BTreeSet<String> =
        read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    // What the shell adds by itself.
    let own = ["PWD", "OLDPWD", "SHLVL", "_"].map(str::to_owned);
    let names: Vec<String> = names.into_iter().filter(|name| !own.contains(name)).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH"]);
    assert!(!read("env").contains("secret") && !read("env").contains(KEY), "{}", read("env"));
    assert!(read("env").contains("LANG=ja_JP.UTF-8") && read("env").contains("/usr/bin"));
    assert_eq!((read("arguments").as_str(), read("pwd").as_str()), ("--from here\n", "/\n"));
    let fds = read("fds");
    assert!(!fds.contains("komoju.db") && fds.matches("socket:").count() == 0, "{fds}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_program_that_fails_is_an_error_with_what_to_do_and_is_tried_again_at_the_next_start() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    alerting(&house, "echo 'no \u{1b}[31mrelay sk_test_abcdefghijklmnop' >&2; exit 3");
    park(&house, "p0");
    let mut daemon = Daemon::start(&house);
    eventually("it failed", || daemon.said().contains("alert not delivered (1 intent is parked"));
    let said = daemon.said();
    assert!(said.contains("ended with exit status: 3") && said.contains("Run it by hand"), "{said}");
    assert!(said.contains("alerts.command complained") && said.contains("relay"), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains("abcdefghijklmnop"), "{said}");
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(told(&house).len(), 1, "not again within the minute");
    assert_eq!(daemon.stop(), Some(0));
    program(&house, "");
    let mut daemon = Daemon::start(&house);
    eventually("the alert is sent", || told(&house).len() == 2 && daemon.said().contains("told: "));
    assert_eq!(daemon.stop(), Some(0));
    std::fs::remove_file(house.path("notify")).unwrap();
    sql(&house, "DELETE FROM alert");
    let daemon = Daemon::start(&house);
    eventually("it says so", || daemon.said().contains("cannot be started: No such file or directory"));
}

#[test]
fn a_program_that_hangs_blocks_nothing_and_is_gone_with_all_it_started_at_a_stop() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    let pids = house.path("pids");
    alerting(&house, &format!("trap '' TERM; sleep 987 & echo $! $$ > '{}'; sleep 986", pids.display()));
    park(&house, "p0");
    let mut daemon = Daemon::start(&house);
    eventually("it hangs", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    sql(
        &house,
        "INSERT INTO intents (id, op, body) VALUES ('n1', 'create', '{\"email\": \"a@example.com\"}')",
    );
    eventually("pushes go on", || house.one("SELECT state FROM intents WHERE id = 'n1'") == "done");
    let clock = SystemClock::shared();
    let asked = clock.elapsed();
    assert_eq!(daemon.stop(), Some(0));
    assert!(clock.elapsed() - asked < Duration::from_millis(1700));
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        // A dead one that nobody has waited for yet is dead all the same.
        eventually("it is gone", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
    assert_eq!(house.one("SELECT count(*) FROM alert WHERE told_at IS NULL"), "1", "it was not told");
}

#[test]
fn without_a_command_nothing_is_noted() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    park(&house, "p0");
    let mut daemon = Daemon::start(&house);
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(house.one("SELECT count(*) FROM alert"), "0");
    assert_eq!(house.one("SELECT state FROM intents"), "parked");
}
