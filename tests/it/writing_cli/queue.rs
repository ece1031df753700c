//! `intent create|update|delete`: valid intents are queued, invalid ones are refused.

use komoju_testkit::{Installation, Ran};
use serde_json::json;

use super::{fed, file, intents, lines, utf16};
use crate::PROGRAM;

#[test]
fn command_without_a_database_names_the_command_that_creates_it() {
    let harness = Installation::with(PROGRAM, 0);
    let empty = file(&harness, "none.jsonl", "");
    for arguments in [
        &["create", "--email", "a"][..],
        &["delete", "c"],
        &["import", &empty, "--yes"],
        &["list"],
        &["show", "x"],
        &["plan"],
        &["approve"],
        &["retry", "x"],
        &["cancel", "x"],
    ] {
        let ran = harness.expect(5, &[&["intent"], arguments].concat());
        assert!(ran.stderr.contains("`komoju-sync sync`"), "{}", ran.stderr);
    }
    assert!(!harness.path("komoju.db").exists());
}

#[test]
fn every_command_has_help_with_an_example() {
    let harness = Installation::with(PROGRAM, 0);
    for name in ["create", "update", "delete", "import", "list", "show", "plan", "approve", "retry", "cancel"]
    {
        let help = harness.expect(0, &["intent", name, "--help"]).stdout;
        assert!(help.contains("Example") && help.contains(&format!("intent {name}")), "{name}: {help}");
    }
}

