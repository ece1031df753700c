//! Writes `docs/promises.md`, the index from promises to tests, from the declarations in the tests.
//!
//! A line `//! Promises: …` in the documentation of a file declares what its tests, and those of
//! the modules below it, hold together. A line `/// Promises: …` above a test declares what that
//! test holds. A promise is `invariant N`, `exit code N`, `command NAME` (with its subcommand) or
//! `key TABLE.NAME`; `;` separates two of them. A test declares only promises without which it
//! would fail. `UPDATE_DOCS=1 cargo test --test it promises::` writes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use komoju_sync::config::Config;

/// The folders of the tests, and the crate or binary of each.
const FOLDERS: [(&str, &str); 7] = [
    ("tests/it", "it"),
    ("tests/faults", "faults"),
    ("tests/simulation", "simulation"),
    ("tests/durability", "durability"),
    ("src", "komoju_sync"),
    ("crates/core/src", "komoju_core"),
    ("crates/sandbox/src", "komoju_sandbox"),
];

/// The meanings of the exit codes, by code.
const EXIT_CODES: [&str; 6] = [
    "fine",
    "failed",
    "usage or configuration",
    "done, but something needs an operator",
    "the API refused the key",
    "the database cannot be used",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Returns the module of a file: `tests/it/a/b.rs` is `it::a::b`.
fn module(name: &str, folder: &Path, file: &Path) -> String {
    let path = file.strip_prefix(folder).unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap());
    let parts = parts.filter(|part| !["main", "lib", "mod"].contains(part));
    std::iter::once(name).chain(parts).collect::<Vec<_>>().join("::")
}

/// A promise, and the module or test that declares it.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    promise: String,
    holder: String,
}

fn split(line: &str) -> impl Iterator<Item = String> {
    line.split(';').map(|promise| promise.trim().to_owned()).filter(|promise| !promise.is_empty())
}

/// Returns the declarations of a file. A declaration above an item that is no test is an error.
fn claims(module: &str, text: &str) -> Result<Vec<Claim>, String> {
    let mut claims = Vec::new();
    let mut above = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(promises) = line.strip_prefix("//! Promises: ") {
            claims.extend(split(promises).map(|promise| Claim { promise, holder: module.to_owned() }));
        } else if let Some(promises) = line.strip_prefix("/// Promises: ") {
            above.extend(split(promises));
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            if !above.is_empty() {
                let name = line.trim_start_matches("async ").strip_prefix("fn ").unwrap_or_default();
                let name = name.split('(').next().unwrap_or_default();
                if !is_test || name.is_empty() {
                    return Err(format!("{module}: {above:?} are declared above no test"));
                }
                let holder = format!("{module}::{name}");
                claims.extend(above.drain(..).map(|promise| Claim { promise, holder: holder.clone() }));
            }
            is_test = false;
        }
    }
    Ok(claims)
}

fn has_tests(text: &str) -> bool {
    ["#[test]", "#[tokio::test", "faults!["].iter().any(|mark| text.contains(mark))
}

/// Returns all declarations, by promise.
fn declared() -> BTreeMap<String, BTreeSet<String>> {
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (folder, name) in FOLDERS {
        let folder = root().join(folder);
        let texts: Vec<(String, String)> = files(&folder)
            .iter()
            .map(|file| (module(name, &folder, file), fs::read_to_string(file).unwrap()))
            .collect();
        for (module, text) in &texts {
            for Claim { promise, holder } in claims(module, text).unwrap_or_else(|why| panic!("{why}")) {
                let below = format!("{holder}::");
                let is_held = holder != *module
                    || texts.iter().any(|(other, text)| {
                        (other == module || other.starts_with(&below)) && has_tests(text)
                    });
                assert!(is_held, "{module} declares {promise:?} and has no test");
                declared.entry(promise).or_default().insert(holder);
            }
        }
    }
    declared
}

/// Returns the numbers of the invariants, and the first clause of each. Planned ones are left out.
fn invariants() -> Vec<(u32, String)> {
    let text = fs::read_to_string(root().join("docs/invariants.md")).unwrap();
    let text = text.replace("\n   ", " ").replace("  ", " ");
    let lines = text.lines().filter_map(|line| line.split_once(". "));
    let numbered = lines.filter_map(|(number, rest)| Some((number.parse().ok()?, rest)));
    numbered
        .filter(|(_, rest)| !rest.starts_with("(planned)"))
        .map(|(number, rest)| {
            let end = [". ", ".**", "; ", ": "].iter().filter_map(|end| rest.find(end)).min();
            (number, rest[..end.unwrap_or(rest.len())].replace("**", "").trim_end_matches('.').to_owned())
        })
        .collect()
}

