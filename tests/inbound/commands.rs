//! The commands as people use them.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault};
use komoju_sync::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::house::{House, KEY, Process, own};

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let house = House::with(0);
    let help = house.expect(0, &["--help"]).stdout;
    for command in komoju_sync::cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(help.contains(name), "{name}");
        let text = house.expect(0, &[name, "--help"]).stdout;
        assert!(text.contains("Example"), "`{name} --help` has no example");
    }
}

#[test]
fn wrong_usage_exits_2() {
    let house = House::with(0);
    for arguments in [&["fly"][..], &["sync", "--wet"], &["export"], &["changes", "--since", "x"], &[]] {
        house.expect(2, arguments);
    }
}

#[test]
fn several_mistakes_in_the_configuration_are_told_at_once() {
    let house = House::with(0);
    std::fs::write(
        house.path("config.toml"),
        "[api]\nper_page = \"many\"\nwhat = 1\n[rate_limit]\nburst = 0\n",
    )
    .unwrap();
    for arguments in [&["config", "check"][..], &["sync"], &["status"]] {
        let ran = house.expect(2, arguments);
        for part in ["api.per_page", "api.what", "rate_limit.burst", "^"] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
    }
}

#[test]
fn without_a_database_each_command_says_what_makes_one() {
    let house = House::with(0);
    let missing = json_lines(&house.expect(5, &["status", "--json"]).stdout);
    assert_eq!((&missing[0]["mirror"], &missing[0]["stale"]), (&Value::Null, &json!(true)));
    for arguments in [
        &["status"][..],
        &["customers", "list"],
        &["changes"],
        &["verify"],
        &["rebuild"],
        &["deletions", "list"],
        &["account", "show"],
        &["export", "--format", "csv"],
    ] {
        let ran = house.expect(5, arguments);
        assert!(ran.stderr.contains("komoju-sync sync"), "{}", ran.stderr);
    }
    assert!(!house.path("komoju.db").exists());
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let house = House::with(12);
    let ran = house.expect(0, &["sync", "--dry-run"]);
    assert_eq!(ran.stdout.lines().count(), 12);
    let mut files: Vec<_> =
        std::fs::read_dir(house.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.toml"]);

    house.expect(0, &["sync"]);
    let content = |name: &str| std::fs::read(house.path(name)).unwrap();
    let before = (content("komoju.db"), content("komoju.db-wal"));
    let id = house.sandbox.world().ids()[0].clone();
    house.sandbox.world().delete(&id);
    let planned = json_lines(&house.expect(0, &["sync", "--dry-run", "--json"]).stdout);
    assert_eq!(
        (planned.len(), &planned[0]["kind"], &planned[0]["customer_id"]),
        (1, &json!("deleted"), &json!(id))
    );
    assert!((content("komoju.db"), content("komoju.db-wal")) == before);
    assert_eq!(house.head(), 12);
}

#[test]
fn customers_changes_and_export_show_now_and_then() {
    let house = House::with(15);
    house.expect(0, &["sync"]);
    let id = house.sandbox.world().ids()[4].clone();
    let then = house.one("SELECT max(observed_at) FROM changes");
    house.sandbox.world().update(&id, json!({"email": "now@example.com"}));
    house.expect(0, &["sync"]);

    let now = json_lines(&house.expect(0, &["customers", "show", &id, "--json"]).stdout);
    assert_eq!(now[0]["email"], "now@example.com");
    let past = json_lines(&house.expect(0, &["customers", "show", &id, "--json", "--as-of", &then]).stdout);
    assert_ne!(past[0]["email"], "now@example.com");
    assert_eq!(
        now[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        past[0].as_object().unwrap().keys().collect::<Vec<_>>()
    );
    assert_eq!(
        json_lines(&house.expect(0, &["customers", "history", &id, "--format", "json"]).stdout).len(),
        2
    );
    let swept = json_lines(&house.expect(0, &["sync", "--json"]).stdout);
    assert_eq!((swept.len(), &swept[0]["outcome"], &swept[0]["pages"]), (1, &json!("complete"), &json!(2)));
    assert_eq!(house.expect(0, &["customers", "list"]).stdout.lines().count(), 15);
    house.expect(1, &["customers", "show", "nobody"]);

    let changes = json_lines(&house.expect(0, &["changes", "--since", "15", "--json"]).stdout);
    assert_eq!(changes[0]["diff"]["email"]["to"], "now@example.com");
    for beyond in [&["changes", "--since", "999"][..], &["changes", "--since", "999", "--follow"]] {
        assert!(
            house.expect(2, beyond).stderr.contains("the change log ends at 16"),
            "it would be silent for ever"
        );
    }
    let csv = house.expect(0, &["export", "--format", "csv"]).stdout;
    assert!(csv.starts_with("id,email,source,source_type,source_brand,"), "{csv}");
    assert_eq!(csv.lines().count(), 16);
    let exported = json_lines(&house.expect(0, &["export", "--format", "jsonl"]).stdout);
    assert_eq!(exported, json_lines(&house.expect(0, &["customers", "list", "--json"]).stdout));
}

#[test]
fn a_daemon_sweeps_at_once_and_stops_within_a_page_on_sigterm() {
    let house = House::with(57);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::List).page(3));
    let mut daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    // The third page is asked for while the second one is still being read.
    let read = "SELECT count(*) FROM customers";
    assert!((0..20_000).any(|_| house.one(read) == "20"), "two pages are never read");
    let pid = daemon.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(house.one("SELECT outcome FROM passes"), "interrupted");
    assert_eq!(house.one("SELECT count(*) FROM customers"), "20", "the pages that were read stay");
    house.assert_proven();
    house.sandbox.world().clear_faults();
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_killed_sync_is_called_interrupted_and_the_next_one_is_true() {
    let house = House::with(57);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::List).page(4));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    sync.kill().unwrap();
    sync.wait().unwrap();
    house.assert_proven();
    house.sandbox.world().clear_faults();
    house.expect(0, &["sync"]);
    assert_eq!(house.column("SELECT outcome FROM passes ORDER BY id"), ["interrupted", "complete"]);
    house.assert_true();
}

