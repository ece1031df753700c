//! Signals to the daemon: an orderly stop, and a new key without a restart.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use komoju_sandbox::{Call, Effect, Fault, OldKey};

use crate::house::{House, KEY, Process};
use crate::{eventually, stop, within, writer};

const NEW: &str = "sk_test_9e8d7c6b5a4f3e2d";

struct Daemon {
    process: Process,
    log: PathBuf,
}

impl Daemon {
    fn start(house: &House) -> Self {
        let log = house.path("log");
        let said = File::create(&log).unwrap();
        let process = Process::start(house.command(&["run"]).stdout(Stdio::null()).stderr(said));
        Self { process, log }
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(told.unwrap().success());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn says(&self, what: &str) {
        eventually(what, || self.said().contains(what));
    }
}

/// A house whose key is in a file.
fn house_with_key_file() -> House {
    let house = House::with(12);
    write_key(&house, KEY);
    let config = std::fs::read_to_string(house.path("config.toml")).unwrap();
    let named = format!("[api]\nsecret_key_file = '{}'\n", house.path("secret-key").display());
    std::fs::write(house.path("config.toml"), config.replace("[api]\n", &named)).unwrap();
    house.expect(0, &["sync"]);
    house
}

fn write_key(house: &House, key: &str) {
    let file = house.path("secret-key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn create(house: &House, id: &str) {
    let sql = "INSERT INTO intents (id, op, body) VALUES (?1, 'create', '{\"email\": \"a@example.jp\"}')";
    writer(house).execute(sql, [id]).unwrap();
}

fn is_done(house: &House, id: &str) -> bool {
    house.one(&format!("SELECT state FROM intents WHERE id = '{id}'")) == "done"
}

fn sweeps(house: &House) -> i64 {
    house.one("SELECT count(*) FROM passes WHERE outcome = 'complete'").parse().unwrap()
}

/// Method and path of each request with this key, in their order.
fn requests_with(house: &House, key: &str) -> Vec<String> {
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{key}:"));
    let world = house.sandbox.world();
    let with_key = world
        .requests()
        .iter()
        .filter(|seen| seen.header("authorization").is_some_and(|value| value.ends_with(&credentials)));
    with_key.map(|seen| format!("{} {}", seen.method, seen.path.rsplit_once("/v1").unwrap().1)).collect()
}

#[test]
fn two_signals_at_once_are_one_orderly_stop() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    // An answer that is on its way keeps the stop waiting for a second.
    let held = house.inject(Fault::new(Effect::Hold).call(Call::Create));
    let mut daemon = Daemon::start(&house);
    create(&house, "c");
    assert!(within(&house, Duration::from_secs(20), |world| world.fired(held) > 0));
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        daemon.signal(signal);
    }
    assert_eq!(daemon.process.wait().unwrap().code(), Some(0), "{}", daemon.said());
    assert!(!daemon.said().contains("second signal"), "{}", daemon.said());
    assert_eq!(house.one("SELECT state FROM intents"), "waiting", "it was cut off, and that was recorded");
}

#[test]
fn second_signal_after_more_than_a_second_ends_the_daemon_at_once() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::Create));
    let mut daemon = Daemon::start(&house);
    create(&house, "c");
    assert!(within(&house, Duration::from_secs(20), |world| world.fired(held) > 0));
    // Another program's lock keeps the stop from recording what was cut off.
    let other = writer(&house);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.signal("TERM");
    // The rule is about time, and a stop that is stuck gives no signal: within a second, a second one does not count.
    std::thread::sleep(Duration::from_millis(1200));
    daemon.signal("TERM");
    assert_eq!(daemon.process.wait().unwrap().code(), Some(1), "{}", daemon.said());
    assert!(daemon.said().contains("stopped at once by a second signal"), "{}", daemon.said());
}

