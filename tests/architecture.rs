//! The directions of imports, as the map in `lib.rs` draws them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the product, and the modules of this crate that it may import.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("clock", &[]),
    ("checks", &["clock", "config", "remote", "tasks"]),
    ("watch", &[]),
    ("heartbeat", &[]),
    ("metrics", &[]),
    ("secret", &["config"]),
    ("config", &["secret"]),
    ("remote", &["clock", "config", "heartbeat", "metrics", "secret"]),
    ("store", &["heartbeat"]),
    ("tasks", &["clock", "config", "heartbeat", "metrics", "remote", "secret", "store"]),
    ("daemon", &["clock", "config", "heartbeat", "metrics", "remote", "secret", "store", "tasks", "watch"]),
    ("cli", &["clock", "config", "daemon", "remote", "secret", "store", "tasks", "watch"]),
];

/// The crates of this repository that are part of the product, and the others of them that each may depend on.
const CRATES: [(&str, &[&str]); 3] =
    [(".", &["komoju-core", "komoju-sandbox"]), ("crates/core", &[]), ("crates/sandbox", &[])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(folder: &str) -> toml::Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The names in a section of a manifest.
fn named(manifest: &toml::Table, section: &str) -> Vec<String> {
    manifest
        .get(section)
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(toml::Table::keys)
        .cloned()
        .collect()
}

fn sources(module: &str) -> Vec<PathBuf> {
    let src = root().join("src");
    let mut found = vec![src.join(format!("{module}.rs"))];
    found.extend(files_in(&src.join(module)));
    found
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|e| e == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// The code of a file: no comments, which may name anything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn imports(path: &Path) -> BTreeSet<String> {
    let code = code(path);
    let ends = |c: char| !(c.is_ascii_lowercase() || c == '_');
    let after = code.split("crate::").skip(1);
    after
        .map(|rest| rest.split(ends).next().unwrap_or_default().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a path in this code begins with the library, or is this macro of it.
fn names(code: &str, library: &str) -> bool {
    let path = if library.ends_with('!') { format!("{library}(") } else { format!("{library}::") };
    code.match_indices(&path).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn modules_import_only_what_the_map_allows() {
    for (module, allowed) in MAY_IMPORT {
        for file in sources(module) {
            for imported in imports(&file) {
                let fine = imported == module || allowed.contains(&imported.as_str());
                assert!(fine, "{} imports {imported}, which {module} must not know", file.display());
            }
        }
    }
}

#[test]
fn every_module_is_on_the_map() {
    let lib = code(&root().join("src/lib.rs"));
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, MAY_IMPORT.iter().map(|(module, _)| *module).collect());
}

#[test]
fn each_library_stays_in_its_room() {
    let rooms = [
        ("rusqlite", &["store"][..]),
        ("reqwest", &["remote"]),
        ("tokio_cron_scheduler", &["daemon"]),
        ("hyper", &["daemon"]),
        ("axum", &["daemon"]),
        ("notify", &["watch"]),
        ("sd_notify", &["daemon"]),
        // The module `metrics` has the name of the library, so its macros are looked for.
        ("counter!", &["metrics"]),
        ("gauge!", &["metrics"]),
        ("histogram!", &["metrics"]),
        ("metrics_exporter_prometheus", &["metrics"]),
        ("komoju_sandbox", &["cli"]),
    ];
    for (module, _) in MAY_IMPORT {
        for file in sources(module) {
            for (library, rooms) in rooms {
                let named = names(&code(&file), library);
                assert!(
                    !named || rooms.contains(&module),
                    "{} names {library}, which belongs to {rooms:?}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn crates_depend_only_on_the_crates_that_the_map_allows() {
    for (folder, allowed) in CRATES {
        let ours: Vec<_> = named(&manifest(folder), "dependencies");
        let ours: Vec<_> = ours.iter().filter(|name| name.starts_with("komoju-")).collect();
        assert_eq!(ours, allowed.iter().collect::<Vec<_>>(), "{folder}");
    }
}

#[test]
fn core_does_no_io() {
    let core = manifest("crates/core");
    let linked = [named(&core, "dependencies"), named(&core, "dev-dependencies")].concat();
    for impure in ["tokio", "rusqlite", "reqwest", "hyper"] {
        assert!(!linked.iter().any(|name| name == impure), "komoju-core depends on {impure}");
    }
    let files = files_in(&root().join("crates/core/src"));
    assert!(files.len() > 30, "the files of komoju-core are not found: {files:?}");
    for file in files {
        for impure in ["std::fs", "std::net", "std::env", "std::process", "Timestamp::now"] {
            assert!(!code(&file).contains(impure), "{} is pure and names {impure}", file.display());
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let mut dependencies = BTreeSet::new();
    for (folder, _) in CRATES {
        let manifest = manifest(folder);
        dependencies.extend(named(&manifest, "dependencies"));
        dependencies.extend(named(&manifest, "dev-dependencies"));
    }
    let page = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let mut explained = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "a crate, why, and what without: {line}"
        );
        explained.insert(cells[0].trim_matches('`').to_owned());
    }
    assert_eq!(explained, dependencies, "docs/dependencies.md and the manifests");
}
