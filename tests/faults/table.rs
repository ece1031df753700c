//! The table of all faults, as `docs/faults.md` shows it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::matrix::{Ends, MATRIX, Row};
use crate::{
    account, answers, clock, database, disk, ids_and_metadata, lists, moving, readings, statuses,
    stops_and_kills, throttling, transport,
};

/// Every row, in the order of the matrix.
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

/// As Markdown shows what is said word for word.
fn code(text: &str) -> String {
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

fn written() -> String {
    let mut text = "# What goes wrong, and what happens then\n\n\
        One row a fault, one test a row: `cargo test --test faults` plays those whose name begins with `faults`. In each, a mirror is\n\
        one create, one change and one deletion behind, and a create, an update and a delete lie in the outbox; a `sync` (or the\n\
        daemon) runs under the fault. Whatever the row says, no customer is lost, no living customer is deleted, nothing is\n\
        created twice, and `verify` finds no damage. Then the fault ends, and the next `sync` exits 0: the mirror equals the API, the\n\
        intents are settled, and the API shows the effect of each that is done. Readings (rows about what KOMOJU may do for good) do\n\
        not end: the next `sync` meets them too.\n\n\
        This table is printed from the tests (`UPDATE_DOCS=1 cargo test --test faults table::`).\n\n\
        | fault | what happens | what is said, among other things | test |\n|---|---|---|---|\n"
        .to_owned();
    for row in rows() {
        let cell = |text: &str| text.replace('|', "\\|");
        let (happens, said) = match row.ends {
            Ends::Elsewhere(happens) => (happens.to_owned(), String::new()),
            ends => (format!("{}; {}", ends.text(), row.outbox.text()), code(ends.message())),
        };
        let _ = writeln!(
            text,
            "| **{}**: {} | {} | {} | `{}` |",
            cell(row.entry),
            cell(row.fault),
            cell(&happens),
            cell(&said),
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
    let stands = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        stands == written(),
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
        "without a test: {missing:?}; in no matrix: {unknown:?}"
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

/// Whether a file of tests has this one, and it is run: what stands above it says that it is a test, and not that it is left out.
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