#[test]
fn nobody_listening_on_standard_error_changes_nothing() {
    let house = House::with(12);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["sync"][..], &["sync", "--dry-run"], &["rebuild"], &["status"]] {
        let status =
            house.command(arguments).stderr(writer.try_clone().unwrap()).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn two_signals_at_once_stop_a_dry_run_in_order_and_its_copy_is_removed() {
    let house = House::with(12);
    house.expect(0, &["sync"]);
    let directory = tempfile::TempDir::new().unwrap();
    let held = house.on_lists(Effect::Hold);
    let mut command = house.command(&["sync", "--dry-run"]);
    let dry = Process::start(command.env("TMPDIR", directory.path()).stderr(Stdio::piped()));
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    // Both reach it together: it is stopped until they have.
    for signal in ["STOP", "INT", "TERM", "CONT"] {
        kill(signal, dry.id());
    }
    let output = dry.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("interrupted") && !told.contains("stopped at once"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn second_signal_after_a_second_ends_a_stuck_dry_run_at_once_and_its_copy_is_removed() {
    let house = House::with(2);
    house.expect(0, &["sync"]);
    for n in 0..1000 {
        house.sandbox.world().create(serde_json::json!({"email": format!("customer-{n}@example.jp")}));
    }
    let directory = tempfile::TempDir::new().unwrap();
    let mut command = house.command(&["sync", "--dry-run"]);
    command.env("TMPDIR", directory.path()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut dry = Process::start(&mut command);
    // Its plan is larger than a pipe, and the pipe is not read to its end: it is stuck.
    let mut stdout = dry.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
    kill("INT", dry.id());
    // The rule is about time, and a command that is stuck gives no signal: within a second, a second one does not count.
    std::thread::sleep(Duration::from_millis(1200));
    kill("TERM", dry.id());
    let output = dry.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("stopped at once by a second signal"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_dry_runs_copy_is_nobody_elses_and_goes_with_the_next_one_where_it_was_killed() {
    let house = House::with(12);
    house.expect(0, &["sync"]);
    let directory = tempfile::TempDir::new().unwrap();
    let held = house.on_lists(Effect::Hold);
    let dry = |house: &House| {
        let mut command = house.command(&["sync", "--dry-run"]);
        Process::start(command.env("TMPDIR", directory.path()).stderr(Stdio::null()).stdout(Stdio::null()))
    };
    let copies = || -> Vec<_> {
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut killed = dry(&house);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    let left = copies();
    assert_eq!(left.len(), 1);
    let mode = std::fs::metadata(&left[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it holds what the database holds");
    kill("KILL", killed.id());
    killed.wait().unwrap();
    house.sandbox.world().clear_faults();
    assert!(dry(&house).wait().unwrap().success());
    assert_eq!(copies(), Vec::<std::path::PathBuf>::new());
}

fn kill(signal: &str, process: u32) {
    let killed = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(killed.unwrap().success());
}

/// Stops the daemon and says how long that took.
fn stop(mut daemon: Process) -> Duration {
    let since = SystemClock::new();
    kill("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    since.elapsed()
}

#[test]
fn a_stop_waits_neither_for_a_parked_reader_nor_for_somebody_elses_lock() {
    let house = House::with(57);
    house.expect(0, &["sync"]);
    let parked = rusqlite::Connection::open(house.path("komoju.db")).unwrap();
    for lock in ["BEGIN; SELECT count(*) FROM mirror", "BEGIN IMMEDIATE"] {
        let held = house.on_lists(Effect::Hold);
        let daemon = house.spawn(&["run"]);
        house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
        parked.execute_batch(lock).unwrap();
        let took = stop(daemon);
        // The contract's two seconds, and some for a machine that has other things to do.
        assert!(took < Duration::from_secs(4), "{lock}: it took {took:?}");
        parked.execute_batch("ROLLBACK").unwrap();
        house.sandbox.world().clear_faults();
    }
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn what_the_api_asked_to_wait_holds_for_the_next_process_too() {
    let house = House::with(12);
    let effect = Effect::Status {
        status: 429,
        body: komoju_sandbox::Payload::Error,
        retry_after: Some("600".to_owned()),
        headers: Default::default(),
        work: Default::default(),
    };
    house.inject(Fault::new(effect).call(Call::List).once());
    let daemon = house.spawn(&["run"]);
    let waits = "SELECT count(*) FROM meta WHERE throttled_until IS NOT NULL";
    house.runtime.block_on(house.sandbox.until(|world| world.request_count() > 0));
    assert!((0..20_000).any(|_| house.one(waits) == "1"), "it is never said that the API asks to wait");
    stop(daemon);
    let mut daemon = house.spawn(&["run"]);
    let begun = "SELECT count(*) FROM pass WHERE finished_at IS NULL";
    assert!((0..20_000).any(|_| house.one(begun) == "1"), "the next one never begins");
    let status = house.run(&["status"]).stdout;
    assert!(status.contains("the API asked us to wait until"), "{status}");
    kill("TERM", daemon.id());
    daemon.wait().unwrap();
    assert_eq!(house.sandbox.world().request_count(), 1, "nothing was sent meanwhile");
}

#[test]
fn a_daemon_follows_its_cadence() {
    let house = House::with(12).inbound("sweep_cron = \"*/1 * * * * *\"");
    let mut daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.request_count() >= 6));
    let pid = daemon.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    house.assert_true();
}

#[test]
fn status_in_json_keeps_its_keys() {
    let house = House::with(12);
    house.expect(0, &["sync"]);
    let status: Value = serde_json::from_str(&house.expect(0, &["status", "--json"]).stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(keys(&status), @"account_stopped_since approved_deletions busy_fields database_trouble erasure_unfinished held_deletes held_deletions instance intents key_refused_since last_probe last_sweep last_sweep_age_s list mirror outbound_enabled rejected_deletions rejected_files restored_at running slowed spool spool_files stale throttled_until time_left_s tokens_unfinished unreadable unreadable_customers unreadable_new wipe_blocked wipe_blocked_by wipe_unfinished_since");
    insta::assert_snapshot!(keys(&status["mirror"]), @"account deleted head_chain head_seq last_sweep_at last_sweep_id live log_id schema_version");
    insta::assert_snapshot!(keys(&status["intents"]), @"cancelled done parked queued rejected sending waiting");
    insta::assert_snapshot!(keys(&status["intents"]["queued"]), @"count oldest oldest_created_at oldest_reason");
    insta::assert_snapshot!(keys(&status["intents"]["done"]), @"count");
    insta::assert_snapshot!(keys(&status["last_sweep"]), @"created customers_seen deleted error finished_at id kind outcome pages requests restored resumed started_at unreadable unverified updated");
    insta::assert_snapshot!(keys(&status["list"]), @"ignores_page imprecise lag_exceeded_at long_unlisted long_unlisted_first longest_lag_s verified verified_at");
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing_behind() {
    let house = House::with(0);
    let directory = tempfile::TempDir::new().unwrap();
    let output = house
        .command(&["demo", "--for", "8s"])
        .env("TMPDIR", directory.path())
        // A machine without CA certificates can run it too.
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    for part in [
        "the first sweep recorded 120 customers",
        "sqlite3 -readonly",
        "update by sql, ",
        "create by file, welcome@f3097acbaaf9, is done: change ",
        "delete by cli, goodbye, is done: change ",
        "with 0 findings",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_sweep_that_ended_in_the_future_is_stale_and_a_failure_stays_while_the_next_one_runs() {
    let house = House::with(3);
    house.expect(0, &["sync"]);
    house.expect(0, &["status"]);
    let conn = own(&house.path("komoju.db"));
    conn.execute_batch(
        "INSERT INTO pass (kind, started_at, finished_at, outcome, error)
         VALUES ('sweep', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:01.000Z', 'failed', 'nobody answered');
         INSERT INTO pass (kind, started_at) VALUES ('sweep', '2026-01-01T00:00:02.000Z')",
    )
    .unwrap();
    let told = house.expect(0, &["status"]).stdout;
    assert!(told.contains("failed: nobody answered"), "{told}");
    conn.execute("UPDATE pass SET finished_at = '2999-01-01T00:00:00.000Z' WHERE outcome = 'complete'", [])
        .unwrap();
    let told = house.expect(1, &["status"]).stdout;
    assert!(told.contains("a clock was set back"), "{told}");
}

#[test]
fn export_before_the_first_complete_sweep_is_reported_as_incomplete() {
    let house = House::with(25);
    let fault = house.sandbox.world().inject(Fault::new(Effect::status(400)).call(Call::List).page(3));
    house.expect(1, &["sync"]);
    for format in ["csv", "jsonl"] {
        let ran = house.expect(1, &["export", "--format", format]);
        assert!(
            ran.stderr.contains("the export is incomplete: no sweep had read all customers yet"),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.lines().count() > 9, "what is there is printed: {}", ran.stdout);
    }
    house.sandbox.world().remove_fault(fault);
    let before = house.one("SELECT max(observed_at) FROM changes");
    house.expect(0, &["sync"]);
    assert_eq!(house.expect(0, &["export", "--format", "jsonl"]).stderr, "");
    let then = house.expect(1, &["export", "--format", "jsonl", "--as-of", &before]);
    assert!(then.stderr.contains("no sweep had read all customers by then"), "{}", then.stderr);
}

#[test]
fn failed_sync_promises_no_retry_without_a_daemon() {
    let mut house = House::with(3);
    house.use_key("sk_test_wrong");
    let ran = house.expect(4, &["sync"]);
    let part = "no daemon runs: nothing repeats this until the next `komoju-sync sync` or `komoju-sync run`";
    assert!(ran.stderr.contains(part), "{}", ran.stderr);
    let told = house.expect(4, &["status"]).stdout;
    assert!(
        told.contains("no daemon runs: the next `komoju-sync sync`") && !told.contains("15 minutes"),
        "{told}"
    );
    let queued = house.expect(0, &["intent", "create", "--email", "a@example.jp"]).stderr;
    assert!(queued.contains("the API refused the key, and no daemon runs"), "{queued}");

    let daemon = house.spawn(&["run"]);
    let asked = "SELECT count(*) FROM passes WHERE outcome = 'failed'";
    assert!((0..20_000).any(|_| house.one(asked) == "2"), "the daemon does not ask");
    let told = house.expect(4, &["status"]).stdout;
    assert!(told.contains("the daemon asks again every 15 minutes"), "{told}");
    stop(daemon);

    house.use_key(KEY);
    let effect = json!({"kind": "status", "status": 503});
    let on = Fault::new(serde_json::from_value(effect).unwrap()).call(Call::Create);
    house.inject(on);
    let ran = house.expect(0, &["sync"]);
    assert!(!ran.stderr.contains("nothing repeats this"), "{}", ran.stderr);
    assert!(ran.stderr.contains("no daemon runs: the next `komoju-sync sync`"), "{}", ran.stderr);
}

#[test]
fn config_check_names_the_key_of_the_service_and_its_mode() {
    let house = House::with(0);
    let check = || {
        let mut command = house.command(&["config", "check"]);
        let output = command.env_remove("KOMOJU_SECRET_KEY").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, told) = check();
    assert_eq!(code, Some(0));
    assert!(told.contains("/etc/komoju-sync/secret-key (owner root, mode 0400)"), "{told}");
    let key = house.path("secret-key");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    let (code, told, aside) = check();
    let expected =
        format!("the secret key comes from the file {} (mode 0400); the service loads it", key.display());
    assert!(told.contains(&expected), "{told}");
    assert_eq!((code, aside.as_str()), (Some(0), ""));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(check().2.contains("is open to every user"), "{}", check().2);
    std::fs::write(&key, "two words").unwrap();
    assert_eq!(check().0, Some(2));
}

#[test]
fn moment_or_customer_outside_of_the_log_is_an_error_that_says_so() {
    let house = House::with(3);
    house.expect(0, &["sync"]);
    let id = house.sandbox.world().ids()[0].clone();
    let first = house.one("SELECT min(observed_at) FROM changes");
    for command in [
        &["customers", "list"][..],
        &["customers", "show", &id],
        &["customers", "history", &id],
        &["export", "--format", "csv"],
        &["export", "--format", "jsonl"],
    ] {
        for (moment, part) in [
            ("2001-01-01", format!("--as-of 2001-01-01T00:00:00.000Z: the change log begins at {first}")),
            ("2999-01-01T00:00:00Z", "--as-of 2999-01-01T00:00:00.000Z: this is in the future".to_owned()),
        ] {
            let ran = house.expect(2, &[command, &["--as-of", moment]].concat());
            assert!(ran.stdout.is_empty() && ran.stderr.contains(&part), "{command:?}: {}", ran.stderr);
        }
        let shown = house.expect(
            0,
            &[command, &["--as-of", &house.one("SELECT last_sweep_at FROM mirror_info")]].concat(),
        );
        assert!(!shown.stdout.is_empty(), "{command:?}");
    }

    for command in [
        &["changes", "--customer", "typo"][..],
        &["changes", "--customer", "typo", "--json"],
        &["customers", "history", "typo"],
    ] {
        let ran = house.expect(1, command);
        assert!(
            ran.stdout.is_empty() && ran.stderr.contains("the change log knows no customer typo"),
            "{}",
            ran.stderr
        );
    }
    house.expect(2, &["changes", "--since=-1"]);
    let nothing_new = house.expect(0, &["changes", "--customer", &id, "--since", "3"]);
    assert_eq!((nothing_new.stdout.as_str(), nothing_new.stderr.as_str()), ("", ""));
    let later = house.sandbox.world().create(json!({"email": "later@example.jp"}));
    house.expect(0, &["sync"]);
    let early = house.expect(1, &["customers", "history", &later, "--as-of", &first]);
    assert!(
        early.stderr.contains(&format!("has no entry of customer {later} until {first}")),
        "{}",
        early.stderr
    );
    for (command, part) in [
        (&["customers", "show", "typo"][..], "the mirror knows no customer typo"),
        (&["intent", "show", "typo"], "there is no intent typo"),
        (&["intent", "retry", "typo"], "there is no intent typo"),
        (&["deletions", "approve", "99"], "hold 99 has no deletion to decide"),
        (&["deletions", "reject", "99"], "hold 99 has no deletion to decide"),
        (&["erase", "typo"], "typo"),
    ] {
        let ran = house.expect(1, command);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(part), "{command:?}: {}", ran.stderr);
    }
}

#[test]
fn as_of_without_any_entry_is_an_error_until_an_empty_account_was_swept() {
    let mut house = House::with(0);
    house.use_key("sk_test_wrong");
    house.expect(4, &["sync"]);
    let none = house.expect(2, &["customers", "list", "--as-of", "2026-01-01"]);
    assert!(none.stderr.contains("nothing is recorded yet"), "{}", none.stderr);
    house.use_key(KEY);
    house.expect(0, &["sync"]);
    let swept = house.one("SELECT last_sweep_at FROM mirror_info");
    assert_eq!(house.expect(0, &["customers", "list", "--as-of", &swept]).stdout, "");
}

/// What a command writes on a terminal of 40 columns; `None` where no `script` makes one.
fn on_a_terminal(house: &House, arguments: &[&str], no_color: &str) -> Option<String> {
    let command = house.command(arguments);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let output = Command::new("script")
        .args(["-qec", &format!("stty cols 40; {}", quoted.join(" ")), "/dev/null"])
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn lists_on_a_terminal_have_a_header_and_fit_and_no_color_is_kept() {
    let house = House::with(3);
    let Some(drawn) = on_a_terminal(&house, &["sync"], "") else { return };
    assert!(drawn.contains("reading customers"), "{drawn}");
    let plain = on_a_terminal(&house, &["sync"], "1").unwrap();
    assert!(
        plain.contains("complete: 3 customers") && !plain.contains('\u{1b}') && !plain.contains("reading"),
        "{plain}"
    );
    house.expect(0, &["intent", "delete", "someone", "--id", "n1"]);
    for (arguments, header) in [
        (&["customers", "list"][..], "id "),
        (&["changes"], "     seq  observed_at "),
        (&["customers", "history", &house.sandbox.world().ids()[0].clone()], "     seq  observed_at "),
        (&["intent", "list"], "id "),
        (&["deletions", "list"], "hold "),
    ] {
        let shown = on_a_terminal(&house, arguments, "").unwrap();
        assert!(shown.starts_with(header), "{arguments:?}: {shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 40), "{arguments:?}: {shown}");
        assert!(!house.run(arguments).stdout.contains("observed_at"), "other programs read entries alone");
    }
    for (no_color, is_red) in [("", true), ("1", false)] {
        let error = on_a_terminal(&house, &["customers", "show", "typo"], no_color).unwrap();
        assert_eq!(error.contains('\u{1b}'), is_red, "{error:?}");
    }
}