/// Collects the names of the commands, with their parents. A command with subcommands does nothing
/// by itself.
fn commands(command: &clap::Command, above: &str, found: &mut Vec<String>) {
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("{above}{}", command.get_name());
        match command.has_subcommands() {
            true => commands(command, &format!("{name} "), found),
            false => found.push(name),
        }
    }
}

/// Returns all promises by section: each as it is declared, and as the page shows it.
fn promises() -> Vec<(&'static str, Vec<(String, String)>)> {
    let invariants = invariants().into_iter();
    let mut names = Vec::new();
    commands(&komoju_sync::cli::command(), "", &mut names);
    let codes = EXIT_CODES.iter().enumerate();
    vec![
        (
            "Invariants",
            invariants.map(|(n, text)| (format!("invariant {n}"), format!("{n}. {text}"))).collect(),
        ),
        ("Exit codes", codes.map(|(n, text)| (format!("exit code {n}"), format!("{n}: {text}"))).collect()),
        (
            "Commands",
            names.into_iter().map(|name| (format!("command {name}"), format!("`{name}`"))).collect(),
        ),
        (
            "Configuration keys",
            Config::keys().into_iter().map(|key| (format!("key {key}"), format!("`{key}`"))).collect(),
        ),
    ]
}

/// Returns the text of the page.
fn written(declared: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut page = "# Which test holds which promise\n\n\
        A promise is an [invariant](invariants.md), an exit code, a command or a configuration key. Each\n\
        test below declares that it fails without the promise. A module stands for its tests, which hold the\n\
        promise together.\n\n\
        This page is written by a test (`UPDATE_DOCS=1 cargo test --test it promises::`).\n"
        .to_owned();
    for (section, promises) in promises() {
        let _ = write!(page, "\n## {section}\n\n| promise | held by |\n|---|---|\n");
        for (promise, shown) in promises {
            let holders = declared.get(&promise).into_iter().flatten();
            let holders: Vec<String> = holders.map(|holder| format!("`{holder}`")).collect();
            let _ = writeln!(page, "| {} | {} |", shown.replace('|', "\\|"), holders.join("<br>"));
        }
    }
    page
}

#[test]
fn every_promise_has_a_test_and_every_declared_promise_exists() {
    let declared = declared();
    let promised: BTreeSet<String> =
        promises().into_iter().flat_map(|(_, promises)| promises).map(|(promise, _)| promise).collect();
    let without: Vec<_> = promised.iter().filter(|promise| !declared.contains_key(*promise)).collect();
    let unknown: Vec<_> = declared.iter().filter(|(promise, _)| !promised.contains(*promise)).collect();
    assert!(without.is_empty(), "no test declares {without:#?}");
    assert!(unknown.is_empty(), "tests declare what is not promised: {unknown:#?}");
    assert!(promised.len() > 70, "the promises are not found: {promised:?}");
}

#[test]
fn promises_page_equals_what_the_tests_declare() {
    let file = root().join("docs/promises.md");
    let written = written(&declared());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &written).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == written,
        "docs/promises.md is not what the tests declare; `UPDATE_DOCS=1 cargo test --test it promises::` writes it"
    );
}

#[test]
fn declarations_are_read_from_files_and_from_tests() {
    let claim =
        |promise: &str, holder: &str| Claim { promise: promise.to_owned(), holder: holder.to_owned() };
    let file = "//! Promises: invariant 4; exit code 3\n\nfn helper() {}\n\n#[test]\nfn a() {}\n";
    assert_eq!(
        claims("it::m", file).unwrap(),
        [claim("invariant 4", "it::m"), claim("exit code 3", "it::m")]
    );
    let test = "/// What it does.\n/// Promises: key a.b\n#[tokio::test]\nasync fn a() {}\n";
    assert_eq!(claims("it::m", test).unwrap(), [claim("key a.b", "it::m::a")]);
    assert!(claims("it::m", "/// Promises: key a.b\nfn a() {}\n").is_err());
    assert!(claims("it::m", "#[test]\nfn a() {}\n\n/// Promises: key a.b\nconst B: u8 = 1;\n").is_err());
}
