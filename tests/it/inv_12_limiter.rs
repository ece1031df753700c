//! Invariant 12: requests never exceed the limit, also across restarts, and a wait that the API asked for is kept.
//!
//! Promises: invariant 12

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, signal};

use crate::PROGRAM;
use crate::service::stop;

#[test]
fn what_the_api_asked_to_wait_holds_for_the_next_process_too() {
    let harness = Installation::with(PROGRAM, 12);
    let effect = FaultEffect::Status {
        status: 429,
        body: komoju_sandbox::Payload::Error,
        retry_after: Some("600".to_owned()),
        headers: Default::default(),
        work: Default::default(),
    };
    harness.inject(Fault::new(effect).call(FaultedCall::List).once());
    let daemon = harness.spawn(&["run"]);
    let waits = "SELECT count(*) FROM meta WHERE throttled_until IS NOT NULL";
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() > 0));
    assert!((0..20_000).any(|_| harness.one(waits) == "1"), "it is never said that the API asks to wait");
    stop(daemon);
    let mut daemon = harness.spawn(&["run"]);
    let begun = "SELECT count(*) FROM pass WHERE finished_at IS NULL";
    assert!((0..20_000).any(|_| harness.one(begun) == "1"), "the next one never begins");
    let status = harness.run(&["status"]).stdout;
    assert!(status.contains("the API asked us to wait until"), "{status}");
    signal("TERM", daemon.id());
    daemon.wait().unwrap();
    assert_eq!(harness.sandbox.world().request_count(), 1, "nothing was sent meanwhile");
}

#[test]
fn twenty_restarts_keep_the_limit() {
    let (per_second, burst) = (50.0, 10.0);
    let harness = Installation::with(PROGRAM, 3000);
    let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    let limited = "requests_per_second = 50\nburst = 10";
    std::fs::write(harness.path("config.toml"), text.replace("requests_per_second = 0", limited)).unwrap();
    for restart in 1..=20 {
        let mut sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() >= restart * 8));
        sync.kill().unwrap();
        sync.wait().unwrap();
    }
    let at: Vec<i64> =
        harness.sandbox.world().requests().iter().map(|seen| seen.at.as_millisecond()).collect();
    assert!(at.len() >= 160);
    for first in 0..at.len() {
        for last in first..at.len() {
            let seconds = (at[last] - at[first]) as f64 / 1000.0;
            let sent = (last - first + 1) as f64;
            // Two more for what was admitted late and arrived together.
            assert!(sent <= burst + per_second * seconds + 2.0, "{sent} requests within {seconds} s");
        }
    }
}
