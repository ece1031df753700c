//! Signals to the daemon: an orderly stop, and a new key without a restart.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, OldKey};
use komoju_testkit::{Daemon, Installation, KEY, eventually, stop};

use crate::PROGRAM;

const NEW: &str = "sk_test_9e8d7c6b5a4f3e2d";

/// Returns a harness whose key is in a file.
fn harness_with_key_file() -> Installation {
    let harness = Installation::with(PROGRAM, 12);
    write_key(&harness, KEY);
    let config = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    let named = format!("[api]\nsecret_key_file = '{}'\n", harness.path("secret-key").display());
    std::fs::write(harness.path("config.toml"), config.replace("[api]\n", &named)).unwrap();
    harness.expect(0, &["sync"]);
    harness
}

fn write_key(harness: &Installation, key: &str) {
    let file = harness.path("secret-key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn create(harness: &Installation, id: &str) {
    let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', '{\"email\": \"a@example.jp\"}')";
    harness.writer().execute(sql, [id]).unwrap();
}

fn is_done(harness: &Installation, id: &str) -> bool {
    harness.one(&format!("SELECT state FROM intents WHERE id = '{id}'")) == "done"
}

fn sweeps(harness: &Installation) -> i64 {
    harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'").parse().unwrap()
}

/// Returns method and path of each request with this key, in order.
fn requests_with(harness: &Installation, key: &str) -> Vec<String> {
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{key}:"));
    let world = harness.sandbox.world();
    let with_key = world
        .requests()
        .iter()
        .filter(|seen| seen.header("authorization").is_some_and(|value| value.ends_with(&credentials)));
    with_key.map(|seen| format!("{} {}", seen.method, seen.path.rsplit_once("/v1").unwrap().1)).collect()
}

#[test]
fn two_signals_at_once_are_one_orderly_stop() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    // An answer in flight delays the stop by a second.
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let mut daemon = Daemon::start(&harness);
    create(&harness, "c");
    assert!(harness.within(Duration::from_secs(20), |world| world.fired(held) > 0));
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        daemon.signal(signal);
    }
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0), "{}", daemon.said());
    assert!(!daemon.said().contains("second signal"), "{}", daemon.said());
    assert_eq!(harness.one("SELECT state FROM intents"), "waiting", "it was cut off, and that was recorded");
}

#[test]
fn second_signal_after_more_than_a_second_ends_the_daemon_at_once() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let mut daemon = Daemon::start(&harness);
    create(&harness, "c");
    assert!(harness.within(Duration::from_secs(20), |world| world.fired(held) > 0));
    // The lock of another program prevents the stop from recording interrupted attempts.
    let other = harness.writer();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.signal("TERM");
    // The rule is about time, and a stop that is stuck gives no signal: within a second, a second
    // one does not count.
    std::thread::sleep(Duration::from_millis(1200));
    daemon.signal("TERM");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(1), "{}", daemon.said());
    assert!(daemon.said().contains("stopped at once by a second signal"), "{}", daemon.said());
}

/// Promises: key api.secret_key_file
#[test]
fn hangup_takes_the_new_key_after_the_account_guard() {
    let harness = harness_with_key_file();
    let mut daemon = Daemon::start(&harness);
    create(&harness, "before");
    eventually("the first is done", || is_done(&harness, "before"));
    eventually("the first sweep is complete", || sweeps(&harness) == 2);
    // A push with the old key is in flight.
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create).once());
    create(&harness, "meanwhile");
    assert!(harness.within(Duration::from_secs(20), |world| world.fired(held) > 0));
    harness.sandbox.world().rotate_key(NEW, OldKey::Kept);
    write_key(&harness, NEW);
    daemon.signal("HUP");
    daemon.says("a new key reads the same account; it is accepted");
    harness.sandbox.world().remove_fault(held);
    create(&harness, "after");
    eventually("all are done", || ["meanwhile", "after"].iter().all(|id| is_done(&harness, id)));
    eventually("a sweep is complete", || sweeps(&harness) >= 3);
    let requests = requests_with(&harness, NEW);
    assert!(requests[0].starts_with("GET /customers/"), "the guard asks first: {requests:?}");
    assert!(requests.iter().any(|request| request == "POST /customers"), "{requests:?}");
    assert!(requests_with(&harness, KEY).iter().any(|request| request == "POST /customers"));
    assert_eq!(harness.sandbox.world().creates(), 3, "each create took effect once");
    assert_eq!(stop(&mut daemon.child), Some(0));
    let said = daemon.said();
    assert!(!said.contains(KEY) && !said.contains(NEW), "{said}");
    harness.assert_true();
}

