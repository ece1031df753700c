//! Help, wrong usage, and a missing database.

use std::process::Stdio;

use komoju_testkit::Installation;
use serde_json::{Value, json};

use super::json_lines;
use crate::PROGRAM;

#[test]
fn every_command_has_help_with_an_example() {
    let harness = Installation::with(PROGRAM, 0);
    let help = harness.expect(0, &["--help"]).stdout;
    for command in komoju_sync::cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(help.contains(name), "{name}");
        let text = harness.expect(0, &[name, "--help"]).stdout;
        assert!(text.contains("Example"), "`{name} --help` has no example");
    }
}

/// Promises: exit code 2
#[test]
fn wrong_usage_exits_2() {
    let harness = Installation::with(PROGRAM, 0);
    for arguments in [&["fly"][..], &["sync", "--wet"], &["export"], &["changes", "--since", "x"], &[]] {
        harness.expect(2, arguments);
    }
}

#[test]
fn command_without_a_database_exits_5_and_names_sync() {
    let harness = Installation::with(PROGRAM, 0);
    let missing = json_lines(&harness.expect(5, &["status", "--json"]).stdout);
    assert_eq!((&missing[0]["mirror"], &missing[0]["stale"]), (&Value::Null, &json!(true)));
    for arguments in [
        &["status"][..],
        &["customers", "list"],
        &["changes"],
        &["verify"],
        &["rebuild"],
        &["deletions", "list"],
        &["account", "show"],
        &["export", "--format", "csv"],
    ] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains("komoju-sync sync"), "{}", ran.stderr);
    }
    assert!(!harness.path("komoju.db").exists());
}

#[test]
fn command_with_a_closed_standard_error_exits_0() {
    let harness = Installation::with(PROGRAM, 12);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["sync"][..], &["sync", "--dry-run"], &["rebuild"], &["status"]] {
        let status =
            harness.command(arguments).stderr(writer.try_clone().unwrap()).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
}
