//! What a backup contains, and when none is made.
//!
//! Promises: command backup

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use komoju_sandbox::FaultEffect;
use komoju_testkit::{Installation, KEY};
use rusqlite::Connection;
use serde_json::json;

use super::{backup, file, names};
use crate::PROGRAM;

fn holds(path: impl AsRef<Path>, text: &str) -> bool {
    fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_backup_says_what_it_is_and_stands_alone() {
    let harness = Installation::swept(PROGRAM, 12);
    let to = file(&harness, "b.db");
    let ran = harness.expect(0, &["backup", &to]);
    let bytes = fs::metadata(&to).unwrap().len();
    let head = harness.expect(0, &["verify"]).stdout.lines().last().unwrap().to_owned();
    assert_eq!(ran.stdout.lines().last().unwrap(), head);
    assert!(ran.stdout.starts_with(&format!("{to}: ")) && ran.stdout.contains("12 live customers"));
    assert_eq!(
        ran.stdout.replace(',', "").split(": ").nth(1).unwrap().split(' ').next().unwrap(),
        bytes.to_string()
    );
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let around: Vec<String> =
        names(&harness).into_iter().filter(|name| name.contains("b.db") || name.starts_with('.')).collect();
    assert_eq!(around, ["b.db"], "nothing beside it, before it is read");
    // Everything that SQL users rely on is in it, object by object.
    let objects = |path: &Path| {
        let conn = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement =
            conn.prepare("SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(objects(Path::new(&to)), objects(&harness.path("komoju.db")));
    let info = |path: &Path| {
        let conn = Connection::open(path).unwrap();
        conn.query_row(
            "SELECT log_id || head_seq || head_chain || live || account FROM mirror_info",
            [],
            |row| row.get::<_, String>(0),
        )
        .unwrap()
    };
    assert_eq!(info(Path::new(&to)), info(&harness.path("komoju.db")));
    assert_eq!(names(&harness).iter().filter(|name| name.starts_with("b.db")).count(), 1);
}

#[test]
fn no_token_and_no_key_is_in_a_backup() {
    let harness = Installation::swept(PROGRAM, 5);
    let id = harness.sandbox.world().ids()[0].clone();
    let long = "x".repeat(1900);
    let with = |token: &str| {
        json!({"payment_details": token, "metadata": {"a": long, "b": long, "c": long}}).to_string()
    };
    let conn = harness.writer();
    let drop_in = |name: &str, op: &str, customer: Option<&str>, body: &str| {
        conn.execute(
            "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
            (name, op, customer, body),
        )
        .unwrap();
    };
    for n in 0..40 {
        drop_in(&format!("c{n}"), "create", None, &with(&format!("tok_canary_{n}")));
    }
    drop_in("u", "update", Some(&id), &with("tok_canary_u"));
    drop_in("plain", "update", Some(&id), r#"{"email":"back\\slash@example.com"}"#);
    for spoilt in ["s1", "s2", "s3", "s4"] {
        drop_in(spoilt, "create", None, &with("tok_canary_s"));
    }
    // Settled by a program that leaves copies in free space.
    conn.execute_batch(
        "PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id IN ('c1', 'c2', 'c3')",
    )
    .unwrap();
    conn.execute_batch(
        r#"DROP TRIGGER intents_transitions; DROP TRIGGER intents_token_moved;
        UPDATE intents SET body = 'no JSON tok_canary_s' WHERE id = 's1';
        UPDATE intents SET body = '{"payment\u005fdetails": "tok_canary_s"}' WHERE id = 's2';
        UPDATE intents SET body = '{"payment_details": "tok_canary_s", "payment_details": "****"}' WHERE id = 's3';
        UPDATE intents SET body = '["tok_canary_s"]' WHERE id = 's4'"#,
    )
    .unwrap();
    drop(conn);
    assert!(
        holds(harness.path("komoju.db"), "tok_canary") || holds(harness.path("komoju.db-wal"), "tok_canary")
    );
    let made = backup(&harness, "b.db");
    assert!(!holds(&made, "tok_canary") && !holds(&made, "canary") && !holds(&made, KEY));
    let conn = Connection::open(&made).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM intents"), 46);
    assert_eq!(
        count(
            "SELECT count(*) FROM intents WHERE CASE WHEN json_valid(body) THEN body -> '$.metadata.a' IS NOT NULL END"
        ),
        41
    );
    assert_eq!(count("SELECT left_over_tokens FROM meta"), 0);
    assert_eq!(count("SELECT freelist_count FROM pragma_freelist_count"), 0);
    let plain: String =
        conn.query_row("SELECT body FROM intents WHERE id = 'plain'", [], |row| row.get(0)).unwrap();
    assert_eq!(plain, r#"{"email":"back\\slash@example.com"}"#);
    // What was dropped is still known by its digest.
    drop(conn);
    harness.expect(3, &["restore", &made]);
    let body = harness.path("body.json");
    fs::write(&body, with("tok_canary_u")).unwrap();
    let again = ["intent", "update", &id, "--id", "u", "--body", &format!("@{}", body.display())];
    let ran = harness.expect(0, &again);
    assert!(ran.stderr.contains("accepted under this id before"), "{}", ran.stderr);
    let ran = harness.expect(1, &["intent", "retry", "u"]);
    assert!(ran.stderr.contains("left out of backups"), "{}", ran.stderr);
    assert!(!holds(harness.path("komoju.db"), "tok_canary"));
}

#[test]
fn a_backup_during_writes_is_of_one_moment() {
    let harness = Installation::swept(PROGRAM, 300);
    let ended = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (path, ended) = (harness.path("komoju.db"), Arc::clone(&ended));
        move || {
            let conn = Connection::open(path).unwrap();
            conn.busy_timeout(Duration::from_secs(20)).unwrap();
            let mut n = 0;
            while !ended.load(Ordering::Relaxed) {
                // Two rows that are never apart.
                conn.execute_batch(&format!(
                    "BEGIN IMMEDIATE; INSERT INTO intents (id, op, body, not_before) VALUES ('a{n}', 'create', '{{\"email\": \"a\"}}', '2099-01-01T00:00:00Z');
                     INSERT INTO intents (id, op, body, not_before) VALUES ('b{n}', 'create', '{{\"email\": \"a\"}}', '2099-01-01T00:00:00Z'); COMMIT"
                ))
                .unwrap();
                n += 1;
            }
            n
        }
    });
    // And a sweep that records.
    let ids = harness.sandbox.world().ids();
    for id in ids.into_iter().take(200) {
        harness.sandbox.world().update(&id, json!({"email": format!("{id}@changed.example.com")}));
    }
    let mut sync = harness.spawn(&["sync"]);
    let mut seen = Vec::new();
    for n in 0..4 {
        let made = backup(&harness, &format!("b{n}.db"));
        let conn = Connection::open(&made).unwrap();
        let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT count(*) % 2 FROM intents"), 0, "of one moment");
        assert_eq!(one("SELECT count(*) FROM intents"), one("SELECT count(*) FROM outbox"));
        seen.push(one("SELECT count(*) FROM intents"));
    }
    ended.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
    assert!(sync.wait().unwrap().success());
    assert!(seen.is_sorted() && seen.last() > seen.first(), "others wrote meanwhile: {seen:?}");
}

#[test]
fn beside_a_daemon_a_backup_is_made_and_a_restore_is_not() {
    let harness = Installation::swept(PROGRAM, 30);
    let held = harness.on_lists(FaultEffect::Hold);
    let mut first = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    let made = backup(&harness, "b.db");
    let ran = harness.expect(5, &["restore", &made]);
    let holder = format!("`komoju-sync sync` (process {}) since 20", first.id());
    assert!(ran.stderr.contains(&holder), "{}", ran.stderr);
    harness.sandbox.world().clear_faults();
    assert!(first.wait().unwrap().success());
    harness.expect(0, &["restore", &made]);
    assert_eq!(harness.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "interrupted");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn what_cannot_be_a_backup_is_said_and_leaves_nothing() {
    let harness = Installation::swept(PROGRAM, 3);
    fs::create_dir(harness.path("directory")).unwrap();
    fs::write(harness.path("exists"), "precious").unwrap();
    std::os::unix::fs::symlink(harness.path("nowhere"), harness.path("dangling")).unwrap();
    std::os::unix::fs::symlink(harness.directory.path(), harness.path("here")).unwrap();
    let before = names(&harness);
    for (name, part) in [
        ("missing/b.db", "make it first"),
        ("directory", "is a directory"),
        ("exists", "never overwrites"),
        ("dangling", "never overwrites"),
        ("komoju.db", "belongs to the database itself"),
        ("komoju.db-journal", "belongs to the database itself"),
        ("here/komoju.db-journal", "belongs to the database itself"),
        ("config.toml/b.db", "is not a directory"),
    ] {
        let ran = harness.expect(2, &["backup", &file(&harness, name)]);
        assert!(ran.stderr.contains(part), "{name}: {}", ran.stderr);
    }
    harness.expect(2, &["backup", "-"]);
    harness.expect(2, &["backup"]);
    assert_eq!(names(&harness), before);
    assert_eq!(fs::read(harness.path("exists")).unwrap(), b"precious");
    // A mirror that is wrong makes no backup.
    harness.sql("UPDATE mirror SET email = 'x' WHERE row = 1");
    let ran = harness.expect(1, &["backup", &file(&harness, "b.db")]);
    assert!(
        ran.stderr.contains("email or created_at") && ran.stderr.contains("no backup was made"),
        "{}",
        ran.stderr
    );
    assert_eq!(names(&harness), before);
    let none = Installation::with(PROGRAM, 0);
    let ran = none.expect(5, &["backup", &file(&none, "b.db")]);
    assert!(ran.stderr.contains("there is no database"), "{}", ran.stderr);
}

#[test]
fn what_a_killed_backup_left_behind_is_taken_away_by_the_next() {
    let harness = Installation::swept(PROGRAM, 3);
    let left = harness.path(".komoju-sync-backup-left");
    let in_use = harness.path(".komoju-sync-backup-in-use");
    for directory in [&left, &in_use] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("copy.db"), "half").unwrap();
    }
    let lock = fs::File::open(&in_use).unwrap();
    lock.lock().unwrap();
    backup(&harness, "b.db");
    assert!(!left.exists() && in_use.exists(), "{:?}", names(&harness));
}

#[test]
fn nothing_works_on_a_backup_but_it_can_be_read() {
    let harness = Installation::swept(PROGRAM, 3);
    let made = backup(&harness, "b.db");
    let bytes = fs::read(&made).unwrap();
    let config = fs::read_to_string(harness.path("config.toml")).unwrap();
    fs::write(harness.path("config.toml"), config.replace("komoju.db'", "b.db'")).unwrap();
    for arguments in [
        &["sync"][..],
        &["run"],
        &["rebuild"],
        &["intent", "create", "--email", "a"],
        &["sync", "--dry-run"],
        &["backup", "x"],
    ] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains("is a backup"), "{arguments:?}: {}", ran.stderr);
    }
    harness.expect(0, &["verify"]);
    assert_eq!(harness.expect(0, &["customers", "list"]).stdout.lines().count(), 3);
    assert!(fs::read(&made).unwrap() == bytes);
}

