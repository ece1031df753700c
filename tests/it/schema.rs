//! The schema for other programs: an older database is migrated, our tables are protected, and
//! DuckDB reads every view.

use std::path::{Path, PathBuf};

use komoju_sync::store::file::{indexes, signature};
use komoju_sync::store::log::verify::verify;
use komoju_sync::store::{Reader, Store};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

pub(crate) mod duckdb;
mod operators_objects;

/// Returns a copy of the database that the first release of schema 2 made, with rows in every
/// table.
fn fixture() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-2.db"), &path).unwrap();
    (directory, path)
}

/// Returns that copy, migrated to the current schema.
fn migrated() -> (TempDir, PathBuf) {
    let (directory, path) = fixture();
    Store::open(&path).unwrap().close();
    (directory, path)
}

/// Returns the values of the first column.
fn column(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn tables(conn: &Connection) -> Vec<String> {
    column(
        conn,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )
}

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    column(conn, &format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"))
}

/// Returns these columns of the rows of a table.
fn rows(conn: &Connection, table: &str, columns: &[String]) -> Vec<Vec<Value>> {
    let mut statement =
        conn.prepare(&format!("SELECT {} FROM {table} ORDER BY 1, 2", columns.join(", "))).unwrap();
    let values = statement.query_map([], |row| (0..columns.len()).map(|at| row.get(at)).collect());
    values.unwrap().map(Result::unwrap).collect()
}

#[test]
fn migrated_database_has_the_schema_of_a_new_one_and_keeps_its_rows() {
    let (_old, old) = fixture();
    let old = Connection::open(old).unwrap();
    let (_migrated, path) = migrated();
    let (_new, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let new = new.path().join("komoju.db");
    let store = Store::open(&new).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for index in indexes::ALL {
        runtime.block_on(store.make_index_unless(std::future::pending(), index)).unwrap();
    }
    store.close();
    let schema = |path: &Path| {
        let sql = "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
        column(&Connection::open(path).unwrap(), sql)
    };
    assert_eq!(schema(&path), schema(&new));

    let conn = Connection::open(&path).unwrap();
    for table in tables(&old) {
        let mut kept = columns(&old, &table);
        // A migration sets these columns itself: the first start scrubs the whole file.
        kept.retain(|column| {
            !(table == "meta" && ["schema_version", "left_over_tokens"].contains(&column.as_str()))
        });
        let before = rows(&old, &table, &kept);
        assert!(!before.is_empty(), "the fixture has no row in {table}");
        assert_eq!(rows(&conn, &table, &kept), before, "{table}");
    }
    let set = "SELECT schema_version || ' ' || left_over_tokens || ' ' || (wipe_since IS NOT NULL) FROM meta";
    assert_eq!(column(&conn, set), ["5 1 1"]);
    let verified = verify(&Reader::open(&path).unwrap(), None).unwrap();
    assert_eq!(verified.finding_count, 0, "the log still folds to the mirror");
    let unlike = "SELECT id FROM intents JOIN outbox USING (position) WHERE followed_state IS NOT state";
    assert_eq!(column(&conn, unlike), Vec::<String>::new());
}

/// Returns statements of another program that change this column of this table, or add a row to it.
fn foreign(table: &str, column: &str, value: &str) -> [String; 8] {
    [
        format!("UPDATE {table} SET {column} = {column}"),
        format!("UPDATE {table} SET {column} = {value}"),
        format!("UPDATE OR REPLACE {table} SET {column} = {column}"),
        format!("UPDATE OR IGNORE {table} SET {column} = {value}"),
        format!("INSERT INTO {table} ({column}) VALUES ({value})"),
        format!("INSERT OR REPLACE INTO {table} SELECT * FROM {table}"),
        format!("INSERT OR IGNORE INTO {table} SELECT * FROM {table}"),
        format!(
            "INSERT INTO {table} SELECT * FROM {table} WHERE true ON CONFLICT DO UPDATE SET {column} = {column}"
        ),
    ]
}

#[test]
fn foreign_insert_update_and_delete_is_refused_on_every_table() {
    let (_directory, path) = migrated();
    // Without a row no trigger can refuse, so add rows to the tables that are newer than the
    // fixture.
    let ours = Connection::open(&path).unwrap();
    signature::sign(&ours).unwrap();
    ours.execute_batch(
        "INSERT INTO unreadable_customer (key, reason, first_seen_at, last_seen_at) VALUES ('id:x', 'r', 't', 't');
         INSERT INTO busy_field (field, customers, seen, sweeps, since) VALUES ('f', 1, 1, 1, 't');
         INSERT INTO unlisted (customer_id, since_sweep, verified_sweep, verified_at) VALUES ('c', 1, 1, 't');
         INSERT INTO recheck (customer_id, due_at) VALUES ('c', 't');
         INSERT INTO event (id, event_at, seen_at, is_open) VALUES ('e', 't', 't', 1);
         INSERT INTO hint (customer_id, first_at, is_second, hints) VALUES ('c', 't', 0, 1);
         INSERT INTO change_event (seq, event_at, seen_at) VALUES (1, 't', 't');
         INSERT INTO recall (day, changes, reported) VALUES ('d', 1, 1)",
    )
    .unwrap();
    drop(ours);
    let conn = Connection::open(path).unwrap();
    for table in tables(&conn) {
        let count = column(&conn, &format!("SELECT CAST(count(*) AS TEXT) FROM {table}"));
        assert_ne!(count, ["0"], "{table} has no row");
    }
    let mut accepted = Vec::new();
    let mut refuse = |sql: &str, of: &[&str]| match conn.execute_batch(&format!("BEGIN; {sql}; ROLLBACK")) {
        Ok(()) => accepted.push(sql.to_owned()),
        Err(error) => {
            let words = error.to_string();
            if !of.iter().any(|part| words.contains(part)) {
                accepted.push(format!("{sql}: {words}"));
            }
            let _ = conn.execute_batch("ROLLBACK");
        }
    };
    for recursive in ["OFF", "ON"] {
        conn.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}")).unwrap();
        for table in tables(&conn) {
            let only = format!("{table}: only komoju-sync writes this table");
            let words = [only.as_str(), "append-only", "never removed", "never shortened"];
            refuse(&format!("DELETE FROM {table}"), &words);
            // `tests/it/doors.rs` tests what another program may write to an intent.
            if table == "intents" {
                continue;
            }
            // Use the column's type, because SQLite itself refuses others.
            let value = format!(
                "SELECT CASE type WHEN 'BLOB' THEN 'x''07''' WHEN 'TEXT' THEN quote('7') ELSE '7' END
                 FROM pragma_table_info('{table}') ORDER BY cid"
            );
            for (column, value) in columns(&conn, &table).iter().zip(column(&conn, &value)) {
                for sql in foreign(&table, column, &value) {
                    refuse(&sql, &words);
                }
            }
        }
    }
    assert!(accepted.is_empty(), "accepted, or refused with another message:\n{}", accepted.join("\n"));
}

#[test]
fn foreign_statement_on_intents_leaves_no_table_open() {
    let (_directory, path) = migrated();
    for recursive in ["OFF", "ON"] {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA recursive_triggers = {recursive}; PRAGMA foreign_keys = ON; BEGIN"
        ))
        .unwrap();
        for sql in [
            "INSERT INTO intents (id, op, body) VALUES ('c', 'create', '{\"email\": \"a\"}'), ('d', 'create', '{\"email\": \"b\"}')",
            "INSERT INTO intents (id, op, customer_id) VALUES ('f', 'delete', '@c')",
            "UPDATE intents SET state = state",
            "UPDATE intents SET reason = 'later' WHERE state = 'queued'",
            "UPDATE intents SET state = 'parked' WHERE id IN ('c', 'd')",
            "UPDATE intents SET state = 'cancelled' WHERE id = 'c'",
            "UPDATE intents SET state = 'cancelled' WHERE id = 'f'",
        ] {
            conn.execute_batch(sql).unwrap();
            assert_eq!(column(&conn, "SELECT quote(following) FROM meta"), ["NULL"], "{sql}");
            let unlike = "SELECT id FROM intents JOIN outbox USING (position)
                 WHERE followed_state IS NOT state OR is_open IS NOT (state IN ('queued', 'sending', 'waiting', 'parked'))";
            assert_eq!(column(&conn, unlike), Vec::<String>::new(), "{sql}");
            for open in
                ["UPDATE outbox SET held = 1", "UPDATE meta SET following = 1", "UPDATE meta SET engine = 1"]
            {
                let refused = conn.execute_batch(open).unwrap_err().to_string();
                assert!(refused.contains("only komoju-sync writes"), "{sql}, {open}: {refused}");
            }
        }
        assert_eq!(
            column(&conn, "SELECT state FROM intents WHERE id IN ('c', 'd', 'f') ORDER BY id"),
            ["cancelled", "parked", "cancelled"]
        );
        conn.execute_batch("ROLLBACK").unwrap();
    }
}

