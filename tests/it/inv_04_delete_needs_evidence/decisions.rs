//! `deletions approve|reject`, and when a decision ends.

use jiff::SignedDuration;
use komoju_core::PassOutcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::store::log::holds::{self, Decision};
use komoju_sync::store::write_as_operator;
use komoju_testkit::{InProcess, Installation};
use serde_json::json;

use super::{answered, delete, on_show, unusable};
use crate::PROGRAM;

/// Promises: command deletions approve
#[test]
fn approved_hold_deletes_only_customers_that_are_still_gone() {
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
fn rejected_hold_keeps_its_customers_until_they_are_seen_again() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    harness.expect(0, &["deletions", "reject"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "60");
    let rejected = |count: &str| {
        let status = harness.expect(0, &["status"]).stdout;
        let line = format!("rejected  {count}: the customers stay until a list shows them again");
        assert!(status.contains(&line), "{status}");
    };
    rejected("30 deletions");

    harness.sandbox.world().restore(&gone[0]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'seen'"), gone[0]);
    rejected("29 deletions");
    harness.sandbox.world().delete(&gone[0]);
    harness.expect(0, &["sync"]);
    assert_eq!(
        harness.column("SELECT id FROM deleted_customers"),
        [gone[0].clone()],
        "a rejected customer that was seen again can be deleted"
    );
}

#[test]
fn approval_ends_when_the_customer_is_listed_again() {
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
    assert_eq!(harness.one(last), "deleted sweep", "the deletion has evidence of its own");
}

#[test]
fn rejected_customer_listed_by_a_failed_sweep_counts_as_seen() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let gone = delete(&harness, 30);
    harness.sweep();
    harness.expect(0, &["deletions", "reject"]);
    harness.sandbox.world().restore(&gone[0]);
    let fault = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::List).page(4));
    assert_eq!(harness.sweep().outcome, PassOutcome::Failed);
    harness.sandbox.world().remove_fault(fault);
    harness.sandbox.world().delete(&gone[0]);
    harness.sweep();
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [gone[0].clone()]);
}

#[test]
fn decision_is_reversed_by_the_number_of_its_hold() {
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
fn rejection_during_a_sweep_ends_when_that_sweep_lists_the_customer() {
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
    assert_eq!(
        harness.column("SELECT id FROM deleted_customers"),
        [gone[0].clone()],
        "the rejection has ended"
    );
}

#[test]
fn approved_customer_without_a_usable_answer_blocks_no_other_change() {
    for effect in unusable() {
        let harness = Installation::with(PROGRAM, 60);
        harness.sweep();
        let gone = delete(&harness, 30);
        harness.sweep();
        harness.expect(0, &["deletions", "approve"]);
        harness.inject(on_show(effect, &gone[3]));
        let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
        let report = harness.sweep();
        assert_eq!(
            (report.outcome, report.tally.deleted),
            (PassOutcome::Complete, 29),
            "{}",
            report.sentence()
        );
        assert!(harness.mirror().contains_key(&new));
        assert_eq!(harness.one("SELECT customer_id FROM held_deletions WHERE state = 'approved'"), gone[3]);

        harness.sandbox.world().clear_faults();
        harness.sweep();
        harness.assert_true();
    }
}

#[test]
fn decision_during_a_sweep_is_not_held_again() {
    for decision in ["approve", "reject"] {
        let harness = Installation::with(PROGRAM, 60);
        harness.expect(0, &["sync"]);
        delete(&harness, 30);
        harness.expect(3, &["sync"]);
        // The operator decides while the next sweep waits for the answer of a sampled customer.
        let waits = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show));
        let mut sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
        harness.expect(0, &["deletions", decision]);
        harness.sandbox.world().clear_faults();
        assert!(sync.wait().unwrap().success(), "the sweep still reports a held deletion");
        assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "0");
        harness.expect(0, &["sync"]);
        let deleted = if decision == "approve" { "30" } else { "0" };
        assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), deleted);
    }
}

#[test]
fn rejection_during_the_lookup_of_a_suspect_is_obeyed() {
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
    assert!(harness.mirror().contains_key(&gone[0]), "the operator rejected the deletion");
}

/// Returns an account and the ids of its deleted customers, whose held deletions are approved.
async fn approved(customers: u32, deleted: usize) -> (InProcess, Vec<String>) {
    let mut harness = InProcess::open(customers).await;
    harness.advance(SignedDuration::from_secs(1));
    let mut gone: Vec<String> = harness.sandbox.world().ids().into_iter().take(deleted).collect();
    gone.sort();
    for id in &gone {
        assert!(harness.sandbox.world().delete(id));
    }
    assert_eq!(harness.sweep().await.held, deleted as u64);
    let at = "2026-06-01T00:00:02.000Z";
    write_as_operator(&harness.database(), |tx| holds::decide(tx, None, Decision::Approve, "t", at)).unwrap();
    (harness, gone)
}

#[tokio::test]
async fn many_approved_customers_without_a_usable_answer_do_not_block_the_others() {
    let (mut harness, gone) = approved(200, 100).await;
    // The first customers in the order of the ids: as many as end the requests of one pass.
    for id in &gone[..64] {
        harness.inject(on_show(FaultEffect::status(400), id));
    }
    harness.sweep().await;
    assert_eq!(harness.column("SELECT id FROM deleted_customers ORDER BY id"), gone[64..]);
    harness.sandbox.world().clear_faults();
    harness.sweep().await;
    harness.assert_true();
}

#[tokio::test]
async fn approved_deletions_are_all_recorded_in_one_pass_that_takes_long_if_every_answer_is_usable() {
    let (harness, _) = approved(60, 30).await;
    let slow = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).once());
    let pull = harness.pull();
    let meanwhile = async {
        harness.sandbox.until(|world| world.fired(slow) == 1).await;
        harness.advance(SignedDuration::from_secs(130));
        harness.sandbox.world().remove_fault(slow);
    };
    let (report, ()) = tokio::join!(pull.sweep(), meanwhile);
    assert_eq!(report.unwrap().tally.deleted, 30);
    harness.assert_true();
}