/// Promises: command intent create; command intent update; command intent delete
#[test]
fn given_intent_is_queued_unchanged_and_its_id_is_printed() {
    let harness = Installation::swept(PROGRAM, 1);
    let body =
        file(&harness, "body.json", r#"{"email":"old@x","metadata":{"a":"1","b":"2"},"currency":"JPY"}"#);
    let body = format!("@{body}");
    let ran = harness.expect(
        0,
        &[
            "intent",
            "create",
            "--body",
            &body,
            "--email",
            "",
            "--metadata",
            "b=3",
            "--metadata",
            "c=x=y",
            "--id",
            "n1",
            "--not-before",
            "2099-01-31T09:30:00+09:00",
        ],
    );
    assert_eq!(ran.stdout, "n1\n");
    assert!(
        ran.stderr
            .contains("queued; no daemon runs: `komoju-sync sync` or `komoju-sync run` sends what is due")
    );
    assert!(ran.stderr.contains("not before 2099-01-31T09:30:00+09:00"), "{}", ran.stderr);
    let id = "o'brien:\"quoted\"";
    let expect = r#"{"email":null,"metadata":{"k":null}}"#;
    let update = harness.expect(0, &["intent", "update", id, "--metadata", "k=v", "--expect", expect]).stdout;
    let update = update.trim_end();
    let row = &lines(&harness.expect(0, &["intent", "delete", "@n1", "--json"]).stdout)[0];
    assert_eq!(row["customer_id"], "@n1");
    let columns = harness.column("SELECT name FROM pragma_table_info('intents')");
    let mut keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    let mut sorted = columns.clone();
    sorted.sort();
    keys.sort();
    assert_eq!(keys, sorted);

    let rows = lines(&harness.expect(0, &["intent", "list", "--json"]).stdout);
    assert_eq!(
        rows.iter().map(|row| row["op"].as_str().unwrap()).collect::<Vec<_>>(),
        ["create", "update", "delete"]
    );
    assert_eq!(
        rows[0]["body"],
        json!({"currency": "JPY", "email": "", "metadata": {"a": "1", "b": "3", "c": "x=y"}})
    );
    assert_eq!(
        (&rows[0]["not_before"], &rows[0]["door"]),
        (&json!("2099-01-31T00:30:00.000Z"), &json!("cli"))
    );
    assert!(rows[0]["submitted_by"].as_str().unwrap().starts_with("uid "), "{}", rows[0]["submitted_by"]);
    assert_eq!((&rows[1]["id"], &rows[1]["customer_id"]), (&json!(update), &json!(id)));
    assert_eq!(rows[1]["expect"], json!({"email": null, "metadata": {"k": null}}));
}

#[test]
fn submitter_through_sudo_is_the_sudo_user() {
    let harness = Installation::swept(PROGRAM, 0);
    harness
        .command(&["intent", "create", "--email", "a"])
        .env("SUDO_USER", "hanako")
        .env("USER", "root")
        .output()
        .unwrap();
    assert_eq!(harness.one("SELECT submitted_by FROM intents"), "hanako");
}

#[test]
fn invalid_intent_is_refused_by_field_and_not_queued() {
    let harness = Installation::swept(PROGRAM, 0);
    let card = file(&harness, "card.json", r#"{"payment_details":{"number":"4111111111111111"}}"#);
    let odd = file(&harness, "odd.json", "[1]");
    let (card, odd) = (format!("@{card}"), format!("@{odd}"));
    let empty = format!("@{}", file(&harness, "empty.json", "{}"));
    let marked = format!("@{}", file(&harness, "marked.json", "\u{feff}{\"email\":\"a\"}"));
    let comma = format!("@{}", file(&harness, "comma.json", "{\"email\":\"a\",}"));
    std::fs::write(harness.path("wide.json"), utf16(r#"{"email":"a"}"#)).unwrap();
    let wide = format!("@{}", harness.path("wide.json").display());
    let long = format!("{}=x", "k".repeat(31));
    for (arguments, part) in [
        (&["update", "c"][..], "body: an update must change something"),
        (
            &["create"],
            "body: a create needs at least one parameter: currency, email, metadata, payment_details",
        ),
        (&["create", "--id", "n1", "--wait"], "body: a create needs at least one parameter"),
        (&["create", "--body", &empty], "body: a create needs at least one parameter"),
        (
            &["create", "--body", &marked],
            "--body: begins with a byte order mark; save it as UTF-8 without one",
        ),
        (&["create", "--body", &wide], "--body: is UTF-16; save it as UTF-8"),
        (&["create", "--body", &comma], "--body: must be JSON, and has a trailing comma at column 13"),
        (&["create", "--body", "-"], "--body: is empty"),
        (&["delete", "c", "--expect", &marked], "--expect: begins with a byte order mark"),
        (
            &["delete", "c", "--expect", r#"{"email":"a",}"#],
            "--expect: must be JSON, and has a trailing comma",
        ),
        (&["update", "..", "--email", "a"], "customer_id: must have 1 to 1024 bytes"),
        (&["update", "@unknown", "--email", "a"], "customer_id: must be @ and the id of a create"),
        (&["create", "--metadata", "k"], "--metadata: must be K=V"),
        (&["create", "--metadata", "k=1", "--metadata", "k=1"], "--metadata: k is given twice"),
        (&["create", "--metadata", &long], "body.metadata: a key has more than 30 characters"),
        (&["create", "--email", "a", "--id", "@x"], "id: must have"),
        (&["create", "--email", "a", "--not-before", "tomorrow"], "not_before: must be a time"),
        (&["create", "--email", "a", "--not-before", "2026-02-30T00:00:00Z"], "not_before: must be a time"),
        (&["create", "--body", &card], "body.payment_details: must be a payment token"),
        (&["create", "--body", &odd], "--body: must be a JSON object"),
        (&["create", "--body", r#"{"email":"a"}"#], "every user of this machine can read a command line"),
        (&["create", "--payment-details", "x"], "--payment-details"),
        (&["create", "--expect", "{}"], "--expect"),
        (&["delete", "c", "--expect", "soon"], "--expect: must be JSON, and is not at column 1"),
        (&["delete", "c", "--expect", "7"], "--expect: must be a JSON object"),
        (&["delete", "c", "--expect", r#"{"id":"c"}"#], "expect.id: is not known here"),
        (&["delete", "c", "--email", "a"], "--email"),
        (&["list", "--state", "lost"], "a state is one of"),
    ] {
        let ran = harness.expect(2, &[&["intent"], arguments].concat());
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("4111"), "{}", ran.stderr);
    }
    assert_eq!(intents(&harness), "0");
    harness.sql("UPDATE meta SET outbound_enabled = 0");
    let ran = harness.expect(2, &["intent", "create", "--email", "a"]);
    assert!(ran.stderr.contains("pushing is switched off (outbound.enabled = false)"), "{}", ran.stderr);
}

#[test]
fn same_id_with_the_same_content_is_one_intent() {
    let harness = Installation::swept(PROGRAM, 0);
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    let again = harness.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    assert_eq!(again.stdout, "n1\n");
    assert!(again.stderr.contains("accepted under this id before; it is queued"), "{}", again.stderr);
    let other = harness.expect(2, &["intent", "create", "--email", "b", "--id", "n1"]);
    assert!(other.stderr.contains("id: n1 was used before"), "{}", other.stderr);
    assert_eq!(intents(&harness), "1");
}

#[test]
fn token_is_in_no_output_of_any_command() {
    let harness = Installation::swept(PROGRAM, 1);
    let token = "tok_canary8f3a";
    let shown = |ran: Ran| {
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(token), "{}{}", ran.stdout, ran.stderr);
        ran
    };
    let body = json!({"email": "a@x", "payment_details": token}).to_string();
    let at = format!("@{}", file(&harness, "body.json", &body));
    let given = shown(fed(&harness, &["intent", "create", "--body", "-", "--id", "n1", "--json"], &body));
    assert_eq!(lines(&given.stdout)[0]["body"]["payment_details"], "****");
    assert!(
        harness.one("SELECT body FROM intents").contains(token),
        "the row holds the token until it is sent"
    );
    let customer = harness.sandbox.world().ids()[0].clone();
    shown(harness.expect(0, &["intent", "update", &customer, "--body", &at, "--id", "n2"]));
    shown(harness.expect(2, &["intent", "create", "--body", &body]));
    shown(harness.expect(2, &["intent", "create", "--body", token]));
    let wrong = json!({"payment_details": token, "locale": "ja"}).to_string();
    shown(fed(&harness, &["intent", "create", "--body", "-"], &wrong));
    shown(fed(&harness, &["intent", "create", "--body", "-"], &format!("{{{token}")));
    let line = json!({"op": "create", "body": {"payment_details": token}}).to_string();
    shown(fed(&harness, &["intent", "import", "-", "--yes"], &line));
    shown(fed(&harness, &["intent", "import", "-", "--yes"], &format!("{line} {token}")));
    for arguments in [&["list"][..], &["list", "--json"], &["show", "n1"], &["show", "n1", "--json"]] {
        shown(harness.expect(0, &[&["intent"], arguments].concat()));
    }
    for arguments in [&["plan"][..], &["plan", "--json"]] {
        let plan = shown(harness.expect(0, &[&["intent"], arguments].concat()));
        assert!(plan.stdout.contains(r#""payment_details":"****""#), "{}", plan.stdout);
    }
    shown(harness.expect(0, &["status"]));
    shown(harness.expect(0, &["status", "--json"]));
    // A row that another program damaged is not shown at all.
    harness.sql("DROP TRIGGER intents_transitions");
    harness.sql(&format!("UPDATE intents SET body = 'x {token}' WHERE id = 'n2'"));
    for arguments in [&["list", "--json"][..], &["show", "n2"], &["plan"], &["plan", "--json"]] {
        shown(harness.run(&[&["intent"], arguments].concat()));
    }
    shown(harness.expect(0, &["intent", "cancel", "n1"]));
    shown(harness.expect(1, &["intent", "retry", "n1", "--body", &at]));
}