#[test]
fn foreign_program_cannot_set_wipe_since() {
    let (_directory, path) = migrated();
    let ours = Connection::open(&path).unwrap();
    signature::sign(&ours).unwrap();
    ours.execute_batch("UPDATE meta SET wipe_since = NULL").unwrap();
    drop(ours);
    let conn = Connection::open(&path).unwrap();
    for since in ["'any text'", "'2020-01-01T00:00:00.000Z'", "NULL"] {
        let sql = format!("UPDATE meta SET left_over_tokens = left_over_tokens + 1, wipe_since = {since}");
        let refused = conn.execute_batch(&sql).unwrap_err().to_string();
        assert!(refused.contains("meta: only komoju-sync writes this table"), "{since}: {refused}");
    }
    conn.execute_batch(
        r#"INSERT INTO intents (id, op, body) VALUES ('t', 'create', '{"email": "a", "payment_details": "tok_1"}');
           UPDATE intents SET state = 'cancelled' WHERE id = 't'"#,
    )
    .unwrap();
    assert_eq!(column(&conn, "SELECT CAST(wipe_since IS NOT NULL AS TEXT) FROM meta"), ["1"]);
}

#[test]
fn temp_trigger_of_a_foreign_program_changes_nothing_in_the_outbox() {
    let (_directory, path) = migrated();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "INSERT INTO intents (id, op, customer_id) VALUES ('mine', 'delete', 'cus_mine'), ('other', 'delete', 'cus_other')",
    )
    .unwrap();
    let change = "UPDATE intents SET state = 'parked' WHERE id = 'mine'";
    for evil in [
        "UPDATE outbox SET approved = 1 WHERE position = NEW.position",
        "UPDATE outbox SET approved = 1 WHERE lane = 'cus_other'",
        "UPDATE outbox SET held = 1 WHERE position = NEW.position",
        "UPDATE outbox SET is_delete = 0 WHERE position = NEW.position",
        "UPDATE outbox SET key = 'k' WHERE position = NEW.position",
        "UPDATE outbox SET tag = 't' WHERE position = NEW.position",
        "UPDATE outbox SET outcome_unknown = 1 WHERE position = NEW.position",
        "UPDATE outbox SET is_open = 0 WHERE lane = 'cus_other'",
        "INSERT OR REPLACE INTO outbox (position, lane, is_delete, approved) VALUES (NEW.position, NEW.lane, 1, 1)",
        "INSERT OR REPLACE INTO outbox (position, lane, is_delete) VALUES (NEW.position, NEW.lane, 0)",
    ] {
        conn.execute_batch(&format!(
            "CREATE TEMP TRIGGER evil AFTER UPDATE OF followed_state ON main.outbox BEGIN {evil}; END"
        ))
        .unwrap();
        let refused = conn.execute_batch(change).unwrap_err().to_string();
        assert!(refused.contains("outbox: only komoju-sync writes this table"), "{evil}: {refused}");
        conn.execute_batch("DROP TRIGGER evil").unwrap();
    }
    conn.execute_batch(change).unwrap();
}

