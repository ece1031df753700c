//! The contract as files in `tests/golden/`: the help of every command, the keys of `status --json`, the schema, and exit codes.
//!
//! A change to one of these files is a change to what users rely on. `UPDATE_GOLDEN=1 cargo test --test golden` writes them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs the whole harness")]
mod house;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use house::House;
use komoju_sync::store::Store;
use komoju_sync::store::file::indexes;
use rusqlite::Connection;
use serde_json::Value;

/// Compares `actual` with the golden file of this name.
fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let first_difference = golden.lines().zip(actual.lines()).position(|(old, new)| old != new);
    let line = first_difference.unwrap_or_else(|| golden.lines().count().min(actual.lines().count()));
    assert!(
        golden == actual,
        "tests/golden/{name} differs from line {} on:\n- {}\n+ {}",
        line + 1,
        golden.lines().nth(line).unwrap_or("(the file ends)"),
        actual.lines().nth(line).unwrap_or("(nothing)"),
    );
}

/// The arguments that name each command, the program itself first.
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
            // Without `--config`, whose value differs in each run.
            let output = Command::new(env!("CARGO_BIN_EXE_komoju-sync"))
                .env_clear()
                .args(&arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}");
            let help = String::from_utf8(output.stdout).unwrap();
            let _ = writeln!(text, "$ komoju-sync {}\n{help}", arguments.join(" "));
        }
    }
    check("help.txt", &text);
}

/// The paths of all keys: `a.b` in an object, `a[].b` in the objects of a list.
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

#[test]
fn keys_of_status_in_json_are_unchanged() {
    let house = House::with(30);
    let mut found = BTreeSet::new();
    let mut note = || {
        let status: Value = serde_json::from_str(house.run(&["status", "--json"]).stdout.trim()).unwrap();
        key_paths(&status, "", &mut found);
    };
    house.expect(0, &["sync"]);
    note();
    // A hold and an intent that waits.
    for id in house.mirror().keys().take(20) {
        house.sandbox.world().delete(id);
    }
    house
        .expect(0, &["intent", "create", "--email", "a@example.com", "--not-before", "2099-01-01T00:00:00Z"]);
    house.expect(3, &["sync"]);
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

#[test]
fn exit_codes_are_unchanged() {
    let mut text = String::new();
    let mut note = |house: &House, situation: &str, commands: &[&[&str]]| {
        for arguments in commands {
            let ran = house.run(arguments);
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
    let house = House::with(12);
    note(&house, "no database", readers);
    note(
        &house,
        "no database",
        &[&["config", "check"], &["config", "show"], &["man"], &["completions", "bash"]],
    );
    note(
        &house,
        "wrong usage",
        &[&["no-such-command"], &["sync", "--no-such-flag"], &["customers", "show"], &["intent", "update"]],
    );
    note(
        &house,
        "API reachable",
        &[&["sync", "--probe"], &["sync", "--dry-run"], &["sync"], &["sync", "--probe"]],
    );
    note(&house, "after a complete sweep", readers);
    note(
        &house,
        "after a complete sweep",
        &[&["customers", "show", "cus_none"], &["intent", "show", "none"]],
    );

    for id in house.mirror().keys() {
        house.sandbox.world().delete(id);
    }
    note(
        &house,
        "every customer is gone",
        &[&["sync"], &["status"], &["deletions", "list"], &["deletions", "approve"]],
    );
    note(&house, "deletions approved", &[&["sync"], &["status"]]);

    let mut house = House::with(3);
    house.expect(0, &["sync"]);
    house.use_key("sk_test_other");
    note(&house, "another key", &[&["sync"], &["status"]]);

    let house = House::with(3);
    house.expect(0, &["sync"]);
    std::fs::write(house.path("komoju.db"), "not a database").unwrap();
    note(
        &house,
        "the database is not SQLite",
        &[&["sync"], &["status"], &["verify"], &["customers", "list"]],
    );

    let house = House::with(3);
    house.expect(0, &["sync"]);
    let before = house.sandbox.world().request_count();
    let daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.request_count() > before));
    note(&house, "a daemon runs", &[&["sync"], &["rebuild"], &["status"], &["customers", "list"]]);
    drop(daemon);

    let house = House::with(3);
    std::fs::write(house.path("config.toml"), "[api]\nno_such_key = 1\n").unwrap();
    note(
        &house,
        "an unknown key in the configuration",
        &[&["config", "check"], &["sync"], &["status"], &["run"]],
    );
    check("exit_codes.txt", &text);
}
