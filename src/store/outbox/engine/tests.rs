//! Attempts that a crash interrupted, and attempts in a restored database.

use rusqlite::Connection;

use super::*;
use crate::store::file::open;

const AT: &str = "2026-06-01T12:00:00.000Z";

/// A database with an intent of this operation, whose attempt began and got no answer.
fn sending(op: &str, key: Option<&str>, server: Option<&str>) -> Connection {
    let conn = open::in_memory();
    let (customer, body) = match op {
        "create" => (None, Some(r#"{"email": "a"}"#)),
        "update" => (Some("c"), Some(r#"{"email": "a"}"#)),
        _ => (Some("c"), None),
    };
    conn.execute(
        "INSERT INTO intents (id, op, customer_id, body) VALUES ('i', ?1, ?2, ?3)",
        params![op, customer, body],
    )
    .unwrap();
    conn.execute_batch(
        "UPDATE meta SET engine = 1;
         UPDATE intents SET state = 'sending', attempts = 1;
         INSERT INTO attempts (intent_id, n, started_at) VALUES ('i', 1, '2026-06-01T11:00:00.000Z')",
    )
    .unwrap();
    conn.execute(
        "UPDATE outbox SET key = ?1, first_attempt_at = '2026-06-01T11:00:00.000Z', first_server_at = ?2",
        params![key, server],
    )
    .unwrap();
    conn.execute("UPDATE meta SET engine = 0", []).unwrap();
    conn
}

/// Returns the state, whether the outcome is unknown, and when the next attempt is due.
fn row(conn: &Connection) -> (String, bool, Option<String>) {
    let sql = "SELECT state, outcome_unknown, next_attempt_at FROM intents JOIN outbox USING (position)";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

#[test]
fn interrupted_attempt_is_due_at_once_and_unknown_if_a_byte_may_have_left() {
    let server_time = Some("2026-06-01T11:00:01.000Z");
    for (op, key, server, is_unknown) in [
        ("update", None, None, true),
        ("delete", None, None, true),
        ("create", Some("k"), server_time, true),
        // A create is sent only after the server's time was stored.
        ("create", Some("k"), None, false),
    ] {
        let mut conn = sending(op, key, server);
        let tx = conn.transaction().unwrap();
        assert_eq!(interrupt(&tx, AT).unwrap(), 1);
        tx.commit().unwrap();
        assert_eq!(row(&conn), ("waiting".to_owned(), is_unknown, None), "{op} {server:?}");
        let sql = "SELECT outcome || ' ' || finished_at FROM attempts";
        let attempt: String = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(attempt, format!("waiting {AT}"));
    }
}

#[test]
fn restored_create_without_a_server_time_is_dated_an_hour_before_its_first_attempt() {
    let server_time = Some("2026-06-01T10:30:00.000Z");
    for (op, key, server, dated) in [
        ("create", Some("k"), None, Some("2026-06-01T10:00:00.000Z")),
        ("create", Some("k"), server_time, server_time),
        ("update", None, None, None),
    ] {
        let mut conn = sending(op, key, server);
        let tx = conn.transaction().unwrap();
        assert_eq!(park_all(&tx, AT).unwrap(), 1);
        tx.commit().unwrap();
        assert_eq!(row(&conn), ("parked".to_owned(), true, None), "{op} {server:?}");
        let sql = "SELECT first_server_at FROM outbox";
        let first: Option<String> = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(first.as_deref(), dated, "{op} {server:?}");
    }
}
