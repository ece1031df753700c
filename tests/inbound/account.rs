//! Whose customers these are: swapped, rotated and refused keys.

use komoju_sandbox::{OldKey, Refusal};
use komoju_sync::tasks::pull::Failure;

use crate::house::{House, KEY};

#[test]
fn a_key_of_another_account_stops_everything_until_it_is_accepted() {
    let mut house = House::with(30);
    house.expect(0, &["sync"]);
    house.sandbox.world().add_account("sk_test_other", 9, 12);
    house.use_key("sk_test_other");
    let ran = house.expect(3, &["sync"]);
    assert!(ran.stderr.contains("this key reads another account"), "{}", ran.stderr);
    assert_eq!(house.head(), 30, "nothing is recorded");
    let asked = house.sandbox.world().request_count();
    house.expect(3, &["sync"]);
    assert_eq!(house.sandbox.world().request_count(), asked, "nothing more is asked");
    house.expect(3, &["status"]);
    assert!(house.expect(3, &["account", "show"]).stdout.contains("account accept"));

    house.expect(0, &["account", "accept"]);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM customers"), "42", "the new ones came");
    assert_eq!(
        house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"),
        "30",
        "the old ones wait"
    );
}

#[test]
fn the_right_key_ends_a_stop_by_coming_back() {
    let mut house = House::with(30);
    house.expect(0, &["sync"]);
    house.sandbox.world().add_account("sk_test_other", 9, 12);
    house.use_key("sk_test_other");
    house.expect(3, &["sync"]);
    house.use_key(KEY);
    house.expect(0, &["sync"]);
    house.expect(0, &["status"]);
    house.assert_true();
}

#[test]
fn a_rotated_key_is_accepted_by_one_known_customer() {
    let mut house = House::with(30);
    house.expect(0, &["sync"]);
    let before = house.one("SELECT account FROM mirror_info");
    house.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    house.use_key("sk_test_new");
    house.expect(0, &["sync"]);
    assert_ne!(house.one("SELECT account FROM mirror_info"), before);
    house.assert_true();
}

#[test]
fn an_empty_mirror_takes_any_key() {
    let mut house = House::with(0);
    house.expect(0, &["sync"]);
    house.sandbox.world().add_account("sk_test_other", 9, 12);
    house.use_key("sk_test_other");
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT live FROM mirror_info"), "12");
}

#[test]
fn a_refused_key_exits_4_says_what_to_check_and_is_never_printed() {
    let mut house = House::with(30);
    house.use_key("sk_test_mistaken_canary");
    let ran = house.expect(4, &["sync"]);
    assert!(ran.stderr.contains("Check that the key"), "{}", ran.stderr);
    house.expect(4, &["status"]);
    house.use_key(KEY);
    house.expect(0, &["sync"]);
    house.expect(0, &["status"]);
}

#[test]
fn a_known_customer_without_a_clear_answer_does_not_hide_the_others() {
    for silent in 0..2 {
        let mut house = House::with(2);
        house.expect(0, &["sync"]);
        house.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
        house.use_key("sk_test_new");
        let id = house.sandbox.world().ids()[silent].clone();
        let mut fault = komoju_sandbox::Fault::new(komoju_sandbox::Effect::status(410));
        fault.on.path = Some(format!("/customers/{id}"));
        house.inject(fault);
        house.expect(0, &["sync"]);
    }
}

#[test]
fn a_refusal_is_over_when_another_accounts_key_is_answered() {
    let mut house = House::with(30);
    house.expect(0, &["sync"]);
    house.use_key("sk_test_mistaken_canary");
    house.expect(4, &["sync"]);
    house.expect(4, &["status"]);
    house.sandbox.world().add_account("sk_test_other", 9, 12);
    house.use_key("sk_test_other");
    house.expect(3, &["sync"]);
    house.expect(3, &["status"]);
}

#[test]
fn a_new_key_that_can_be_asked_about_nobody_stops_for_a_person() {
    let mut house = House::with(0);
    house.sandbox.world().put_raw(serde_json::json!({"id": "..", "resource": "customer"}));
    house.expect(0, &["sync"]);
    house.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    house.use_key("sk_test_new");
    house.expect(3, &["sync"]);
    house.expect(0, &["account", "accept"]);
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_firewalls_401_and_403_are_no_refusal() {
    for refusal in [Refusal::Html401, Refusal::Html403] {
        let house = House::with(5);
        house.sweep();
        house.sandbox.world().refuse_key(Some(refusal));
        let report = house.sweep();
        assert!(matches!(report.failure, Some(Failure::Setback { tries: 10, .. })), "{}", report.sentence());
        house.sandbox.world().refuse_key(None);
        house.sweep();
        house.assert_true();
    }
}
