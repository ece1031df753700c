//! `intent import`: a whole file is queued, or nothing of it.
//!
//! Promises: command intent import

use komoju_testkit::Installation;
use serde_json::json;

use super::{fed, file, intents, utf16};
use crate::PROGRAM;

#[test]
fn import_queues_a_whole_file_or_nothing() {
    let harness = Installation::swept(PROGRAM, 0);
    let bad = [
        r#"{"op":"create","id":"n1","body":{"email":"a"}}"#,
        r#"{"op":"create","body":{"email":5}}"#,
        "",
        "nonsense",
        r#"{"op":"destroy"}"#,
    ];
    let ran =
        harness.expect(2, &["intent", "import", &file(&harness, "bad.jsonl", &bad.join("\n")), "--yes"]);
    for part in
        ["3 lines", "line 2: body.email: must be", "line 4: the intent: must be JSON", "line 5: op: must"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let unknown = file(
        &harness,
        "unknown.jsonl",
        "{\"op\":\"create\",\"id\":\"n1\",\"body\":{\"email\":\"a\"}}\n{\"op\":\"delete\",\"customer_id\":\"@n2\"}\n",
    );
    let ran = harness.expect(2, &["intent", "import", &unknown, "--yes"]);
    assert!(ran.stderr.contains("line 2: customer_id: must be @ and the id of a create"), "{}", ran.stderr);
    let long = format!(
        "{{\"op\":\"create\",\"body\":{{\"email\":\"a\"}}}}\n{}\n{{\"op\":\"nothing\"}}\n",
        "x".repeat(3 << 20)
    );
    let ran = harness.expect(2, &["intent", "import", &file(&harness, "long.jsonl", &long), "--yes"]);
    assert!(
        ran.stderr.contains("line 2: a line has at most") && ran.stderr.contains("line 3: op"),
        "{}",
        ran.stderr
    );
    assert_eq!(intents(&harness), "0");

    let mut good = vec![r#"{"op":"create","id":"n1","body":{"email":"a"}}"#.to_owned(), "  ".to_owned()];
    good.push(r#"{"op":"update","customer_id":"@n1","body":{"email":"a"}}"#.to_owned());
    good.extend((0..25).map(|n| format!(r#"{{"op":"delete","customer_id":"c{n}"}}"#)));
    let good = file(&harness, "good.jsonl", &good.join("\n"));
    let preview = harness.expect(2, &["intent", "import", &good]);
    for part in [
        "27 intents: 1 create, 1 update and 25 deletes\n",
        "customers: 25 unknown to the mirror (c0, c1, c10, c11, c12, …), 1 that an intent creates\n",
        "these 25 deletes wait for `komoju-sync intent approve`",
        "PATCH /customers/@n1  {\"email\":\"a\"}",
        "DELETE /customers/c2\n",
        "… and 22 more",
        "add --yes",
    ] {
        assert!(preview.stderr.contains(part), "{part}: {}", preview.stderr);
    }
    assert_eq!((preview.stdout.as_str(), intents(&harness).as_str()), ("", "0"));
    let taken = harness.expect(0, &["intent", "import", &good, "--yes"]);
    assert_eq!(
        taken.stdout.lines().collect::<Vec<_>>(),
        harness.column("SELECT id FROM intents ORDER BY position")
    );
    assert_eq!(taken.stdout.lines().count(), 27);
    assert!(taken.stderr.contains("queued 27 intents; no daemon runs"), "{}", taken.stderr);
    let again = fed(
        &harness,
        &["intent", "import", "-", "--yes"],
        r#"{"op":"create","id":"n1","body":{"email":"a"}}"#,
    );
    assert_eq!(again.stdout, "n1\n");
    assert!(again.stderr.contains("queued 0 intents (1 more were accepted before)"), "{}", again.stderr);
}

#[test]
fn import_preview_records_that_its_tokens_may_be_left() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    let left = || harness.one("SELECT left_over_tokens - wiped_tokens FROM meta");
    let line = |id: &str, more: &str| {
        format!(r#"{{"op":"create","id":"{id}","body":{{"email":"a@example.jp"{more}}}}}"#)
    };
    let plain = file(&harness, "plain.jsonl", &line("plain", ""));
    harness.expect(2, &["intent", "import", &plain]);
    assert_eq!(left(), "0");
    let token = file(&harness, "token.jsonl", &line("token", r#","payment_details":"tok_1""#));
    harness.expect(2, &["intent", "import", &token]);
    assert_eq!((left().as_str(), intents(&harness).as_str()), ("1", "0"));
    harness.expect(0, &["sync"]);
    assert_eq!(left(), "0");
    harness.expect(0, &["intent", "import", &token, "--yes"]);
    assert_eq!((left().as_str(), intents(&harness).as_str()), ("0", "1"), "nothing was rolled back");
}

#[test]
fn import_without_an_intent_is_refused() {
    let harness = Installation::swept(PROGRAM, 0);
    let before = intents(&harness);
    for content in ["", "\n \r\n\n"] {
        let path = file(&harness, "empty.jsonl", content);
        let ran = harness.expect(2, &["intent", "import", &path, "--yes"]);
        assert!(
            ran.stderr.contains(&format!("nothing was queued; {path} holds no intent")),
            "{}",
            ran.stderr
        );
        let ran = fed(&harness, &["intent", "import", "-", "--yes"], content);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains("nothing was queued; standard input holds no intent"), "{}", ran.stderr);
    }
    let directory = harness.path("").display().to_string();
    let ran = harness.expect(2, &["intent", "import", &directory, "--yes"]);
    assert!(ran.stderr.contains("cannot be read: is a directory"), "{}", ran.stderr);
    assert_eq!(intents(&harness), before);
}

#[test]
fn import_reports_a_wrong_encoding_and_a_trailing_comma() {
    let harness = Installation::swept(PROGRAM, 0);
    let line = r#"{"op":"create","body":{"email":"a"}}"#;
    std::fs::write(harness.path("wide.jsonl"), utf16(&format!("{line}\r\n{line}\r\n"))).unwrap();
    for (path, part) in [
        (
            file(&harness, "marked.jsonl", &format!("\u{feff}{line}\n{line}\n")),
            "marked.jsonl begins with a byte order mark",
        ),
        (harness.path("wide.jsonl").display().to_string(), "wide.jsonl is UTF-16; save it as UTF-8"),
        (
            file(&harness, "comma.jsonl", &format!("{line},\n{line}\n")),
            "line 1: the intent: must be JSON, and has a trailing comma at column 37",
        ),
    ] {
        let ran = harness.expect(2, &["intent", "import", &path, "--yes"]);
        assert!(ran.stderr.contains(part) && ran.stderr.lines().count() < 3, "{part}: {}", ran.stderr);
    }
    assert_eq!(intents(&harness), "0");
}

#[test]
fn import_counts_the_customers_that_the_mirror_knows() {
    let harness = Installation::swept(PROGRAM, 3);
    let ids = harness.sandbox.world().ids();
    harness.sandbox.world().delete(&ids[1]);
    harness.expect(0, &["sync"]);
    let line = |id: &str| format!("{}\n", json!({"op": "update", "customer_id": id, "body": {"email": "a"}}));
    let all: String = [&ids[0], &ids[1], &ids[2], "typo", &ids[0]].map(line).concat();
    let ran = fed(&harness, &["intent", "import", "-", "--yes"], &all);
    let part = "customers: 2 in the mirror, 1 deleted at KOMOJU, 1 unknown to the mirror (typo)\n";
    assert!(ran.code == 0 && ran.stderr.contains(part), "{}", ran.stderr);
    let create = r#"{"op":"create","body":{"email":"a"}}"#;
    let ran = fed(&harness, &["intent", "import", "-", "--yes"], create);
    assert!(ran.code == 0 && !ran.stderr.contains("customers:"), "{}", ran.stderr);
}
