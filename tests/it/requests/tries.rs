//! How often a request is tried. `tests/faults` tests the effect of each fault on a pass.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use komoju_testkit::Installation;

use crate::PROGRAM;

#[test]
fn transient_failure_is_retried_within_the_pass() {
    for effect in [
        FaultEffect::status(503),
        FaultEffect::Reset { work: FaultedWork::Skipped },
        FaultEffect::Body { body: Payload::Html },
    ] {
        let harness = Installation::with(PROGRAM, 57);
        let fault = harness.inject(Fault::new(effect).call(FaultedCall::List).page(3).times(9));
        let report = harness.sweep();
        assert_eq!((harness.fired(fault), report.outcome), (9, Outcome::Complete), "{}", report.sentence());
        assert_eq!(report.tally.requests, 6 + 9);
        harness.assert_true();
    }
}

#[test]
fn request_is_tried_ten_times_and_a_rejected_one_once() {
    for (code, tries) in [(503, 10), (422, 1)] {
        let harness = Installation::with(PROGRAM, 5);
        let fault = harness.on_lists(FaultEffect::status(code));
        let report = harness.sweep();
        assert_eq!((harness.fired(fault), report.outcome), (tries, Outcome::Failed), "{}", report.sentence());
    }
}
