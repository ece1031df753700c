//! The daemon, told to stop or killed in the middle of what it does.
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
        a_stop_within_a_page,
        "SIGTERM within a page",
        "the daemon is told to stop while a page is on its way",
        Stops("interrupted: stopped on request"),
        Done,
        |case| {
            let daemon = case.stuck_in_a_page();
            case.stops(daemon);
        },
    ),
    (
        a_stop_within_a_create,
        "SIGTERM within a POST",
        "the daemon is told to stop while a create is on its way",
        Stops("the process ended while it was sent"),
        CreateRetried,
        |case| {
            let daemon = case.stuck_in_a_create();
            case.stops(daemon);
            let next = "SELECT coalesce(next_attempt_at, 'at once') FROM intents WHERE id = 'c'";
            assert_eq!(case.harness.one(next), "at once");
            case.takes_effect_late();
        },
    ),
    (
        killed_within_a_page,
        "kill -9 anywhere",
        "the daemon is killed while a page is on its way",
        Killed("instance  none is running"),
        Done,
        |case| {
            let daemon = case.stuck_in_a_page();
            case.is_killed(daemon);
        },
    ),
    (
        killed_within_a_create,
        "kill -9 anywhere",
        "the daemon is killed while a create is on its way",
        Killed("instance  none is running"),
        CreateUnderWay,
        |case| {
            let daemon = case.stuck_in_a_create();
            case.is_killed(daemon);
            case.takes_effect_late();
        },
    ),
];

/// What is played elsewhere, whole.
pub const ELSEWHERE: &[crate::matrix::Row] = &[crate::matrix::Row {
    entry: "kill -9 anywhere",
    fault: "the daemon is killed again and again, at any moment, while intents come in by every door",
    ends: crate::matrix::Ends::Elsewhere("each intent is there once and takes effect once"),
    outbox: Done,
    test: "it::inv_07_create_at_most_once::kills::whatever_is_dropped_takes_effect_once_however_often_the_daemon_is_killed",
}];

impl Case {
    /// The daemon, its pushes done, waiting for the third page.
    pub fn stuck_in_a_page(&mut self) -> Process {
        let fault = self.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3));
        self.fired_when(move |harness| harness.fired(fault));
        let daemon = self.harness.spawn(&["run"]);
        self.harness.until(|world| world.fired(fault) > 0);
        eventually("the pushes are done", || self.states() == ["done"; 3]);
        daemon
    }

    /// The daemon, its sweep complete, waiting for the answer to the create.
    fn stuck_in_a_create(&mut self) -> Process {
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

    /// It stops in time, and says what it left.
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

    /// The create that nobody waits for any more is carried out all the same.
    fn takes_effect_late(&self) {
        self.harness.sandbox.world().clear_faults();
        self.harness.until(|world| world.creates() == 1);
    }
}
