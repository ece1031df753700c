//! Customers that a sweep did not see, and what their own answer proves.

use jiff::SignedDuration;
use komoju_core::PassOutcome;
use komoju_sandbox::readings::Order;
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, Readings, Region};
use komoju_testkit::{InProcess, Installation};
use serde_json::json;

use super::{answered, delete, on_show, unusable};
use crate::PROGRAM;

#[test]
fn short_and_empty_lists_delete_no_customer_and_are_reported() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    for effect in [FaultEffect::ShortList { keep: 20 }, FaultEffect::EmptyList] {
        let fault = harness.on_lists(effect);
        // Fewer than a hundred customers are missing, so each is verified.
        let ran = harness.expect(0, &["sync"]);
        assert!(harness.fired(fault) > 0);
        assert!(ran.stderr.contains("the list leaves out"), "{}", ran.stderr);
        harness.sandbox.world().clear_faults();
    }
    harness.assert_true();
    assert_eq!(harness.head(), 60);
}

#[test]
fn hidden_customers_are_requested_and_stay() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let ids = harness.sandbox.world().ids()[..5].to_vec();
    let fault = harness.on_lists(FaultEffect::Hide { ids, every: None });
    let report = harness.sweep();
    assert!(harness.fired(fault) > 0);
    assert_eq!((report.outcome, report.tally.deleted), (PassOutcome::Complete, 0));
    harness.assert_true();
}

#[test]
fn suspect_that_was_listed_since_its_answer_is_requested_again_at_once() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let id = harness.sandbox.world().ids()[0].clone();
    harness.on_lists(FaultEffect::Hide { ids: vec![id.clone()], every: None });
    harness.sweep();
    harness.sandbox.world().clear_faults();
    harness.sweep();
    assert!(harness.sandbox.world().delete(&id));
    harness.sweep();
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id]);
    harness.assert_true();
}

#[tokio::test]
async fn customer_with_a_waiting_push_is_no_suspect_until_it_is_settled() {
    let mut harness = InProcess::open(30).await;
    let fault = harness.waiting().await;
    let (id, head) = (harness.of("u", "customer_id"), harness.head());
    assert!(harness.sandbox.world().delete(&id));
    harness.sandbox.world().clear_requests();
    harness.sweep().await;
    assert!(harness.calls().iter().all(|call| !call.contains(&id)), "{:?}", harness.calls());
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    harness.sandbox.world().remove_fault(fault);
    harness.advance(SignedDuration::from_hours(1));
    harness.drain().await;
    assert_eq!(harness.state("u"), "rejected");
    harness.advance(SignedDuration::from_hours(1));
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["deleted sweep"]);
    harness.assert_true();
}

#[test]
fn suspect_that_changed_is_updated_by_its_own_lookup() {
    let harness = Installation::with(PROGRAM, 20);
    harness.sweep();
    let id = harness.sandbox.world().ids()[2].clone();
    harness.sandbox.world().update(&id, json!({"email": "looked@example.com"}));
    harness.on_lists(FaultEffect::Hide { ids: vec![id.clone()], every: None });
    harness.sweep();
    assert_eq!(harness.one("SELECT origin FROM changes WHERE kind = 'updated'"), "lookup");
    harness.assert_true();
}

#[test]
fn answer_without_a_json_error_of_the_api_is_no_evidence() {
    use komoju_sandbox::Payload;
    for body in [Payload::Html, Payload::Empty, Payload::Json(json!({}))] {
        for status in [404, 410] {
            let harness = Installation::with(PROGRAM, 30);
            harness.sweep();
            let gone = delete(&harness, 1);
            let fault = harness.inject(Fault::new(answered(status, body.clone())).call(FaultedCall::Show));
            let report = harness.sweep();
            assert!(harness.fired(fault) > 0);
            let outcome = (report.outcome, report.held, report.tally.unverified);
            assert_eq!(outcome, (PassOutcome::Partial, 0, 1), "{status} {body:?}: {}", report.sentence());
            assert!(harness.mirror().contains_key(&gone[0]));

            harness.sandbox.world().clear_faults();
            assert_eq!(harness.sweep().outcome, PassOutcome::Complete, "the next sweep requests it again");
            harness.assert_true();
        }
    }
}