#[test]
fn both_commands_have_help_with_an_example() {
    let harness = Installation::with(PROGRAM, 0);
    for name in ["backup", "restore"] {
        let help = harness.expect(0, &[name, "--help"]).stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("komoju-sync {name} /")), "{help}");
    }
}

/// What an operator may have added: an index by full text that a trigger feeds, and tables of unusual forms.
const ADDED: &str = r#"
    CREATE VIRTUAL TABLE search USING fts5 (id UNINDEXED, email);
    INSERT INTO search SELECT id, email FROM customers;
    CREATE TRIGGER feeds_search AFTER INSERT ON mirror BEGIN INSERT INTO search VALUES (new.id, new.email); END;
    CREATE VIRTUAL TABLE boxes USING rtree (id, low, high);
    INSERT INTO boxes VALUES (1, 2, 3);
    CREATE TABLE "their ""notes""" (text, upper_text GENERATED ALWAYS AS (upper(text)) VIRTUAL, kept AS (length(text)) STORED);
    INSERT INTO "their ""notes""" (rowid, text) VALUES (7, 'a'), (70, 'b');
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, x);
    INSERT INTO counted (x) VALUES (1), (2), (3);
    DELETE FROM counted WHERE id = 3;
    CREATE TABLE by_name (name TEXT PRIMARY KEY, x) WITHOUT ROWID;
    INSERT INTO by_name VALUES ('a', x'00ff');
    CREATE UNIQUE INDEX by_lower_name ON by_name (lower(name)) WHERE x IS NOT NULL;
    CREATE VIEW found AS SELECT * FROM search WHERE search MATCH 'example';
