//! Unreadable customers in sweeps and probes.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Payload};
use komoju_testkit::Installation;
use serde_json::{Value, json};

use super::{LOCALE, MARK, marked, text, unreadable};
use crate::PROGRAM;

/// How answers show the marked customer.
enum Form {
    /// Its email is replaced by this JSON, which may be none.
    Email(Payload),
    /// Its locale is replaced by this text.
    Locale(Payload),
    /// Its whole object is replaced by this text.
    Whole(Payload),
}

/// Each form, whether the customer's id can still be read, and a part of the reason.
fn forms() -> Vec<(&'static str, Form, bool, &'static str)> {
    let nested = format!("{}{}", "[".repeat(130), "]".repeat(130));
    vec![
        ("half of a surrogate pair", Form::Email(text(r#""\ud800""#)), true, "hex escape"),
        ("130 levels of nesting", Form::Email(text(nested)), true, "recursion limit"),
        ("invalid UTF-8", Form::Email(Payload::Bytes(b"\"\xff\"".to_vec())), true, "not JSON"),
        ("a control character", Form::Email(text("\"\u{1}\"")), true, "not JSON"),
        ("no JSON", Form::Email(text("NaN")), true, "not JSON"),
        ("a number as id", Form::Whole(text(r#"{"id":7}"#)), false, "not a string"),
        ("null", Form::Whole(text("null")), false, "not an object"),
        ("no id", Form::Whole(text(r#"{"email":"x"}"#)), false, "no id"),
        ("an empty id", Form::Whole(text(r#"{"id":""}"#)), false, "empty"),
        ("another resource", Form::Whole(text(r#"{"id":"ID","resource":"payment"}"#)), true, "resource"),
        (
            "9 MB before its id",
            Form::Whole(text(format!(r#"{{"email":"{}","id":"ID"}}"#, "x".repeat(9_000_000)))),
            false,
            "4194304 bytes",
        ),
        (
            "9 MB after its id",
            Form::Locale(text(format!("\"{}\"", "x".repeat(9_000_000)))),
            true,
            "4194304 bytes",
        ),
    ]
}

/// Shows the marked customer in this form, in every answer.
fn show(harness: &Installation, id: &str, form: Form) {
    let (find, with) = match form {
        Form::Email(with) => (format!("\"{MARK}\""), with),
        Form::Locale(with) => (format!("\"{LOCALE}\""), with),
        Form::Whole(with) => {
            let customer = harness.sandbox.world().text(id).unwrap();
            let with = match with {
                Payload::Text(text) => Payload::Text(text.replace("ID", id)),
                other => other,
            };
            (customer, with)
        }
    };
    harness.inject(Fault::new(FaultEffect::Rewrite { find, with }));
}

#[test]
fn unreadable_customer_costs_one_customer_in_each_form() {
    for (name, form, has_id, reason) in forms() {
        let (harness, id) = marked();
        show(&harness, &id, form);
        let report = harness.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{name}: {}", report.sentence());
        let mut truth = harness.sandbox.world().truth();
        truth.remove(&id);
        assert_eq!(harness.mirror(), truth, "{name}");
        let named = unreadable(&harness);
        assert_eq!(named.len(), 1, "{name}: {named:?}");
        assert_eq!(named[0]["id"], if has_id { json!(id) } else { Value::Null }, "{name}: {named:?}");
        assert_eq!((&named[0]["page"], &named[0]["position"]), (&json!(3), &json!(5)), "{name}");
        assert!(named[0]["reason"].as_str().unwrap().contains(reason), "{name}: {named:?}");
        assert_eq!(harness.one("SELECT unreadable FROM passes"), "1", "{name}");
        assert!(report.tally.requests <= 13, "{name}: {} requests", report.tally.requests);
    }
}

#[test]
fn known_customer_that_becomes_unreadable_keeps_its_mirror_row() {
    for (name, form, has_id, _) in forms() {
        let (harness, id) = marked();
        harness.expect(0, &["sync"]);
        let (before, head) = (harness.mirror(), harness.head());
        show(&harness, &id, form);
        harness.sandbox.world().clear_requests();
        let ran = harness.expect(3, &["sync"]);
        assert!(ran.stderr.contains("unreadable"), "{name}: {}", ran.stderr);
        // A known customer that is listed is no suspect.
        let shows = harness.sandbox.world().requests().iter().filter(|seen| seen.page.is_none()).count();
        assert_eq!(shows, usize::from(!has_id), "{name}");
        assert_eq!((harness.mirror(), harness.head()), (before.clone(), head), "{name}");
        assert_eq!(harness.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "complete", "{name}");
        assert_eq!(harness.one("SELECT count(*) FROM held_deletions"), "0", "{name}");
        // It is new until the next complete sweep has found it again.
        let status = harness.expect(3, &["status"]).stdout;
        assert!(status.contains("unreadable") && (!has_id || status.contains(&id)), "{name}: {status}");
        harness.expect(0, &["sync"]);
        harness.expect(0, &["status"]);
        harness.sandbox.world().clear_faults();
        harness.expect(0, &["sync"]);
        assert_eq!(unreadable(&harness), Vec::<Value>::new(), "{name}");
        harness.assert_true();
    }
}

#[test]
fn deletion_beside_an_unreadable_customer_is_recorded() {
    for (name, form, _, _) in forms() {
        let (harness, id) = marked();
        harness.expect(0, &["sync"]);
        show(&harness, &id, form);
        let gone = harness.sandbox.world().ids()[40].clone();
        harness.sandbox.world().delete(&gone);
        harness.sweep();
        assert_eq!(harness.column("SELECT id FROM deleted_customers"), [gone], "{name}");
        assert!(harness.mirror().contains_key(&id), "{name}");
    }
}

#[test]
fn gone_customer_is_deleted_though_an_unreadable_one_without_id_is_listed() {
    let (harness, id) = marked();
    harness.expect(0, &["sync"]);
    let mut world = harness.sandbox.world();
    world.delete(&id);
    world.put_raw(Value::Null);
    drop(world);
    harness.sweep();
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id]);
    assert_eq!(unreadable(&harness).len(), 1);
}

#[test]
fn deleted_customer_that_is_listed_as_unreadable_does_not_hide_a_deletion() {
    let (harness, id) = marked();
    harness.expect(0, &["sync"]);
    harness.sandbox.world().delete(&id);
    harness.expect(0, &["sync"]);
    harness.sandbox.world().restore(&id);
    show(&harness, &id, Form::Email(text(r#""\ud800""#)));
    let gone = harness.sandbox.world().ids()[40].clone();
    harness.sandbox.world().delete(&gone);
    harness.sweep();
    assert!(harness.column("SELECT id FROM deleted_customers").contains(&gone));
    assert_eq!(unreadable(&harness)[0]["id"], json!(id));
}

#[test]
fn many_customers_whose_id_became_unreadable_are_neither_deleted_nor_held() {
    let harness = Installation::with(PROGRAM, 57);
    harness.expect(0, &["sync"]);
    let before = harness.mirror();
    let first: Vec<char> = ('a'..='p').collect();
    for letter in &first {
        let (find, with) = (format!("{{\"id\":\"{letter}"), format!("{{\"id\":7,\"was\":\"{letter}"));
        harness.inject(Fault::new(FaultEffect::Rewrite { find, with: text(with) }));
    }
    let hidden = before.keys().filter(|id| id.starts_with(&first[..])).count();
    assert!(hidden > 10, "more than the limit: {hidden}");
    let report = harness.sweep();
    assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
    assert_eq!(harness.mirror(), before);
    assert_eq!(unreadable(&harness).len(), hidden);
}

#[test]
fn probe_reports_an_unreadable_customer_and_records_the_others() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let mut world = harness.sandbox.world();
    world.create(json!({"id": "bad", "email": MARK}));
    world.create(json!({"id": "good"}));
    drop(world);
    show(&harness, "bad", Form::Email(text(r#""\ud800""#)));
    harness.expect(3, &["sync", "--probe"]);
    assert!(harness.mirror().contains_key("good") && !harness.mirror().contains_key("bad"));
    assert_eq!(unreadable(&harness)[0]["id"], "bad");
}

#[test]
fn suspect_whose_own_answer_is_unreadable_is_alive_and_asked_once() {
    let (harness, id) = marked();
    harness.expect(0, &["sync"]);
    harness
        .inject(Fault::new(FaultEffect::Hide { ids: vec![id.clone()], every: None }).call(FaultedCall::List));
    show(&harness, &id, Form::Email(text(r#""\ud800""#)));
    let ran = harness.expect(3, &["sync"]);
    assert!(harness.mirror().contains_key(&id), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions"), "0");
    assert_eq!(unreadable(&harness)[0]["id"], json!(id));
    let path = format!("/api/v1/customers/{id}");
    assert_eq!(harness.sandbox.world().requests().iter().filter(|seen| seen.path == path).count(), 1);
}

#[test]
fn field_that_changes_on_every_read_is_reported_with_its_count() {
    let harness = Installation::with(PROGRAM, 57);
    let sweep = |n: u32| {
        harness.sandbox.world().clear_faults();
        let (find, with) = ("\"resource\":\"customer\"", format!("\"resource\":\"customer\",\"read\":{n}"));
        let fault = Fault::new(FaultEffect::Rewrite { find: find.into(), with: text(with) });
        harness.inject(fault.call(FaultedCall::List));
        harness.expect(0, &["sync"]).stderr
    };
    let status = || harness.expect(0, &["status"]).stdout;
    sweep(1);
    assert!(!status().contains("field"), "an import changes nothing");
    assert!(sweep(2).contains("the field read changed in 57 of 57 customers"));
    assert!(status().contains("read changed in 57 of 57 customers"), "{}", status());
    sweep(3);
    assert!(status().contains("read changes on every read: in 57 of 57 customers"), "{}", status());
    let json: Value = serde_json::from_str(&harness.expect(0, &["status", "--json"]).stdout).unwrap();
    let field = &json["busy_fields"][0];
    assert_eq!(
        (&field["field"], &field["customers"], &field["sweeps"]),
        (&json!("read"), &json!(57), &json!(2))
    );
    // The field is steady again.
    sweep(3);
    assert!(!status().contains("field"), "{}", status());
}

#[test]
fn status_names_unreadable_customers_as_json() {
    let (harness, id) = marked();
    show(&harness, &id, Form::Email(text(r#""\ud800""#)));
    harness.expect(3, &["sync"]);
    let json: Value = serde_json::from_str(&harness.expect(3, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&json["unreadable"], &json["unreadable_new"]), (&json!(1), &json!(1)));
    let named = &json["unreadable_customers"][0];
    assert_eq!((&named["id"], &named["page"], &named["position"]), (&json!(id), &json!(3), &json!(5)));
    assert_eq!(json["last_sweep"]["unreadable"], 1);
}

#[test]
fn partial_sweep_forgets_no_unreadable_customer() {
    let (harness, id) = marked();
    harness.expect(0, &["sync"]);
    show(&harness, &id, Form::Email(text(r#""\ud800""#)));
    harness.expect(3, &["sync"]);
    let doctor = harness.run(&["doctor"]);
    assert!(doctor.stdout.contains("1 new unreadable customer"), "{}", doctor.stdout);
    harness.expect(0, &["sync"]);
    let row = "SELECT id || ' ' || first_seen_at FROM unreadable_customers";
    let known = harness.one(row);
    // Neither listed nor verified: no request for a customer brings a usable answer.
    let empty = harness.on_lists(FaultEffect::EmptyList);
    let silent = harness.inject(Fault::new(FaultEffect::status(400)).call(FaultedCall::Show));
    harness.expect(1, &["sync"]);
    assert_eq!(harness.one(row), known);
    harness.sandbox.world().remove_fault(empty);
    harness.sandbox.world().remove_fault(silent);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one(row), known, "it is not news");
}