#[test]
fn texts_that_differ_after_a_nul_are_in_the_diff() {
    let (_directory, path) = migrated();
    let conn = Connection::open(&path).unwrap();
    signature::sign(&conn).unwrap();
    let bodies = [
        r#"{"email":"same\u0000a","id":"x","n":1.50,"plain":"v","with\"quote":"same\u0000a"}"#,
        r#"{"email":"same\u0000b","id":"x","n":1.50,"plain":"v","with\"quote":"same\u0000b"}"#,
    ];
    for (kind, body) in ["created", "updated"].into_iter().zip(bodies) {
        let sql = "INSERT INTO change_log
             SELECT max(seq) + 1, 'x', ?1, '2026-01-01T00:00:00.000Z', 'sweep', 1, NULL, ?2, NULL, x'01', zeroblob(32), zeroblob(32)
             FROM change_log";
        conn.execute(sql, [kind, body]).unwrap();
    }
    let asked = "SELECT diff FROM changes WHERE customer_id = 'x' AND kind = 'updated'";
    let expected = serde_json::json!({"from": "same\u{0}a", "to": "same\u{0}b"});
    let fields =
        |diff: &str| -> serde_json::Map<String, serde_json::Value> { serde_json::from_str(diff).unwrap() };
    let diff = fields(&column(&conn, asked)[0]);
    assert_eq!(diff.keys().collect::<Vec<_>>(), ["email", "with\"quote"]);
    assert_eq!(diff["email"], expected);
    // An older SQLite reads the value of a field with such a name up to the NUL.
    if let Ok(shell) = std::process::Command::new("sqlite3").arg(&path).arg(asked).output() {
        assert_eq!(fields(&String::from_utf8(shell.stdout).unwrap())["email"], expected);
    }
}
