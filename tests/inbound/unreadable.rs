//! One unreadable customer costs one customer: it is named with its reason, and the rest of the list is applied.

use komoju_core::Outcome;
use komoju_sandbox::{Call, Effect, Fault, Payload};
use serde_json::{Value, json};

use crate::house::House;

/// The email of the customer that answers show in another form.
const MARK: &str = "mark@example.com";

/// Its locale.
const LOCALE: &str = "mark";

/// How answers show the marked customer.
enum Form {
    /// Its email is replaced by this JSON, which may be none.
    Email(Payload),
    /// Its locale is replaced by this text.
    Locale(Payload),
    /// Its whole object is replaced by this text.
    Whole(Payload),
}

fn text(text: impl Into<String>) -> Payload {
    Payload::Text(text.into())
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

/// A house with 57 customers, the 25th of which is the marked one; returns its id.
fn marked() -> (House, String) {
    let house = House::with(57);
    let id = house.sandbox.world().ids()[24].clone();
    house.sandbox.world().update(&id, json!({"email": MARK, "locale": LOCALE}));
    (house, id)
}

/// Shows the marked customer in this form, in every answer.
fn show(house: &House, id: &str, form: Form) {
    let (find, with) = match form {
        Form::Email(with) => (format!("\"{MARK}\""), with),
        Form::Locale(with) => (format!("\"{LOCALE}\""), with),
        Form::Whole(with) => {
            let customer = house.sandbox.world().text(id).unwrap();
            let with = match with {
                Payload::Text(text) => Payload::Text(text.replace("ID", id)),
                other => other,
            };
            (customer, with)
        }
    };
    house.inject(Fault::new(Effect::Rewrite { find, with }));
}

/// The rows of the view, without their times.
fn unreadable(house: &House) -> Vec<Value> {
    let row = "SELECT json_object('id', id, 'page', page, 'position', position, 'reason', reason) FROM unreadable_customers";
    house.column(row).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[test]
fn unreadable_customer_costs_one_customer_in_each_form() {
    for (name, form, has_id, reason) in forms() {
        let (house, id) = marked();
        show(&house, &id, form);
        let report = house.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{name}: {}", report.sentence());
        let mut truth = house.sandbox.world().truth();
        truth.remove(&id);
        assert_eq!(house.mirror(), truth, "{name}");
        let named = unreadable(&house);
        assert_eq!(named.len(), 1, "{name}: {named:?}");
        assert_eq!(named[0]["id"], if has_id { json!(id) } else { Value::Null }, "{name}: {named:?}");
        assert_eq!((&named[0]["page"], &named[0]["position"]), (&json!(3), &json!(5)), "{name}");
        assert!(named[0]["reason"].as_str().unwrap().contains(reason), "{name}: {named:?}");
        assert_eq!(house.one("SELECT unreadable FROM passes"), "1", "{name}");
        assert!(report.tally.requests <= 13, "{name}: {} requests", report.tally.requests);
    }
}

#[test]
fn known_customer_that_becomes_unreadable_keeps_its_mirror_row() {
    for (name, form, has_id, _) in forms() {
        let (house, id) = marked();
        house.expect(0, &["sync"]);
        let (before, head) = (house.mirror(), house.head());
        show(&house, &id, form);
        house.sandbox.world().clear_requests();
        let ran = house.expect(3, &["sync"]);
        assert!(ran.stderr.contains("unreadable"), "{name}: {}", ran.stderr);
        // A known customer that is listed is no suspect.
        let shows = house.sandbox.world().requests().iter().filter(|seen| seen.page.is_none()).count();
        assert_eq!(shows, usize::from(!has_id), "{name}");
        assert_eq!((house.mirror(), house.head()), (before.clone(), head), "{name}");
        assert_eq!(house.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "complete", "{name}");
        assert_eq!(house.one("SELECT count(*) FROM held_deletions"), "0", "{name}");
        // It is new until the next complete sweep has found it again.
        let status = house.expect(3, &["status"]).stdout;
        assert!(status.contains("unreadable") && (!has_id || status.contains(&id)), "{name}: {status}");
        house.expect(0, &["sync"]);
        house.expect(0, &["status"]);
        house.sandbox.world().clear_faults();
        house.expect(0, &["sync"]);
        assert_eq!(unreadable(&house), Vec::<Value>::new(), "{name}");
        house.assert_true();
    }
}

#[test]
fn deletion_beside_an_unreadable_customer_is_recorded() {
    for (name, form, _, _) in forms() {
        let (house, id) = marked();
        house.expect(0, &["sync"]);
        show(&house, &id, form);
        let gone = house.sandbox.world().ids()[40].clone();
        house.sandbox.world().delete(&gone);
        house.sweep();
        assert_eq!(house.column("SELECT id FROM deleted_customers"), [gone], "{name}");
        assert!(house.mirror().contains_key(&id), "{name}");
    }
}

#[test]
fn gone_customer_is_deleted_though_an_unreadable_one_without_id_is_listed() {
    let (house, id) = marked();
    house.expect(0, &["sync"]);
    let mut world = house.sandbox.world();
    world.delete(&id);
    world.put_raw(Value::Null);
    drop(world);
    house.sweep();
    assert_eq!(house.column("SELECT id FROM deleted_customers"), [id]);
    assert_eq!(unreadable(&house).len(), 1);
}

#[test]
fn deleted_customer_that_is_listed_as_unreadable_does_not_hide_a_deletion() {
    let (house, id) = marked();
    house.expect(0, &["sync"]);
    house.sandbox.world().delete(&id);
    house.expect(0, &["sync"]);
    house.sandbox.world().restore(&id);
    show(&house, &id, Form::Email(text(r#""\ud800""#)));
    let gone = house.sandbox.world().ids()[40].clone();
    house.sandbox.world().delete(&gone);
    house.sweep();
    assert!(house.column("SELECT id FROM deleted_customers").contains(&gone));
    assert_eq!(unreadable(&house)[0]["id"], json!(id));
}

#[test]
fn many_customers_whose_id_became_unreadable_are_neither_deleted_nor_held() {
    let house = House::with(57);
    house.expect(0, &["sync"]);
    let before = house.mirror();
    let first: Vec<char> = ('a'..='p').collect();
    for letter in &first {
        let (find, with) = (format!("{{\"id\":\"{letter}"), format!("{{\"id\":7,\"was\":\"{letter}"));
        house.inject(Fault::new(Effect::Rewrite { find, with: text(with) }));
    }
    let hidden = before.keys().filter(|id| id.starts_with(&first[..])).count();
    assert!(hidden > 10, "more than the limit: {hidden}");
    let report = house.sweep();
    assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
    assert_eq!(house.mirror(), before);
    assert_eq!(unreadable(&house).len(), hidden);
}

#[test]
fn probe_reports_an_unreadable_customer_and_records_the_others() {
    let house = House::with(12);
    house.expect(0, &["sync"]);
    let mut world = house.sandbox.world();
    world.create(json!({"id": "bad", "email": MARK}));
    world.create(json!({"id": "good"}));
    drop(world);
    show(&house, "bad", Form::Email(text(r#""\ud800""#)));
    house.expect(3, &["sync", "--probe"]);
    assert!(house.mirror().contains_key("good") && !house.mirror().contains_key("bad"));
    assert_eq!(unreadable(&house)[0]["id"], "bad");
}

#[test]
fn customer_of_four_mebibytes_is_mirrored_in_any_script_and_escaping() {
    let values = |one: &str, count: usize| {
        let value = one.repeat(2000);
        let pair = |n: usize| format!("\"k{n}\":\"{value}\"");
        format!("{{{}}}", (0..count).map(pair).collect::<Vec<_>>().join(","))
    };
    let scripts = [
        ("ASCII", "x", 2000),
        ("kanji", "漢", 690),
        ("escaped kanji", "\\u6f22", 340),
        ("escaped pairs", "\\ud83d\\ude00", 170),
    ];
    for (name, one, count) in scripts {
        let (house, id) = marked();
        house.sandbox.world().update(&id, json!({"metadata": "MARK"}));
        house.inject(Fault::new(Effect::Rewrite { find: "\"MARK\"".into(), with: text(values(one, count)) }));
        let report = house.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{name}: {}", report.sentence());
        assert_eq!((house.mirror().len(), unreadable(&house).len()), (57, 0), "{name}");
        assert_eq!(house.mirror()[&id]["metadata"].as_object().unwrap().len(), count, "{name}");
        // Both again: nothing differs.
        let head = house.head();
        house.sweep();
        assert_eq!(house.head(), head, "{name}");
    }
}

#[test]
fn page_over_its_limit_is_read_in_parts() {
    let house = House::with(57);
    let ids = house.sandbox.world().ids();
    for id in &ids[20..40] {
        house.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(400_000)}}));
    }
    let report = house.sweep();
    assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
    house.assert_true();
    assert_eq!((report.tally.pages, report.tally.customers_seen), (6, 57));
    house.sandbox.world().delete(&ids[25]);
    let report = house.sweep();
    assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 1), "{}", report.sentence());
    house.assert_true();
}

#[test]
fn first_page_over_its_limit_is_read_in_parts_where_the_server_caps_per_page() {
    let house = House::with(23);
    house.sandbox.world().readings_mut().per_page_max = 4;
    let ids = house.sandbox.world().ids();
    for id in &ids[..9] {
        house.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(2_000_000)}}));
    }
    let report = house.sweep();
    assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
    house.assert_true();
}

