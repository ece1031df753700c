//! A live customer that answers after the suspect.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::Installation;

use super::{answered, delete, on_show};
use crate::PROGRAM;

#[test]
fn without_a_canary_nothing_is_deleted_but_held() {
    let harness = Installation::with(PROGRAM, 6);
    harness.expect(0, &["sync"]);
    harness.sandbox.world().remove_all();
    let ran = harness.expect(3, &["sync"]);
    assert!(ran.stderr.contains("6 deletions wait"), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "6");
    // Nobody lives, so a person's word needs no canary.
    harness.expect(0, &["deletions", "approve"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "6");
    harness.assert_true();
}

#[test]
fn an_approved_deletion_waits_while_no_other_live_customer_answers() {
    let harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    let rejected = delete(&harness, 15);
    harness.expect(3, &["sync"]);
    harness.expect(0, &["deletions", "reject"]);
    delete(&harness, 15);
    harness.expect(3, &["sync"]);
    harness.expect(0, &["deletions", "approve"]);
    // The rejected ones are live here, and none of them answers: nothing vouches for the API.
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'approved'"), "15");

    harness.sandbox.world().restore(&rejected[0]);
    harness.expect(0, &["sync"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "15");
    harness.assert_proven();
}

#[test]
fn a_deletion_asks_for_a_canary_after_the_suspect() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let gone = delete(&harness, 1);
    harness.sandbox.world().clear_requests();
    harness.sweep();
    let shows: Vec<String> = harness
        .sandbox
        .world()
        .requests()
        .iter()
        .filter_map(|seen| seen.path.split_once("/customers/"))
        .map(|(_, id)| id.to_owned())
        .collect();
    assert_eq!(shows.len(), 2, "{shows:?}");
    assert_eq!(shows[0], gone[0]);
    assert!(harness.sandbox.world().get(&shows[1]).is_some());
}

#[test]
fn customer_is_gone_by_a_json_404_or_410_of_any_code_beside_a_living_canary() {
    use komoju_sandbox::Payload;
    for (status, code) in [(404, "not_found"), (404, "resource_missing"), (410, "gone")] {
        let harness = Installation::with(PROGRAM, 30);
        harness.sweep();
        let gone = delete(&harness, 1);
        let effect = answered(status, Payload::Code(code.into()));
        // While every customer answers so, there is no canary: the deletion is held.
        harness.inject(Fault::new(effect.clone()).call(FaultedCall::Show));
        let report = harness.sweep();
        assert_eq!(
            (report.outcome, report.held),
            (Outcome::Held, 1),
            "{status} {code}: {}",
            report.sentence()
        );
        assert!(harness.mirror().contains_key(&gone[0]));

        harness.sandbox.world().clear_faults();
        harness.inject(on_show(effect, &gone[0]));
        let report = harness.sweep();
        assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 1), "{}", report.sentence());
        harness.assert_true();
        assert_eq!(harness.one("SELECT state FROM held_deletions"), "deleted", "no operator is needed");
    }
}

#[test]
fn a_canary_without_an_answer_makes_room_for_the_next() {
    let harness = Installation::with(PROGRAM, 3);
    harness.sweep();
    let gone = delete(&harness, 1);
    let left = harness.sandbox.world().ids();
    // One of the two that are left never answers: either, so that one of them is asked first.
    let mut fired = 0;
    for silent in &left {
        let fault = harness.inject(on_show(FaultEffect::status(500), silent));
        let report = harness.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
        assert_eq!(report.tally.deleted, 1);
        fired += harness.fired(fault);
        harness.sandbox.world().clear_faults();
        harness.sandbox.world().restore(&gone[0]);
        harness.sweep();
        harness.sandbox.world().delete(&gone[0]);
    }
    assert!(fired > 0, "neither was asked first");
}
