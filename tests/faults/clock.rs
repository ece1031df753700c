//! Clocks that jump, while a sweep reads and while the answer to a create is lost.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Payload};
use komoju_sync::clock::Clock as _;

use crate::case::Case;
use crate::matrix::Ends::Complete;
use crate::matrix::Outbox::{Done, Retried, UpdateRetried};
use crate::matrix::faults;
use crate::statuses::status;

/// A year, in hours.
const YEAR: i64 = 365 * 24;

faults![
    (
        a_clock_that_jumps_a_year,
        "a clock that jumps a year",
        "within a sweep the clock jumps a year ahead",
        Complete("57 live"),
        Done,
        |case| case.jumps(YEAR),
    ),
    (
        a_year_ahead_for_a_moment,
        "a clock that jumps a year",
        "the clock jumps a year ahead, the answer to a create is lost, and the clock is set right",
        Complete("no answer"),
        Retried,
        |case| {
            case.lose_the_answers_with_a_tag();
            case.jumps(YEAR);
        },
    ),
    (
        a_wait_that_was_asked_for_a_year_ahead,
        "a clock that jumps a year",
        "the clock jumps a year ahead, KOMOJU asks to wait for a second, and the clock is set right",
        Complete("the API asks to wait"),
        UpdateRetried,
        |case| {
            let throttled = status(429, Payload::Code("too_many_requests".into()), Some("1"));
            case.inject(Fault::new(throttled).call(FaultedCall::Update).once());
            case.jumps(YEAR);
        },
    ),
    (
        a_clock_that_runs_backwards,
        "a clock that runs backwards",
        "within a sweep the clock is set back by an hour",
        Complete("57 live"),
        Done,
        |case| case.jumps(-1),
    ),
    (
        a_year_back_for_a_moment,
        "a clock that runs backwards",
        "the clock is set back by a year, the answer to a create is lost, and the clock is set right",
        Complete("no answer"),
        Retried,
        |case| {
            case.lose_the_answers_with_a_tag();
            case.jumps(-YEAR);
        },
    ),
    (
        a_canary_that_answers_after_ninety_seconds,
        "a clock that runs backwards",
        "the canary of a deletion answers after ninety seconds, and meanwhile the clock is set back by an hour",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            // The first who is asked for alone is the one who went.
            let held =
                case.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(1).once());
            case.fired_when(move |harness| harness.fired(held));
            let clock = std::sync::Arc::clone(&case.clock);
            case.endure_while(async |harness| {
                harness.sandbox.until(|world| world.fired(held) == 1).await;
                clock.advance(Duration::from_secs(90));
                clock.set_wall(clock.now() - jiff::SignedDuration::from_hours(1));
                harness.sandbox.world().remove_fault(held);
            });
            let gone = case
                .harness
                .one("SELECT customer_id FROM changes WHERE kind = 'deleted' AND origin = 'sweep'");
            let world = case.harness.sandbox.world();
            let alone = world.requests().iter().filter(|seen| seen.method == "GET" && seen.page.is_none());
            let asked: Vec<bool> = alone.map(|seen| seen.path.ends_with(&gone)).collect();
            assert_eq!(asked, [true, false, true, false], "a 404 of more than a minute ago proves nothing");
        },
    ),
];

impl Case {
    /// Who is looked for after that is known by the tag; without one a person would decide.
    fn lose_the_answers_with_a_tag(&mut self) {
        self.configure("[outbound]\n", "[outbound]\nreconcile_tag = 'intent'\n");
        self.lose_the_answers();
    }

    /// While the third page is on its way, the clock is set by so many hours.
    fn jumps(&mut self, hours: i64) {
        let held = self.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3).once());
        self.fired_when(move |harness| harness.fired(held));
        let clock = std::sync::Arc::clone(&self.clock);
        self.endure_while(async |harness| {
            harness.sandbox.until(|world| world.fired(held) == 1).await;
            clock.set_wall(clock.now() + jiff::SignedDuration::from_hours(hours));
            harness.sandbox.world().remove_fault(held);
        });
    }
}
