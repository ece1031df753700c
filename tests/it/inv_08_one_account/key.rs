//! The account guard: swapped, rotated and refused keys.

use komoju_sandbox::{KeyRefusal, OldKey};
use komoju_sync::tasks::pull::Failure;
use komoju_testkit::{Installation, KEY};

use crate::PROGRAM;

/// Promises: exit code 3; command account show; command account accept
#[test]
fn key_of_another_account_stops_everything_until_it_is_accepted() {
    let mut harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    let ran = harness.expect(3, &["sync"]);
    assert!(ran.stderr.contains("this key reads another account"), "{}", ran.stderr);
    assert_eq!(harness.head(), 30, "nothing is recorded");
    let requests = harness.sandbox.world().request_count();
    harness.expect(3, &["sync"]);
    assert_eq!(harness.sandbox.world().request_count(), requests, "a request was sent after the stop");
    harness.expect(3, &["status"]);
    assert!(harness.expect(3, &["account", "show"]).stdout.contains("account accept"));

    harness.expect(0, &["account", "accept"]);
    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.one("SELECT count(*) FROM customers"),
        "42",
        "the customers of the accepted account are added"
    );
    assert_eq!(
        harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"),
        "30",
        "the customers of the old account are held"
    );
}

#[test]
fn account_stop_ends_when_the_right_key_returns() {
    let mut harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    harness.expect(3, &["sync"]);
    harness.use_key(KEY);
    harness.expect(0, &["sync"]);
    harness.expect(0, &["status"]);
    harness.assert_true();
}

#[test]
fn rotated_key_is_accepted_when_one_known_customer_answers() {
    let mut harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    let before = harness.one("SELECT account FROM mirror_info");
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.use_key("sk_test_new");
    harness.expect(0, &["sync"]);
    assert_ne!(harness.one("SELECT account FROM mirror_info"), before);
    harness.assert_true();
}

#[test]
fn rotated_key_is_accepted_though_the_longest_known_customers_are_gone() {
    let mut harness = Installation::swept(PROGRAM, 60);
    for id in harness.column("SELECT id FROM mirror ORDER BY row LIMIT 5") {
        harness.sandbox.world().delete(&id);
    }
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.use_key("sk_test_new");
    let report = harness.sweep();
    assert!(report.failure.is_none(), "{}", report.sentence());
    harness.assert_true();
}

#[test]
fn empty_mirror_accepts_any_key() {
    let mut harness = Installation::with(PROGRAM, 0);
    harness.expect(0, &["sync"]);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT live FROM mirror_info"), "12");
}

/// Promises: exit code 4; invariant 9
#[test]
fn refused_key_exits_4_with_advice_and_is_never_printed() {
    let mut harness = Installation::with(PROGRAM, 30);
    harness.use_key("sk_test_mistaken_canary");
    let ran = harness.expect(4, &["sync"]);
    assert!(ran.stderr.contains("Check that the key"), "{}", ran.stderr);
    harness.expect(4, &["status"]);
    harness.use_key(KEY);
    harness.expect(0, &["sync"]);
    harness.expect(0, &["status"]);
}

#[test]
fn rotated_key_is_accepted_though_one_known_customer_is_silent() {
    for silent in 0..2 {
        let mut harness = Installation::with(PROGRAM, 2);
        harness.expect(0, &["sync"]);
        harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
        harness.use_key("sk_test_new");
        let id = harness.sandbox.world().ids()[silent].clone();
        let mut fault = komoju_sandbox::Fault::new(komoju_sandbox::FaultEffect::status(410));
        fault.on.path = Some(format!("/customers/{id}"));
        harness.inject(fault);
        harness.expect(0, &["sync"]);
    }
}

#[test]
fn key_refusal_ends_when_a_key_of_another_account_is_answered() {
    let mut harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    harness.use_key("sk_test_mistaken_canary");
    harness.expect(4, &["sync"]);
    harness.expect(4, &["status"]);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    harness.expect(3, &["sync"]);
    harness.expect(3, &["status"]);
}

#[test]
fn new_key_without_a_requestable_customer_needs_account_accept() {
    let mut harness = Installation::with(PROGRAM, 0);
    harness.sandbox.world().put_raw(serde_json::json!({"id": "..", "resource": "customer"}));
    harness.expect(0, &["sync"]);
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.use_key("sk_test_new");
    harness.expect(3, &["sync"]);
    harness.expect(0, &["account", "accept"]);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn html_401_and_403_are_not_a_key_refusal() {
    for refusal in [KeyRefusal::Html401, KeyRefusal::Html403] {
        let harness = Installation::with(PROGRAM, 5);
        harness.sweep();
        harness.sandbox.world().refuse_key(Some(refusal));
        let report = harness.sweep();
        assert!(matches!(report.failure, Some(Failure::Request { tries: 10, .. })), "{}", report.sentence());
        harness.sandbox.world().refuse_key(None);
        harness.sweep();
        harness.assert_true();
    }
}
