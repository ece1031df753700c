//! The contract as files in `tests/it/golden/`: the help of every command, the keys of `status
//! --json`, the schema, and the exit codes.
//!
//! Users rely on what these files contain. `UPDATE_GOLDEN=1 cargo test --test it golden::` writes
//! them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use komoju_sync::store::Store;
use komoju_sync::store::file::indexes;
use komoju_testkit::Installation;
use rusqlite::Connection;
use serde_json::Value;

use crate::PROGRAM;

/// Compares `actual` with the golden file of this name.
fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let first_difference = golden.lines().zip(actual.lines()).position(|(old, new)| old != new);
    let line = first_difference.unwrap_or_else(|| golden.lines().count().min(actual.lines().count()));
    assert!(
        golden == actual,
        "tests/it/golden/{name} differs from line {} on:\n- {}\n+ {}",
        line + 1,
        golden.lines().nth(line).unwrap_or("(the file ends)"),
        actual.lines().nth(line).unwrap_or("(nothing)"),
    );
}

/// Collects the arguments of each command; the first entry, without arguments, is the program
/// itself.
fn commands(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        commands(below, &[path, &[below.get_name().to_owned()]].concat(), found);
    }
}

#[test]
fn help_of_every_command_is_unchanged() {
    let mut all = Vec::new();
    commands(&komoju_sync::cli::command(), &[], &mut all);
    assert!(all.len() > 30, "{all:?}");
    let mut text = String::new();
    for path in all {
        for flag in ["-h", "--help"] {
            let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
            arguments.push(flag);
            // Run without `--config`, because its value would differ in each run.
            let output = Command::new(PROGRAM).env_clear().args(&arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}");
            let help = String::from_utf8(output.stdout).unwrap();
            let _ = writeln!(text, "$ komoju-sync {}\n{help}", arguments.join(" "));
        }
    }
    check("help.txt", &text);
}

/// Collects the paths of all keys: `a.b` in an object, `a[].b` in the objects of a list.
fn key_paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                found.insert(path.clone());
                key_paths(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| key_paths(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

/// Promises: command status
#[test]
fn keys_of_status_in_json_are_unchanged() {
    let harness = Installation::with(PROGRAM, 30);
    let mut found = BTreeSet::new();
    let mut note = || {
        let status: Value = serde_json::from_str(harness.run(&["status", "--json"]).stdout.trim()).unwrap();
        key_paths(&status, "", &mut found);
    };
    harness.expect(0, &["sync"]);
    note();
    // Add a hold and a queued intent.
    for id in harness.mirror().keys().take(20) {
        harness.sandbox.world().delete(id);
    }
    harness
        .expect(0, &["intent", "create", "--email", "a@example.com", "--not-before", "2099-01-01T00:00:00Z"]);
    harness.expect(3, &["sync"]);
    note();
    let text: String = found.iter().map(|path| format!("{path}\n")).collect();
    check("status_keys.txt", &text);
}

#[test]
fn schema_of_a_new_database_is_unchanged() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let store = Store::open(&path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for index in indexes::ALL {
        runtime.block_on(store.make_index_unless(std::future::pending(), index)).unwrap();
    }
    store.close();
    let conn = Connection::open(&path).unwrap();
    let mut text = String::new();
    let mut statement =
        conn.prepare("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema ORDER BY 1").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    for (name, sql) in rows.unwrap().map(Result::unwrap) {
        let _ = writeln!(text, "-- {name}\n{sql}\n");
    }
    let views = "SELECT view.name || ': ' || group_concat(column.name, ', ')
                 FROM sqlite_schema AS view, pragma_table_info(view.name) AS column WHERE view.type = 'view' GROUP BY view.name";
    let mut statement = conn.prepare(views).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for view in rows.map(Result::unwrap) {
        let _ = writeln!(text, "-- columns of {view}");
    }
    check("schema.sql", &text);
}

/// Promises: exit code 0; exit code 1; exit code 2; exit code 3; exit code 4; exit code 5
#[test]
fn exit_codes_are_unchanged() {
    let mut text = String::new();
    let mut note = |harness: &Installation, situation: &str, commands: &[&[&str]]| {
        for arguments in commands {
            let ran = harness.run(arguments);
            let _ = writeln!(text, "{} komoju-sync {} ({situation})", ran.code, arguments.join(" "));
        }
    };
    let readers: &[&[&str]] = &[
        &["status"],
        &["customers", "list"],
        &["changes"],
        &["deletions", "list"],
        &["account", "show"],
        &["intent", "list"],
        &["verify"],
        &["rebuild"],
        &["export", "--format", "csv"],
        &["erase", "cus_none"],
    ];
    let harness = Installation::with(PROGRAM, 12);
    note(&harness, "no database", readers);
    note(
        &harness,
        "no database",
        &[&["config", "check"], &["config", "show"], &["man"], &["completions", "bash"]],
    );
    note(
        &harness,
        "wrong usage",
        &[&["no-such-command"], &["sync", "--no-such-flag"], &["customers", "show"], &["intent", "update"]],
    );
    note(
        &harness,
        "API reachable",
        &[&["sync", "--probe"], &["sync", "--dry-run"], &["sync"], &["sync", "--probe"]],
    );
    note(&harness, "after a complete sweep", readers);
    note(
        &harness,
        "after a complete sweep",
        &[&["customers", "show", "cus_none"], &["intent", "show", "none"]],
    );

    for id in harness.mirror().keys() {
        harness.sandbox.world().delete(id);
    }
    note(
        &harness,
        "every customer is gone",
        &[&["sync"], &["status"], &["deletions", "list"], &["deletions", "approve"]],
    );
    note(&harness, "deletions approved", &[&["sync"], &["status"]]);

    let mut harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    harness.use_key("sk_test_other");
    note(&harness, "another key", &[&["sync"], &["status"]]);

    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    std::fs::write(harness.path("komoju.db"), "not a database").unwrap();
    note(
        &harness,
        "the database is not SQLite",
        &[&["sync"], &["status"], &["verify"], &["customers", "list"]],
    );

    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let before = harness.sandbox.world().request_count();
    let daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() > before));
    note(&harness, "a daemon runs", &[&["sync"], &["rebuild"], &["status"], &["customers", "list"]]);
    drop(daemon);

    let harness = Installation::with(PROGRAM, 3);
    std::fs::write(harness.path("config.toml"), "[api]\nno_such_key = 1\n").unwrap();
    note(
        &harness,
        "an unknown key in the configuration",
        &[&["config", "check"], &["sync"], &["status"], &["run"]],
    );
    check("exit_codes.txt", &text);
}
