//! The intents that a file becomes, and their ids.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::{CREATE, SpoolHarness, digest};

#[tokio::test]
async fn intent_without_id_gets_one_of_name_content_and_line() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("one.json", CREATE);
    let lines = format!("{CREATE}\n\n{CREATE}\r\n");
    harness.drop_file("a.b.jsonl", &lines);
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.intents, summary.refused), (2, 3, 0), "{summary:?}");
    let mut ids = harness.ids();
    ids.sort();
    let of_lines = digest(&lines);
    assert_eq!(
        ids,
        [format!("a.b@{of_lines}:1"), format!("a.b@{of_lines}:3"), format!("one@{}", digest(CREATE))]
    );
    assert_eq!(harness.names(""), ["receipts", "rejected"]);
    let by: (String, String) = harness
        .sql()
        .query_row("SELECT door, submitted_by FROM intents LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let uid = fs::metadata(harness.at("")).unwrap().uid();
    let owner = if uid == 0 { "root".to_owned() } else { by.1.clone() };
    assert_eq!(by, ("file".to_owned(), owner));
}

#[tokio::test]
async fn same_file_twice_is_accepted_once_and_changed_content_again() {
    let harness = SpoolHarness::open().await;
    for expected in [1, 0] {
        harness.drop_file("a.json", CREATE);
        let summary = harness.scan().await;
        assert_eq!((summary.taken, summary.intents), (1, expected));
        assert_eq!(harness.names(""), ["receipts", "rejected"]);
    }
    harness.drop_file("a.json", format!("{CREATE} "));
    assert_eq!(harness.scan().await.intents, 1);
    assert_eq!(harness.ids().len(), 2);
    assert_eq!(harness.receipt("a.json")["intents"][0]["id"], harness.ids()[1], "the receipt is replaced");
}

#[tokio::test]
async fn used_id_with_other_content_is_refused() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", r#"{"op": "create", "id": "x", "body": {"email": "a"}}"#);
    harness.scan().await;
    harness.drop_file("b.json", r#"{"op": "delete", "id": "x", "customer_id": "c"}"#);
    assert_eq!(harness.scan().await.refused, 1);
    let error = harness.read("rejected/b.json.error");
    assert!(error.contains("id: x was used before, for another intent; choose another id"), "{error}");
    assert_eq!(harness.ids(), ["x"]);
}

#[tokio::test]
async fn lines_are_accepted_all_or_none_and_each_bad_one_is_named() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("x.json", r#"{"op": "create", "id": "x", "body": {"email": "a"}}"#);
    harness.scan().await;
    let lines = [
        r#"{"op": "create", "id": "fine", "body": {"email": "a"}}"#,
        r#"{"op": "destroy"}"#,
        "",
        r#"{"op": "update", "customer_id": "@fine", "body": {"email": 7}}"#,
        r#"{"op": "delete", "id": "x", "customer_id": "c"}"#,
        r#"{"op": "delete", "customer_id": "@made-by-a-bad-line"}"#,
        r#"{"op": "create",}"#,
    ];
    harness.drop_file("a.jsonl", lines.join("\n"));
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.intents, summary.refused), (0, 0, 1));
    assert_eq!(harness.ids(), ["x"]);
    let error = harness.read("rejected/a.jsonl.error");
    let bad: Vec<&str> = error.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(
        bad,
        [
            "line 2: op: must be create, update or delete",
            "line 4: body.email: must be a text or null",
            "line 5: id: x was used before, for another intent; choose another id, or leave it out",
            "line 7: the intent: must be JSON, and has a trailing comma at column 16",
        ]
    );
    assert!(error.starts_with("a.jsonl was refused, and nothing of it was accepted:\n"), "{error}");
    assert_eq!(harness.read("rejected/a.jsonl"), lines.join("\n"), "the copy is unchanged");
    assert_eq!(harness.names(""), ["receipts", "rejected"]);
}

#[tokio::test]
async fn reference_to_an_unknown_create_is_refused() {
    let harness = SpoolHarness::open().await;
    harness.drop_file(
        "a.jsonl",
        "{\"op\": \"delete\", \"customer_id\": \"@later\"}\n{\"op\": \"create\", \"id\": \"later\", \"body\": {\"email\": \"a\"}}",
    );
    assert_eq!(harness.scan().await.refused, 1);
    let error = harness.read("rejected/a.jsonl.error");
    assert!(
        error.contains("line 1: customer_id: must be @ and the id of a create that was accepted before"),
        "{error}"
    );
}

#[tokio::test]
async fn file_of_the_largest_size_is_taken() {
    let harness = SpoolHarness::open().await;
    let mut content = CREATE.to_owned();
    content.push_str(&" ".repeat(16 * 1024 * 1024 - content.len()));
    harness.drop_file("a.json", content);
    assert_eq!(harness.scan().await.taken, 1);
}

#[tokio::test]
async fn file_of_many_lines_is_taken_whole() {
    let harness = SpoolHarness::open().await;
    let count = 5_000;
    let lines: String = (0..count)
        .map(|n| format!("{{\"op\":\"create\",\"body\":{{\"email\":\"a{n}@example.jp\"}}}}\n"))
        .collect();
    harness.drop_file("a.jsonl", lines);
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.intents), (1, count));
    harness.spool.update_receipts().await.unwrap();
}

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(CREATE.as_bytes().to_vec()),
        Just(br#"{"op":"delete","customer_id":"c"}"#.to_vec()),
        Just(br#"{"op":"create","id":"same","body":{"email":"a"}}"#.to_vec()),
        Just(Vec::new()),
        "[ -~]{0,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(line, 0..5).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_file_is_taken_or_refused_and_nothing_of_it_is_lost(
        content in any_content(),
        extension in prop::sample::select(vec!["json", "jsonl"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let harness = SpoolHarness::open().await;
            let name = format!("a.{extension}");
            harness.drop_file(&name, &content);
            let summary = harness.scan().await;
            assert_eq!(summary.taken + summary.refused, 1);
            assert!(summary.skipped.is_empty() && !harness.at(&name).exists());
            assert_eq!(harness.ids().len() as u64, summary.intents);
            if summary.taken == 1 {
                assert!(summary.intents > 0);
                let on_receipt = harness.receipt(&name)["intents"].as_array().unwrap().len();
                assert!(on_receipt as u64 >= summary.intents);
            } else {
                assert_eq!(summary.intents, 0);
                let kept = fs::read(harness.at("rejected").join(&name)).unwrap();
                // Short random text almost never contains a secret, so nothing is masked.
                assert_eq!(kept, content);
                assert!(harness.read(&format!("rejected/{name}.error")).lines().count() >= 3);
            }
        });
    }
}
