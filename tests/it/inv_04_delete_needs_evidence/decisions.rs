//! `deletions approve|reject`, and when a decision ends.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::Installation;
use serde_json::json;

use super::{answered, delete, on_show, unusable};
use crate::PROGRAM;

/// Promises: command deletions approve
#[test]
fn an_approved_hold_is_asked_for_again_and_only_who_is_still_gone_is_deleted() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    harness.sandbox.world().restore(&gone[0]);
    harness.expect(0, &["deletions", "approve", "1"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'deleted'"), "29");
    assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'alive'"), gone[0]);
    harness.assert_true();
    let ran = harness.expect(1, &["deletions", "approve", "1"]);
    assert!(ran.stderr.contains("no deletion to decide"), "{}", ran.stderr);
}

/// Promises: command deletions reject
#[test]
fn a_rejected_hold_keeps_its_customers_unreported_until_they_are_seen_again() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    harness.expect(0, &["deletions", "reject"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "60");

    harness.sandbox.world().restore(&gone[0]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'seen'"), gone[0]);
    harness.sandbox.world().delete(&gone[0]);
    harness.expect(0, &["sync"]);
    assert_eq!(
        harness.column("SELECT id FROM deleted_customers"),
        [gone[0].clone()],
        "seen again, it counts again"
    );
}

#[test]
fn an_approval_ends_when_the_customer_is_listed_again() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let gone = delete(&harness, 30);
    harness.sweep();
    harness.expect(0, &["deletions", "approve"]);
    harness.inject(on_show(FaultEffect::status(400), &gone[3]));
    harness.sweep();
    harness.sandbox.world().restore(&gone[3]);
    harness.sweep();
    assert_eq!(
        harness.one(&format!("SELECT state FROM held_deletions WHERE customer_id = '{}'", gone[3])),
        "alive"
    );
    harness.sandbox.world().clear_faults();
    harness.sandbox.world().delete(&gone[3]);
    harness.sweep();
    let last = "SELECT kind || ' ' || origin FROM changes ORDER BY seq DESC LIMIT 1";
    assert_eq!(harness.one(last), "deleted sweep", "it takes a suspicion of its own");
}

#[test]
fn a_rejected_customer_counts_as_seen_whatever_becomes_of_that_pass() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let gone = delete(&harness, 30);
    harness.sweep();
    harness.expect(0, &["deletions", "reject"]);
    harness.sandbox.world().restore(&gone[0]);
    let fault = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::List).page(4));
    assert_eq!(harness.sweep().outcome, Outcome::Failed);
    harness.sandbox.world().remove_fault(fault);
    harness.sandbox.world().delete(&gone[0]);
    harness.sweep();
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [gone[0].clone()]);
}

#[test]
fn decision_can_be_reversed_by_the_number_of_its_hold() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let gone = delete(&harness, 11);
    harness.expect(3, &["sync"]);
    harness.inject(on_show(FaultEffect::status(403), &gone[0]));
    harness.expect(0, &["deletions", "approve"]);
    harness.expect(0, &["sync"]);
    let status = harness.expect(0, &["status"]).stdout;
    assert!(status.contains("approved  1 deletion, not proven yet"), "{status}");
    harness.expect(1, &["deletions", "reject"]);
    harness.expect(0, &["deletions", "reject", "1"]);
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    assert!(harness.mirror().contains_key(&gone[0]));
    let status = harness.expect(0, &["status"]).stdout;
    assert!(status.contains("rejected  1 deletion"), "{status}");
    harness.expect(0, &["deletions", "approve", "1"]);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn a_no_during_a_sweep_ends_when_that_sweep_lists_the_customer() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    let waits = harness.on_lists(FaultEffect::Hold);
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
    harness.expect(0, &["deletions", "reject"]);
    harness.sandbox.world().restore(&gone[0]);
    harness.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'seen'"), gone[0]);
    harness.sandbox.world().delete(&gone[0]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [gone[0].clone()], "it counts again");
}

#[test]
fn an_approved_customer_that_cannot_be_asked_keeps_nothing_else_from_being_done() {
    for effect in unusable() {
        let harness = Installation::with(PROGRAM, 60);
        harness.sweep();
        let gone = delete(&harness, 30);
        harness.sweep();
        harness.expect(0, &["deletions", "approve"]);
        harness.inject(on_show(effect, &gone[3]));
        let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
        let report = harness.sweep();
        assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 29), "{}", report.sentence());
        assert!(harness.mirror().contains_key(&new));
        assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'approved'"), gone[3]);

        harness.sandbox.world().clear_faults();
        harness.sweep();
        harness.assert_true();
    }
}

#[test]
fn a_persons_word_during_a_sweep_is_not_asked_for_anew() {
    for word in ["approve", "reject"] {
        let harness = Installation::with(PROGRAM, 60);
        harness.expect(0, &["sync"]);
        delete(&harness, 30);
        harness.expect(3, &["sync"]);
        // The next sweep samples them; while it waits for an answer, a person decides.
        let waits = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show));
        let mut sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
        harness.expect(0, &["deletions", word]);
        harness.sandbox.world().clear_faults();
        assert!(sync.wait().unwrap().success(), "no deletion waits for an operator any more");
        assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "0");
        harness.expect(0, &["sync"]);
        let deleted = if word == "approve" { "30" } else { "0" };
        assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), deleted);
    }
}

#[test]
fn a_no_during_the_question_itself_is_heard() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let gone = delete(&harness, 1);
    let none = answered(404, komoju_sandbox::Payload::Code("not_found".into()));
    let fault = harness.inject(Fault::new(none).call(FaultedCall::Show));
    assert_eq!(harness.sweep().held, 1, "without a canary");
    harness.sandbox.world().remove_fault(fault);
    let waits = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
    harness.expect(0, &["deletions", "reject"]);
    harness.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert!(harness.mirror().contains_key(&gone[0]), "a person said that it stays");
}
