//! The output and the exit code of `status`.
//!
//! Promises: command status

use komoju_sandbox::{Fault, FaultedCall};
use komoju_testkit::{Installation, KEY, own};
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::service::stop;

#[test]
fn status_counts_intents_and_names_files_that_are_not_taken() {
    let harness = Installation::swept(PROGRAM, 1);
    let spool = harness.path("spool");
    std::fs::create_dir_all(spool.join("rejected")).unwrap();
    for name in ["b.json", "a.jsonl", ".hidden.json"] {
        std::fs::write(spool.join(name), "{}").unwrap();
    }
    for id in ["n1", "n2", "n3"] {
        harness.expect(0, &["intent", "create", "--email", "a", "--id", id]);
    }
    harness.expect(0, &["intent", "cancel", "n3"]);
    harness.sql("UPDATE intents SET reason = 'waits for its time' WHERE id = 'n1'");
    let status = |code: i32| -> Value {
        serde_json::from_str(&harness.expect(code, &["status", "--json"]).stdout).unwrap()
    };
    let now = status(0);
    let queued = &now["intents"]["queued"];
    assert_eq!(
        (&queued["count"], &queued["oldest"], &queued["oldest_reason"]),
        (&json!(2), &json!("n1"), &json!("waits for its time"))
    );
    assert_eq!(queued["oldest_created_at"], harness.one("SELECT created_at FROM intents WHERE id = 'n1'"));
    assert_eq!(now["intents"]["cancelled"], json!({"count": 1}));
    assert_eq!(now["intents"]["parked"]["oldest"], Value::Null);
    assert_eq!((&now["outbound_enabled"], &now["spool_files"]), (&json!(true), &json!([])));
    let stdout = harness.expect(0, &["status"]).stdout;
    assert!(stdout.contains("2 queued; the oldest is n1 of ") && stdout.contains("1 cancelled"), "{stdout}");

    harness.sql("UPDATE intents SET state = 'parked' WHERE id = 'n2'; UPDATE meta SET outbound_enabled = 0");
    let off = status(3);
    assert_eq!(
        (&off["outbound_enabled"], &off["spool_files"]),
        (&json!(false), &json!(["a.jsonl", "b.json"]))
    );
    let stdout = harness.expect(3, &["status"]).stdout;
    assert!(stdout.contains("switched off") && stdout.contains("a.jsonl stays"), "{stdout}");
}

