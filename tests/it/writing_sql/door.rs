//! The SQL door: what its triggers refuse, and which transitions they allow.

use crate::doors::{Database, has_shell, shell};

/// Returns statements that must fail, each with a part of its message.
fn forbidden() -> Vec<(String, &'static str)> {
    let mut statements = vec![];
    for (column, value) in [
        ("state", "'done'"),
        ("state", "NULL"),
        ("attempts", "1"),
        ("next_attempt_at", "'2026-01-31T09:30:00.000Z'"),
        ("settled_at", "'2026-01-31T09:30:00.000Z'"),
        ("result_customer_id", "'c'"),
        ("change_seq", "1"),
        ("reason", "'x'"),
        ("detail", "'{}'"),
        ("created_at", "'2020-01-31T09:30:00.000Z'"),
        ("created_at", "NULL"),
        ("position", "1"),
        ("position", "77"),
        ("position", "0"),
        ("position", "-5"),
    ] {
        let sql = format!("INSERT INTO intents (op, customer_id, {column}) VALUES ('delete', 'c', {value})");
        statements.push((sql, "a writer sets"));
    }
    let more = [
        ("INSERT INTO intents (op, door) VALUES ('create', 'window')", "door"),
        ("INSERT INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR REPLACE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("REPLACE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR IGNORE INTO intents (op, id) VALUES ('create', 'n1')", "id: was used before"),
        ("INSERT OR IGNORE INTO intents (op) VALUES ('destroy')", "op: must be"),
        (
            "INSERT INTO intents (op, id) VALUES ('create', 'n1') ON CONFLICT (id) DO UPDATE SET body = '{}'",
            "id: was used before",
        ),
        (
            "INSERT INTO intents (op, id) VALUES ('create', 'n1') ON CONFLICT DO NOTHING",
            "id: was used before",
        ),
        ("INSERT INTO intents (op, customer_id) VALUES ('delete', '@unknown')", "the id of a create"),
        ("INSERT INTO intents (op, body) VALUES ('create', '{')", "body: must be a JSON object"),
        ("INSERT INTO intents (op, body) VALUES ('create', '{email: 1}')", "body: must be a JSON object"),
        ("INSERT INTO intents (op, body) VALUES ('create', x'7b7d')", "body: must be a JSON object"),
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"email": "a", "email": "b"}')"#,
            "body: a key appears twice in one object",
        ),
        ("INSERT INTO intents (op, id) VALUES ('create', CAST(x'61ff' AS TEXT))", "id: must be UTF-8"),
        ("INSERT INTO intents (op, id) VALUES ('create', CAST(x'c3a9eda080' AS TEXT))", "id: must be UTF-8"),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'c3' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'61c080' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        (
            "INSERT INTO intents (op, customer_id) VALUES ('delete', CAST(x'80' AS TEXT))",
            "customer_id: must be UTF-8",
        ),
        // An older SQLite would not find this field again to mask it.
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"payment\u005fdetails": "tok_1"}')"#,
            "without escapes",
        ),
        (
            r#"INSERT INTO intents (op, body) VALUES ('create', '{"m\u0065tadata": {"k": 1}}')"#,
            "a value must be a text or null",
        ),
        ("UPDATE OR REPLACE intents SET id = 'n2' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET position = 9 WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET op = 'delete' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET customer_id = 'c' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET body = '{}' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET submitted_by = 'me' WHERE id = 'n1'", "stays as it was dropped"),
        ("UPDATE intents SET state = 'lost' WHERE id = 'n1'", "cannot go from this state"),
        ("DELETE FROM intents WHERE id = 'n1'", "never removed"),
    ];
    statements.extend(more.map(|(sql, why)| (sql.to_owned(), why)));
    statements
}

