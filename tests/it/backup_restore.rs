//! `backup` and `restore` of the real binary against the sandbox.

mod backup;
mod deletions;
mod outbox;
mod restore;

use std::fs;
use std::path::PathBuf;

use komoju_testkit::Installation;

fn file(harness: &Installation, name: &str) -> String {
    harness.path(name).to_str().unwrap().to_owned()
}

/// Makes a backup and returns its path.
fn backup(harness: &Installation, name: &str) -> String {
    let file = file(harness, name);
    harness.expect(0, &["backup", &file]);
    file
}

fn names(harness: &Installation) -> Vec<String> {
    let entries = fs::read_dir(harness.directory.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn kept(harness: &Installation) -> PathBuf {
    let kept: Vec<String> = names(harness)
        .into_iter()
        .filter(|name| name.contains(".before-restore-") && !name.ends_with("-wal"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    harness.path(&kept[0])
}

fn delete(harness: &Installation, count: usize) -> Vec<String> {
    let ids: Vec<String> = harness.sandbox.world().ids().into_iter().take(count).collect();
    ids.iter().for_each(|id| assert!(harness.sandbox.world().delete(id)));
    ids
}
