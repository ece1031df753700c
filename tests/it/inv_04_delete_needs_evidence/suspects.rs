//! Customers that a sweep did not see: what their own answer proves.

use komoju_core::Outcome;
use komoju_sandbox::readings::Order;
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, Readings, Region};
use komoju_testkit::Installation;
use serde_json::json;

use super::{answered, delete, on_show, unusable};
use crate::PROGRAM;

#[test]
fn short_and_empty_lists_delete_no_customer_and_are_reported() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    for effect in [FaultEffect::ShortList { keep: 20 }, FaultEffect::EmptyList] {
        let fault = harness.on_lists(effect);
        // Fewer than a hundred are missing, so that each is verified.
        let ran = harness.expect(0, &["sync"]);
        assert!(harness.fired(fault) > 0);
        assert!(ran.stderr.contains("the list leaves out"), "{}", ran.stderr);
        harness.sandbox.world().clear_faults();
    }
    harness.assert_true();
    assert_eq!(harness.head(), 60);
}

#[test]
fn a_few_customers_hidden_from_the_list_are_asked_for_and_stay() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    let ids = harness.sandbox.world().ids()[..5].to_vec();
    let fault = harness.on_lists(FaultEffect::Hide { ids, every: None });
    let report = harness.sweep();
    assert!(harness.fired(fault) > 0);
    assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 0));
    harness.assert_true();
}

#[test]
fn a_suspect_that_changed_meanwhile_is_updated_by_its_own_lookup() {
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
fn answer_that_is_not_the_apis_own_is_no_evidence() {
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
            assert_eq!(outcome, (Outcome::Partial, 0, 1), "{status} {body:?}: {}", report.sentence());
            assert!(harness.mirror().contains_key(&gone[0]));

            harness.sandbox.world().clear_faults();
            assert_eq!(harness.sweep().outcome, Outcome::Complete, "the next sweep requests it again");
            harness.assert_true();
        }
    }
}

#[test]
fn a_suspect_that_cannot_be_asked_hides_no_other_deletion() {
    for effect in unusable() {
        let harness = Installation::with(PROGRAM, 30);
        harness.sweep();
        let gone = delete(&harness, 5);
        for odd in &gone[..4] {
            harness.inject(on_show(effect.clone(), odd));
        }
        let report = harness.sweep();
        let found = (report.outcome, report.held, report.tally.unverified, report.tally.deleted);
        assert_eq!(found, (Outcome::Partial, 0, 4, 1), "{effect:?}");
        assert_eq!(harness.column("SELECT id FROM deleted_customers"), gone[4..]);

        harness.sandbox.world().clear_faults();
        assert_eq!(harness.sweep().outcome, Outcome::Complete);
        harness.assert_true();
    }
}

#[test]
fn one_forbidden_customer_is_no_refused_key() {
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
fn many_customers_without_a_clear_answer_do_not_take_hours() {
    let harness = Installation::with(PROGRAM, 120);
    harness.sweep();
    delete(&harness, 90);
    let fault = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Show));
    let report = harness.sweep();
    assert_eq!((report.outcome, report.held), (Outcome::Partial, 0), "{}", report.sentence());
    assert!(harness.fired(fault) <= 3 * 10 + 20, "{} requests", harness.fired(fault));
    harness.sandbox.world().clear_faults();
    assert_eq!(harness.sweep().held, 90);
    harness.expect(0, &["deletions", "approve"]);
    // Now canaries answer, and none of the approved: each pass asks some, and begins with others.
    let gone: Vec<String> = harness.column("SELECT customer_id FROM held_deletions");
    let faults: Vec<_> =
        gone.iter().map(|id| harness.inject(on_show(FaultEffect::status(400), id))).collect();
    let asked = || faults.iter().filter(|fault| harness.fired(**fault) > 0).count();
    assert_eq!(harness.sweep().outcome, Outcome::Complete);
    assert!((64..90).contains(&asked()), "{} of 90 were asked", asked());
    // The tests' passes roll the same dice each time; a daemon's do not.
    for _ in 0..5 {
        harness.expect(0, &["sync"]);
    }
    assert_eq!(asked(), 90, "nobody is kept waiting by those before");
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn missing_customer_whose_id_is_no_path_segment_is_never_requested() {
    let harness = Installation::with(PROGRAM, 12);
    harness.sandbox.world().put_raw(json!({"id": "..", "resource": "customer"}));
    harness.sweep();
    assert!(harness.sandbox.world().delete(".."));
    harness.sandbox.world().clear_requests();
    let report = harness.sweep();
    assert_eq!((report.outcome, report.tally.deleted, report.held), (Outcome::Complete, 0, 0));
    assert!(harness.mirror().contains_key(".."));
    assert!(harness.sandbox.world().requests().iter().all(|seen| seen.path.ends_with("/customers")));
}

#[test]
fn customers_skipped_because_the_list_moved_are_asked_for_and_stay() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let harness = Installation::reading(PROGRAM, 60, Readings { order, ..Readings::default() });
        assert_eq!(harness.sweep().outcome, Outcome::Complete);
        let drift = Drift { delete: 3, place: Region::Served, ..Drift::default() };
        let fault =
            harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).page(2).once());
        let report = harness.sweep();
        assert_eq!(harness.fired(fault), 1);
        assert_eq!(report.outcome, Outcome::Complete, "{order:?}: {}", report.sentence());
        // Whoever was deleted before the end and not listed is proven gone; whoever was skipped answers and stays.
        let truth = harness.sandbox.world().truth();
        for id in harness.column("SELECT id FROM deleted_customers") {
            assert!(!truth.contains_key(&id), "{order:?}: {id} is alive");
        }
        harness.sweep();
        harness.assert_true();
    }
}

#[test]
fn inserts_and_reorders_between_pages_delete_nobody() {
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
    assert_eq!(harness.sweep().outcome, Outcome::Complete);
    harness.assert_true();
}
