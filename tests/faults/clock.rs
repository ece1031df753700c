//! A clock that jumps while a sweep reads, or while the answer to a create is lost.

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
        clock_jumps_a_year_ahead,
        "a clock that jumps a year",
        "within a sweep the clock jumps a year ahead",
        Complete("57 live"),
        Done,
        |case| case.jumps(YEAR),
    ),
    (
        clock_a_year_ahead_while_an_answer_is_lost,
        "a clock that jumps a year",
        "the clock jumps a year ahead, the answers to pushes are lost, and the clock is corrected",
        Complete("no answer"),
        Retried,
        |case| {
            case.lose_the_answers_with_a_tag();
            case.jumps(YEAR);
        },
    ),
    (
        clock_a_year_ahead_while_throttled,
        "a clock that jumps a year",
        "the clock jumps a year ahead, KOMOJU asks to wait for a second, and the clock is corrected",
        Complete("the API asks to wait"),
        UpdateRetried,
        |case| {
            let throttled = status(429, Payload::Code("too_many_requests".into()), Some("1"));
            case.inject(Fault::new(throttled).call(FaultedCall::Update).once());
            case.jumps(YEAR);
        },
    ),
    (
        clock_set_back_by_an_hour,
        "a clock that runs backwards",
        "within a sweep the clock is set back by an hour",
        Complete("57 live"),
        Done,
        |case| case.jumps(-1),
    ),
    (
        clock_a_year_back_while_an_answer_is_lost,
        "a clock that runs backwards",
        "the clock is set back by a year, the answers to pushes are lost, and the clock is corrected",
        Complete("no answer"),
        Retried,
        |case| {
            case.lose_the_answers_with_a_tag();
            case.jumps(-YEAR);
        },
    ),
    (
        canary_answers_after_ninety_seconds,
        "a clock that runs backwards",
        "the canary of a deletion answers after ninety seconds, and meanwhile the clock is set back by an hour",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            // The first single request is for the deleted customer, the second for the canary.
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
    /// With a tag the created customer can be recognised. Without one an operator would have to
    /// decide.
    fn lose_the_answers_with_a_tag(&mut self) {
        self.configure("[outbound]\n", "[outbound]\nreconcile_tag = 'intent'\n");
        self.lose_the_answers();
    }

    /// Sets the clock by these hours while the third page is in flight.
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