#[test]
fn list_of_one_customer_over_the_limit_is_complete() {
    use komoju_sandbox::readings::PastEnd;
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        let house = House::with(1);
        house.sandbox.world().readings_mut().past_end = past_end;
        let id = house.sandbox.world().ids()[0].clone();
        house.sandbox.world().update(&id, json!({"metadata": {"k": "x".repeat(9_000_000)}}));
        let report = house.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{past_end:?}: {}", report.sentence());
        let named = unreadable(&house);
        assert_eq!((named.len(), &named[0]["id"]), (1, &json!(id)), "{past_end:?}: {named:?}");
    }
}

#[test]
fn suspect_whose_own_answer_is_unreadable_is_alive_and_asked_once() {
    let (house, id) = marked();
    house.expect(0, &["sync"]);
    house.inject(Fault::new(Effect::Hide { ids: vec![id.clone()], every: None }).call(Call::List));
    show(&house, &id, Form::Email(text(r#""\ud800""#)));
    let ran = house.expect(3, &["sync"]);
    assert!(house.mirror().contains_key(&id), "{}", ran.stderr);
    assert_eq!(house.one("SELECT count(*) FROM held_deletions"), "0");
    assert_eq!(unreadable(&house)[0]["id"], json!(id));
    let path = format!("/api/v1/customers/{id}");
    assert_eq!(house.sandbox.world().requests().iter().filter(|seen| seen.path == path).count(), 1);
}

#[test]
fn field_that_changes_on_every_read_is_reported_with_its_count() {
    let house = House::with(57);
    let sweep = |n: u32| {
        house.sandbox.world().clear_faults();
        let (find, with) = ("\"resource\":\"customer\"", format!("\"resource\":\"customer\",\"read\":{n}"));
        let fault = Fault::new(Effect::Rewrite { find: find.into(), with: text(with) });
        house.inject(fault.call(Call::List));
        house.expect(0, &["sync"]).stderr
    };
    let status = || house.expect(0, &["status"]).stdout;
    sweep(1);
    assert!(!status().contains("field"), "an import changes nothing");
    assert!(sweep(2).contains("the field read changed in 57 of 57 customers"));
    assert!(status().contains("read changed in 57 of 57 customers"), "{}", status());
    sweep(3);
    assert!(status().contains("read changes on every read: in 57 of 57 customers"), "{}", status());
    let json: Value = serde_json::from_str(&house.expect(0, &["status", "--json"]).stdout).unwrap();
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
    let (house, id) = marked();
    show(&house, &id, Form::Email(text(r#""\ud800""#)));
    house.expect(3, &["sync"]);
    let json: Value = serde_json::from_str(&house.expect(3, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&json["unreadable"], &json["unreadable_new"]), (&json!(1), &json!(1)));
    let named = &json["unreadable_customers"][0];
    assert_eq!((&named["id"], &named["page"], &named["position"]), (&json!(id), &json!(3), &json!(5)));
    assert_eq!(json["last_sweep"]["unreadable"], 1);
}

/// How much memory the process may hold, in KiB: `MemoryHigh` of the unit.
const MOST_MEMORY_KIB: u64 = 128 << 10;

#[test]
fn memory_stays_bounded_by_large_customers() {
    let house = House::with(57);
    house.expect(0, &["sync"]);
    // Very many small values, the longest string, and a page that is many times too large.
    let pairs = |count: u32| (0..count).map(|n| (format!("k{n:06}"), json!("v"))).collect::<Value>();
    let large = [pairs(95_000), json!({"k": "x".repeat(4_190_000)}), json!(vec![0; 99_000])];
    let ids = house.sandbox.world().ids();
    // As new metadata, then beside the same metadata that the mirror knows.
    for email in ["first@example.com", "second@example.com"] {
        for (n, id) in ids[10..16].iter().enumerate() {
            house.sandbox.world().update(id, json!({"email": email, "metadata": large[n % 3]}));
        }
        // The sweep is over and the process lives while its push waits for an answer.
        house.expect(0, &["intent", "create", "--metadata", "n=1"]);
        let held = house.inject(Fault::new(Effect::Hold).call(Call::Create));
        let sync = house.spawn(&["sync"]);
        house.runtime.block_on(house.sandbox.until(|world| world.fired(held) == 1));
        let status = std::fs::read_to_string(format!("/proc/{}/status", sync.id())).unwrap();
        house.sandbox.world().remove_fault(held);
        let output = sync.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < MOST_MEMORY_KIB, "{peak} KiB");
    }
    house.assert_true();
}

#[test]
fn partial_sweep_forgets_no_unreadable_customer() {
    let (house, id) = marked();
    house.expect(0, &["sync"]);
    show(&house, &id, Form::Email(text(r#""\ud800""#)));
    house.expect(3, &["sync"]);
    let doctor = house.run(&["doctor"]);
    assert!(doctor.stdout.contains("1 new unreadable customer"), "{}", doctor.stdout);
    house.expect(0, &["sync"]);
    let row = "SELECT id || ' ' || first_seen_at FROM unreadable_customers";
    let known = house.one(row);
    // Neither listed nor verified: no request for a customer brings a usable answer.
    let empty = house.on_lists(Effect::EmptyList);
    let silent = house.inject(Fault::new(Effect::status(400)).call(Call::Show));
    house.expect(1, &["sync"]);
    assert_eq!(house.one(row), known);
    house.sandbox.world().remove_fault(empty);
    house.sandbox.world().remove_fault(silent);
    house.expect(0, &["sync"]);
    assert_eq!(house.one(row), known, "it is not news");
}
