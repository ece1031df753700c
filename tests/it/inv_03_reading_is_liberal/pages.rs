//! Lists that move while they are read, and servers that choose the size of a page.

use komoju_core::{Outcome, PassKind};
use komoju_sandbox::readings::{PastEnd, PerPageOver};
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, Readings, Region};
use komoju_testkit::Installation;
use serde_json::json;

use crate::PROGRAM;

#[test]
fn a_list_that_shrinks_below_the_page_asked_for_is_whole_under_every_reading() {
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        for (customers, delete, page) in [(21, 1, 2), (41, 11, 4), (41, 31, 4)] {
            let harness =
                Installation::reading(PROGRAM, customers, Readings { past_end, ..Readings::default() })
                    .inbound("max_delete_percent = 100");
            harness.sweep();
            let drift = Drift { delete, place: Region::Served, ..Drift::default() };
            let fault = harness
                .inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(page).once());
            // Whole, though those who were picked as canaries may be among the deleted: then these are held, and asked again.
            let ran = harness.run(&["sync"]);
            assert!(matches!(ran.code, 0 | 3), "{past_end:?}, {delete} deleted: {}", ran.stderr);
            assert_eq!(harness.fired(fault), 1);
            harness.expect(0, &["sync"]);
            harness.assert_true();
        }
    }
}

#[test]
fn as_many_inserts_as_a_page_holds_do_not_look_like_the_same_page_again() {
    let harness = Installation::with(PROGRAM, 40);
    harness.sweep();
    let drift = Drift { insert: 10, place: Region::Served, ..Drift::default() };
    let fault = harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(2).once());
    let report = harness.sweep();
    assert_eq!((harness.fired(fault), report.outcome), (1, Outcome::Complete), "{}", report.sentence());
    harness.sweep();
    harness.assert_true();
}

#[test]
fn a_server_that_allows_only_small_pages_is_read_at_its_size() {
    let harness = Installation::reading(PROGRAM, 23, Readings { per_page_max: 4, ..Readings::default() });
    let report = harness.sweep();
    assert_eq!((report.outcome, report.tally.pages), (Outcome::Complete, 6));
    harness.assert_true();
    assert_eq!(harness.pass(PassKind::Probe).outcome, Outcome::Complete);
}

#[test]
fn a_server_that_refuses_large_pages_is_read_at_its_own_size() {
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
