//! The operator's guide against the code: its table lists exactly the messages that ask for action.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the source files of the service: those below `src` and of komoju-core, without the
/// sandbox.
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

/// Returns the first string literal, as the compiler reads it: a backslash at the end of a line
/// joins the next line.
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

/// Replaces each `{…}` of a format string by `…`.
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
        // The table encloses messages in backquotes, so those within a message become quotes.
        .map(|text| normal(&text).replace('`', "'"))
        // A message without own text only passes on another one, which is documented itself.
        .filter(|text| text.chars().any(char::is_alphabetic))
        .collect()
}

/// Returns the messages that the log shows as a warning or an error, and the errors of passes, the
/// database and the daemon.
fn messages() -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for file in sources() {
        let code = std::fs::read_to_string(&file).unwrap();
        messages.extend(messages_after(&["tracing::warn!(", "tracing::error!("], &code));
        if file.ends_with("src/tasks/pull/report.rs") {
            // Only these parts of a pass's sentence ask for action.
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
    let documented: BTreeSet<String> = rows.map(|(message, _)| message.to_owned()).collect();
    let found = messages();
    assert!(found.len() > 30, "the messages are not found: {found:?}");
    let missing: Vec<_> = found.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&found).collect();
    assert!(missing.is_empty(), "docs/operations.md lacks:\n{missing:#?}");
    assert!(stale.is_empty(), "docs/operations.md lists messages that no code has:\n{stale:#?}");
}
