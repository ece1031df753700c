//! Backups, and the way back from one: the real binary, against the local KOMOJU.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs every room")]
mod house;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use house::{House, KEY, own};
use komoju_sandbox::{Call, Effect, Fault, Payload, Work};
use rusqlite::Connection;
use serde_json::json;

/// A house whose mirror has `customers`.
fn swept(customers: u32) -> House {
    let house = House::with(customers);
    house.expect(0, &["sync"]);
    house
}

fn db(house: &House) -> Connection {
    let conn = Connection::open(house.path("komoju.db")).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn
}

fn sql(house: &House, statements: &str) {
    own(&house.path("komoju.db")).execute_batch(statements).unwrap();
}

fn file(house: &House, name: &str) -> String {
    house.path(name).to_str().unwrap().to_owned()
}

/// Makes a backup; returns its name.
fn backup(house: &House, name: &str) -> String {
    let file = file(house, name);
    house.expect(0, &["backup", &file]);
    file
}

fn holds(path: impl AsRef<Path>, text: &str) -> bool {
    fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every file of the house by its name, with its bytes; the lock's content says who came last.
fn everything(house: &House) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(house.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file() && !path.to_str().unwrap().ends_with(".lock"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn names(house: &House) -> Vec<String> {
    let entries = fs::read_dir(house.directory.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn kept(house: &House) -> PathBuf {
    let kept: Vec<String> = names(house)
        .into_iter()
        .filter(|name| name.contains(".before-restore-") && !name.ends_with("-wal"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    house.path(&kept[0])
}

fn delete(house: &House, count: usize) -> Vec<String> {
    let ids: Vec<String> = house.sandbox.world().ids().into_iter().take(count).collect();
    ids.iter().for_each(|id| assert!(house.sandbox.world().delete(id)));
    ids
}

#[test]
fn a_backup_says_what_it_is_and_stands_alone() {
    let house = swept(12);
    let to = file(&house, "b.db");
    let ran = house.expect(0, &["backup", &to]);
    let bytes = fs::metadata(&to).unwrap().len();
    let head = house.expect(0, &["verify"]).stdout.lines().last().unwrap().to_owned();
    assert_eq!(ran.stdout.lines().last().unwrap(), head);
    assert!(ran.stdout.starts_with(&format!("{to}: ")) && ran.stdout.contains("12 live customers"));
    assert_eq!(
        ran.stdout.replace(',', "").split(": ").nth(1).unwrap().split(' ').next().unwrap(),
        bytes.to_string()
    );
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let around: Vec<String> =
        names(&house).into_iter().filter(|name| name.contains("b.db") || name.starts_with('.')).collect();
    assert_eq!(around, ["b.db"], "nothing beside it, before it is read");
    // Everything that SQL users rely on is in it, object by object.
    let objects = |path: &Path| {
        let conn = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement =
            conn.prepare("SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(objects(Path::new(&to)), objects(&house.path("komoju.db")));
    let info = |path: &Path| {
        let conn = Connection::open(path).unwrap();
        conn.query_row(
            "SELECT log_id || head_seq || head_chain || live || account FROM mirror_info",
            [],
            |row| row.get::<_, String>(0),
        )
        .unwrap()
    };
    assert_eq!(info(Path::new(&to)), info(&house.path("komoju.db")));
    assert_eq!(names(&house).iter().filter(|name| name.starts_with("b.db")).count(), 1);
}

#[test]
fn no_token_and_no_key_is_in_a_backup() {
    let house = swept(5);
    let id = house.sandbox.world().ids()[0].clone();
    let long = "x".repeat(1900);
    let with = |token: &str| {
        json!({"payment_details": token, "metadata": {"a": long, "b": long, "c": long}}).to_string()
    };
    let conn = db(&house);
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
    assert!(holds(house.path("komoju.db"), "tok_canary") || holds(house.path("komoju.db-wal"), "tok_canary"));
    let made = backup(&house, "b.db");
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
    house.expect(3, &["restore", &made]);
    let body = house.path("body.json");
    fs::write(&body, with("tok_canary_u")).unwrap();
    let again = ["intent", "update", &id, "--id", "u", "--body", &format!("@{}", body.display())];
    let ran = house.expect(0, &again);
    assert!(ran.stderr.contains("accepted under this id before"), "{}", ran.stderr);
    let ran = house.expect(1, &["intent", "retry", "u"]);
    assert!(ran.stderr.contains("left out of backups"), "{}", ran.stderr);
    assert!(!holds(house.path("komoju.db"), "tok_canary"));
}

#[test]
fn a_backup_during_writes_is_of_one_moment() {
    let house = swept(300);
    let ended = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (path, ended) = (house.path("komoju.db"), Arc::clone(&ended));
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
    let ids = house.sandbox.world().ids();
    for id in ids.into_iter().take(200) {
        house.sandbox.world().update(&id, json!({"email": format!("{id}@changed.example.com")}));
    }
    let mut sync = house.spawn(&["sync"]);
    let mut seen = Vec::new();
    for n in 0..4 {
        let made = backup(&house, &format!("b{n}.db"));
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
    let house = swept(30);
    let held = house.on_lists(Effect::Hold);
    let mut first = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    let made = backup(&house, "b.db");
    let ran = house.expect(5, &["restore", &made]);
    let holder = format!("`komoju-sync sync` (process {}) since 20", first.id());
    assert!(ran.stderr.contains(&holder), "{}", ran.stderr);
    house.sandbox.world().clear_faults();
    assert!(first.wait().unwrap().success());
    house.expect(0, &["restore", &made]);
    assert_eq!(house.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "interrupted");
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn what_cannot_be_a_backup_is_said_and_leaves_nothing() {
    let house = swept(3);
    fs::create_dir(house.path("directory")).unwrap();
    fs::write(house.path("exists"), "precious").unwrap();
    std::os::unix::fs::symlink(house.path("nowhere"), house.path("dangling")).unwrap();
    std::os::unix::fs::symlink(house.directory.path(), house.path("here")).unwrap();
    let before = names(&house);
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
        let ran = house.expect(2, &["backup", &file(&house, name)]);
        assert!(ran.stderr.contains(part), "{name}: {}", ran.stderr);
    }
    house.expect(2, &["backup", "-"]);
    house.expect(2, &["backup"]);
    assert_eq!(names(&house), before);
    assert_eq!(fs::read(house.path("exists")).unwrap(), b"precious");
    // A mirror that is wrong makes no backup.
    sql(&house, "UPDATE mirror SET email = 'x' WHERE row = 1");
    let ran = house.expect(1, &["backup", &file(&house, "b.db")]);
    assert!(
        ran.stderr.contains("email or created_at") && ran.stderr.contains("no backup was made"),
        "{}",
        ran.stderr
    );
    assert_eq!(names(&house), before);
    let none = House::with(0);
    let ran = none.expect(5, &["backup", &file(&none, "b.db")]);
    assert!(ran.stderr.contains("there is no database"), "{}", ran.stderr);
}

#[test]
fn what_a_killed_backup_left_behind_is_taken_away_by_the_next() {
    let house = swept(3);
    let left = house.path(".komoju-sync-backup-left");
    let in_use = house.path(".komoju-sync-backup-in-use");
    for directory in [&left, &in_use] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("copy.db"), "half").unwrap();
    }
    let lock = fs::File::open(&in_use).unwrap();
    lock.lock().unwrap();
    backup(&house, "b.db");
    assert!(!left.exists() && in_use.exists(), "{:?}", names(&house));
}

#[test]
fn nothing_works_on_a_backup_but_it_can_be_read() {
    let house = swept(3);
    let made = backup(&house, "b.db");
    let bytes = fs::read(&made).unwrap();
    let config = fs::read_to_string(house.path("config.toml")).unwrap();
    fs::write(house.path("config.toml"), config.replace("komoju.db'", "b.db'")).unwrap();
    for arguments in [
        &["sync"][..],
        &["run"],
        &["rebuild"],
        &["intent", "create", "--email", "a"],
        &["sync", "--dry-run"],
        &["backup", "x"],
    ] {
        let ran = house.expect(5, arguments);
        assert!(ran.stderr.contains("is a backup"), "{arguments:?}: {}", ran.stderr);
    }
    house.expect(0, &["verify"]);
    assert_eq!(house.expect(0, &["customers", "list"]).stdout.lines().count(), 3);
    assert!(fs::read(&made).unwrap() == bytes);
}

#[test]
fn a_restored_database_parks_what_was_unfinished_and_sends_nothing_by_itself() {
    let house = swept(5);
    let customer = house.sandbox.world().ids()[0].clone();
    house.inject(Fault::new(Effect::Close { work: Work::Done }).call(Call::Create).once());
    house.expect(0, &["intent", "create", "--email", "w@example.com", "--id", "waits"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT state FROM intents"), "waiting");
    let key = house.one("SELECT key FROM outbox");
    house.expect(0, &["intent", "create", "--email", "q@example.com", "--id", "queued"]);
    house.expect(0, &["intent", "update", "@queued", "--email", "f@example.com", "--id", "follows"]);
    house.expect(
        0,
        &[
            "intent",
            "update",
            &customer,
            "--email",
            "u@example.com",
            "--expect",
            r#"{"email":"other"}"#,
            "--id",
            "parked",
        ],
    );
    house.expect(0, &["intent", "delete", &customer, "--id", "gone"]);
    let old_log = house.one("SELECT log_id FROM mirror_info");
    sql(
        &house,
        "UPDATE meta SET refused_since = '2026-01-01T00:00:00.000Z', throttled_until = '2099-01-01T00:00:00.000Z';
         UPDATE intents SET state = 'parked', reason = 'a conflict' WHERE id = 'parked'",
    );
    let made = backup(&house, "b.db");
    sql(&house, "UPDATE meta SET refused_since = NULL, throttled_until = NULL");
    house.expect(0, &["intent", "cancel", "parked"]);
    // What was unfinished is carried out after the backup was made.
    sql(&house, "UPDATE intents SET next_attempt_at = NULL WHERE id = 'waits'");
    house.expect(0, &["sync"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.column("SELECT DISTINCT state FROM intents WHERE id <> 'parked'"), ["done"]);
    let there = house.sandbox.world().ids().len();
    assert_eq!(there, 5 + 2 - 1);

    let ran = house.expect(3, &["restore", &made]);
    assert!(ran.stderr.contains("5 intents are parked"), "{}", ran.stderr);
    assert_eq!(house.column("SELECT DISTINCT state FROM intents"), ["parked"]);
    for id in ["waits", "queued", "follows", "gone"] {
        let reason = house.one(&format!("SELECT reason FROM intents WHERE id = '{id}'"));
        assert!(
            reason.contains("restored from a backup") && reason.contains("may have been carried out"),
            "{reason}"
        );
    }
    let reason = house.one("SELECT reason FROM intents WHERE id = 'parked'");
    assert!(reason.contains("may have been tried again") && reason.contains("a conflict"), "{reason}");
    let new_log = house.one("SELECT log_id FROM mirror_info");
    assert!(ran.stderr.contains(&new_log) && new_log != old_log && new_log.len() == 32);
    assert_eq!(
        house.one("SELECT refused_since IS NULL AND throttled_until IS NULL AND is_backup = 0 FROM meta"),
        "1"
    );
    assert_eq!(house.one("SELECT count(*) FROM outbox WHERE is_head = 1"), "3", "lanes are as they were");
    assert_eq!(house.one("SELECT key FROM outbox WHERE position = 1"), key);

    // The deletion by the intent is found gone, and held.
    house.sandbox.world().clear_requests();
    house.expect(3, &["sync"]);
    house.expect(3, &["sync"]);
    let pushes = || house.sandbox.world().requests().iter().filter(|seen| seen.method != "GET").count();
    assert_eq!((pushes(), house.sandbox.world().ids().len()), (0, there));
    house.expect(3, &["status"]);

    // A byte of this one may have left: it is the very same request, and nobody is made twice.
    house.expect(0, &["intent", "retry", "waits"]);
    assert_eq!(house.one("SELECT state FROM intents WHERE id = 'waits'"), "waiting");
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT state FROM intents WHERE id = 'waits'"), "done");
    assert_eq!(house.sandbox.world().ids().len(), there, "it was there already");
    // Of this one nothing was known, and a person said so: once more, and no more than that.
    house.expect(0, &["intent", "retry", "queued"]);
    house.expect(0, &["intent", "retry", "follows"]);
    house.expect(3, &["sync"]);
    house.expect(3, &["sync"]);
    assert_eq!(house.column("SELECT state FROM intents WHERE id IN ('queued', 'follows')"), ["done", "done"]);
    assert_eq!(house.sandbox.world().ids().len(), there + 1);
    house.expect(0, &["intent", "cancel", "parked", "gone"]);
    house.assert_proven();
}

#[test]
fn what_was_just_being_sent_keeps_its_key_and_is_made_once() {
    let house = swept(1);
    house.expect(0, &["intent", "create", "--email", "s@example.com", "--id", "sent"]);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::Create));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    assert_eq!(house.one("SELECT state FROM intents"), "sending");
    let made = backup(&house, "b.db");
    house.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(
        (house.one("SELECT state FROM intents"), house.sandbox.world().ids().len()),
        ("done".into(), 2)
    );
    house.expect(3, &["restore", &made]);
    assert_eq!(house.one("SELECT state FROM intents"), "parked");
    assert_eq!(house.one("SELECT count(*) FROM attempts WHERE finished_at IS NULL"), "0");
    house.expect(3, &["sync"]);
    house.expect(0, &["intent", "retry", "sent"]);
    assert_eq!(house.one("SELECT state FROM intents"), "waiting");
    house.expect(0, &["sync"]);
    assert_eq!(
        (house.one("SELECT state FROM intents"), house.sandbox.world().ids().len()),
        ("done".into(), 2)
    );
    house.assert_true();
}

#[test]
fn a_create_that_was_turned_away_keeps_its_key_and_is_made_once() {
    for (case, status) in [("too many", 429), ("the key is refused", 401), ("never sent", 0)] {
        let house = swept(1);
        house.expect(0, &["intent", "create", "--email", "t@example.com", "--id", "turned"]);
        let away = house.inject(
            Fault::new(Effect::Status {
                status: if status == 0 { 429 } else { status },
                body: Payload::Error,
                retry_after: None,
                headers: Default::default(),
                work: Work::Skipped,
            })
            .call(Call::Create),
        );
        house.run(&["sync"]);
        assert!(house.fired(away) > 0, "{case}");
        house.sandbox.world().clear_faults();
        let unsent = match status {
            // As a process leaves it that ends after the claim: the server's time is not noted yet.
            0 => {
                "UPDATE outbox SET first_server_at = NULL; UPDATE meta SET engine = 1;
                  UPDATE intents SET state = 'sending'; UPDATE meta SET engine = 0; UPDATE attempts SET finished_at = NULL"
            }
            _ => "",
        };
        sql(&house, unsent);
        assert_eq!(house.one("SELECT outcome_unknown FROM outbox"), "0", "{case}");
        let key = house.one("SELECT key FROM outbox");
        let made = backup(&house, "b.db");
        sql(
            &house,
            "UPDATE meta SET refused_since = NULL, throttled_until = NULL; UPDATE intents SET next_attempt_at = NULL",
        );
        house.expect(0, &["sync"]);
        assert_eq!(house.one("SELECT state FROM intents"), "done", "{case}");
        assert_eq!(house.sandbox.world().ids().len(), 2, "{case}");
        house.expect(3, &["restore", &made]);
        house.expect(3, &["sync"]);
        // Who has the SQL cannot have it sent under another key.
        assert!(db(&house).execute("UPDATE intents SET state = 'queued'", []).is_err(), "{case}");
        house.expect(0, &["intent", "retry", "turned"]);
        assert_eq!(
            house.one("SELECT state || ' ' || key FROM intents JOIN outbox USING (position)"),
            format!("waiting {key}")
        );
        house.expect(0, &["sync"]);
        assert_eq!(house.one("SELECT state FROM intents"), "done", "{case}");
        assert_eq!(house.sandbox.world().ids().len(), 2, "{case}: made once");
        house.assert_true();
    }
}

#[test]
fn an_attempt_that_a_person_must_judge_keeps_its_key_too() {
    let house = swept(1);
    house.expect(0, &["intent", "create", "--email", "p@example.com", "--id", "p"]);
    let fault = Fault::new(Effect::Status {
        status: 429,
        body: Payload::Error,
        retry_after: None,
        headers: Default::default(),
        work: Work::Skipped,
    });
    house.inject(fault.call(Call::Create));
    house.run(&["sync"]);
    house.sandbox.world().clear_faults();
    // Parked before the backup was made, and retried after it.
    sql(&house, "UPDATE intents SET state = 'parked', next_attempt_at = NULL");
    let made = backup(&house, "b.db");
    house.expect(3, &["restore", &made]);
    assert_eq!(house.one("SELECT outcome_unknown FROM outbox"), "1");
    house.expect(0, &["intent", "retry", "p"]);
    assert_eq!(house.one("SELECT state FROM intents"), "waiting");
}

#[test]
fn what_was_told_before_is_told_again() {
    let house = swept(1);
    house.expect(0, &["intent", "create", "--email", "a", "--id", "waits"]);
    sql(
        &house,
        "UPDATE intents SET state = 'parked';
         INSERT INTO alert VALUES ('parked_intents', 'waits', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')",
    );
    let made = backup(&house, "b.db");
    house.expect(3, &["restore", &made]);
    assert_eq!(house.one("SELECT count(*) FROM alert"), "0");
}

#[test]
fn a_parked_create_that_is_cancelled_leaves_its_follower_to_a_person() {
    let house = swept(1);
    house.expect(0, &["intent", "create", "--email", "a", "--id", "made"]);
    house.expect(0, &["intent", "update", "@made", "--email", "f@example.com", "--id", "follows"]);
    let made = backup(&house, "b.db");
    house.expect(3, &["restore", &made]);
    house.expect(0, &["intent", "cancel", "made"]);
    house.expect(0, &["intent", "retry", "follows"]);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT state FROM intents WHERE id = 'follows'"), "parked");
    let reason = house.one("SELECT reason FROM intents WHERE id = 'follows'");
    assert!(reason.contains("the create that it waits for was rejected or cancelled"), "{reason}");
}

#[test]
fn the_next_sweep_holds_even_a_single_deletion_until_a_person_has_decided() {
    let house = swept(60);
    let made = backup(&house, "b.db");
    house.expect(0, &["restore", &made]);
    let gone = delete(&house, 1);
    let new = house.sandbox.world().create(json!({"email": "new@example.com"}));
    let moved = house.sandbox.world().ids()[3].clone();
    house.sandbox.world().update(&moved, json!({"email": "moved@example.com"}));
    // A sweep that fails concludes nothing: the mark stays.
    house.inject(Fault::new(Effect::status(400)).call(Call::List).page(3));
    house.expect(1, &["sync"]);
    house.sandbox.world().clear_faults();
    assert_ne!(house.one("SELECT restored_at FROM meta"), "null");
    assert!(house.run(&["status"]).stdout.contains("records no deletion"));

    let ran = house.expect(3, &["sync"]);
    assert!(ran.stderr.contains("1 deletion waits for an operator"), "{}", ran.stderr);
    assert_eq!(house.column("SELECT customer_id FROM held_deletions WHERE state = 'held'"), gone);
    assert!(house.mirror().contains_key(&new) && house.mirror().contains_key(&gone[0]));
    assert_eq!(house.one("SELECT count(*) FROM changes WHERE kind = 'updated'"), "1");
    assert_eq!(house.one("SELECT restored_at FROM meta"), "null", "it has concluded");
    // The same, and more: while one waits, so does whoever is missed later.
    house.expect(3, &["sync"]);
    assert_eq!(
        house.column("SELECT DISTINCT hold_id FROM held_deletions"),
        ["1"],
        "the same set keeps its hold"
    );
    delete(&house, 1);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "2");
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
    house.expect(0, &["deletions", "approve"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "2");
    house.assert_true();
    // And then it goes on as always.
    delete(&house, 1);
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn after_a_restore_who_is_alive_is_not_held_and_an_earlier_yes_is_asked_anew() {
    let house = swept(60);
    let gone = delete(&house, 30);
    house.expect(3, &["sync"]);
    house.expect(0, &["deletions", "approve", "1"]);
    let made = backup(&house, "b.db");
    gone.iter().skip(2).for_each(|id| {
        house.sandbox.world().restore(id);
    });
    house.expect(0, &["restore", &made]);
    let hidden = house.sandbox.world().ids()[5].clone();
    let fault = house.on_lists(Effect::Hide { ids: vec![hidden], every: None });
    house.expect(3, &["sync"]);
    assert!(house.fired(fault) > 0);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
    let mut held = house.column("SELECT customer_id FROM held_deletions WHERE state = 'held'");
    held.sort();
    let mut expected = gone[..2].to_vec();
    expected.sort();
    assert_eq!(held, expected);
}

#[test]
fn a_mass_deletion_after_a_restore_is_sampled_and_held() {
    let house = swept(60);
    let made = backup(&house, "b.db");
    house.expect(0, &["restore", &made]);
    delete(&house, 30);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT because FROM hold"), "restored");
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "30");
}

#[test]
fn the_old_database_is_kept_whole_with_its_last_commits() {
    let house = swept(4);
    let made = backup(&house, "b.db");
    let before = fs::read(&made).unwrap();
    fs::set_permissions(house.path("komoju.db"), fs::Permissions::from_mode(0o660)).unwrap();
    let inode = fs::metadata(house.path("komoju.db")).unwrap().ino();
    house.expect(0, &["intent", "create", "--email", "a", "--id", "after"]);
    assert!(fs::metadata(house.path("komoju.db-wal")).unwrap().len() > 0, "it stands in the -wal");
    let ran = house.expect(0, &["restore", &made]);
    let kept = kept(&house);
    assert!(ran.stderr.contains(kept.file_name().unwrap().to_str().unwrap()), "{}", ran.stderr);
    assert_eq!(fs::metadata(&kept).unwrap().ino(), inode);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600, "it may hold tokens");
    assert!(ran.stderr.contains("payment tokens") && ran.stderr.contains("0600"), "{}", ran.stderr);
    let conn = Connection::open(&kept).unwrap();
    assert_eq!(conn.query_row("SELECT id FROM intents", [], |row| row.get::<_, String>(0)).unwrap(), "after");
    assert_eq!(house.one("SELECT count(*) FROM intents"), "0");
    assert!(fs::read(&made).unwrap() == before, "the backup is only read");
    assert_eq!(fs::metadata(house.path("komoju.db")).unwrap().permissions().mode() & 0o777, 0o660);
    let left: Vec<String> = names(&house).into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_stale_wal_never_meets_the_restored_database() {
    let house = swept(4);
    let made = backup(&house, "b.db");
    let path = house.path("komoju.db");
    let wal = house.path("komoju.db-wal");
    // A damaged database, and one that is gone, each with commits in its -wal.
    for damage in ["inside", "its head", "gone", "garbage"] {
        // As long as somebody has it open, the -wal is not folded in.
        let reader = db(&house);
        reader.query_row("SELECT count(*) FROM intents", [], |_| Ok(())).unwrap();
        sql(
            &house,
            &format!(
                "INSERT INTO intents (id, op, body) VALUES ('{damage}', 'create', '{{\"email\": \"a@example.com\"}}')"
            ),
        );
        let (content, log) = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
        assert!(!log.is_empty());
        drop(reader);
        let mut content = content;
        match damage {
            "inside" => content[4096..12_288].fill(0xAA),
            "its head" => content[..16].fill(0),
            "garbage" => content.fill(7),
            _ => {}
        }
        fs::write(&path, &content).unwrap();
        fs::write(&wal, &log).unwrap();
        if damage == "gone" {
            fs::remove_file(&path).unwrap();
        }
        house.expect(0, &["restore", &made]);
        assert!(!wal.exists() || fs::metadata(&wal).unwrap().len() == 0, "{damage}");
        assert_eq!(house.one("SELECT count(*) FROM intents"), "0", "{damage}");
        house.assert_proven();
        house.expect(0, &["sync"]);
        house.assert_true();
        let kept: Vec<String> =
            names(&house).into_iter().filter(|name| name.contains(".before-restore-")).collect();
        assert!(!kept.is_empty(), "{damage}: {kept:?}");
        if matches!(damage, "its head" | "garbage") {
            let same = kept.iter().any(|name| fs::read(house.path(name)).unwrap() == content);
            assert!(same, "{damage}: kept byte for byte");
        }
        kept.iter().for_each(|name| fs::remove_file(house.path(name)).unwrap());
    }
}

#[test]
fn a_wal_that_a_cut_off_restore_moved_keeps_an_empty_database_from_being_made() {
    let house = swept(1);
    let made = backup(&house, "b.db");
    fs::write(house.path("komoju.db.before-restore-then-aside-wal"), "commits").unwrap();
    house.expect(0, &["sync"]);
    ["", "-wal", "-shm"]
        .iter()
        .for_each(|end| fs::remove_file(house.path(&format!("komoju.db{end}"))).unwrap());
    let ran = house.expect(5, &["sync"]);
    assert!(ran.stderr.contains("before-restore-then-aside-wal"), "{}", ran.stderr);
    assert!(!house.path("komoju.db").exists());
    house.expect(0, &["restore", &made]);
    house.expect(0, &["sync"]);
}

#[test]
fn another_name_of_the_database_is_the_database() {
    let house = swept(1);
    fs::hard_link(house.path("komoju.db"), house.path("other.db")).unwrap();
    let ran = house.expect(2, &["restore", &file(&house, "other.db")]);
    assert!(ran.stderr.contains("belongs to the database itself"), "{}", ran.stderr);
}

#[test]
fn who_was_erased_since_is_named_to_be_erased_again() {
    let house = swept(60);
    let gone = delete(&house, 2);
    house.expect(0, &["sync"]);
    house.expect(0, &["erase", &gone[0]]);
    let between = backup(&house, "between.db");
    house.expect(0, &["erase", &gone[1]]);
    let ran = house.expect(3, &["restore", &between]);
    let named = |id: &str| ran.stderr.contains(&format!("komoju-sync erase {id}"));
    assert!(named(&gone[1]) && !named(&gone[0]), "{}", ran.stderr);
    house.run(&["sync"]);
    house.run(&["erase", &gone[1]]);
    assert_eq!(
        house.one(&format!(
            "SELECT count(after) FROM change_log WHERE customer_id = '{}' AND kind <> 'erased'",
            gone[1]
        )),
        "0"
    );
    // What knows of both has nothing to tell.
    kept(&house);
    let both = backup(&house, "both.db");
    let ran = house.expect(0, &["restore", &both]);
    assert!(!ran.stderr.contains("komoju-sync erase"), "{}", ran.stderr);
}

#[test]
fn who_has_it_open_keeps_a_restore_from_taking_its_place() {
    let house = swept(4);
    let made = backup(&house, "b.db");
    let reader = db(&house);
    reader.execute_batch("BEGIN; SELECT * FROM customers").unwrap();
    let log_id = house.one("SELECT log_id FROM mirror_info");
    let ran = house.expect(5, &["restore", &made]);
    assert!(ran.stderr.contains("another program that has it open"), "{}", ran.stderr);
    assert_eq!(house.one("SELECT log_id FROM mirror_info"), log_id);
    drop(reader);
    house.expect(0, &["restore", &made]);
}

#[test]
fn what_cannot_be_restored_is_said_and_nothing_is_touched() {
    let house = swept(40);
    let made = backup(&house, "b.db");
    let good = fs::read(&made).unwrap();
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let tampered = {
        let path = house.path("tampered.db");
        fs::write(&path, &good).unwrap();
        let conn = own(&path);
        conn.execute_batch("UPDATE mirror SET email = 'x' WHERE row = 1").unwrap();
        drop(conn);
        fs::read(&path).unwrap()
    };
    let empty_of_ours = {
        let path = house.path("empty.db");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID)
            .unwrap();
        drop(conn);
        fs::read(&path).unwrap()
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("newer", patched(60, &99_u32.to_be_bytes()), "newer komoju-sync"),
        ("cut in half", good[..good.len() / 2].to_vec(), "cannot be restored: it is damaged"),
        ("overwritten inside", patched(8192, &[0xAA; 4096]), "cannot be restored: it is damaged"),
        ("without its first bytes", patched(0, &[0; 16]), "cannot be restored: it is damaged"),
        ("a diary", b"Dear diary,\n".repeat(50), "cannot be restored: it is not an SQLite database"),
        ("another program's", patched(68, &[1, 2, 3, 4]), "another program's SQLite database"),
        ("empty", Vec::new(), "cannot be restored: it is empty"),
        ("of ours and empty", empty_of_ours, "cannot be restored: it is empty"),
        ("tampered with", tampered, "email or created_at"),
    ];
    house.expect(0, &["intent", "create", "--email", "a", "--id", "after"]);
    for (what, content, part) in cases {
        fs::write(house.path("bad.db"), &content).unwrap();
        let before = everything(&house);
        let ran = house.expect(5, &["restore", &file(&house, "bad.db")]);
        assert!(ran.stderr.contains(part) && ran.stderr.contains("bad.db"), "{what}: {}", ran.stderr);
        assert!(everything(&house) == before, "{what}: something was touched");
        assert!(names(&house).iter().all(|name| !name.starts_with('.')), "{what}: {:?}", names(&house));
    }
    fs::create_dir(house.path("directory")).unwrap();
    house.expect(5, &["restore", &file(&house, "directory")]);
    house.expect(2, &["restore", &file(&house, "missing.db")]);
    house.expect(2, &["restore", "-"]);
    for own in ["komoju.db", "komoju.db-wal"] {
        let ran = house.expect(2, &["restore", &file(&house, own)]);
        assert!(ran.stderr.contains("belongs to the database itself"), "{}", ran.stderr);
    }
    assert_eq!(house.one("SELECT id FROM intents"), "after");
}

#[test]
fn a_restore_makes_a_database_where_there_is_none_also_of_a_plain_copy() {
    let house = swept(6);
    house.expect(0, &["intent", "create", "--email", "a@example.com", "--id", "open"]);
    // As `cp` does it, with the -wal in which the last commits stand.
    assert!(fs::metadata(house.path("komoju.db-wal")).unwrap().len() > 0);
    let other = House::with(0);
    for suffix in ["", "-wal"] {
        fs::copy(house.path(&format!("komoju.db{suffix}")), other.path(&format!("copy.db{suffix}"))).unwrap();
    }
    let wal = fs::read(other.path("copy.db-wal")).unwrap();
    let ran = other.expect(3, &["restore", &file(&other, "copy.db")]);
    assert!(ran.stderr.contains("6 live customers") && !ran.stderr.contains("is kept as"), "{}", ran.stderr);
    assert_eq!(other.one("SELECT state FROM intents WHERE id = 'open'"), "parked");
    assert!(fs::read(other.path("copy.db-wal")).unwrap() == wal);
    assert_eq!(fs::metadata(other.path("komoju.db")).unwrap().permissions().mode() & 0o777, 0o640);
    other.expect(0, &["verify"]);
}

#[test]
fn an_older_schema_is_brought_up_to_date() {
    let house = House::with(0);
    let conn = Connection::open(house.path("old.db")).unwrap();
    conn.pragma_update(None, "application_id", komoju_sync::store::file::inspect::APPLICATION_ID).unwrap();
    conn.execute_batch(include_str!("../migrations/01-inbound/up.sql")).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    drop(conn);
    let before = fs::read(house.path("old.db")).unwrap();
    house.expect(0, &["restore", &file(&house, "old.db")]);
    assert_eq!(
        house.one("SELECT schema_version FROM mirror_info"),
        komoju_sync::store::file::migrations::known_version().to_string()
    );
    assert!(fs::read(house.path("old.db")).unwrap() == before);
}

#[test]
fn a_copy_that_somebody_works_on_is_not_restored() {
    let house = swept(20);
    let other = House::with(0);
    let held = house.on_lists(Effect::Hold);
    let mut at_work = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    let ran = other.expect(5, &["restore", &file(&house, "komoju.db")]);
    assert!(ran.stderr.contains("is in use by `komoju-sync sync`"), "{}", ran.stderr);
    house.sandbox.world().clear_faults();
    at_work.wait().unwrap();
    other.expect(0, &["restore", &file(&house, "komoju.db")]);
}

#[test]
fn root_gives_the_restored_database_to_whom_the_service_runs_as() {
    let house = swept(2);
    let made = backup(&house, "b.db");
    let path = house.path("komoju.db");
    if std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).is_err() {
        // Not root: nothing to give away.
        return;
    }
    house.expect(0, &["restore", &made]);
    let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    assert_eq!(owner(&path), (12_345, 12_346));
    assert_eq!(owner(&house.path("komoju.db.lock")), (12_345, 12_346));
    // Where there is none yet, the directory says whose it is.
    let none = House::with(0);
    std::os::unix::fs::chown(none.directory.path(), Some(12_345), Some(12_346)).unwrap();
    none.expect(0, &["restore", &made]);
    assert_eq!(owner(&none.path("komoju.db")), (12_345, 12_346));
}

#[test]
fn a_symlink_to_the_database_stays_one() {
    let house = swept(3);
    let made = backup(&house, "b.db");
    fs::create_dir(house.path("disk")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        fs::rename(house.path(&format!("komoju.db{suffix}")), house.path(&format!("disk/real.db{suffix}")))
            .unwrap();
    }
    std::os::unix::fs::symlink("disk/real.db", house.path("komoju.db")).unwrap();
    house.expect(0, &["restore", &made]);
    assert!(fs::symlink_metadata(house.path("komoju.db")).unwrap().is_symlink());
    assert!(names(&house).iter().all(|name| !name.contains("before-restore")));
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn both_commands_have_help_with_an_example() {
    let house = House::with(0);
    for name in ["backup", "restore"] {
        let help = house.expect(0, &[name, "--help"]).stdout;
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
    let house = swept(6);
    sql(&house, ADDED);
    let before = added(&house.path("komoju.db"));
    let kept = backup(&house, "kept.db");
    assert_eq!(added(Path::new(&kept)), before);
    house.sandbox.world().create(json!({"email": "later@example.jp"}));
    house.expect(0, &["restore", &kept]);
    assert_eq!(added(&house.path("komoju.db")), before);
    house.expect(0, &["sync"]);
    house.assert_true();
    assert_eq!(house.column("SELECT email FROM search WHERE search MATCH 'later'"), ["later@example.jp"]);
}

#[test]
fn backup_refuses_what_it_cannot_copy_and_names_it() {
    let house = swept(3);
    let conn = db(&house);
    // An index by an order that only the operator's program knows.
    conn.execute_batch(
        "CREATE TABLE names (name); CREATE INDEX by_their_order ON names (name COLLATE NOCASE);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'THEIRS') WHERE name = 'by_their_order'",
    )
    .unwrap();
    drop(conn);
    let ran = house.expect(1, &["backup", &file(&house, "kept.db")]);
    assert!(
        ran.stderr.contains("index by_their_order on names") && ran.stderr.contains("THEIRS"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("damaged") && !ran.stderr.contains("disk"), "{}", ran.stderr);
    assert!(
        !names(&house).iter().any(|name| name.contains("kept") || name.contains("backup")),
        "{:?}",
        names(&house)
    );
    // The database itself works on: nothing of it is in that order.
    house.expect(0, &["sync"]);
}
