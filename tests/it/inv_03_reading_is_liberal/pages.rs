//! Lists that move while they are read, and servers that limit the page size.

use komoju_core::{PassKind, PassOutcome};
use komoju_sandbox::readings::{PastEnd, PerPageOver};
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, Payload, Readings, Region};
use komoju_testkit::Installation;
use serde_json::json;

use crate::PROGRAM;

#[test]
fn sweep_of_a_list_that_shrinks_below_the_requested_page_is_complete() {
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        for (customers, delete, page) in [(21, 1, 2), (41, 11, 4), (41, 31, 4)] {
            let harness =
                Installation::reading(PROGRAM, customers, Readings { past_end, ..Readings::default() })
                    .inbound("max_delete_percent = 100");
            harness.sweep();
            let drift = Drift { delete, place: Region::Served, ..Drift::default() };
            let fault = harness
                .inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(page).once());
            // A chosen canary may be among the deleted customers. Then the deletions are held, and
            // the next sweep requests them again.
            let ran = harness.run(&["sync"]);
            assert!(matches!(ran.code, 0 | 3), "{past_end:?}, {delete} deleted: {}", ran.stderr);
            assert_eq!(harness.fired(fault), 1);
            harness.expect(0, &["sync"]);
            harness.assert_true();
        }
    }
}

#[test]
fn inserts_of_one_page_size_are_not_taken_for_a_repeated_page() {
    let harness = Installation::with(PROGRAM, 40);
    harness.sweep();
    let drift = Drift { insert: 10, place: Region::Served, ..Drift::default() };
    let fault = harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(2).once());
    let report = harness.sweep();
    assert_eq!((harness.fired(fault), report.outcome), (1, PassOutcome::Complete), "{}", report.sentence());
    harness.sweep();
    harness.assert_true();
}

#[test]
fn server_that_caps_per_page_is_read_at_its_own_page_size() {
    let harness = Installation::reading(PROGRAM, 23, Readings { per_page_max: 4, ..Readings::default() });
    let report = harness.sweep();
    assert_eq!((report.outcome, report.tally.pages), (PassOutcome::Complete, 6));
    harness.assert_true();
    assert_eq!(harness.pass(PassKind::Probe).outcome, PassOutcome::Complete);
}

#[test]
fn server_that_refuses_large_pages_is_read_at_its_own_page_size() {
    let readings = Readings { per_page_max: 10, per_page_over: PerPageOver::Refused, ..Readings::default() };
    let harness = Installation::reading(PROGRAM, 23, readings);
    harness.expect(0, &["sync"]);
    let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    std::fs::write(harness.path("config.toml"), text.replace("per_page = 10", "per_page = 100")).unwrap();
    harness.sandbox.world().create(json!({"email": "late@example.com"}));
    let ran = harness.expect(0, &["sync"]);
    assert!(ran.stderr.contains("lower api.per_page"), "{}", ran.stderr);
    harness.assert_true();
}

#[test]
fn server_that_refuses_even_its_own_page_size_fails_the_sweep() {
    let harness = Installation::with(PROGRAM, 23);
    let error = json!({"error": {"code": "invalid_parameter", "message": "too large", "param": "per_page"}});
    let refused = FaultEffect::Status {
        status: 422,
        body: Payload::Json(error),
        retry_after: None,
        headers: Default::default(),
        work: Default::default(),
    };
    // Once, because a program that repeats this request never ends.
    let fault = harness.inject(Fault::new(refused).call(FaultedCall::List).once());
    let report = harness.sweep();
    assert_eq!((harness.fired(fault), report.outcome), (1, PassOutcome::Failed), "{}", report.sentence());
}
