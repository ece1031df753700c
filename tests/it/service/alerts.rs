//! Alerts: which conditions run the command, when, and how often.
//!
//! Promises: key alerts.command

mod program;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::{Daemon, Installation, KEY, eventually};
use serde_json::Value;

use crate::PROGRAM;
use crate::service::metrics::eventually_is;

/// Longer than any report takes. Only time can show that nothing is reported.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// Installs a program that records its input, and then runs this script.
fn program(harness: &Installation, then: &str) -> PathBuf {
    let path = harness.path("notify");
    let told = harness.path("told");
    let script = format!("#!/bin/sh\ncat >> '{}'\n{then}\n", told.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn alerting(harness: &Installation, then: &str) {
    let path = program(harness, then);
    harness.append_config(&format!("[alerts]\ncommand = ['{}', '--from', 'here']", path.display()));
}

fn told(harness: &Installation) -> Vec<Value> {
    let text = std::fs::read_to_string(harness.path("told")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether this number of alerts is delivered and recorded. An alert whose delivery is not recorded
/// at a stop is sent again.
fn all_told(harness: &Installation, count: usize) -> bool {
    told(harness).len() == count && harness.one("SELECT count(*) FROM alert WHERE told_at IS NULL") == "0"
}

fn kinds(harness: &Installation) -> Vec<String> {
    told(harness).iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
}

/// Submits an intent that parks. `id` ends with the number of its customer, because a parked intent
/// blocks later ones of its customer.
fn park(harness: &Installation, id: &str) {
    let customer = harness.sandbox.world().ids()[usize::from(id.as_bytes()[1] - b'0')].clone();
    harness.sql(&format!(
            "INSERT INTO intents (id, op, customer_id, body, expect)
             VALUES ('{id}', 'update', '{customer}', '{{\"email\": \"secret@example.jp\"}}', '{{\"locale\": \"xx\"}}')"
        ),
    );
}

fn parks(harness: &Installation, id: &str) {
    park(harness, id);
    eventually("it is parked", || {
        harness.one(&format!("SELECT state FROM intents WHERE id = '{id}'")) == "parked"
    });
}

/// Rejects every list, so that a sweep fails at once.
fn no_lists() -> Fault {
    Fault::new(FaultEffect::Status {
        status: 422,
        body: Default::default(),
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    })
    .call(FaultedCall::List)
}

#[test]
fn parked_intent_is_reported_once_until_it_clears_and_a_later_one_after_an_hour() {
    let harness = Installation::with(PROGRAM, 3);
    alerting(&harness, "");
    let mut daemon = Daemon::start(&harness);
    eventually("the first sweep", || {
        harness.path("komoju.db").exists() && daemon.said().contains("complete")
    });
    parks(&harness, "p0");
    eventually("the alert is sent", || kinds(&harness) == ["parked_intents"]);
    let alert = &told(&harness)[0];
    assert_eq!((&alert["count"], &alert["new"], &alert["oldest"]), (&1.into(), &1.into(), &"p0".into()));
    assert!(
        alert["sentence"].as_str().unwrap().contains("1 intent is parked and waits for an operator"),
        "{alert}"
    );
    assert!(
        alert["sentence"].as_str().unwrap().contains("komoju-sync intent list --state parked"),
        "{alert}"
    );
    assert_eq!(alert["database"], harness.path("komoju.db").to_str().unwrap());
    assert!(!alert["host"].as_str().unwrap().is_empty());

    // Neither time, nor a restart, nor another intent at once is a reason for a report.
    parks(&harness, "p1");
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = Daemon::start(&harness);
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(told(&harness).len(), 1);
    // After an hour the other intent is reported.
    harness.sql("UPDATE alert SET told_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-61 minutes') WHERE told_at IS NOT NULL",
    );
    eventually("the other one is reported", || told(&harness).len() == 2);
    let alert = &told(&harness)[1];
    assert_eq!((&alert["count"], &alert["new"], &alert["oldest"]), (&2.into(), &1.into(), &"p0".into()));

    // A cleared condition is forgotten. If it returns, it is reported at once.
    harness.expect(0, &["intent", "cancel", "p0"]);
    harness.expect(0, &["intent", "cancel", "p1"]);
    eventually("it has cleared", || harness.one("SELECT count(*) FROM alert") == "0");
    parks(&harness, "p2");
    eventually("the alert is sent", || told(&harness).len() == 3);
    assert_eq!(told(&harness)[2]["oldest"], "p2");
    eventually("that is noted", || harness.one("SELECT count(*) FROM alert WHERE told_at IS NULL") == "0");

    // Nothing is written while nothing changes.
    let before = std::fs::metadata(harness.path("komoju.db-wal")).unwrap().modified().unwrap();
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(std::fs::metadata(harness.path("komoju.db-wal")).unwrap().modified().unwrap(), before);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn each_kind_is_reported_with_what_to_do_and_has_its_keys_documented() {
    let mut harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    alerting(&harness, "");
    harness.append_config("");
    let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    std::fs::write(
        harness.path("config.toml"),
        text.replace("[outbound]\n", "[outbound]\nhold_deletes_over = 0\n"),
    )
    .unwrap();
    let ids = harness.sandbox.world().ids();
    for id in &ids[..20] {
        assert!(harness.sandbox.world().delete(id));
    }
    harness.sql(&format!("INSERT INTO intents (id, op, customer_id) VALUES ('d1', 'delete', '{}')", ids[30]));
    park(&harness, "p0");
    let mut daemon = Daemon::start(&harness);
    eventually("three are reported", || all_told(&harness, 3));
    daemon.stop();

    // A key of another account, which has none of these customers.
    harness.sql("UPDATE account SET fingerprint = zeroblob(32)");
    for id in &ids[20..] {
        harness.sandbox.world().delete(id);
    }
    let mut daemon = Daemon::start(&harness);
    eventually("the stopped account is reported", || all_told(&harness, 4));
    daemon.stop();
    harness.use_key("sk_test_another_key");
    harness.sql("UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'; UPDATE account SET candidate = NULL, stopped_at = NULL",
    );
    configure_cron(&harness, "* * * * * *");
    let mut daemon = Daemon::start(&harness);
    eventually("the refused key and the stale mirror are reported", || all_told(&harness, 6));
    daemon.stop();

    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md")).unwrap();
    let firsts = |after: &str| -> BTreeSet<String> {
        let table = text.split(after).nth(1).unwrap().lines().skip(2);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
    };
    let alerts = told(&harness);
    let mut seen = BTreeSet::new();
    for alert in &alerts {
        let keys: BTreeSet<String> = alert.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, firsts("| key | type | means |"), "{alert}");
        let kind = alert["alert"].as_str().unwrap();
        assert!(seen.insert(kind.to_owned()), "{kind} twice: {alerts:?}");
        let (part, count, oldest) = match kind {
            "held_deletions" => {
                ("20 deletions wait for an operator: look at `komoju-sync deletions list`", 20, Some("1"))
            }
            "held_deletes" => ("1 delete intent waits for an operator", 1, Some("d1")),
            "parked_intents" => ("`komoju-sync intent retry ID` or `cancel ID`", 1, Some("p0")),
            "key_refused" => ("put the right secret key in place", 1, None),
            "account_stopped" => ("`komoju-sync account accept`", 1, None),
            "stale_mirror" => ("no sweep was complete since 2020-01-01T00:00:00.000Z", 1, None),
            other => panic!("{other}"),
        };
        assert!(alert["sentence"].as_str().unwrap().contains(part), "{alert}");
        assert_eq!((alert["count"].as_u64(), alert["oldest"].as_str()), (Some(count), oldest), "{alert}");
        assert_eq!(alert["new"], 1, "{alert}");
        let said = alert.to_string();
        assert!(
            !said.contains(KEY) && !said.contains("example.jp") && !ids.iter().any(|id| said.contains(id)),
            "{said}"
        );
    }
    // `disk_errors` tests a disk that fails.
    seen.insert("database_unusable".to_owned());
    // This alert has a test of its own: `wipe_that_a_reader_blocks_is_reported_and_measured`.
    seen.insert("unfinished_wipe".to_owned());
    assert_eq!(seen, firsts("| `alert` | stands while | counts as new |"));
}

#[test]
fn wipe_that_a_reader_blocks_is_reported_and_measured() {
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    alerting(&harness, "");
    let (mut daemon, address) = Daemon::listening(&harness);
    let parked = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    parked.execute_batch("BEGIN; SELECT * FROM intents").unwrap();
    harness.sql(
        "INSERT INTO intents (id, op, body) VALUES ('t', 'create', '{\"payment_details\": \"tok_canary\"}')",
    );
    let tokens = "komoju_sync_unfinished_wipes{of=\"tokens\"}";
    eventually_is(&address, tokens, 1.0);
    eventually("the alert is sent", || kinds(&harness) == ["unfinished_wipe"]);
    let alert = &told(&harness)[0];
    let sentence = alert["sentence"].as_str().unwrap();
    let me = format!("(process {}) reads an old state of the database", std::process::id());
    assert!(
        sentence.starts_with("payment tokens of settled intents are still in") && sentence.contains(&me),
        "{alert}"
    );
    assert_eq!(alert["since"], harness.one("SELECT wipe_since FROM meta"));
    harness.expect(3, &["status"]);
    assert!(daemon.said().contains(&me), "{}", daemon.said());
    drop(parked);
    eventually_is(&address, tokens, 0.0);
    eventually_is(&address, "komoju_sync_unfinished_wipes{of=\"erasure\"}", 0.0);
    harness.expect(0, &["status"]);
    eventually("it is forgotten", || harness.one("SELECT count(*) FROM alert") == "0");
    assert_eq!(daemon.stop(), Some(0));
}

fn configure_cron(harness: &Installation, cron: &str) {
    let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    std::fs::write(
        harness.path("config.toml"),
        text.replace("sweep_cron = \"0 0 0 1 1 *\"", &format!("sweep_cron = \"{cron}\"")),
    )
    .unwrap();
}

#[test]
fn stale_mirror_is_reported_after_a_failed_sweep_and_not_for_a_new_database() {
    // A stale mirror, and an API that answers no lists.
    let harness = Installation::with(PROGRAM, 2);
    harness.expect(0, &["sync"]);
    harness.sql("UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'");
    alerting(&harness, "");
    let fault = harness.inject(no_lists());
    let daemon = Daemon::start(&harness);
    // A new database.
    let new = Installation::with(PROGRAM, 2);
    alerting(&new, "");
    new.inject(no_lists());
    let _fails = Daemon::start(&new);
    // A new database whose first sweep runs, although three periods are over.
    let slow = Installation::with(PROGRAM, 2);
    alerting(&slow, "");
    configure_cron(&slow, "* * * * * *");
    let held = slow.on_lists(FaultEffect::Hold);
    let slowly = Daemon::start(&slow);
    // A new database after three periods.
    let late = Installation::with(PROGRAM, 2);
    alerting(&late, "");
    configure_cron(&late, "* * * * * *");
    late.inject(no_lists());
    let _late = Daemon::start(&late);

    eventually("the alert is sent", || kinds(&harness) == ["stale_mirror"]);
    assert_eq!(told(&harness)[0]["since"], "2020-01-01T00:00:00.000Z");
    eventually("the late one too", || kinds(&late) == ["stale_mirror"]);
    assert!(told(&late)[0]["sentence"].as_str().unwrap().contains("no sweep was complete yet"));
    std::thread::sleep(LONG_ENOUGH);
    assert!(daemon.said().matches("sweep").count() > 0);
    assert_eq!(kinds(&harness).len(), 1, "however often it fails, and while it tries again");
    assert_eq!(kinds(&late).len(), 1);
    assert_eq!((kinds(&new).len(), kinds(&slow).len()), (0, 0));
    slow.sandbox.world().remove_fault(held);
    eventually("the first sweep ends", || slowly.said().contains("complete"));
    harness.sandbox.world().remove_fault(fault);
    eventually("it has cleared", || harness.one("SELECT count(*) FROM alert") == "0");
}

#[test]
fn stale_mirror_is_reported_after_a_partial_sweep() {
    let harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    harness.sql("UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'");
    alerting(&harness, "");
    let ids = vec![harness.sandbox.world().ids()[2].clone()];
    harness.on_lists(FaultEffect::Hide { ids, every: None });
    harness.inject(Fault::new(FaultEffect::status(403)).call(FaultedCall::Show));
    let _daemon = Daemon::start(&harness);
    eventually("the alert is sent", || kinds(&harness) == ["stale_mirror"]);
    assert_eq!(harness.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "partial");
}