#[test]
fn suspect_without_a_usable_answer_hides_no_other_deletion() {
    for effect in unusable() {
        let harness = Installation::with(PROGRAM, 30);
        harness.sweep();
        let gone = delete(&harness, 5);
        for odd in &gone[..4] {
            harness.inject(on_show(effect.clone(), odd));
        }
        let report = harness.sweep();
        let found = (report.outcome, report.held, report.tally.unverified, report.tally.deleted);
        assert_eq!(found, (PassOutcome::Partial, 0, 4, 1), "{effect:?}");
        assert_eq!(harness.column("SELECT id FROM deleted_customers"), gone[4..]);

        harness.sandbox.world().clear_faults();
        assert_eq!(harness.sweep().outcome, PassOutcome::Complete);
        harness.assert_true();
    }
}

#[test]
fn forbidden_customer_is_not_a_refused_key() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let gone = delete(&harness, 3);
    harness.inject(on_show(FaultEffect::status(403), &gone[0]));
    let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    let ran = harness.expect(1, &["sync"]);
    assert!(ran.stderr.contains("1 customer was neither listed nor verified"), "{}", ran.stderr);
    assert!(harness.mirror().contains_key(&new));
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "2");
    assert_eq!(
        harness.one("SELECT outcome || ' ' || unverified FROM passes ORDER BY id DESC LIMIT 1"),
        "partial 1"
    );
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn lookups_without_a_usable_answer_are_bounded_in_each_sweep() {
    let harness = Installation::with(PROGRAM, 120);
    harness.sweep();
    delete(&harness, 90);
    let fault = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Show));
    let report = harness.sweep();
    assert_eq!((report.outcome, report.held), (PassOutcome::Partial, 0), "{}", report.sentence());
    assert!(harness.fired(fault) <= 3 * 10 + 20, "{} requests", harness.fired(fault));
    harness.sandbox.world().clear_faults();
    assert_eq!(harness.sweep().held, 90);
    harness.expect(0, &["deletions", "approve"]);
    // Now canaries answer, and none of the approved customers. Each pass requests some of them and
    // starts with others.
    let gone: Vec<String> = harness.column("SELECT customer_id FROM held_deletions");
    let faults: Vec<_> =
        gone.iter().map(|id| harness.inject(on_show(FaultEffect::status(400), id))).collect();
    let requested = || faults.iter().filter(|fault| harness.fired(**fault) > 0).count();
    assert_eq!(harness.sweep().outcome, PassOutcome::Complete);
    assert!((64..90).contains(&requested()), "{} of 90 were requested", requested());
    // `harness.sweep()` uses the same random seed each time; a process does not.
    for _ in 0..5 {
        harness.expect(0, &["sync"]);
    }
    assert_eq!(requested(), 90, "some customers are never requested");
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn missing_customer_with_an_id_that_is_no_path_segment_is_never_requested() {
    let harness = Installation::with(PROGRAM, 12);
    harness.sandbox.world().put_raw(json!({"id": "..", "resource": "customer"}));
    harness.sweep();
    assert!(harness.sandbox.world().delete(".."));
    harness.sandbox.world().clear_requests();
    let report = harness.sweep();
    assert_eq!((report.outcome, report.tally.deleted, report.held), (PassOutcome::Complete, 0, 0));
    assert!(harness.mirror().contains_key(".."));
    assert!(harness.sandbox.world().requests().iter().all(|seen| seen.path.ends_with("/customers")));
}

#[test]
fn customers_skipped_by_a_moving_list_are_requested_and_stay() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let harness = Installation::reading(PROGRAM, 60, Readings { order, ..Readings::default() });
        assert_eq!(harness.sweep().outcome, PassOutcome::Complete);
        let drift = Drift { delete: 3, place: Region::Served, ..Drift::default() };
        let fault =
            harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(2).once());
        let report = harness.sweep();
        assert_eq!(harness.fired(fault), 1);
        assert_eq!(report.outcome, PassOutcome::Complete, "{order:?}: {}", report.sentence());
        // A customer that was deleted and not listed is proven gone. A customer that was skipped
        // answers and stays.
        let truth = harness.sandbox.world().truth();
        for id in harness.column("SELECT id FROM deleted_customers") {
            assert!(!truth.contains_key(&id), "{order:?}: {id} is alive");
        }
        harness.sweep();
        harness.assert_true();
    }
}

#[test]
fn inserts_and_reorders_between_pages_delete_no_customer() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let everything = FaultEffect::RandomDrift { seed: 7, delete: 0, insert: 2, update: 2, reorder: 3 };
    let fault = harness.on_lists(everything);
    for _ in 0..5 {
        harness.sweep();
    }
    assert!(harness.fired(fault) >= 20);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    harness.sandbox.world().clear_faults();
    assert_eq!(harness.sweep().outcome, PassOutcome::Complete);
    harness.assert_true();
}
