//! One table of intents for all validators: the parser, the JSON Schema, and the triggers in the
//! built-in SQLite and in the machine's `sqlite3` shell. They must agree on each intent.

mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use komoju_core::intent::Intent;
use komoju_sync::store::Store;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::doors::table::{bad, good, raw};

/// A new database with the creates `n1` and `n 1/é`.
pub(crate) struct Database {
    _directory: TempDir,
    pub(crate) path: PathBuf,
}

impl Database {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .execute_batch("INSERT INTO intents (id, op, body) VALUES ('n1', 'create', '{\"currency\": \"JPY\"}'), ('n 1/é', 'create', '{\"currency\": \"JPY\"}')")
            .unwrap();
        Self { _directory: directory, path }
    }

    pub(crate) fn open(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the statement that inserts an intent: `body` and `expect` as JSON text, text as it is. A
/// value of a wrong type becomes a blob, because SQL cannot express it otherwise.
fn insert(intent: &Value) -> String {
    let text = |text: &str| format!("CAST(x'{}' AS TEXT)", hex(text.as_bytes()));
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (name, value) in intent.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
        columns.push(name.clone());
        values.push(match (name.as_str(), value) {
            ("body" | "expect", json) => text(&json.to_string()),
            (_, Value::String(string)) => text(string),
            (_, other) => format!("x'{}'", hex(other.to_string().as_bytes())),
        });
    }
    match columns.is_empty() {
        true => "INSERT INTO intents DEFAULT VALUES".to_owned(),
        false => format!("INSERT INTO intents ({}) VALUES ({})", columns.join(", "), values.join(", ")),
    }
}

/// Runs SQL in the machine's `sqlite3` shell. Returns `None` without a shell.
pub(crate) fn shell(database: &Path, sql: &str) -> Option<Result<String, String>> {
    let output = Command::new("sqlite3").arg("-batch").arg("-bail").arg(database).arg(sql).output().ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Some(match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    })
}

pub(crate) fn has_shell() -> bool {
    match Command::new("sqlite3").arg("--version").output() {
        Ok(output) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), &output.stdout);
            true
        }
        Err(e) => {
            let note =
                format!("no sqlite3 shell on PATH ({e}): only the built-in SQLite tested the triggers\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
            false
        }
    }
}

#[test]
fn every_door_accepts_and_refuses_the_same_intents() {
    let database = Database::new();
    let conn = database.open();
    let schema = jsonschema::options().should_validate_formats(true).build(&Intent::schema()).unwrap();
    let with_shell = has_shell();
    let mut disagreements = Vec::new();
    let cases =
        good().into_iter().map(|case| (case, true)).chain(bad().into_iter().map(|case| (case, false)));
    for ((name, intent), is_good) in cases {
        let sql = format!("BEGIN; {}; ROLLBACK", insert(&intent));
        let by_trigger = conn.execute_batch(&sql).map_err(|e| e.to_string());
        if by_trigger.is_err() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        let mut results = vec![
            ("the parser", Intent::parse(&intent.to_string()).map(|_| ()).map_err(|e| e.to_string())),
            ("the schema", schema.validate(&intent).map_err(|e| e.to_string())),
            ("the triggers", by_trigger),
        ];
        if with_shell {
            results.push(("the shell", shell(&database.path, &sql).unwrap().map(|_| ())));
        }
        for (validator, result) in results {
            if result.is_ok() != is_good {
                disagreements.push(format!("{name}: {validator} says {result:?}"));
            }
        }
    }
    for (name, body, expect, is_good) in raw() {
        let field = |name: &str, value: &Option<Vec<u8>>| match value {
            Some(value) => [format!(", \"{name}\": ").as_bytes(), value].concat(),
            None => Vec::new(),
        };
        let (in_body, in_expect) = (field("body", &body), field("expect", &expect));
        let op = if body.is_some() { "update" } else { "delete" };
        let start = format!("{{\"op\": \"{op}\", \"customer_id\": \"c\"");
        let file = [start.as_bytes(), &in_body, &in_expect, b"}"].concat();
        let column = |value: &Option<Vec<u8>>| match value {
            Some(value) => format!("CAST(x'{}' AS TEXT)", hex(value)),
            None => "NULL".to_owned(),
        };
        let sql = format!(
            "BEGIN; INSERT INTO intents (op, customer_id, body, expect) VALUES ('{op}', 'c', {}, {}); ROLLBACK",
            column(&body),
            column(&expect)
        );
        let by_parser = match std::str::from_utf8(&file) {
            Ok(text) => Intent::parse(text).map(|_| ()).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let by_trigger = conn.execute_batch(&sql).map_err(|e| e.to_string());
        if by_trigger.is_err() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        let mut results = vec![("the parser", by_parser), ("the triggers", by_trigger)];
        if with_shell {
            results.push(("the shell", shell(&database.path, &sql).unwrap().map(|_| ())));
        }
        for (validator, result) in results {
            if result.is_ok() != is_good {
                disagreements.push(format!("{name}: {validator} says {result:?}"));
            }
        }
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

#[test]
fn shipped_json_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/intent.schema.json");
    let schema = serde_json::to_string_pretty(&Intent::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema,
        "docs/intent.schema.json is out of date: `UPDATE=1 cargo test --test it shipped_json_schema` writes it"
    );
}
