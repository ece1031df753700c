//! The content of packages besides the program: manual pages and completions from the real binary,
//! units and configuration.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use komoju_sync::config::Config;

use crate::PROGRAM;

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Adds the file name of the page of each command, such as `komoju-sync-intent-create.1`.
fn pages_of(command: &clap::Command, name: &str, pages: &mut BTreeSet<String>) {
    pages.insert(format!("{name}.1"));
    for below in command.get_subcommands() {
        pages_of(below, &format!("{name}-{}", below.get_name()), pages);
    }
}

/// Promises: command man
#[test]
fn man_prints_the_page_of_the_whole_program() {
    let page = printed(&["man"]);
    assert!(page.contains(".TH komoju-sync 1"), "{page}");
    for part in ["Exit codes: 0 fine", "KOMOJU_SYNC_CONFIG", "komoju\\-sync\\-intent(1)"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

/// Promises: command man
#[test]
fn man_dir_makes_the_directory_and_writes_a_page_for_each_command() {
    let directory = tempfile::TempDir::new().unwrap();
    let dir = directory.path().join("share/man1");
    assert_eq!(printed(&["man", "--dir", dir.to_str().unwrap()]), "");
    let written: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected = BTreeSet::new();
    pages_of(&komoju_sync::cli::command(), "komoju-sync", &mut expected);
    assert_eq!(written, expected);
    assert!(written.contains("komoju-sync-intent-create.1"), "{written:?}");
    let page = std::fs::read_to_string(dir.join("komoju-sync-intent-create.1")).unwrap();
    assert!(page.contains("reate"), "{page}");
}

#[test]
fn man_dir_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("man1");
    let output = Command::new(PROGRAM).args(["man", "--dir"]).arg(&below).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(below.to_str().unwrap()), "{stderr}");
}

/// Promises: command completions
#[test]
fn completions_of_each_shell_contain_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for part in ["komoju-sync", "intent", "not-before", "deletions"] {
            assert!(script.contains(part), "{shell}: no {part}");
        }
    }
    let unknown = Command::new(PROGRAM).args(["completions", "csh"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn bash_completes_a_subcommand() {
    if !Path::new("/bin/bash").exists() {
        return;
    }
    let script = printed(&["completions", "bash"]);
    let completion = format!(
        "{script}\nCOMP_WORDS=(komoju-sync intent cre); COMP_CWORD=2; \
         $(complete -p komoju-sync | sed 's/.*-F \\([^ ]*\\).*/\\1/') komoju-sync cre intent; echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("/bin/bash").args(["-c", &completion]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "create", "{output:?}");
}

/// Returns the lines of a unit without comments and empty lines.
fn settings(unit: &str) -> Vec<&str> {
    unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn template_unit_differs_from_the_first_unit_only_in_names() {
    let first = include_str!("../../../systemd/komoju-sync.service")
        .replace("customers mirror", "customers mirror (%i)")
        .replace("/etc/komoju-sync/config.toml", "/etc/komoju-sync/%i.toml")
        .replace("/etc/komoju-sync/secret-key", "/etc/komoju-sync/%i.secret-key")
        .replace("/etc/komoju-sync/webhook-secret", "/etc/komoju-sync/%i.webhook-secret")
        .replace("Directory=komoju-sync\n", "Directory=komoju-sync-%i\n")
        .replace("=/var/lib/komoju-sync\n", "=/var/lib/komoju-sync-%i\n");
    assert_eq!(settings(&first), settings(include_str!("../../../systemd/komoju-sync@.service")));
}

#[test]
fn packaged_configuration_equals_the_defaults() {
    let text = include_str!("../../../packaging/debian/config.toml");
    let config = Config::parse(text, Path::new("config.toml")).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn debian_changelog_begins_with_the_version_of_the_program() {
    let text = include_str!("../../../packaging/debian/changelog");
    let version = format!("komoju-sync ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(text.starts_with(&version), "{text}");
}
