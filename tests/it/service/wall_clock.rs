//! The daemon under a wall clock that is wrong for a while: the real binary, its clock moved by a
//! preloaded library.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultId, FaultedCall, FaultedWork};
use komoju_testkit::wall_clock::Wall;
use komoju_testkit::{Installation, eventually, own};

use crate::PROGRAM;

const YEAR: i64 = 365 * 24 * 3600;

/// Returns a daemon that runs passes every second.
fn busy() -> Installation {
    let harness = Installation::with(PROGRAM, 3)
        .inbound("sweep_cron = \"*/2 * * * * *\"\nprobe_cron = \"* * * * * *\"");
    harness.expect(0, &["sync"]);
    harness
}

fn number(harness: &Installation, sql: &str) -> i64 {
    harness.one(sql).parse().unwrap()
}

/// Waits for this number of further complete sweeps.
fn sweeps(harness: &Installation, more: i64) {
    let count =
        || number(harness, "SELECT max(id) FROM passes WHERE kind = 'sweep' AND outcome = 'complete'");
    let before = count();
    eventually("sweeps are made", || count() >= before + more);
}

/// Updates fail until the fault is removed: an intent waits.
fn waiting(harness: &Installation) -> FaultId {
    let fault = harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Update));
    let customer = harness.one("SELECT min(id) FROM customers");
    let sql = "INSERT INTO intents (id, op, customer_id, body) VALUES ('u', 'update', ?1, '{\"email\": \"a@b.jp\"}')";
    harness.writer().execute(sql, [customer]).unwrap();
    fault
}

fn attempts(harness: &Installation, more: i64) {
    let count =
        || number(harness, "SELECT count(*) FROM attempts WHERE outcome IS NOT NULL AND intent_id = 'u'");
    let before = count();
    eventually("attempts are made", || count() >= before + more);
}

/// Submits a file and waits until its receipt shows that it is done.
fn drop_file(harness: &Installation, name: &str) {
    let create = format!(r#"{{"op": "create", "body": {{"email": "{name}@example.jp"}}}}"#);
    std::fs::write(harness.path(&format!("spool/.{name}")), create).unwrap();
    std::fs::rename(harness.path(&format!("spool/.{name}")), harness.path(&format!("spool/{name}.json")))
        .unwrap();
    eventually("the receipt is complete", || {
        std::fs::read_to_string(harness.path(&format!("spool/receipts/{name}.json.json")))
            .is_ok_and(|receipt| receipt.contains("\"done\""))
    });
}

#[test]
fn clock_that_jumps_a_year_and_back_stops_no_pass() {
    let harness = busy();
    let wall = Wall::new(&harness);
    let daemon = wall.start(&harness);
    for wrong in [YEAR, -YEAR] {
        sweeps(&harness, 2);
        wall.set(wrong);
        // The scheduler checks every half second and gives no signal. This is long enough for two
        // checks with the wrong clock.
        std::thread::sleep(Duration::from_millis(1200));
        wall.set(0);
        sweeps(&harness, 2);
    }
    assert!(!daemon.said().contains("ERROR"), "{}", daemon.said());
}

/// Runs the cases in parallel, because each mostly waits.
fn each<C: Send>(cases: impl IntoIterator<Item = C>, run: impl Fn(C) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let run = &run;
            scope.spawn(move || run(case));
        }
    });
}

#[test]
fn clock_that_is_wrong_for_a_while_expires_nothing() {
    each([YEAR, -YEAR, 10 * 3600], |wrong| {
        let harness = busy();
        let wall = Wall::new(&harness);
        let fault = waiting(&harness);
        let mut daemon = wall.start(&harness);
        attempts(&harness, 2);
        drop_file(&harness, "before");
        sweeps(&harness, 1);
        wall.set(wrong);
        attempts(&harness, 1);
        drop_file(&harness, "meanwhile");
        sweeps(&harness, 1);
        wall.set(0);
        drop_file(&harness, "after");
        sweeps(&harness, 1);
        check_nothing_is_lost(&harness, fault);
        let spread = "SELECT max(abs(julianday(observed_at) - julianday('now'))) * 24 FROM changes";
        assert!(
            harness.one(spread).parse::<f64>().unwrap() < 1.0,
            "{wrong}: the log is stamped by the wrong clock"
        );
        assert_eq!(daemon.stop(), Some(0));
        harness.assert_true();
    });
}

#[test]
fn start_under_a_wrong_clock_expires_nothing() {
    // Without a confirmed time, a clock that is behind cannot be distinguished from a right one.
    each([(YEAR, true), (-YEAR, true), (YEAR, false)], |(wrong, has_confirmed_time)| {
        let harness = busy();
        harness.append_config("park_after_h = 24");
        let wall = Wall::new(&harness);
        let fault = waiting(&harness);
        let mut daemon = wall.start(&harness);
        attempts(&harness, 1);
        drop_file(&harness, "before");
        assert_eq!(daemon.stop(), Some(0));

        let sql = "INSERT INTO intents (id, op, body, not_before)
             VALUES ('later', 'create', '{\"email\": \"later@example.jp\"}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 day'))";
        harness.writer().execute_batch(sql).unwrap();
        if !has_confirmed_time {
            own(&harness.path("komoju.db")).execute_batch("UPDATE meta SET confirmed_at = NULL").unwrap();
        }
        wall.set(wrong);
        let mut daemon = wall.start(&harness);
        attempts(&harness, 1);
        drop_file(&harness, "meanwhile");
        sweeps(&harness, 1);
        wall.set(0);
        drop_file(&harness, "after");
        sweeps(&harness, 1);
        assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'later'"), "queued", "{wrong}");
        check_nothing_is_lost(&harness, fault);
        assert_eq!(daemon.stop(), Some(0));
        harness.assert_true();
    });
}

/// Checks that the intent waits and is done soon after the fault has ended, and that receipts and
/// passes are kept.
fn check_nothing_is_lost(harness: &Installation, fault: FaultId) {
    let state = || harness.one("SELECT state FROM intents WHERE id = 'u'");
    // An attempt may be in flight now. It fails, and the intent waits again.
    eventually("the update waits", || state() == "waiting");
    assert_eq!(std::fs::read_dir(harness.path("spool/receipts")).unwrap().count(), 3);
    // The first pass recorded changes, so it is never removed.
    assert_eq!(harness.one("SELECT min(id) FROM passes WHERE id > 1"), "2", "old passes are still there");
    harness.sandbox.world().remove_fault(fault);
    eventually("the update is done", || state() == "done");
}