#[test]
fn hangup_with_a_key_of_another_account_stops_everything_until_the_right_key_is_back() {
    let harness = harness_with_key_file();
    harness.sandbox.world().add_account(NEW, 9, 4);
    let mut daemon = Daemon::start(&harness);
    eventually("the first sweep is complete", || sweeps(&harness) == 2);
    let head = harness.head();
    write_key(&harness, NEW);
    daemon.signal("HUP");
    daemon.says("this key reads another account");
    create(&harness, "c");
    // A daemon that sends nothing gives no signal. A push to the wrong account would follow within
    // milliseconds.
    std::thread::sleep(Duration::from_millis(500));
    let requests = requests_with(&harness, NEW);
    assert!(!requests.is_empty() && requests.iter().all(|request| request.starts_with("GET /customers/")));
    assert_eq!(harness.head(), head, "nothing is recorded");
    write_key(&harness, KEY);
    daemon.signal("HUP");
    eventually("the intent is done", || is_done(&harness, "c"));
    assert_eq!(stop(&mut daemon.child), Some(0));
    harness.assert_true();
}

#[test]
fn hangup_without_a_new_key_changes_nothing() {
    let harness = harness_with_key_file();
    let mut daemon = Daemon::start(&harness);
    eventually("the first sweep is complete", || sweeps(&harness) == 2);
    daemon.signal("HUP");
    daemon.says("is unchanged");
    std::fs::remove_file(harness.path("secret-key")).unwrap();
    daemon.signal("HUP");
    daemon.says("the current key stays in use: the secret key could not be read");
    write_key(&harness, "two words");
    daemon.signal("HUP");
    daemon.says("the current key stays in use: the secret key from");
    create(&harness, "c");
    eventually("it is done", || is_done(&harness, "c"));
    assert_eq!(sweeps(&harness), 2, "no pass was interrupted or repeated");
    assert_eq!(stop(&mut daemon.child), Some(0));
}

#[test]
fn hangup_while_the_database_is_locked_waits_and_reports_that_until_it_is_over() {
    let harness = harness_with_key_file();
    let mut daemon = Daemon::start(&harness);
    eventually("the first sweep is complete", || sweeps(&harness) == 2);
    harness.sandbox.world().rotate_key(NEW, OldKey::Kept);
    write_key(&harness, NEW);
    let trouble = || {
        let status = harness.run(&["status", "--json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["database_trouble"].clone()
    };
    let other = harness.writer();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.signal("HUP");
    eventually("the trouble is reported", || trouble().is_string());
    let said = daemon.said();
    assert_eq!(said.matches("retrying until the condition is over").count(), 1, "{said}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    daemon.says("a new key reads the same account; it is accepted");
    eventually("the trouble is over", || trouble().is_null());
    assert_eq!(stop(&mut daemon.child), Some(0));
    harness.assert_true();
}

#[test]
fn hangup_with_a_key_from_the_environment_asks_for_a_restart() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    let mut daemon = Daemon::start(&harness);
    eventually("the first sweep is complete", || sweeps(&harness) == 2);
    daemon.signal("HUP");
    daemon.says("is read only at the start; to change the key, run: systemctl restart komoju-sync");
    create(&harness, "c");
    eventually("it is done", || is_done(&harness, "c"));
    assert_eq!(stop(&mut daemon.child), Some(0));
}
