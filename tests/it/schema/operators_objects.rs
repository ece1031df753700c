//! An operator added an object to the schema (a trigger, an index, a foreign key), and it blocks
//! our write. The message names that object.

use komoju_testkit::Installation;
use rusqlite::Connection;
use serde_json::json;

use crate::PROGRAM;

fn sql(harness: &Installation, statements: &str) {
    Connection::open(harness.path("komoju.db")).unwrap().execute_batch(statements).unwrap();
}

/// Makes changes to record: a customer with the email of another one, a new one, a changed one.
fn change(harness: &Installation) {
    let mut world = harness.sandbox.world();
    let ids = world.ids();
    let twin = world.truth()[&ids[0]]["email"].clone();
    world.create(json!({"email": twin}));
    world.create(json!({"email": "new@example.jp"}));
    world.update(&ids[1], json!({"email": "changed@example.jp"}));
}

fn assert_names(message: &str, added: &str) {
    assert!(message.contains(added), "{added}: {message}");
    for wrong in ["disk", "damaged", "panicked", "Make room"] {
        assert!(!message.contains(wrong), "{added}: {wrong}: {message}");
    }
}

#[test]
fn operators_object_that_refuses_our_rows_is_named() {
    for (statements, added, remedy) in [
        ("CREATE UNIQUE INDEX one_each ON mirror (email)", "index one_each on mirror", "DROP INDEX one_each"),
        (
            "CREATE TRIGGER no_more BEFORE INSERT ON mirror BEGIN SELECT RAISE(ABORT, 'no more'); END",
            "trigger no_more on mirror",
            "DROP TRIGGER no_more",
        ),
        (
            "CREATE TRIGGER notes_it AFTER UPDATE ON mirror BEGIN INSERT INTO gone VALUES (new.id); END",
            "trigger notes_it on mirror",
            "DROP TRIGGER notes_it",
        ),
        (
            "CREATE TRIGGER counts_it AFTER INSERT ON change_log BEGIN SELECT their_function(new.seq); END",
            "trigger counts_it on change_log",
            "DROP TRIGGER counts_it",
        ),
        (
            "CREATE INDEX by_their_order ON mirror (email COLLATE NOCASE); PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'THEIRS') WHERE name = 'by_their_order'",
            "index by_their_order on mirror",
            "DROP INDEX by_their_order",
        ),
        ("CREATE TABLE theirs (email REFERENCES mirror (email))", "table theirs", "DROP TABLE theirs"),
    ] {
        let harness = Installation::with(PROGRAM, 4);
        harness.expect(0, &["sync"]);
        sql(&harness, statements);
        change(&harness);
        let ran = harness.expect(5, &["sync"]);
        assert_names(&ran.stderr, added);
        sql(&harness, &format!("PRAGMA foreign_keys = OFF; {remedy}"));
        harness.expect(0, &["sync"]);
        harness.assert_true();
    }
}

#[test]
fn foreign_key_to_a_customer_is_named_when_the_mirror_is_rebuilt() {
    let harness = Installation::with(PROGRAM, 4);
    harness.expect(0, &["sync"]);
    sql(
        &harness,
        "CREATE TABLE orders (customer INTEGER REFERENCES mirror (row)); INSERT INTO orders SELECT row FROM mirror",
    );
    let ran = harness.expect(5, &["rebuild"]);
    assert_names(&ran.stderr, "table orders");
    sql(&harness, "DROP TABLE orders");
    harness.expect(0, &["rebuild"]);
}

#[test]
fn operators_trigger_on_intents_is_named_by_intent_create() {
    let harness = Installation::with(PROGRAM, 4);
    harness.expect(0, &["sync"]);
    sql(
        &harness,
        "CREATE TRIGGER notes_it AFTER INSERT ON intents BEGIN INSERT INTO gone VALUES (new.id); END",
    );
    let ran = harness.run(&["intent", "create", "--email", "x@example.jp"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert_names(&ran.stderr, "trigger notes_it on intents");
}
