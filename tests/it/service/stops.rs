//! SIGTERM stops the daemon within two seconds.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, signal};

use super::stop;
use crate::PROGRAM;

/// Promises: command run
#[test]
fn daemon_sweeps_at_once_and_stops_within_a_page_on_sigterm() {
    let harness = Installation::with(PROGRAM, 57);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3));
    let mut daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    // The third page is requested while the second one is read.
    let read = "SELECT count(*) FROM customers";
    assert!((0..20_000).any(|_| harness.one(read) == "20"), "two pages are never read");
    signal("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(harness.one("SELECT outcome FROM passes"), "interrupted");
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "20", "the pages that were read stay");
    harness.assert_proven();
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

/// Promises: invariant 2
#[test]
fn stop_waits_neither_for_an_idle_reader_nor_for_a_foreign_lock() {
    let harness = Installation::with(PROGRAM, 57);
    harness.expect(0, &["sync"]);
    let parked = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    for lock in ["BEGIN; SELECT count(*) FROM mirror", "BEGIN IMMEDIATE"] {
        let held = harness.on_lists(FaultEffect::Hold);
        let daemon = harness.spawn(&["run"]);
        harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
        parked.execute_batch(lock).unwrap();
        let took = stop(daemon);
        // The two seconds of the contract, and some more for a busy machine.
        assert!(took < Duration::from_secs(4), "{lock}: it took {took:?}");
        parked.execute_batch("ROLLBACK").unwrap();
        harness.sandbox.world().clear_faults();
    }
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
