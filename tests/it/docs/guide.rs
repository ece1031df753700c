//! The operator's guide against the code: its table has every message that asks for action, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the service: below `src`, and of komoju-core.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src"), root().join("crates/core/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_sandbox = path.file_stem().unwrap() == "sandbox";
            match path.is_dir() {
                true if !is_sandbox => folders.push(path),
                false if !is_sandbox && path.extension().is_some_and(|e| e == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// The first string within what follows, as the compiler reads it: lines that end in a backslash go on.
fn first_string(code: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = code[code.find('"')? + 1..].chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                '\n' => {
                    let rest = characters.as_str();
                    characters = rest.trim_start().chars();
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

/// With `…` for each part that differs.
fn normal(text: &str) -> String {
    let mut normal = String::new();
    let mut depth = 0;
    for character in text.chars() {
        match character {
            '{' => {
                depth += 1;
                normal.push('…');
            }
            '}' => depth -= 1,
            other if depth == 0 => normal.push(other),
            _ => {}
        }
    }
    normal
}

fn messages_after(marks: &[&str], code: &str) -> Vec<String> {
    let found =
        marks.iter().flat_map(|mark| code.match_indices(mark).map(|(at, _)| &code[at + mark.len()..]));
    found
        .filter(|rest| !rest.trim_start().starts_with("transparent"))
        .filter_map(first_string)
        // A quotation within one is told in other marks.
        .map(|text| normal(&text).replace('`', "'"))
        // What is only handed on is told where it comes from.
        .filter(|text| text.chars().any(char::is_alphabetic))
        .collect()
}

/// What the log shows as a warning or an error, why a pass fails, and why the database cannot be used.
fn messages() -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for file in sources() {
        let code = std::fs::read_to_string(&file).unwrap();
        messages.extend(messages_after(&["tracing::warn!(", "tracing::error!("], &code));
        if file.ends_with("src/tasks/pull/report.rs") {
            // What a pass's sentence says that asks for action; the rest of that sentence is no warning.
            messages.extend(messages_after(&["n => format!(", "match self.ignores_page {"], &code));
        }
        let errors = ["src/tasks/pull/failure.rs", "src/store/error.rs", "src/daemon/error.rs"];
        if errors.iter().any(|errors| file.ends_with(errors)) {
            messages.extend(messages_after(&["#[error("], &code));
        }
    }
    messages
}

#[test]
fn guide_lists_exactly_the_messages_that_ask_for_action() {
    let guide = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table = guide.split_once("| message | means | do |").unwrap().1;
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: BTreeSet<String> = rows.map(|(message, _)| message.to_owned()).collect();
    let said = messages();
    assert!(said.len() > 30, "the messages are not found any more: {said:?}");
    let missing: Vec<_> = said.difference(&told).collect();
    let stale: Vec<_> = told.difference(&said).collect();
    assert!(missing.is_empty(), "docs/operations.md lacks:\n{missing:#?}");
    assert!(stale.is_empty(), "nobody says this any more:\n{stale:#?}");
}
