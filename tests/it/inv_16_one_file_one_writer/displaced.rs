//! The path of the database leads to another file while a process uses it, or the file has a second
//! name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use komoju_sync::clock::SystemClock;
use komoju_sync::config::Config;
use komoju_sync::daemon::App;
use komoju_sync::store::StoreError;
use komoju_testkit::{Installation, KEY, Process, eventually};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;

fn drop_intent(harness: &Installation, id: &str) {
    let conn = Connection::open(harness.path("komoju.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let body = format!(r#"{{"email": "{id}@example.jp"}}"#);
    conn.execute("INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)", [id, &body]).unwrap();
}

fn is_done(harness: &Installation, id: &str) -> bool {
    harness.column(&format!("SELECT state FROM intents WHERE id = '{id}'")) == ["done"]
}

/// Returns a daemon that has completed its first sweep and done an intent.
fn at_work(harness: &Installation) -> Process {
    harness.expect(0, &["sync"]);
    let daemon = harness.spawn(&["run"]);
    eventually("the daemon sweeps", || {
        harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") == "2"
    });
    drop_intent(harness, "first");
    eventually("the first intent is done", || is_done(harness, "first"));
    daemon
}

/// Waits until the daemon exits 5 by itself. Returns its standard error.
fn ended(daemon: Process) -> String {
    let Output { status, stderr, .. } = daemon.wait_with_output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(5), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Returns the only saved copy.
fn saved(directory: &std::path::Path) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let saved: Vec<_> = entries.filter(|path| path.to_string_lossy().contains(".displaced-")).collect();
    let [saved] = &saved[..] else { panic!("{saved:?}") };
    saved.clone()
}

/// Runs the recovery commands that the message prints after `before`.
fn run_printed_commands(stderr: &str, before: &str) {
    let (_, rest) =
        stderr.rsplit_once(before).unwrap_or_else(|| panic!("no commands after {before:?}: {stderr}"));
    let commands = rest.split('`').nth(1).unwrap();
    let ran = Command::new("sh").args(["-ec", commands]).output().unwrap();
    assert!(ran.status.success(), "{commands}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Asserts that everything that the daemon recorded is present again and no create is repeated.
fn assert_continued(harness: &Installation, head: i64) {
    harness.expect(0, &["sync"]);
    assert!(harness.head() >= head);
    assert!(is_done(harness, "first") && is_done(harness, "second"));
    assert_eq!(harness.sandbox.world().creates(), 2);
    harness.assert_true();
}

#[test]
fn replaced_database_ends_the_daemon_and_nothing_is_lost() {
    let harness = Installation::with(PROGRAM, 20);
    let daemon = at_work(&harness);
    let small = harness.path("small.db");
    let conn = Connection::open(harness.path("komoju.db")).unwrap();
    conn.execute("VACUUM INTO ?1", [small.to_str().unwrap()]).unwrap();
    drop(conn);
    drop_intent(&harness, "second");
    eventually("the second intent is done", || is_done(&harness, "second"));
    let head = harness.head();
    fs::rename(&small, harness.path("komoju.db")).unwrap();
    let stderr = ended(daemon);
    assert!(stderr.contains("komoju.db was replaced while komoju-sync used it"), "{stderr}");
    let saved = saved(harness.directory.path());
    assert!(stderr.contains(saved.to_str().unwrap()), "{stderr}");
    // Commands refuse the older file.
    for arguments in [&["sync"][..], &["run"], &["rebuild"]] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains("is not the database that was used here last"), "{}", ran.stderr);
        assert!(ran.stderr.contains("komoju-sync restore "), "{}", ran.stderr);
    }
    let ran = harness.expect(5, &["sync"]);
    run_printed_commands(&ran.stderr, "to continue with it: ");
    assert_continued(&harness, head);
}

#[test]
fn restore_of_an_older_database_changes_the_log_id() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    fs::copy(harness.path("komoju.db"), harness.path("kept.db")).unwrap();
    harness.sandbox.world().create(serde_json::json!({"email": "new@example.jp"}));
    harness.expect(0, &["sync"]);
    let log_id = harness.one("SELECT log_id FROM mirror_info");
    fs::copy(harness.path("kept.db"), harness.path("komoju.db")).unwrap();
    let ran = harness.expect(5, &["sync"]);
    run_printed_commands(&ran.stderr, "stop the service, ");
    harness.expect(0, &["restore", harness.path("komoju.db.older").to_str().unwrap()]);
    assert_ne!(harness.one("SELECT log_id FROM mirror_info"), log_id);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn saved_copy_of_another_log_or_an_older_state_is_not_offered() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    let copy = |to: &str| fs::copy(harness.path("komoju.db"), harness.path(to)).unwrap();
    copy("komoju.db.displaced-20990101T000000Z");
    harness.sandbox.world().create(serde_json::json!({"email": "new@example.jp"}));
    harness.expect(0, &["sync"]);
    copy("komoju.db.displaced-20980101T000000Z");
    let other = Installation::with(PROGRAM, 5);
    other.expect(0, &["sync"]);
    fs::copy(other.path("komoju.db"), harness.path("komoju.db.displaced-20990102T000000Z")).unwrap();
    fs::copy(harness.path("komoju.db.displaced-20990101T000000Z"), harness.path("komoju.db")).unwrap();
    let ran = harness.expect(5, &["sync"]);
    assert!(!ran.stderr.contains("displaced-2099"), "{}", ran.stderr);
    run_printed_commands(&ran.stderr, "to continue with it: ");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn database_moved_away_and_back_at_once_does_not_end_the_work() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let config = keyed(&harness);
    let worked = harness.runtime.block_on(async {
        let app = App::start(&config, "run", SystemClock::shared(), CancellationToken::new()).await.unwrap();
        // The paths are compared every two seconds, and once more a second later.
        app.in_place(async {
            fs::rename(harness.path("komoju.db"), harness.path("away.db")).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
            fs::rename(harness.path("away.db"), harness.path("komoju.db")).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            app.collect().await
        })
        .await
    });
    worked.unwrap();
    harness.assert_true();
}

#[test]
fn removed_database_ends_the_daemon_and_is_not_made_again() {
    let harness = Installation::with(PROGRAM, 20);
    let daemon = at_work(&harness);
    drop_intent(&harness, "second");
    eventually("the second intent is done", || is_done(&harness, "second"));
    let head = harness.head();
    fs::remove_file(harness.path("komoju.db")).unwrap();
    let stderr = ended(daemon);
    assert!(stderr.contains("moved or removed"), "{stderr}");
    let ran = harness.expect(5, &["sync"]);
    assert!(
        stderr.contains("To continue with that: ") && ran.stderr.contains(".displaced-"),
        "{}",
        ran.stderr
    );
    for arguments in [&["status"][..], &["status", "--json"], &["changes"]] {
        let ran = harness.expect(5, arguments);
        assert!(ran.stderr.contains(".displaced-"), "{arguments:?}: {}", ran.stderr);
    }
    run_printed_commands(&ran.stderr, "To continue with that: ");
    assert_continued(&harness, head);
}

#[test]
fn moved_directory_and_swapped_link_end_the_daemon() {
    let harness = Installation::with(PROGRAM, 10);
    let (first, second) = (harness.path("first"), harness.path("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    symlink("first/real.db", harness.path("komoju.db")).unwrap();
    let daemon = at_work(&harness);
    fs::rename(&first, harness.path("elsewhere")).unwrap();
    let stderr = ended(daemon);
    assert!(stderr.contains("moved or removed"), "{stderr}");
    let is_whole = |path: PathBuf| {
        let conn = Connection::open(path).unwrap();
        let sql = "SELECT count(*) FROM intents WHERE id = 'first' AND state = 'done'";
        assert_eq!(conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    };
    is_whole(harness.path("elsewhere/real.db"));
    is_whole(saved(harness.directory.path()));
    fs::remove_file(saved(harness.directory.path())).unwrap();
    fs::rename(harness.path("elsewhere"), &first).unwrap();

    let mut daemon = harness.spawn(&["run"]);
    eventually("the daemon sweeps", || {
        harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") == "3"
    });
    assert!(daemon.try_wait().unwrap().is_none());
    fs::copy(first.join("real.db"), second.join("real.db")).unwrap();
    symlink("second/real.db", harness.path("new")).unwrap();
    fs::rename(harness.path("new"), harness.path("komoju.db")).unwrap();
    let stderr = ended(daemon);
    assert!(stderr.contains("was replaced"), "{stderr}");
    is_whole(saved(harness.directory.path()));
}

#[test]
fn removed_wal_or_shm_ends_the_daemon_after_a_checkpoint() {
    for suffix in ["-wal", "-shm"] {
        let harness = Installation::with(PROGRAM, 20);
        let daemon = at_work(&harness);
        drop_intent(&harness, "second");
        eventually("the second intent is done", || is_done(&harness, "second"));
        let head = harness.head();
        fs::remove_file(harness.path(&format!("komoju.db{suffix}"))).unwrap();
        let stderr = ended(daemon);
        let what = format!("komoju.db{suffix} was removed or replaced while komoju-sync used it");
        assert!(stderr.contains(&what) && stderr.contains("systemctl start"), "{stderr}");
        let entries = fs::read_dir(harness.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(
            !entries.into_iter().any(|name| name.to_string_lossy().contains("displaced")),
            "a checkpointed database is not saved again"
        );
        assert_continued(&harness, head);
    }
}

#[test]
fn spool_file_is_kept_when_its_intents_are_in_a_displaced_database() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let file = harness.path("spool/one.json");
    let content = r#"{"op": "create", "body": {"email": "one@example.jp"}}"#;
    fs::write(harness.path("spool/.one"), content).unwrap();
    let config = keyed(&harness);
    let collected = harness.runtime.block_on(async {
        let app = App::start(&config, "sync", SystemClock::shared(), CancellationToken::new()).await.unwrap();
        fs::copy(harness.path("komoju.db"), harness.path("copy.db")).unwrap();
        fs::rename(harness.path("copy.db"), harness.path("komoju.db")).unwrap();
        fs::rename(harness.path("spool/.one"), &file).unwrap();
        app.in_place(app.collect()).await
    });
    let error = collected.unwrap_err();
    assert!(matches!(error, StoreError::Displaced { .. }), "{error}");
    // The file was claimed before it was read, and stays claimed for the next start.
    let claims = fs::read_dir(harness.path("spool/.claimed"))
        .unwrap()
        .map(|claim| claim.unwrap().path().join("one.json"));
    let kept: Vec<_> =
        std::iter::once(file).chain(claims).filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert_eq!(kept, [content], "its intents are not in the database at the path");
    assert_eq!(fs::read_dir(harness.path("spool/receipts")).unwrap().count(), 1);
    saved(harness.directory.path());
}

/// Returns the configuration with the key in a file, because this process has no variable for it.
fn keyed(harness: &Installation) -> Config {
    let key = harness.path("key");
    fs::write(&key, KEY).unwrap();
    let text = fs::read_to_string(harness.path("config.toml")).unwrap();
    let text = text.replace("[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", key.display()));
    fs::write(harness.path("config.toml"), text).unwrap();
    Config::load(&harness.path("config.toml")).unwrap()
}

/// Writes a configuration with another name of the database. Returns its path.
fn under(harness: &Installation, name: &str) -> PathBuf {
    let text = fs::read_to_string(harness.path("config.toml")).unwrap();
    let config = harness.path(&format!("{name}.toml"));
    fs::write(&config, text.replace("komoju.db'", &format!("{name}'"))).unwrap();
    config
}

#[test]
fn second_name_of_a_database_in_use_is_refused_by_every_command() {
    let harness = Installation::with(PROGRAM, 20);
    let daemon = at_work(&harness);
    let holder = format!("`komoju-sync` (process {}) since 20", daemon.id());
    fs::hard_link(harness.path("komoju.db"), harness.path("other.db")).unwrap();
    let other = under(&harness, "other.db");
    let create = ["intent", "create", "--email", "x@example.jp"];
    for arguments in
        [&["sync"][..], &["run"], &["rebuild"], &["sync", "--dry-run"], &create, &["status"], &["verify"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_komoju-sync"));
        command.env_clear().env("KOMOJU_SECRET_KEY", KEY).arg("--config").arg(&other).args(arguments);
        let ran = command.output().unwrap();
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(5), "{arguments:?}: {stderr}");
        assert!(stderr.contains(&holder), "{arguments:?}: {stderr}");
    }
    assert!(!harness.path("other.db-wal").exists(), "nothing was written beside the other name");
    drop_intent(&harness, "second");
    eventually("the daemon continues", || is_done(&harness, "second"));
    harness.assert_proven();
}

#[test]
fn second_daemon_is_refused_when_the_lock_file_is_removed() {
    let harness = Installation::with(PROGRAM, 20);
    let daemon = at_work(&harness);
    fs::remove_file(harness.path("komoju.db.lock")).unwrap();
    let ran = harness.expect(5, &["run"]);
    assert!(ran.stderr.contains(&format!("(process {}) since 20", daemon.id())), "{}", ran.stderr);
    // The daemon makes the lock file again, and other processes see its name.
    let name = format!("`komoju-sync run` (process {})", daemon.id());
    eventually("the lock file names the daemon", || {
        fs::read_to_string(harness.path("komoju.db.lock")).is_ok_and(|text| text.contains(&name))
    });
    eventually("status names the daemon", || harness.run(&["status"]).stdout.contains(&name));
    assert!(harness.expect(5, &["sync"]).stderr.contains(&name));
}