"#;

/// All that ADDED made, as text.
fn added(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut all = Vec::new();
    for sql in [
        "SELECT type || name || sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name",
        "SELECT email FROM search WHERE search MATCH 'example' ORDER BY 1",
        "SELECT id || low || high FROM boxes",
        r#"SELECT rowid || text || upper_text || kept FROM "their ""notes""" ORDER BY rowid"#,
        "SELECT id || '' || x FROM counted",
        "SELECT name || seq FROM sqlite_sequence",
        "SELECT name || hex(x) FROM by_name",
        "SELECT count(*) FROM found",
    ] {
        let mut statement = conn.prepare(sql).unwrap();
        let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        all.extend(statement.query_map([], text).unwrap().map(|value| format!("{:?}", value.unwrap())));
    }
    all
}

#[test]
fn backup_is_complete_with_a_full_text_index_and_other_additions() {
    let harness = Installation::swept(PROGRAM, 6);
    harness.sql(ADDED);
    let before = added(&harness.path("komoju.db"));
    let kept = backup(&harness, "kept.db");
    assert_eq!(added(Path::new(&kept)), before);
    harness.sandbox.world().create(json!({"email": "later@example.jp"}));
    harness.expect(0, &["restore", &kept]);
    assert_eq!(added(&harness.path("komoju.db")), before);
    harness.expect(0, &["sync"]);
    harness.assert_true();
    assert_eq!(harness.column("SELECT email FROM search WHERE search MATCH 'later'"), ["later@example.jp"]);
}

#[test]
fn backup_refuses_what_it_cannot_copy_and_names_it() {
    let harness = Installation::swept(PROGRAM, 3);
    let conn = harness.writer();
    // An index by an order that only the operator's program knows.
    conn.execute_batch(
        "CREATE TABLE names (name); CREATE INDEX by_their_order ON names (name COLLATE NOCASE);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'THEIRS') WHERE name = 'by_their_order'",
    )
    .unwrap();
    drop(conn);
    let ran = harness.expect(1, &["backup", &file(&harness, "kept.db")]);
    assert!(
        ran.stderr.contains("index by_their_order on names") && ran.stderr.contains("THEIRS"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("damaged") && !ran.stderr.contains("disk"), "{}", ran.stderr);
    assert!(
        !names(&harness).iter().any(|name| name.contains("kept") || name.contains("backup")),
        "{:?}",
        names(&harness)
    );
    // The database itself works on: nothing of it is in that order.
    harness.expect(0, &["sync"]);
}