#[test]
fn status_names_stuck_and_refused_files_with_what_to_do() {
    let harness = Installation::swept(PROGRAM, 1);
    let spool = harness.path("spool");
    std::fs::create_dir_all(spool.join("rejected")).unwrap();
    std::fs::write(spool.join("notes.txt"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", spool.join("link.json")).unwrap();
    std::fs::write(spool.join("fine.json"), "{}").unwrap();
    std::fs::write(spool.join("rejected/bad.json"), "{").unwrap();
    std::fs::write(spool.join("rejected/bad.json.error"), "why").unwrap();
    let stdout = harness.expect(0, &["status"]).stdout;
    let line = |part: &str| {
        stdout.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {stdout}"))
    };
    assert!(line("notes.txt").contains("must end in .json"), "{stdout}");
    assert!(line("link.json").contains("is a symbolic link"), "{stdout}");
    assert!(
        line("bad.json").contains("rejected/bad.json.error") && line("bad.json").contains("drop it again"),
        "{stdout}"
    );
    assert!(!stdout.contains("fine.json"), "{stdout}");
    let json: Value = serde_json::from_str(&harness.expect(0, &["status", "--json"]).stdout).unwrap();
    assert_eq!(json["spool"]["problem"], Value::Null);
    let names: Vec<&str> = json["spool"]["stuck"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| left["name"].as_str().unwrap())
        .collect();
    assert_eq!((names, &json["spool"]["refused"]), (vec!["link.json", "notes.txt"], &json!(["bad.json"])));
    if std::os::unix::fs::chown(&spool, Some(12_345), None).is_ok() {
        let stdout = harness.expect(0, &["status"]).stdout;
        assert!(stdout.contains("no file is taken") && stdout.contains("`chown root "), "{stdout}");
    }
}

#[test]
fn status_in_json_reports_a_missing_database_and_no_other_file_as_missing() {
    let harness = Installation::with(PROGRAM, 0);
    let path = harness.path("komoju.db");
    let ran = harness.expect(5, &["status", "--json"]);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(status, json!({"mirror": null, "missing": path, "stale": true}));
    std::fs::write(&path, "Dear diary,\n".repeat(50)).unwrap();
    let ran = harness.expect(5, &["status", "--json"]);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("is not a komoju-sync database"), "{}", ran.stderr);
}

#[test]
fn status_in_json_keeps_its_keys() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let status: Value = serde_json::from_str(&harness.expect(0, &["status", "--json"]).stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(keys(&status), @"account_stopped_since approved_deletions busy_fields database_trouble erasure_unfinished events held_deletes held_deletions instance intents key_refused_since last_probe last_sweep last_sweep_age_s list mirror outbound_enabled rejected_deletions rejected_files restored_at running slowed spool spool_files stale throttled_until time_left_s tokens_unfinished unreadable unreadable_customers unreadable_new wipe_blocked wipe_blocked_by wipe_unfinished_since");
    insta::assert_snapshot!(keys(&status["mirror"]), @"account deleted head_chain head_seq last_sweep_at last_sweep_id live log_id schema_version");
    insta::assert_snapshot!(keys(&status["intents"]), @"cancelled done parked queued rejected sending waiting");
    insta::assert_snapshot!(keys(&status["intents"]["queued"]), @"count oldest oldest_created_at oldest_reason");
    insta::assert_snapshot!(keys(&status["intents"]["done"]), @"count");
    insta::assert_snapshot!(keys(&status["last_sweep"]), @"created customers_seen deleted error finished_at id kind outcome pages requests restored resumed started_at unreadable unverified updated");
    insta::assert_snapshot!(keys(&status["events"]), @"changes counted_since enabled gap_at last_event_at last_read_at off_reason off_since open_hints pause_reason paused_until pushes pushes_reported reported without_customer");
    insta::assert_snapshot!(keys(&status["list"]), @"ignores_page imprecise lag_exceeded_at long_unlisted long_unlisted_first longest_lag_s verified verified_at");
}

#[test]
fn status_reports_a_sweep_in_the_future_and_the_last_failure() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    harness.expect(0, &["status"]);
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "INSERT INTO pass (kind, started_at, finished_at, outcome, error)
         VALUES ('sweep', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:01.000Z', 'failed', 'no answer');
         INSERT INTO pass (kind, started_at) VALUES ('sweep', '2026-01-01T00:00:02.000Z')",
    )
    .unwrap();
    let stdout = harness.expect(0, &["status"]).stdout;
    assert!(stdout.contains("failed: no answer"), "{stdout}");
    conn.execute("UPDATE pass SET finished_at = '2999-01-01T00:00:00.000Z' WHERE outcome = 'complete'", [])
        .unwrap();
    let stdout = harness.expect(1, &["status"]).stdout;
    assert!(stdout.contains("a clock was set back"), "{stdout}");
}

#[test]
fn failed_sync_promises_no_retry_without_a_daemon() {
    let mut harness = Installation::with(PROGRAM, 3);
    harness.use_key("sk_test_wrong");
    let ran = harness.expect(4, &["sync"]);
    let part = "no daemon runs: nothing repeats this until the next `komoju-sync sync` or `komoju-sync run`";
    assert!(ran.stderr.contains(part), "{}", ran.stderr);
    let stdout = harness.expect(4, &["status"]).stdout;
    assert!(
        stdout.contains("no daemon runs: the next `komoju-sync sync`") && !stdout.contains("15 minutes"),
        "{stdout}"
    );
    let queued = harness.expect(0, &["intent", "create", "--email", "a@example.jp"]).stderr;
    assert!(queued.contains("the API refused the key, and no daemon runs"), "{queued}");

    let daemon = harness.spawn(&["run"]);
    let failed_passes = "SELECT count(*) FROM passes WHERE outcome = 'failed'";
    assert!((0..20_000).any(|_| harness.one(failed_passes) == "2"), "the daemon does not ask");
    let stdout = harness.expect(4, &["status"]).stdout;
    assert!(stdout.contains("the daemon retries every 15 minutes"), "{stdout}");
    stop(daemon);

    harness.use_key(KEY);
    let effect = json!({"kind": "status", "status": 503});
    let on = Fault::new(serde_json::from_value(effect).unwrap()).call(FaultedCall::Create);
    harness.inject(on);
    let ran = harness.expect(0, &["sync"]);
    assert!(!ran.stderr.contains("nothing repeats this"), "{}", ran.stderr);
    assert!(ran.stderr.contains("no daemon runs: the next `komoju-sync sync`"), "{}", ran.stderr);
}
