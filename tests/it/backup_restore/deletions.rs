//! The first sweep after a restore holds every deletion.
//!
//! Promises: command restore

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::Installation;
use serde_json::json;

use super::{backup, delete};
use crate::PROGRAM;

#[test]
fn the_next_sweep_holds_even_a_single_deletion_until_a_person_has_decided() {
    let harness = Installation::swept(PROGRAM, 60);
    let made = backup(&harness, "b.db");
    harness.expect(0, &["restore", &made]);
    let gone = delete(&harness, 1);
    let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    let moved = harness.sandbox.world().ids()[3].clone();
    harness.sandbox.world().update(&moved, json!({"email": "moved@example.com"}));
    // A sweep that fails concludes nothing: the mark stays.
    harness.inject(Fault::new(FaultEffect::status(400)).call(FaultedCall::List).page(3));
    harness.expect(1, &["sync"]);
    harness.sandbox.world().clear_faults();
    assert_ne!(harness.one("SELECT restored_at FROM meta"), "null");
    assert!(harness.run(&["status"]).stdout.contains("records no deletion"));

    let ran = harness.expect(3, &["sync"]);
    assert!(ran.stderr.contains("1 deletion waits for an operator"), "{}", ran.stderr);
    assert_eq!(harness.column("SELECT customer_id FROM held_deletions WHERE state = 'held'"), gone);
    assert!(harness.mirror().contains_key(&new) && harness.mirror().contains_key(&gone[0]));
    assert_eq!(harness.one("SELECT count(*) FROM changes WHERE kind = 'updated'"), "1");
    assert_eq!(harness.one("SELECT restored_at FROM meta"), "null", "it has concluded");
    // The same, and more: while one waits, so does whoever is missed later.
    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.column("SELECT DISTINCT hold_id FROM held_deletions"),
        ["1"],
        "the same set keeps its hold"
    );
    delete(&harness, 1);
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "2");
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    harness.expect(0, &["deletions", "approve"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "2");
    harness.assert_true();
    // And then it goes on as always.
    delete(&harness, 1);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn after_a_restore_who_is_alive_is_not_held_and_an_earlier_yes_is_asked_anew() {
    let harness = Installation::swept(PROGRAM, 60);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    harness.expect(0, &["deletions", "approve", "1"]);
    let made = backup(&harness, "b.db");
    gone.iter().skip(2).for_each(|id| {
        harness.sandbox.world().restore(id);
    });
    harness.expect(0, &["restore", &made]);
    let hidden = harness.sandbox.world().ids()[5].clone();
    let fault = harness.on_lists(FaultEffect::Hide { ids: vec![hidden], every: None });
    harness.expect(3, &["sync"]);
    assert!(harness.fired(fault) > 0);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    let mut held = harness.column("SELECT customer_id FROM held_deletions WHERE state = 'held'");
    held.sort();
    let mut expected = gone[..2].to_vec();
    expected.sort();
    assert_eq!(held, expected);
}

#[test]
fn a_mass_deletion_after_a_restore_is_sampled_and_held() {
    let harness = Installation::swept(PROGRAM, 60);
    let made = backup(&harness, "b.db");
    harness.expect(0, &["restore", &made]);
    delete(&harness, 30);
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT because FROM hold"), "restored");
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "30");
}
