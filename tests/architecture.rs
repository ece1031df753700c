//! The directions of imports, as the map in `lib.rs` draws them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules of this crate that it may import.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("clock", &[]),
    ("sandbox", &[]),
    ("watch", &[]),
    ("mask", &["config"]),
    ("config", &["mask"]),
    ("reconcile", &["model"]),
    ("remote", &["model", "clock", "config", "mask"]),
    ("store", &["model"]),
    ("tasks", &["model", "clock", "config", "mask", "reconcile", "remote", "store"]),
    ("app", &["model", "clock", "config", "reconcile", "remote", "store", "tasks", "watch"]),
    ("cli", &["model", "clock", "config", "mask", "remote", "store", "tasks", "app", "sandbox", "watch"]),
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
        ("rusqlite", "store"),
        ("reqwest", "remote"),
        ("tokio_cron_scheduler", "app"),
        ("hyper", "sandbox"),
        ("notify", "watch"),
    ];
    for (module, _) in MAY_IMPORT {
        for file in sources(module) {
            for (library, room) in rooms {
                let named = code(&file).contains(&format!("{library}::"));
                assert!(
                    !named || module == room,
                    "{} names {library}, which belongs to {room}",
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
