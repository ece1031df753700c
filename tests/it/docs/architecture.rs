//! Imports follow the module map in `lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// MAY_IMPORT lists each module of the product and the modules of this crate that it may import.
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

/// CRATES lists the crates of the product and the crates among them that each may depend on.
const CRATES: [(&str, &[&str]); 3] =
    [(".", &["komoju-core", "komoju-sandbox"]), ("crates/core", &[]), ("crates/sandbox", &[])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(folder: &str) -> toml::Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Returns the names in a section of a manifest.
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

/// Returns the code of a file without comments, which may name anything.
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

/// Whether a path in this code begins with the library, or calls this macro (`name!`).
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
                assert!(fine, "{} imports {imported}, which {module} must not import", file.display());
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

/// Promises: invariant 2
#[test]
fn each_library_is_used_only_in_its_module() {
    let owners = [
        ("rusqlite", &["store"][..]),
        ("reqwest", &["remote"]),
        ("tokio_cron_scheduler", &["daemon"]),
        ("hyper", &["daemon"]),
        ("axum", &["daemon"]),
        ("notify", &["watch"]),
        ("sd_notify", &["daemon"]),
        // The module `metrics` has the name of the library, so search for the macros.
        ("counter!", &["metrics"]),
        ("gauge!", &["metrics"]),
        ("histogram!", &["metrics"]),
        ("metrics_exporter_prometheus", &["metrics"]),
        ("komoju_sandbox", &["cli"]),
    ];
    for (module, _) in MAY_IMPORT {
        for file in sources(module) {
            for (library, owners) in owners {
                let named = names(&code(&file), library);
                assert!(
                    !named || owners.contains(&module),
                    "{} names {library}, which belongs to {owners:?}",
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

/// Promises: invariant 2
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
fn only_tests_and_benches_of_the_root_package_use_the_testkit() {
    for folder in ["src", "crates/core", "crates/sandbox"] {
        for file in files_in(&root().join(folder)) {
            assert!(!code(&file).contains("komoju_testkit"), "{} uses komoju-testkit", file.display());
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
            "a row needs the crate, its reason and its alternative: {line}"
        );
        explained.insert(cells[0].trim_matches('`').to_owned());
    }
    assert_eq!(explained, dependencies, "docs/dependencies.md and the manifests");
}

#[test]
fn files_that_the_architecture_page_names_exist() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let paths: BTreeSet<&str> = quoted.filter(|text| text.contains('/') && !text.contains(' ')).collect();
    assert!(paths.len() > 50, "the paths are not found: {paths:?}");
    let missing: Vec<_> = paths.into_iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "docs/architecture.md names what does not exist: {missing:#?}");
}

/// MOST_LINES limits the lines of a file. A longer file gives its reason in its first lines:
/// `//! Longer than 400 lines because …`.
const MOST_LINES: usize = 400;

#[test]
fn long_file_gives_its_reason() {
    let folders = ["src", "crates", "tests", "benches"];
    let files: Vec<_> = folders.iter().flat_map(|folder| files_in(&root().join(folder))).collect();
    assert!(files.len() > 300, "the files are not found: {}", files.len());
    let mut long = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let has_reason = text.lines().take(12).any(|line| line.contains("Longer than 400 lines because"));
        if text.lines().count() > MOST_LINES && !has_reason {
            long.push(file);
        }
    }
    assert!(long.is_empty(), "more than {MOST_LINES} lines without a reason: {long:#?}");
}

/// A module's path within its crate, such as `["store", "log"]`.
type Module = Vec<String>;

/// Returns the modules of a crate and the paths that each imports, relative to the root of the
/// crate.
fn modules_of(src: &Path) -> BTreeMap<Module, Vec<Module>> {
    let mut modules = BTreeMap::new();
    for file in files_in(src) {
        let path = file.strip_prefix(src).unwrap().with_extension("");
        let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module == ["lib"] || module == ["main"] {
            module.clear();
        }
        // Unit tests import what they test.
        let code = code(&file);
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if module.last().is_none_or(|name| name != "tests") {
            let imports = uses(code).into_iter().filter_map(|path| absolute(&module, &path)).collect();
            modules.insert(module, imports);
        }
    }
    modules
}

/// Returns the paths of all `use` statements.
fn uses(code: &str) -> Vec<Module> {
    let mut paths = Vec::new();
    for line in code.split("\nuse ").skip(1).chain(code.split("\npub use ").skip(1)) {
        let tree = line.split(';').next().unwrap();
        expand(&[], tree, &mut paths);
    }
    paths
}

/// Expands an import tree, `a::{b, c::d}`, to its paths.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Module>) {
    let tree = tree.trim();
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, group.rsplit_once('}').map(|(group, _)| group)),
        None => (tree, None),
    };
    let head = head.split(" as ").next().unwrap();
    let mut path = before.to_vec();
    path.extend(
        head.split("::").map(str::trim).filter(|part| !part.is_empty() && *part != "self").map(str::to_owned),
    );
    let Some(group) = group else { return paths.push(path) };
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&path, &group[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        expand(&path, &group[start..], paths);
    }
}

/// Returns a path relative to the root of the crate, or `None` for a path that cannot be resolved.
fn absolute(module: &Module, path: &Module) -> Option<Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
        _ => Some([&module[..], &path[..]].concat()),
    }
}

/// Resolves a path to its deepest module, and follows up to `steps` re-exports (`pub use`).
fn resolve(modules: &BTreeMap<Module, Vec<Module>>, path: &[String], steps: usize) -> Option<Module> {
    let found = (0..=path.len())
        .rev()
        .map(|length| path[..length].to_vec())
        .find(|path| modules.contains_key(path))?;
    let name = path.get(found.len());
    let re_export =
        modules[&found].iter().find(|import| import.last() == name && import.len() > found.len() + 1);
    match re_export {
        Some(import) if steps > 0 && import[..] != *path => resolve(modules, import, steps - 1),
        _ => Some(found),
    }
}

/// Whether one module contains the other. A module and its children may import each other.
fn is_family(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[test]
fn no_two_files_import_each_other() {
    for (folder, _) in CRATES {
        let modules = modules_of(&root().join(folder).join("src"));
        let mut imports: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, paths) in &modules {
            let targets = paths.iter().filter_map(|path| resolve(&modules, path, 3));
            imports.insert(module, targets.filter(|target| !is_family(module, target)).collect());
        }
        assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 20, "no imports are found in {folder}");
        // A file is in no cycle if it imports no remaining file, or no remaining file imports it.
        let mut left: BTreeSet<&Module> = imports.keys().copied().collect();
        loop {
            let imported: BTreeSet<&Module> = left.iter().flat_map(|module| &imports[module]).collect();
            let is_between = |module: &&Module| {
                imported.contains(module) && imports[module].iter().any(|target| left.contains(target))
            };
            let between: BTreeSet<&Module> = left.iter().copied().filter(is_between).collect();
            if between.len() == left.len() {
                break;
            }
            left = between;
        }
        let cyclic = left.iter().map(|module| {
            let targets = imports[module].iter().filter(|target| left.contains(target));
            (module.join("::"), targets.map(|target| target.join("::")).collect())
        });
        let cyclic: BTreeMap<String, Vec<String>> = cyclic.collect();
        assert!(cyclic.is_empty(), "{folder}: these files import each other: {cyclic:#?}");
    }
}
