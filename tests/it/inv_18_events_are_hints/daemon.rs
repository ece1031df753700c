//! The real binary: the loops, a stop while a hint waits, and kills between event and answer.

use std::time::Duration;

use komoju_sandbox::{EventIds, Fault, FaultEffect, FaultedCall};
use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Daemon, Installation, eventually};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::PROGRAM;

/// Returns an installation whose daemon follows events, after one complete sweep.
fn following(customers: u32) -> Installation {
    let harness = Installation::with(PROGRAM, customers).following_events();
    harness.expect(0, &["sync"]);
    harness
}

/// Starts the daemon. Returns when its first sweep is complete and it has read the event list.
fn started(harness: &Installation) -> Daemon {
    let sweeps =
        |harness: &Installation| harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'");
    let before = sweeps(harness);
    let daemon = Daemon::start(harness);
    eventually("the first sweep is complete", || sweeps(harness) != before);
    eventually("the event list is read", || is_read(harness));
    daemon
}

fn is_read(harness: &Installation) -> bool {
    harness.one("SELECT cursor_at IS NOT NULL FROM event_state") == "1"
}

fn is_event_recorded(harness: &Installation) -> bool {
    !harness.column("SELECT seq FROM changes WHERE origin = 'event'").is_empty()
}

#[test]
fn changes_are_recorded_between_two_sweeps() {
    let harness = following(20);
    let mut daemon = started(&harness);
    let ids = harness.sandbox.world().ids();
    let passes = harness.one("SELECT count(*) FROM passes");
    let created = {
        let mut world = harness.sandbox.world();
        world.update(&ids[0], json!({"email": "new@example.com"}));
        world.delete(&ids[1]);
        world.create(json!({"email": "created@example.com"}))
    };
    eventually("three changes are recorded", || {
        harness.one("SELECT count(*) FROM changes WHERE origin = 'event'") == "3"
    });
    harness.assert_true();
    assert!(harness.mirror().contains_key(&created));
    assert_eq!(harness.one("SELECT count(*) FROM passes"), passes, "no pass has read them");
    assert!(!daemon.said().contains("deletions list"), "nothing is held: {}", daemon.said());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn stop_while_a_hint_waits_for_its_answer_keeps_the_hint() {
    let harness = following(20);
    let mut daemon = started(&harness);
    let id = harness.sandbox.world().ids()[0].clone();
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show));
    harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    harness.until(|world| world.fired(held) == 1);
    let clock = SystemClock::new();
    assert_eq!(daemon.stop(), Some(0));
    let took = clock.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(harness.one("SELECT count(*) FROM hint WHERE due_at IS NOT NULL"), "1");

    assert_recorded_without_a_sweep(&harness);
}

/// Restarts the daemon. The hint alone must record the change: no sweep gets an answer.
fn assert_recorded_without_a_sweep(harness: &Installation) {
    harness.sandbox.world().clear_faults();
    let held = harness.on_lists(FaultEffect::Hold);
    let mut daemon = Daemon::start(harness);
    eventually("the change is recorded by its event", || is_event_recorded(harness));
    harness.sandbox.world().remove_fault(held);
    harness.assert_true();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn kill_between_event_and_answer_loses_nothing() {
    let calls = [
        // The events are not read yet, read and not stored, or stored and the customer not
        // requested.
        Fault::new(FaultEffect::Hold).call(FaultedCall::Events),
        Fault::new(FaultEffect::Drip { every_ms: 1000, bytes: 1 }).call(FaultedCall::Events),
        Fault::new(FaultEffect::Hold).call(FaultedCall::Show),
        Fault::new(FaultEffect::Drip { every_ms: 1000, bytes: 1 }).call(FaultedCall::Show),
    ];
    for fault in calls {
        let harness = following(20);
        let mut daemon = started(&harness);
        let id = harness.sandbox.world().ids()[0].clone();
        let held = harness.inject(fault.clone());
        harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
        harness.until(|world| world.fired(held) > 0);
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        assert!(!is_event_recorded(&harness), "{fault:?}");
        assert_recorded_without_a_sweep(&harness);
    }
}

#[test]
fn fifty_thousand_events_at_once_cause_one_sweep_and_at_most_500_requests() {
    let harness = Installation::with(PROGRAM, 3000).following_events();
    harness.replace_in_config("per_page = 10\n", "per_page = 100\n");
    harness.expect(0, &["sync"]);
    let mut daemon = started(&harness);
    let sweeps = || harness.one("SELECT count(*) FROM passes WHERE kind = 'sweep'").parse::<u64>().unwrap();
    let before = sweeps();
    let events = |harness: &Installation| {
        let world = harness.sandbox.world();
        world.requests().iter().filter(|seen| seen.path.ends_with("/events")).count()
    };
    harness.sandbox.world().clear_requests();
    harness.sandbox.world().flood(50_000, EventIds::Mixed, &mut StdRng::seed_from_u64(1));
    eventually("a sweep ends", || {
        harness
            .one("SELECT count(*) FROM passes WHERE kind = 'sweep' AND outcome = 'complete'")
            .parse::<u64>()
            .unwrap()
            > before
    });
    // The list is read a few times more. Nothing follows from the same events.
    let read = events(&harness);
    eventually("the list is read again", || events(&harness) >= read + 5);
    let world = harness.sandbox.world();
    let shows = world.requests().iter().filter(|seen| seen.path.contains("/customers/")).count();
    drop(world);
    assert!(shows <= 500, "{shows} customers were requested");
    assert_eq!(sweeps(), before + 1);
    harness.assert_true();
    assert_eq!(daemon.stop(), Some(0));
}
