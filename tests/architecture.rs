//! The directions of imports, as the map in `lib.rs` draws them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules of this crate that it may import.
const MAY_IMPORT: [(&str, &[&str]); 18] = [
    ("model", &[]),
    ("clock", &[]),
    ("sandbox", &[]),
    ("checks", &["clock", "config", "remote", "tasks"]),
    ("watch", &[]),
    ("pulse", &[]),
    ("mask", &["config"]),
    ("measures", &["model"]),
    ("config", &["mask"]),
    ("reconcile", &["model"]),
    ("remote", &["model", "clock", "config", "mask", "measures", "pulse"]),
    ("store", &["model", "pulse"]),
    ("standing", &["model", "config", "store", "tasks"]),
    ("tasks", &["model", "clock", "config", "mask", "measures", "pulse", "reconcile", "remote", "store"]),
    ("alerts", &["model", "clock", "config", "mask", "measures", "standing", "store"]),
    (
        "app",
        &[
            "alerts",
            "model",
            "clock",
            "config",
            "mask",
            "pulse",
            "reconcile",
            "remote",
            "standing",
            "store",
            "tasks",
            "watch",
        ],
    ),
    (
        "cli",
        &[
            "model", "clock", "config", "mask", "remote", "store", "tasks", "app", "sandbox", "standing",
            "watch", "http",
        ],
    ),
    ("http", &["model", "clock", "config", "measures", "pulse", "standing", "store", "tasks"]),
];

fn sources(module: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![src.join(format!("{module}.rs"))];
    let mut folders = vec![src.join(module)];
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

/// Whether a path in this code begins with the library.
fn names(code: &str, library: &str) -> bool {
    let path = format!("{library}::");
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
    let lib = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, MAY_IMPORT.iter().map(|(module, _)| *module).collect());
}

#[test]
fn each_library_stays_in_its_room() {
    let rooms = [
        ("rusqlite", &["store"][..]),
        ("reqwest", &["remote"]),
        ("tokio_cron_scheduler", &["app"]),
        ("hyper", &["sandbox", "http"]),
        ("axum", &["http"]),
        ("notify", &["watch"]),
        ("sd_notify", &["app"]),
        ("metrics", &["measures"]),
        ("metrics_exporter_prometheus", &["measures"]),
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
fn pure_modules_do_no_io() {
    for module in ["model", "reconcile"] {
        for file in sources(module) {
            for impure in ["tokio::", "rusqlite::", "reqwest::", "std::fs", "std::net", "std::env"] {
                assert!(!code(&file).contains(impure), "{} is pure and names {impure}", file.display());
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let named =
        |section: &str| -> Vec<String> { manifest[section].as_table().unwrap().keys().cloned().collect() };
    let mut named = [named("dependencies"), named("dev-dependencies")].concat();
    named.sort();
    let page = fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let mut told: Vec<String> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "a crate, why, and what without: {line}"
        );
        told.push(cells[0].trim_matches('`').to_owned());
    }
    told.sort();
    assert_eq!(told, named, "docs/dependencies.md and Cargo.toml");
}
