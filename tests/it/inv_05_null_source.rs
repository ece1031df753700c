//! Invariant 5: a null `source` may mean "none" or "not revealed".
//!
//! Promises: invariant 5

use jiff::SignedDuration;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::readings::{Source, Total};
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Readings};
use komoju_testkit::{InProcess, Installation};
use serde_json::json;

use crate::PROGRAM;

fn with_card(harness: &Installation) -> String {
    let truth = harness.sandbox.world().truth();
    truth.iter().find(|(_, body)| !body["source"].is_null()).map(|(id, _)| id.clone()).unwrap()
}

#[test]
fn lists_that_hide_sources_erase_none() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let head = harness.head();
    harness.sandbox.world().readings_mut().list_source = Source::Hidden;
    harness.sweep();
    assert_eq!(harness.head(), head, "a hidden source is not a change");
    let id = with_card(&harness);
    harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    harness.sweep();
    assert_eq!(harness.kinds_after(head), ["updated"]);
    let brand = harness.one(&format!("SELECT source_brand FROM customers WHERE id = '{id}'"));
    assert_ne!(brand, "null", "the recorded row keeps the known source");
    assert_ne!(harness.one("SELECT after -> '$.source' FROM changes ORDER BY seq DESC LIMIT 1"), "null");
}

#[test]
fn removed_source_becomes_null_when_the_list_shows_other_sources() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let head = harness.head();
    let id = with_card(&harness);
    harness.sandbox.world().update(&id, json!({"source": null}));
    harness.sweep();
    assert_eq!(harness.kinds_after(head), ["updated"]);
    assert_eq!(harness.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'")), "1");
    harness.assert_true();
    harness.sweep();
    assert_eq!(harness.kinds_after(head), ["updated"], "the null source is recorded once");
}

#[test]
fn lookup_that_hides_sources_erases_none() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let head = harness.head();
    let id = with_card(&harness);
    harness.sandbox.world().readings_mut().show_source = Source::Hidden;
    let hidden = komoju_sandbox::FaultEffect::Hide { ids: vec![id.clone()], every: None };
    harness.on_lists(hidden);
    harness.sweep();
    assert_eq!(harness.head(), head);
    assert_eq!(harness.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'")), "0");
}

#[test]
fn source_recorded_by_a_sweep_is_not_removed_by_the_same_sweep() {
    // `total` is too high, so the list is read twice. Between the readings a customer gets a card.
    let readings = Readings { total: Total::Off(3), ..Readings::default() };
    let harness = Installation::reading(PROGRAM, 12, readings);
    let id = with_card(&harness);
    let card = harness.sandbox.world().truth()[&id]["source"].clone();
    harness.sandbox.world().update(&id, json!({"source": null}));
    harness.expect(0, &["sync"]);
    let head = harness.head();
    let waits = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(1).skip(1));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
    harness.sandbox.world().update(&id, json!({"source": card}));
    harness.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(harness.kinds_after(head), ["updated"]);
    harness.assert_true();
}

#[test]
fn sources_of_many_large_customers_become_null_in_one_sweep() {
    let harness = Installation::with(PROGRAM, 60);
    let mut ids: Vec<String> = {
        let truth = harness.sandbox.world().truth();
        let with_card = truth.iter().filter(|(_, body)| !body["source"].is_null());
        with_card.map(|(id, _)| id.clone()).collect()
    };
    let shown = ids.pop().unwrap();
    // Together these customers exceed the size of one planning step.
    assert!(ids.len() > 20);
    let note = "x".repeat(40_000);
    for id in &ids {
        harness.sandbox.world().update(id, json!({"metadata": {"note": note}}));
    }
    harness.sweep();
    let head = harness.head();
    for id in &ids {
        harness.sandbox.world().update(id, json!({"source": null}));
    }
    harness.sweep();
    assert_eq!(harness.kinds_after(head), vec!["updated"; ids.len()]);
    assert_eq!(harness.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{shown}'")), "0");
    harness.assert_true();
}

#[tokio::test]
async fn source_that_was_just_recorded_is_not_removed_by_a_list_that_may_lag() {
    let mut harness = InProcess::open(30).await;
    harness.settings.consistency = Consistency::seconds(60);
    harness.advance(SignedDuration::from_hours(1));
    let truth = harness.sandbox.world().truth();
    let id = truth.iter().find(|(_, body)| !body["source"].is_null()).map(|(id, _)| id.clone()).unwrap();
    harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    harness.sweep().await;
    // Without its card, as a list would show it that is older than the log.
    harness.sandbox.world().update(&id, json!({"source": null}));
    let source = || harness.one(&format!("SELECT source IS NULL FROM customers WHERE id = '{id}'"));
    harness.advance(SignedDuration::from_secs(30));
    harness.pull().sweep().await.unwrap();
    assert_eq!(source(), "0");
    harness.advance(SignedDuration::from_secs(31));
    harness.pull().sweep().await.unwrap();
    assert_eq!(source(), "1");
    harness.assert_true();
}

#[tokio::test]
async fn source_removed_after_a_push_that_is_the_last_change_becomes_null() {
    let mut harness = InProcess::open(30).await;
    let truth = harness.sandbox.world().truth();
    let id = truth.iter().find(|(_, body)| !body["source"].is_null()).map(|(id, _)| id.clone()).unwrap();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "new@example.com"})));
    harness.drain().await;
    let head = harness.head();
    harness.advance(SignedDuration::from_hours(1));
    harness.sandbox.world().update(&id, json!({"source": null}));
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["updated sweep"]);
    harness.assert_true();
}
