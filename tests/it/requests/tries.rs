//! How often a request is tried; what each fault makes of a pass is played in `tests/faults`.

use komoju_core::Outcome;
use komoju_sandbox::{Call, Effect, Fault, Payload, Work};
use komoju_testkit::Installation;

use crate::PROGRAM;

#[test]
fn what_passes_is_tried_again_within_the_pass() {
    for effect in
        [Effect::status(503), Effect::Reset { work: Work::Skipped }, Effect::Body { body: Payload::Html }]
    {
        let harness = Installation::with(PROGRAM, 57);
        let fault = harness.inject(Fault::new(effect).call(Call::List).page(3).times(9));
        let report = harness.sweep();
        assert_eq!((harness.fired(fault), report.outcome), (9, Outcome::Complete), "{}", report.sentence());
        assert_eq!(report.tally.requests, 6 + 9);
        harness.assert_true();
    }
}

#[test]
fn a_request_is_tried_ten_times_and_one_that_is_rejected_once() {
    for (code, tries) in [(503, 10), (422, 1)] {
        let harness = Installation::with(PROGRAM, 5);
        let fault = harness.on_lists(Effect::status(code));
        let report = harness.sweep();
        assert_eq!((harness.fired(fault), report.outcome), (tries, Outcome::Failed), "{}", report.sentence());
    }
}
