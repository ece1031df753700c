//! The daemon is stopped or killed while it works.
//!
//! Promises: invariant 7

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Process, eventually, signal};

use crate::case::Case;
use crate::matrix::Ends::{Killed, Stops};
use crate::matrix::Outbox::{CreateRetried, CreateUnderWay, Done};
use crate::matrix::faults;

faults![
    (
        stop_within_a_page,
        "SIGTERM within a page",
        "the daemon gets SIGTERM while a page is in flight",
        Stops("interrupted: stopped on request"),
        Done,
        |case| {
            let daemon = case.held_in_a_page();
            case.stops(daemon);
        },
    ),
    (
        stop_within_a_create,
        "SIGTERM within a POST",
        "the daemon gets SIGTERM while a create is in flight",
        Stops("the process ended while it was sent"),
        CreateRetried,
        |case| {
            let daemon = case.held_in_a_create();
            case.stops(daemon);
            let next = "SELECT coalesce(next_attempt_at, 'at once') FROM intents WHERE id = 'c'";
            assert_eq!(case.harness.one(next), "at once");
            case.takes_effect_late();
        },
    ),
    (
        killed_within_a_page,
        "kill -9 anywhere",
        "the daemon is killed while a page is in flight",
        Killed("instance  none is running"),
        Done,
        |case| {
            let daemon = case.held_in_a_page();
            case.is_killed(daemon);
        },
    ),
    (
        killed_within_a_create,
        "kill -9 anywhere",
        "the daemon is killed while a create is in flight",
        Killed("instance  none is running"),
        CreateUnderWay,
        |case| {
            let daemon = case.held_in_a_create();
            case.is_killed(daemon);
            case.takes_effect_late();
        },
    ),
];

/// The rows that other tests play.
pub const ELSEWHERE: &[crate::matrix::Row] = &[crate::matrix::Row {
    entry: "kill -9 anywhere",
    fault: "the daemon is killed again and again, at any moment, while intents arrive through every door",
    ends: crate::matrix::Ends::Elsewhere("each intent is there once and takes effect once"),
    outbox: Done,
    test: "it::inv_07_create_at_most_once::kills::dropped_intent_takes_effect_once_under_repeated_kills",
}];

impl Case {
    /// Starts a daemon that waits for the third page, when its pushes are done.
    pub fn held_in_a_page(&mut self) -> Process {
        let fault = self.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3));
        self.fired_when(move |harness| harness.fired(fault));
        let daemon = self.harness.spawn(&["run"]);
        self.harness.until(|world| world.fired(fault) > 0);
        eventually("the pushes are done", || self.states() == ["done"; 3]);
        daemon
    }

    /// Starts a daemon that waits for the answer to the create, when its sweep is complete.
    fn held_in_a_create(&mut self) -> Process {
        let fault = self.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
        self.fired_when(move |harness| harness.fired(fault));
        let daemon = self.harness.spawn(&["run"]);
        self.harness.until(|world| world.fired(fault) > 0);
        eventually("the sweep is complete and the update done", || {
            self.states() == ["sending", "done", "done"]
                && self.harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") == "2"
        });
        daemon
    }

    /// Asserts that the daemon stops in time, and checks what `status` reports.
    fn stops(&mut self, mut daemon: Process) {
        let clock = SystemClock::new();
        signal("TERM", daemon.id());
        let code = daemon.wait().unwrap().code().unwrap();
        let took = clock.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        let status = self.harness.run(&["status"]).stdout;
        self.conclude(code, &status);
    }

    fn is_killed(&mut self, mut daemon: Process) {
        daemon.kill().unwrap();
        assert_eq!(daemon.wait().unwrap().code(), None);
        let status = self.harness.run(&["status"]).stdout;
        self.conclude(-1, &status);
    }

    /// Lets the create take effect, although no process waits for its answer.
    fn takes_effect_late(&self) {
        self.harness.sandbox.world().clear_faults();
        self.harness.until(|world| world.creates() == 1);
    }
}
