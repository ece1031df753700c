//! One table of intents, and all that judge them: the parser, the JSON Schema, the triggers in this program's SQLite and in the
//! `sqlite3` shell of the machine. They must agree on every one.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};
use std::process::Command;

use komoju_core::intent::Intent;
use komoju_sync::store::Store;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A fresh database in which `n1` is a create.
struct Database {
    _directory: TempDir,
    path: PathBuf,
}

impl Database {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .execute_batch("INSERT INTO intents (id, op, body) VALUES ('n1', 'create', '{\"currency\": \"JPY\"}'), ('n 1/é', 'create', '{\"currency\": \"JPY\"}')")
            .unwrap();
        Self { _directory: directory, path }
    }

    fn open(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

/// Intents that every judge takes.
fn good() -> Vec<(&'static str, Value)> {
    let long = |n: usize| "x".repeat(n);
    let update = |body: Value| json!({"op": "update", "customer_id": "c", "body": body});
    let at = |time: &str| json!({"op": "create", "body": {"currency": "JPY"}, "not_before": time});
    vec![
        (
            "nulls are nothing",
            json!({"op": "create", "body": {"currency": "JPY"}, "customer_id": null, "id": null, "expect": null, "not_before": null}),
        ),
        (
            "every parameter",
            json!({"op": "create", "id": "é 顧客:1", "body": {"email": "a", "metadata": {"k": "v", "n": null},
            "payment_details": "tok_1", "currency": "JPY"}}),
        ),
        ("a token that is long and has digits", update(json!({"payment_details": "tok_4111111111111111"}))),
        ("a token of eleven digits", update(json!({"payment_details": "41111111111"}))),
        ("a token of twenty digits", update(json!({"payment_details": "41111111111111111111"}))),
        ("digits and hyphens that are no card number", update(json!({"payment_details": "-4111-"}))),
        ("a card number elsewhere", update(json!({"metadata": {"order": "4111111111111111"}}))),
        ("an email of null", update(json!({"email": null}))),
        ("an empty email: the API says", update(json!({"email": ""}))),
        ("empty metadata", update(json!({"metadata": {}}))),
        ("metadata at its limits", update(json!({"metadata": {long(30): "é".repeat(2000)}}))),
        ("a metadata key in characters", update(json!({"metadata": {"é".repeat(30): "x"}}))),
        ("an empty metadata key", update(json!({"metadata": {"": "x"}}))),
        ("a customer of an intent", json!({"op": "update", "customer_id": "@n1", "body": {"email": "a"}})),
        (
            "a customer's id that needs encoding",
            json!({"op": "delete", "customer_id": "é'\"&=+:;,@[]{}|^<>`顧客🎌"}),
        ),
        (
            "a customer's id with invisible characters",
            json!({"op": "delete", "customer_id": "a\u{200b}b\u{feff}\u{10ffff}"}),
        ),
        ("a customer of an intent with any id", json!({"op": "delete", "customer_id": "@n 1/é"})),
        (
            "an id of many scripts",
            json!({"op": "create", "body": {"currency": "JPY"}, "id": "é\u{a0}顧客\u{fffd}\u{10ffff}🎌"}),
        ),
        ("the longest customer id in two bytes", json!({"op": "delete", "customer_id": "é".repeat(512)})),
        ("three dots", json!({"op": "delete", "customer_id": "..."})),
        ("the longest customer id", json!({"op": "delete", "customer_id": long(1024)})),
        ("the longest id", json!({"op": "create", "body": {"currency": "JPY"}, "id": long(255)})),
        ("an @ within an id", json!({"op": "create", "body": {"currency": "JPY"}, "id": "a@b"})),
        (
            "an expectation of everything",
            json!({"op": "delete", "customer_id": "c", "expect": {"email": null, "source": {"brand": "visa"}, "locale": "ja",
            "metadata": {"a": null, "b": 1}}}),
        ),
        ("an empty expectation", json!({"op": "delete", "customer_id": "c", "expect": {}})),
        ("a time in UTC", at("2026-01-31T09:30:00Z")),
        ("a time with an offset", at("2026-01-31T09:30:00+09:00")),
        ("a time to the nanosecond", at("2026-01-31T23:59:59.123456789-14:00")),
        ("a leap day", at("2028-02-29T00:00:00.5Z")),
    ]
}

/// An expectation of so many levels, of objects and arrays by turns.
fn nested(levels: usize) -> Vec<u8> {
    let open = (1..levels).map(|level| if level % 2 == 0 { "[" } else { "{\"source\":" });
    let close = (1..levels).rev().map(|level| if level % 2 == 0 { "]" } else { "}" });
    open.chain(["{}"]).chain(close).collect::<String>().into_bytes()
}

/// A case as bytes: its name, `body`, `expect`, and whether all judges take it.
type Raw = (&'static str, Option<Vec<u8>>, Option<Vec<u8>>, bool);

/// Intents that a JSON value cannot spell.
fn raw() -> Vec<Raw> {
    let body = |name, text: &[u8], is_good| (name, Some(text.to_vec()), None, is_good);
    let email = |name, text: &[u8], is_good| {
        (name, Some([b"{\"email\": \"".as_slice(), text, b"\"}"].concat()), None, is_good)
    };
    let expect = |name, text: &[u8], is_good| (name, None, Some(text.to_vec()), is_good);
    vec![
        body("a parameter twice", br#"{"email": "a", "email": "b"}"#, false),
        body("a parameter twice with one value", br#"{"email": "a", "email": "a"}"#, false),
        body("a parameter twice in two spellings", br#"{"email": "a", "em\u0061il": "b"}"#, false),
        body("a metadata key twice", br#"{"metadata": {"k": "a", "k": "b"}}"#, false),
        body("a key in two objects", br#"{"email": "a", "metadata": {"email": "b"}}"#, true),
        body("white space around", b" \t\r\n{\"email\" : \"a\"}\n", true),
        body("two values", br#"{"email": "a"}{}"#, false),
        body("a NUL after it", b"{\"email\": \"a\"}\0", false),
        body("a NUL and more after it", b"{\"email\": \"a\"}\0{", false),
        body("a byte order mark", b"\xef\xbb\xbf{\"email\": \"a\"}", false),
        body("a trailing comma", br#"{"email": "a",}"#, false),
        body("single quotes", br"{'email': 'a'}", false),
        body("a bare key", br#"{email: "a"}"#, false),
        body("a number of no JSON", br#"{"email": 01}"#, false),
        email("Latin-1", b"caf\xe9@x", false),
        email("Latin-1 at the end", b"caf\xe9", false),
        email("Shift_JIS", b"\x83e\x83X\x83g", false),
        email("half-width kana in Shift_JIS", b"\xc3\xbd\xc4\xb1\xd1", false),
        email("EUC-JP", b"\xa5\xc6\xa5\xb9\xa5\xc8", false),
        email("a continuation alone", b"\x80", false),
        email("one continuation too many", b"\xc3\xa9\xa9", false),
        email("one continuation too many after a longer one", b"\xe3\x81\x82\x82", false),
        email("a character cut short", b"\xe3\x81", false),
        email("a character cut short by another", b"\xf0\x9f\xe3\x81\x82\x8e\x8c", false),
        email("an overlong slash", b"\xc0\xaf", false),
        email("an overlong slash in three", b"\xe0\x80\xaf", false),
        email("an overlong character in four", b"\xf0\x8f\xbf\xbf", false),
        email("a surrogate as bytes", b"\xed\xa0\x80", false),
        email("a pair of surrogates as bytes", b"\xed\xa0\xbd\xed\xb8\x80", false),
        email("a character beyond Unicode", b"\xf4\x90\x80\x80", false),
        email("a byte that UTF-8 never has", b"\xfe", false),
        email(
            "the edges of UTF-8",
            "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            true,
        ),
        email("all scripts", "é顧客Ελ🎌ー\u{a0}\u{85}".as_bytes(), true),
        email("the first half of a pair", br"\ud83d", false),
        email("the second half of a pair", br"\uDE00", false),
        email("the halves in the wrong order", br"\ude00\ud83d", false),
        email("a half before a pair", br"\ud83d\ud83d\ude00", false),
        email("a half after a pair", br"\ud83d\ude00\ude00", false),
        email("a half and a character", br"\ud83dx\ude00", false),
        email("a half before a backslash", br"\ud83d\\ude00", false),
        email("a pair", br"\uD83D\ude00\ud83d\uDE00", true),
        email("a backslash and letters", br"\\ud83d", true),
        email("an escaped NUL", br"a\u0000b", true),
        email("a control character", b"a\x01b", false),
        email("a line's end", b"a\nb", false),
        expect("an expected field twice", br#"{"email": "a", "email": "b"}"#, false),
        expect("an expected key twice", br#"{"metadata": {"k": "a", "k": "b"}}"#, false),
        expect("a key twice further in", br#"{"source": [{"k": {"a": 1, "a": 1}}]}"#, false),
        expect("expected Latin-1", b"{\"email\": \"caf\xe9\"}", false),
        expect("an expected half of a pair", br#"{"source": {"k": ["\ud800"]}}"#, false),
        expect("a key that is half of a pair", br#"{"metadata": {"\udc00": "v"}}"#, false),
        expect("an expected NUL", b"{}\0", false),
        expect("an expectation of 99 levels", &nested(99), true),
        expect("an expectation of 100 levels", &nested(100), false),
        expect("an expectation of 150 levels", &nested(150), false),
        expect("numbers of any size", br#"{"source": [1E400, -0.0, 12345678901234567890]}"#, true),
    ]
}

/// Intents that no judge takes.
fn bad() -> Vec<(&'static str, Value)> {
    let long = |n: usize| "x".repeat(n);
    let update = |body: Value| json!({"op": "update", "customer_id": "c", "body": body});
    let update_of = |id: &str| json!({"op": "update", "customer_id": id, "body": {"email": "a"}});
    let delete = |id: &str| json!({"op": "delete", "customer_id": id});
    let expect = |expect: Value| json!({"op": "delete", "customer_id": "c", "expect": expect});
    let id = |id: &str| json!({"op": "create", "body": {"currency": "JPY"}, "id": id});
    let at = |time: &str| json!({"op": "create", "body": {"currency": "JPY"}, "not_before": time});
    vec![
        ("no op", json!({})),
        ("an op of null", json!({"op": null, "customer_id": "c"})),
        ("another op", json!({"op": "destroy", "customer_id": "c"})),
        ("an op in capitals", json!({"op": "CREATE"})),
        ("an op that is a number", json!({"op": 7})),
        ("an unknown field", json!({"op": "create", "body": {"currency": "JPY"}, "kind": "x"})),
        ("an engine's column", json!({"op": "create", "body": {"currency": "JPY"}, "state": "done"})),
        (
            "a create with a customer",
            json!({"op": "create", "body": {"currency": "JPY"}, "customer_id": "c"}),
        ),
        ("a create with an expectation", json!({"op": "create", "body": {"currency": "JPY"}, "expect": {}})),
        ("a create of nothing", json!({"op": "create"})),
        ("a create with an empty body", json!({"op": "create", "body": {}})),
        ("a create with a body of null", json!({"op": "create", "body": null})),
        ("an update of nobody", json!({"op": "update", "body": {"email": "a"}})),
        ("an update without a body", json!({"op": "update", "customer_id": "c"})),
        ("an update of nothing", update(json!({}))),
        ("a delete of nobody", json!({"op": "delete"})),
        ("a delete with a body", json!({"op": "delete", "customer_id": "c", "body": {"email": "a"}})),
        ("a delete with an empty body", json!({"op": "delete", "customer_id": "c", "body": {}})),
        ("a customer that is an array", json!({"op": "delete", "customer_id": ["c"]})),
        ("an empty customer", delete("")),
        ("a dot", delete(".")),
        ("two dots", delete("..")),
        ("a NUL in a customer", delete("a\0b")),
        ("a NUL alone", delete("\0")),
        ("a line's end after a customer", delete("c\r\n")),
        ("a space after a customer", delete("c ")),
        ("a space before a customer", delete(" c")),
        ("an ideographic space in a customer", delete("a\u{3000}b")),
        ("a non-breaking space in a customer", delete("a\u{a0}b")),
        ("an ogham space in a customer", delete("a\u{1680}b")),
        ("a thin space in a customer", delete("a\u{2009}b")),
        ("a hair space in a customer", delete("a\u{200a}b")),
        ("a line separator in a customer", delete("a\u{2028}b")),
        ("a paragraph separator in a customer", delete("a\u{2029}b")),
        ("a narrow space in a customer", delete("a\u{202f}b")),
        ("a mathematical space in a customer", delete("a\u{205f}b")),
        ("a next line in a customer", delete("a\u{85}b")),
        ("a control character in a customer", delete("a\u{1}b")),
        ("a delete character in a customer", delete("a\u{7f}b")),
        ("a C1 control in a customer", delete("a\u{9b}b")),
        ("a slash in a customer", delete("a/b")),
        ("a backslash in a customer", delete("a\\b")),
        ("a percent sign in a customer", delete("a%2Fb")),
        ("a question mark in a customer", delete("a?b")),
        ("a fragment in a customer", delete("a#b")),
        ("a path to a customer", update_of("../c")),
        ("a customer over 1 KiB", delete(&long(1025))),
        ("a reference to nothing", delete("@")),
        ("a reference to a reference", delete("@@n1")),
        ("a reference with a control character", delete("@n\n1")),
        ("an empty id", id("")),
        ("an id with an @", id("@a")),
        ("an id over 255 bytes", id(&long(256))),
        ("a line's end in an id", id("a\nb")),
        ("a NUL in an id", id("a\0")),
        ("a delete character in an id", id("a\u{7f}")),
        ("a C1 control in an id", id("\u{9b}1m")),
        ("an id that is an array", json!({"op": "create", "body": {"currency": "JPY"}, "id": [1]})),
        ("a body that is an array", update(json!([1]))),
        ("a body that is a text", update(json!("x"))),
        ("an unknown parameter", update(json!({"locale": "ja"}))),
        ("an email that is a number", update(json!({"email": 5}))),
        ("a currency of null", update(json!({"currency": null}))),
        ("a card", update(json!({"payment_details": {"type": "credit_card", "number": "4111111111111111"}}))),
        ("a card's number", update(json!({"payment_details": 4_111_111_111_111_111_u64}))),
        ("a card's number as text", update(json!({"payment_details": "4111111111111111"}))),
        ("a card number of 12 digits", update(json!({"payment_details": "411111111111"}))),
        ("a card number of 19 digits", update(json!({"payment_details": "4111111111111111111"}))),
        ("a card number in groups", update(json!({"payment_details": "4111 1111 1111 1111"}))),
        ("a card number with hyphens", update(json!({"payment_details": " 4111-1111-1111-1111\n"}))),
        (
            "a full-width card number",
            update(json!({"payment_details": "４１１１　１１１１‐１１１１－１１１１"})),
        ),
        (
            "a card number in a create",
            json!({"op": "create", "body": {"payment_details": "4111111111111111"}}),
        ),
        ("a token of null", update(json!({"payment_details": null}))),
        ("metadata that is a text", update(json!({"metadata": "x"}))),
        ("metadata of null", update(json!({"metadata": null}))),
        ("metadata that is an array", update(json!({"metadata": ["x"]}))),
        ("a metadata key of 31", update(json!({"metadata": {long(31): "x"}}))),
        ("a metadata value of 2001", update(json!({"metadata": {"k": "é".repeat(2001)}}))),
        ("a metadata value that is a number", update(json!({"metadata": {"k": 1}}))),
        ("a metadata value that is an object", update(json!({"metadata": {"k": {}}}))),
        ("an expectation that is an array", expect(json!([]))),
        ("an unknown expectation", expect(json!({"id": "c"}))),
        ("expected metadata of null", expect(json!({"metadata": null}))),
        ("soon", at("soon")),
        ("a time without an offset", at("2026-01-31T09:30:00")),
        ("a date", at("2026-01-31")),
        ("a space in a time", at("2026-01-31 09:30:00Z")),
        ("a space before the offset", at("2026-01-31T09:30:00 Z")),
        ("small letters", at("2026-01-31t09:30:00z")),
        ("no seconds", at("2026-01-31T09:30Z")),
        ("hour 24", at("2026-01-31T24:00:00Z")),
        ("second 60", at("2026-01-31T09:30:60Z")),
        ("an impossible day", at("2026-02-30T09:30:00Z")),
        ("month 13", at("2026-13-01T09:30:00Z")),
        ("a fraction of nothing", at("2026-01-31T09:30:00.Z")),
        ("a fraction of letters", at("2026-01-31T09:30:00.5xZ")),
        ("a comma", at("2026-01-31T09:30:00,5Z")),
        ("ten places", at("2026-01-31T09:30:00.1234567890Z")),
        ("an offset that nobody has", at("2026-01-31T09:30:00+15:00")),
        ("an offset of hours", at("2026-01-31T09:30:00+09")),
        ("a zone", at("2026-01-31T09:30:00+09:00[Asia/Tokyo]")),
        (
            "a time that is a number",
            json!({"op": "create", "body": {"currency": "JPY"}, "not_before": 1_700_000_000}),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The statement that drops an intent by SQL: JSON as text, text as it is, and what should be text and is not as a blob, which is
/// how SQL can be wrong about a type.
fn insert(intent: &Value) -> String {
    let text = |text: &str| format!("CAST(x'{}' AS TEXT)", hex(text.as_bytes()));
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (name, value) in intent.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
        columns.push(name.clone());
        values.push(match (name.as_str(), value) {
            ("body" | "expect", json) => text(&json.to_string()),
            (_, Value::String(words)) => text(words),
            (_, other) => format!("x'{}'", hex(other.to_string().as_bytes())),
        });
    }
    match columns.is_empty() {
        true => "INSERT INTO intents DEFAULT VALUES".to_owned(),
        false => format!("INSERT INTO intents ({}) VALUES ({})", columns.join(", "), values.join(", ")),
    }
}

/// The machine's own shell, where there is one.
fn shell(database: &Path, sql: &str) -> Option<Result<String, String>> {
    let output = Command::new("sqlite3").arg("-batch").arg("-bail").arg(database).arg(sql).output().ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Some(match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    })
}

fn has_shell() -> bool {
    match Command::new("sqlite3").arg("--version").output() {
        Ok(output) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), &output.stdout);
            true
        }
        Err(e) => {
            let told = format!(
                "no sqlite3 shell on PATH ({e}): the triggers were judged by the built-in SQLite alone\n"
            );
            let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
            false
        }
    }
}

#[test]
fn all_doors_judge_alike() {
    let database = Database::new();
    let conn = database.open();
    let schema = jsonschema::options().should_validate_formats(true).build(&Intent::schema()).unwrap();
    let with_shell = has_shell();
    let mut disagreements = Vec::new();
    let cases =
        good().into_iter().map(|case| (case, true)).chain(bad().into_iter().map(|case| (case, false)));
    for ((name, intent), is_good) in cases {
        let sql = format!("BEGIN; {}; ROLLBACK", insert(&intent));
        let by_trigger = conn.execute_batch(&sql).map_err(|e| e.to_string());
        if by_trigger.is_err() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        let mut judged = vec![
            ("the parser", Intent::parse(&intent.to_string()).map(|_| ()).map_err(|e| e.to_string())),
            ("the schema", schema.validate(&intent).map_err(|e| e.to_string())),
            ("the triggers", by_trigger),
        ];
        if with_shell {
            judged.push(("the shell", shell(&database.path, &sql).unwrap().map(|_| ())));
        }
        for (judge, verdict) in judged {
            if verdict.is_ok() != is_good {
                disagreements.push(format!("{name}: {judge} says {verdict:?}"));
            }
        }
    }
    for (name, body, expect, is_good) in raw() {
        let field = |name: &str, value: &Option<Vec<u8>>| match value {
            Some(value) => [format!(", \"{name}\": ").as_bytes(), value].concat(),
            None => Vec::new(),
        };
        let (in_body, in_expect) = (field("body", &body), field("expect", &expect));
        let op = if body.is_some() { "update" } else { "delete" };
        let start = format!("{{\"op\": \"{op}\", \"customer_id\": \"c\"");
        let file = [start.as_bytes(), &in_body, &in_expect, b"}"].concat();
        let column = |value: &Option<Vec<u8>>| match value {
            Some(value) => format!("CAST(x'{}' AS TEXT)", hex(value)),
            None => "NULL".to_owned(),
        };
        let sql = format!(
            "BEGIN; INSERT INTO intents (op, customer_id, body, expect) VALUES ('{op}', 'c', {}, {}); ROLLBACK",
            column(&body),
            column(&expect)
        );
        let by_parser = match std::str::from_utf8(&file) {
            Ok(text) => Intent::parse(text).map(|_| ()).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let by_trigger = conn.execute_batch(&sql).map_err(|e| e.to_string());
        if by_trigger.is_err() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        let mut judged = vec![("the parser", by_parser), ("the triggers", by_trigger)];
        if with_shell {
            judged.push(("the shell", shell(&database.path, &sql).unwrap().map(|_| ())));
        }
        for (judge, verdict) in judged {
            if verdict.is_ok() != is_good {
                disagreements.push(format!("{name}: {judge} says {verdict:?}"));
            }
        }
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

#[test]
fn the_schema_that_is_shipped_is_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/intent.schema.json");
    let schema = serde_json::to_string_pretty(&Intent::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema,
        "docs/intent.schema.json is out of date: `UPDATE=1 cargo test --test doors the_schema` writes it anew"
    );
}

/// Statements that must fail, and a word of why.
fn forbidden() -> Vec<(String, &'static str)> {
    let mut statements = vec![];
    for (column, value) in [
        ("state", "'done'"),
        ("state", "NULL"),
        ("attempts", "1"),
        ("next_attempt_at", "'2026-01-31T09:30:00.000Z'"),
        ("settled_at", "'2026-01-31T09:30:00.000Z'"),
        ("result_customer_id", "'c'"),
        ("change_seq", "1"),
        ("reason", "'x'"),
        ("detail", "'{}'"),
        ("created_at", "'2020-01-31T09:30:00.000Z'"),
        ("created_at", "NULL"),
        ("position", "1"),
        ("position", "77"),
        ("position", "0"),
        ("position", "-5"),
    ] {
        let sql = format!("INSERT INTO intents (op, customer_id, {column}) VALUES ('delete', 'c', {value})");
        statements.push((sql, "a writer sets"));
    }
    let more = [
        ("INSERT INTO intents (op, door) VALUES ('create', 'window')", "door"),
        ("INSERT INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR REPLACE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("REPLACE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR IGNORE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR IGNORE INTO intents (op) VALUES ('destroy')", "op: must be"),
        (
            "INSERT INTO intents (op, id) VALUES ('create', 'n1') ON CONFLICT (id) DO UPDATE SET body = '{}'",
            "id: was used before",
        ),
        (
            "INSERT INTO intents (op, id) VALUES ('create', 'n1') ON CONFLICT DO NOTHING",
            "id: was used before",
        ),
        ("INSERT INTO intents (op, customer_id) VALUES ('delete', '@nobody')", "the id of a create"),
        ("INSERT INTO intents (op, body) VALUES ('create', '{')", "body: must be a JSON object"),
        ("INSERT INTO intents (op, body) VALUES ('create', '{email: 1}')", "body: must be a JSON object"),
        ("INSERT INTO intents (op, body) VALUES ('create', x'7b7d')", "body: must be a JSON object"),
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"email": "a", "email": "b"}')"#,
            "body: a key appears twice in one object",
        ),
        ("INSERT INTO intents (op, id) VALUES ('create', CAST(x'61ff' AS TEXT))", "id: must be UTF-8"),
        ("INSERT INTO intents (op, id) VALUES ('create', CAST(x'c3a9eda080' AS TEXT))", "id: must be UTF-8"),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'c3' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'61c080' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'80' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        // An older SQLite would not find it again to mask it.
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"payment\u005fdetails": "tok_1"}')"#,
            "without escapes",
        ),
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"m\u0065tadata": {"k": 1}}')"#,
            "a value must be a text or null",
        ),
        ("UPDATE OR REPLACE intents SET id = 'n2' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET position = 9 WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET op = 'delete' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET customer_id = 'c' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET body = '{}' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET submitted_by = 'me' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET state = 'lost' WHERE id = 'n1'", "cannot go from this state"),
        ("DELETE FROM intents WHERE id = 'n1'", "never removed"),
    ];
    statements.extend(more.map(|(sql, why)| (sql.to_owned(), why)));
    statements
}

#[test]
fn what_sql_must_not_do_is_refused_in_words_and_changes_nothing() {
    let database = Database::new();
    let conn = database.open();
    let with_shell = has_shell();
    let content = || -> Vec<String> {
        let mut statement = conn
            .prepare(
                "SELECT id || position || op || state || coalesce(body, '') FROM intents ORDER BY position",
            )
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let before = content();
    for (sql, why) in forbidden() {
        let told = conn.execute_batch(&sql).expect_err(&sql).to_string();
        assert!(told.contains(why), "{sql}: {told}");
        if with_shell {
            let told = shell(&database.path, &sql).unwrap().expect_err(&sql);
            assert!(told.contains(why), "{sql} in the shell: {told}");
        }
        assert_eq!(content(), before, "{sql}");
    }
}

#[test]
fn nothing_is_accepted_by_sql_while_pushing_is_switched_off() {
    let database = Database::new();
    let conn = database.open();
    let own = database.open();
    komoju_sync::store::file::own::sign(&own).unwrap();
    own.execute_batch("UPDATE meta SET outbound_enabled = 0").unwrap();
    let told = conn.execute_batch("INSERT INTO intents (op) VALUES ('create')").unwrap_err().to_string();
    assert!(told.contains("pushing is switched off (outbound.enabled = false)"), "{told}");
}

const STATES: [&str; 7] = ["queued", "sending", "waiting", "done", "rejected", "parked", "cancelled"];

/// How a row gets into a state, by steps that are allowed.
fn way_to(state: &str) -> &'static [&'static str] {
    match state {
        "sending" => &["sending"],
        "waiting" => &["sending", "waiting"],
        "done" => &["sending", "done"],
        "rejected" => &["sending", "rejected"],
        "parked" => &["parked"],
        "cancelled" => &["cancelled"],
        _ => &[],
    }
}

/// The table of the contract.
fn is_legal(from: &str, to: &str) -> bool {
    from == to
        || match from {
            "queued" => ["sending", "parked", "cancelled"].contains(&to),
            "sending" => ["waiting", "done", "rejected", "parked"].contains(&to),
            "waiting" => ["sending", "done", "parked"].contains(&to),
            "rejected" => to == "queued",
            "parked" => ["queued", "waiting", "cancelled"].contains(&to),
            _ => false,
        }
}

#[test]
fn sql_moves_an_intent_only_as_the_contract_says() {
    let database = Database::new();
    let conn = database.open();
    let with_shell = has_shell();
    for from in STATES {
        for to in STATES {
            let steps = way_to(from)
                .iter()
                .chain([&to])
                .map(|state| format!("UPDATE intents SET state = '{state}';"));
            let sql = format!("BEGIN; {} ROLLBACK", steps.collect::<String>());
            let done = conn.execute_batch(&sql);
            if done.is_err() {
                let _ = conn.execute_batch("ROLLBACK");
            }
            assert_eq!(done.is_ok(), is_legal(from, to), "{from} to {to}: {done:?}");
            if with_shell {
                let done = shell(&database.path, &sql).unwrap();
                assert_eq!(done.is_ok(), is_legal(from, to), "{from} to {to} in the shell: {done:?}");
            }
        }
    }
}

#[test]
fn a_cancel_by_sql_settles_it_and_wipes_its_token() {
    let database = Database::new();
    let body = r#"{"email": "a", "payment_details": "tok_once"}"#;
    let conn = database.open();
    for id in ["here", "there"] {
        conn.execute("INSERT INTO intents (op, id, body) VALUES ('create', ?1, ?2)", [id, body]).unwrap();
    }
    let cancel = |id: &str| format!("UPDATE intents SET state = 'cancelled' WHERE id = '{id}'");
    conn.execute_batch(&cancel("here")).unwrap();
    if !has_shell() {
        conn.execute_batch(&cancel("there")).unwrap();
    } else {
        shell(&database.path, &cancel("there")).unwrap().unwrap();
    }
    for id in ["here", "there"] {
        let (body, settled, is_open): (String, bool, bool) = conn
            .query_row(
                "SELECT body, settled_at IS NOT NULL, is_open FROM intents JOIN outbox USING (position) WHERE id = ?1",
                [id],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert!(body.contains("****") && !body.contains("tok_once"), "{id}: {body}");
        assert!(settled && !is_open, "{id}");
    }
}
