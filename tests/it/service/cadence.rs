//! When the daemon sweeps.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, signal};

use crate::PROGRAM;

#[test]
fn passes_follow_their_cron_expressions() {
    let harness = Installation::with(PROGRAM, 12).inbound("sweep_cron = \"*/1 * * * * *\"");
    let mut daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() >= 6));
    signal("INT", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    harness.assert_true();
}

#[test]
fn failed_sweep_is_retried_before_the_next_tick() {
    let harness =
        Installation::with(PROGRAM, 12).inbound("sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"");
    // Rejected, so that the request is not retried within the pass.
    let fault = harness.inject(Fault::new(FaultEffect::status(422)).call(FaultedCall::List).once());
    let mut daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() >= 3));
    let complete = "SELECT count(*) FROM passes WHERE outcome = 'complete'";
    assert!((0..20_000).any(|_| harness.one(complete) == "1"), "it is never complete");
    assert_eq!(harness.fired(fault), 1);
    signal("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(harness.one("SELECT outcome FROM passes ORDER BY id LIMIT 1"), "failed");
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "12");
}
