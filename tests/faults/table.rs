//! The table of all faults in `docs/faults.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::matrix::{Ends, MATRIX, Row};
use crate::{
    account, answers, clock, database, disk, events, ids_and_metadata, lists, moving, readings, statuses,
    stops_and_kills, throttling, transport,
};

/// Returns every row, in the order of the matrix.
fn rows() -> Vec<&'static Row> {
    let groups = [
        transport::ROWS,
        answers::ROWS,
        throttling::ROWS,
        statuses::ROWS,
        account::ROWS,
        lists::ROWS,
        readings::ROWS,
        moving::ROWS,
        ids_and_metadata::ROWS,
        events::ROWS,
        clock::ROWS,
        stops_and_kills::ROWS,
        stops_and_kills::ELSEWHERE,
        disk::ROWS,
        database::ROWS,
    ];
    let mut rows: Vec<&Row> = groups.into_iter().flatten().collect();
    rows.sort_by_key(|row| MATRIX.iter().position(|entry| *entry == row.entry));
    rows
}

/// Formats a quoted text as Markdown code.
fn code(text: &str) -> String {
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

fn written() -> String {
    let mut text = "# What goes wrong, and what happens then\n\n\
        This page lists the faults that the tests play, and what the program does under each. One row is one\n\
        fault and one test. `cargo test --test faults` plays the tests with a name that begins with\n\
        `faults`.\n\n\
        Before each fault, the mirror lacks one create, one change and one deletion, and a create, an update\n\
        and a delete are in the outbox. A `sync` (or the daemon) runs under the fault. Whatever the row\n\
        says, no customer is lost, no live customer is deleted, nothing is created twice, and `verify` finds\n\
        no damage. Then the fault ends, and the next `sync` exits 0: the mirror equals the API, the intents\n\
        are settled, and the API shows the effect of each that is done. Readings (rows about permanent\n\
        properties of KOMOJU) do not end: the next `sync` runs under them, too.\n\n\
        Tests write this table (`UPDATE_DOCS=1 cargo test --test faults table::`).\n\n\
        | fault | what happens | a part of the output | test |\n|---|---|---|---|\n"
        .to_owned();
    for row in rows() {
        let cell = |text: &str| text.replace('|', "\\|");
        let (happens, message) = match row.ends {
            Ends::Elsewhere(happens) => (happens.to_owned(), String::new()),
            ends => (format!("{}; {}", ends.text(), row.outbox.text()), code(ends.message())),
        };
        let _ = writeln!(
            text,
            "| **{}**: {} | {} | {} | `{}` |",
            cell(row.entry),
            cell(row.fault),
            cell(&happens),
            cell(&message),
            row.test
        );
    }
    text
}

#[test]
fn faults_page_equals_what_the_tests_play() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, written()).unwrap();
    }
    let current = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        current == written(),
        "docs/faults.md is not what the tests play; `UPDATE_DOCS=1 cargo test --test faults table::` writes it"
    );
}

#[test]
fn every_entry_of_the_matrix_has_a_test_and_every_test_an_entry() {
    let played: BTreeSet<&str> = rows().iter().map(|row| row.entry).collect();
    let missing: Vec<_> = MATRIX.iter().filter(|entry| !played.contains(*entry)).collect();
    let unknown: Vec<_> = played.iter().filter(|entry| !MATRIX.contains(entry)).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "without a test: {missing:?}; not in the matrix: {unknown:?}"
    );
    let names: BTreeSet<&str> = rows().iter().map(|row| row.test).collect();
    assert_eq!(names.len(), rows().len(), "a test stands for one row");
}

#[test]
fn rows_played_elsewhere_name_tests_that_run() {
    for row in rows().iter().filter(|row| matches!(row.ends, Ends::Elsewhere(_))) {
        let mut names: Vec<&str> = row.test.split("::").collect();
        let function = names.pop().unwrap();
        let file: PathBuf = std::iter::once("tests").chain(names).collect();
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("rs"));
        assert!(text.is_ok_and(|text| runs(&text, function)), "there is no test {} that is run", row.test);
    }
}

/// Whether a file contains this test and the test runs: it has a test attribute and is not ignored.
fn runs(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let heads = ["fn", "async fn"].map(|head| format!("{head} {function}("));
    let found = lines.iter().position(|line| heads.iter().any(|head| line.starts_with(head)));
    let Some(at) = found else { return false };
    let above: Vec<_> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
    let is_test = above.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    is_test && !above.iter().any(|line| line.contains("ignore"))
}

#[test]
fn function_that_is_no_test_or_is_ignored_does_not_run() {
    assert!(runs("#[test]\nfn a() {}", "a"));
    assert!(runs("    #[tokio::test(flavor = \"multi_thread\")]\n    async fn a() {}", "a"));
    assert!(!runs("fn a() {}", "a"));
    assert!(!runs("#[test]\nfn another_a() {}", "a"));
    assert!(!runs("#[test]\n#[ignore = \"slow\"]\nfn a() {}", "a"));
    assert!(!runs("#[test]\n#[cfg_attr(all(), ignore)]\nfn a() {}", "a"));
    assert!(!runs("#[test]\nfn b() {}\n\nfn a() {}", "a"));
    assert!(!runs("// fn a() {}", "a"));
}