#[test]
fn hangup_takes_the_new_key_after_the_account_guard() {
    let house = house_with_key_file();
    let mut daemon = Daemon::start(&house);
    create(&house, "before");
    eventually("the first is done", || is_done(&house, "before"));
    eventually("the first sweep is complete", || sweeps(&house) == 2);
    // A push is on its way with the old key.
    let held = house.inject(Fault::new(Effect::Hold).call(Call::Create).once());
    create(&house, "meanwhile");
    assert!(within(&house, Duration::from_secs(20), |world| world.fired(held) > 0));
    house.sandbox.world().rotate_key(NEW, OldKey::Kept);
    write_key(&house, NEW);
    daemon.signal("HUP");
    daemon.says("a new key reads the same account; it is accepted");
    house.sandbox.world().remove_fault(held);
    create(&house, "after");
    eventually("all are done", || ["meanwhile", "after"].iter().all(|id| is_done(&house, id)));
    eventually("a sweep is complete", || sweeps(&house) >= 3);
    let requests = requests_with(&house, NEW);
    assert!(requests[0].starts_with("GET /customers/"), "the guard asks first: {requests:?}");
    assert!(requests.iter().any(|request| request == "POST /customers"), "{requests:?}");
    assert!(requests_with(&house, KEY).iter().any(|request| request == "POST /customers"));
    assert_eq!(house.sandbox.world().creates(), 3, "each create took effect once");
    assert_eq!(stop(&mut daemon.process), Some(0));
    let said = daemon.said();
    assert!(!said.contains(KEY) && !said.contains(NEW), "{said}");
    house.assert_true();
}

#[test]
fn hangup_with_a_key_of_another_account_stops_everything_until_the_right_key_is_back() {
    let house = house_with_key_file();
    house.sandbox.world().add_account(NEW, 9, 4);
    let mut daemon = Daemon::start(&house);
    eventually("the first sweep is complete", || sweeps(&house) == 2);
    let head = house.head();
    write_key(&house, NEW);
    daemon.signal("HUP");
    daemon.says("this key reads another account");
    create(&house, "c");
    // A daemon that sends nothing gives no signal. A push to the wrong account would follow within milliseconds.
    std::thread::sleep(Duration::from_millis(500));
    let requests = requests_with(&house, NEW);
    assert!(!requests.is_empty() && requests.iter().all(|request| request.starts_with("GET /customers/")));
    assert_eq!(house.head(), head, "nothing is recorded");
    write_key(&house, KEY);
    daemon.signal("HUP");
    eventually("the intent is done", || is_done(&house, "c"));
    assert_eq!(stop(&mut daemon.process), Some(0));
    house.assert_true();
}

#[test]
fn hangup_without_a_new_key_changes_nothing() {
    let house = house_with_key_file();
    let mut daemon = Daemon::start(&house);
    eventually("the first sweep is complete", || sweeps(&house) == 2);
    daemon.signal("HUP");
    daemon.says("is the one in use");
    std::fs::remove_file(house.path("secret-key")).unwrap();
    daemon.signal("HUP");
    daemon.says("the key in use is kept: the secret key could not be read");
    write_key(&house, "two words");
    daemon.signal("HUP");
    daemon.says("the key in use is kept: the secret key from");
    create(&house, "c");
    eventually("it is done", || is_done(&house, "c"));
    assert_eq!(sweeps(&house), 2, "no pass was interrupted or repeated");
    assert_eq!(stop(&mut daemon.process), Some(0));
}

#[test]
fn hangup_while_the_database_is_locked_waits_and_reports_that_until_it_is_over() {
    let house = house_with_key_file();
    let mut daemon = Daemon::start(&house);
    eventually("the first sweep is complete", || sweeps(&house) == 2);
    house.sandbox.world().rotate_key(NEW, OldKey::Kept);
    write_key(&house, NEW);
    let trouble = || {
        let status = house.run(&["status", "--json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["database_trouble"].clone()
    };
    let other = writer(&house);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.signal("HUP");
    eventually("the trouble is reported", || trouble().is_string());
    let said = daemon.said();
    assert_eq!(said.matches("it is tried again").count(), 1, "{said}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    daemon.says("a new key reads the same account; it is accepted");
    eventually("the trouble is over", || trouble().is_null());
    assert_eq!(stop(&mut daemon.process), Some(0));
    house.assert_true();
}

#[test]
fn hangup_with_a_key_from_the_environment_asks_for_a_restart() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    let mut daemon = Daemon::start(&house);
    eventually("the first sweep is complete", || sweeps(&house) == 2);
    daemon.signal("HUP");
    daemon.says("read at the start only: restart the service to change it");
    create(&house, "c");
    eventually("it is done", || is_done(&house, "c"));
    assert_eq!(stop(&mut daemon.process), Some(0));
}