#[test]
fn forbidden_statement_is_refused_with_its_reason_and_changes_nothing() {
    let database = Database::new();
    let conn = database.open();
    let with_shell = has_shell();
    let content = || -> Vec<String> {
        let mut statement = conn
            .prepare(
                "SELECT id || position || op || state || coalesce(body, '') FROM intents ORDER BY position",
            )
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let before = content();
    for (sql, why) in forbidden() {
        let message = conn.execute_batch(&sql).expect_err(&sql).to_string();
        assert!(message.contains(why), "{sql}: {message}");
        if with_shell {
            let message = shell(&database.path, &sql).unwrap().expect_err(&sql);
            assert!(message.contains(why), "{sql} in the shell: {message}");
        }
        assert_eq!(content(), before, "{sql}");
    }
}

#[test]
fn insert_is_refused_while_outbound_is_disabled() {
    let database = Database::new();
    let conn = database.open();
    let own = database.open();
    komoju_sync::store::file::signature::sign(&own).unwrap();
    own.execute_batch("UPDATE meta SET outbound_enabled = 0").unwrap();
    let message = conn.execute_batch("INSERT INTO intents (op) VALUES ('create')").unwrap_err().to_string();
    assert!(message.contains("pushing is switched off (outbound.enabled = false)"), "{message}");
}

const STATES: [&str; 7] = ["queued", "sending", "waiting", "done", "rejected", "parked", "cancelled"];

/// Returns the legal steps from `queued` to a state.
fn steps_to(state: &str) -> &'static [&'static str] {
    match state {
        "sending" => &["sending"],
        "waiting" => &["sending", "waiting"],
        "done" => &["sending", "done"],
        "rejected" => &["sending", "rejected"],
        "parked" => &["parked"],
        "cancelled" => &["cancelled"],
        _ => &[],
    }
}

/// Whether the contract allows this transition.
fn is_legal(from: &str, to: &str) -> bool {
    from == to
        || match from {
            "queued" => ["sending", "parked", "cancelled"].contains(&to),
            "sending" => ["waiting", "done", "rejected", "parked"].contains(&to),
            "waiting" => ["sending", "done", "parked"].contains(&to),
            "rejected" => to == "queued",
            "parked" => ["queued", "waiting", "cancelled"].contains(&to),
            _ => false,
        }
}

#[test]
fn update_by_sql_makes_only_legal_transitions() {
    let database = Database::new();
    let conn = database.open();
    let with_shell = has_shell();
    for from in STATES {
        for to in STATES {
            let steps = steps_to(from)
                .iter()
                .chain([&to])
                .map(|state| format!("UPDATE intents SET state = '{state}';"));
            let sql = format!("BEGIN; {} ROLLBACK", steps.collect::<String>());
            let done = conn.execute_batch(&sql);
            if done.is_err() {
                let _ = conn.execute_batch("ROLLBACK");
            }
            assert_eq!(done.is_ok(), is_legal(from, to), "{from} to {to}: {done:?}");
            if with_shell {
                let done = shell(&database.path, &sql).unwrap();
                assert_eq!(done.is_ok(), is_legal(from, to), "{from} to {to} in the shell: {done:?}");
            }
        }
    }
}

#[test]
fn cancel_by_sql_settles_the_intent_and_wipes_its_token() {
    let database = Database::new();
    let body = r#"{"email": "a", "payment_details": "tok_once"}"#;
    let conn = database.open();
    for id in ["here", "there"] {
        conn.execute("INSERT INTO intents (op, id, body) VALUES ('create', ?1, ?2)", [id, body]).unwrap();
    }
    let cancel = |id: &str| format!("UPDATE intents SET state = 'cancelled' WHERE id = '{id}'");
    conn.execute_batch(&cancel("here")).unwrap();
    if !has_shell() {
        conn.execute_batch(&cancel("there")).unwrap();
    } else {
        shell(&database.path, &cancel("there")).unwrap().unwrap();
    }
    for id in ["here", "there"] {
        let (body, settled, is_open): (String, bool, bool) = conn
            .query_row(
                "SELECT body, settled_at IS NOT NULL, is_open FROM intents JOIN outbox USING (position) WHERE id = ?1",
                [id],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert!(body.contains("****") && !body.contains("tok_once"), "{id}: {body}");
        assert!(settled && !is_open, "{id}");
    }
}
