//! The table of the examples, and the SQL command of the README.

use std::path::{Path, PathBuf};
use std::process::Command;

use komoju_testkit::Installation;

use super::{not_tested, root, run};
use crate::PROGRAM;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("__pycache__") => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn every_example_is_in_the_table_and_explains_how_to_run_it() {
    let folder = root().join("examples");
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for file in files(&folder).iter().filter(|file| !file.ends_with("README.md")) {
        let name = file.strip_prefix(&folder).unwrap().to_str().unwrap();
        assert!(table.contains(&format!("]({name})")), "examples/README.md does not link {name}");
        let text = std::fs::read_to_string(file).unwrap();
        // A module that others import is not run by itself.
        let parts =
            if name == "node/mirror.mjs" { &["User:", "Needs:"][..] } else { &["Run:", "User:", "Needs:"] };
        for part in parts {
            assert!(text.contains(part), "{name} does not say '{part}'");
        }
    }
}

/// Runs the command while the service is stopped. It keeps the files that readers need.
#[test]
fn sql_command_of_the_readme_queues_an_intent_and_keeps_the_wal() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return not_tested("the README's SQL command", "the shell sqlite3 is not installed");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let command = readme.lines().find_map(|line| line.strip_prefix("sudo -u komoju-sync ")).unwrap();
    assert!(command.starts_with("sqlite3 ") && command.contains(" komoju.db "), "{command}");
    let harness = Installation::swept(PROGRAM, 1);
    let mut shell = Command::new("sh");
    let ran = run(shell.args(["-c", command]).current_dir(harness.directory.path()));
    assert_eq!(ran.code, Some(0), "{command}: {}", ran.stderr);
    assert!(harness.path("komoju.db-wal").exists() && harness.path("komoju.db-shm").exists());
    assert_eq!(harness.column("SELECT op || ' ' || state FROM intents"), ["update queued"]);
}
