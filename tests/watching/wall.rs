//! The daemon under a wall clock that is wrong for a while: the real binary, its clock moved by a preloaded library.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault, FaultId, Work};
use rusqlite::Connection;

use crate::house::{House, own};
use crate::{Daemon, configure, eventually};

const YEAR: i64 = 365 * 24 * 3600;

/// A wall clock that a test moves, for programs that run under it.
struct Wall {
    offset: File,
    library: std::path::PathBuf,
    file: std::path::PathBuf,
}

impl Wall {
    fn new(house: &House) -> Self {
        let (library, file) = (house.path("wall.so"), house.path("wall-offset"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watching/wall.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let offset =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&file).unwrap();
        offset.set_len(8).unwrap();
        Self { offset, library, file }
    }

    /// Moves the clock to so many seconds from the right time.
    fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    fn start(&self, house: &House) -> Daemon {
        let mut command = house.command(&["run"]);
        command.env("LD_PRELOAD", &self.library).env("WALL_OFFSET", &self.file);
        Daemon::spawn(house, command)
    }
}

/// A daemon that makes passes all the time.
fn busy() -> House {
    let house = House::with(3).inbound("sweep_cron = \"*/2 * * * * *\"\nprobe_cron = \"* * * * * *\"");
    house.expect(0, &["sync"]);
    house
}

fn writer(house: &House) -> Connection {
    let conn = Connection::open(house.path("komoju.db")).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn
}

fn number(house: &House, sql: &str) -> i64 {
    house.one(sql).parse().unwrap()
}

/// Returns when this many more sweeps are complete.
fn sweeps(house: &House, more: i64) {
    let count = || number(house, "SELECT max(id) FROM passes WHERE kind = 'sweep' AND outcome = 'complete'");
    let before = count();
    eventually("sweeps are made", || count() >= before + more);
}

/// Updates fail until the fault is removed: an intent waits.
fn waiting(house: &House) -> FaultId {
    let fault = house.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Update));
    let customer = house.one("SELECT min(id) FROM customers");
    let sql = "INSERT INTO intents (id, op, customer_id, body) VALUES ('u', 'update', ?1, '{\"email\": \"a@b.jp\"}')";
    writer(house).execute(sql, [customer]).unwrap();
    fault
}

fn attempts(house: &House, more: i64) {
    let count =
        || number(house, "SELECT count(*) FROM attempts WHERE outcome IS NOT NULL AND intent_id = 'u'");
    let before = count();
    eventually("attempts are made", || count() >= before + more);
}

/// Drops a file and waits until its receipt says that it is done.
fn drop_file(house: &House, name: &str) {
    let create = format!(r#"{{"op": "create", "body": {{"email": "{name}@example.jp"}}}}"#);
    std::fs::write(house.path(&format!("spool/.{name}")), create).unwrap();
    std::fs::rename(house.path(&format!("spool/.{name}")), house.path(&format!("spool/{name}.json")))
        .unwrap();
    eventually("the receipt is complete", || {
        std::fs::read_to_string(house.path(&format!("spool/receipts/{name}.json.json")))
            .is_ok_and(|receipt| receipt.contains("\"done\""))
    });
}

#[test]
fn clock_that_jumps_a_year_and_back_stops_no_pass() {
    let house = busy();
    let wall = Wall::new(&house);
    let daemon = wall.start(&house);
    for wrong in [YEAR, -YEAR] {
        sweeps(&house, 2);
        wall.set(wrong);
        // The scheduler looks every half second and gives no signal: this is long enough for two looks under the wrong
        // clock.
        std::thread::sleep(Duration::from_millis(1200));
        wall.set(0);
        sweeps(&house, 2);
    }
    assert!(!daemon.said().contains("ERROR"), "{}", daemon.said());
}

/// Runs the cases side by side: each waits most of the time.
fn each<C: Send>(cases: impl IntoIterator<Item = C>, run: impl Fn(C) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let run = &run;
            scope.spawn(move || run(case));
        }
    });
}

#[test]
fn clock_that_is_wrong_for_a_while_undoes_nothing() {
    each([YEAR, -YEAR, 10 * 3600], |wrong| {
        let house = busy();
        let wall = Wall::new(&house);
        let fault = waiting(&house);
        let mut daemon = wall.start(&house);
        attempts(&house, 2);
        drop_file(&house, "before");
        sweeps(&house, 1);
        wall.set(wrong);
        attempts(&house, 1);
        drop_file(&house, "meanwhile");
        sweeps(&house, 1);
        wall.set(0);
        drop_file(&house, "after");
        sweeps(&house, 1);
        check_nothing_is_lost(&house, fault);
        let spread = "SELECT max(abs(julianday(observed_at) - julianday('now'))) * 24 FROM changes";
        assert!(
            house.one(spread).parse::<f64>().unwrap() < 1.0,
            "{wrong}: the log is stamped by the wrong clock"
        );
        assert_eq!(daemon.stop(), Some(0));
        house.assert_true();
    });
}

#[test]
fn start_under_a_wrong_clock_undoes_nothing() {
    // Without a confirmed time, a clock that is behind cannot be distinguished from a right one.
    each([(YEAR, true), (-YEAR, true), (YEAR, false)], |(wrong, has_confirmed_time)| {
        let house = busy();
        configure(&house, "park_after_h = 24");
        let wall = Wall::new(&house);
        let fault = waiting(&house);
        let mut daemon = wall.start(&house);
        attempts(&house, 1);
        drop_file(&house, "before");
        assert_eq!(daemon.stop(), Some(0));

        let sql = "INSERT INTO intents (id, op, body, not_before)
             VALUES ('later', 'create', '{\"email\": \"later@example.jp\"}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 day'))";
        writer(&house).execute_batch(sql).unwrap();
        if !has_confirmed_time {
            own(&house.path("komoju.db")).execute_batch("UPDATE meta SET confirmed_at = NULL").unwrap();
        }
        wall.set(wrong);
        let mut daemon = wall.start(&house);
        attempts(&house, 1);
        drop_file(&house, "meanwhile");
        sweeps(&house, 1);
        wall.set(0);
        drop_file(&house, "after");
        sweeps(&house, 1);
        assert_eq!(house.one("SELECT state FROM intents WHERE id = 'later'"), "queued", "{wrong}");
        check_nothing_is_lost(&house, fault);
        assert_eq!(daemon.stop(), Some(0));
        house.assert_true();
    });
}

/// The intent waits and is done soon after KOMOJU is well again; receipts and passes are still there.
fn check_nothing_is_lost(house: &House, fault: FaultId) {
    let state = || house.one("SELECT state FROM intents WHERE id = 'u'");
    assert_eq!(state(), "waiting");
    assert_eq!(std::fs::read_dir(house.path("spool/receipts")).unwrap().count(), 3);
    // The first pass recorded changes, so it is never removed.
    assert_eq!(house.one("SELECT min(id) FROM passes WHERE id > 1"), "2", "old passes are still there");
    house.sandbox.world().remove_fault(fault);
    eventually("the update is done", || state() == "done");
}
