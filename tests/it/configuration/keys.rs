//! Each key of the configuration changes what the program does.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::cli::sync_by;
use komoju_sync::clock::{Clock as _, ManualClock, SystemClock};
use komoju_sync::config::Config;
use komoju_testkit::{Daemon, Installation, KEY, Process, eventually, signal};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;

/// Cron expressions that never fire within a test.
const NEVER: &str = "0 0 0 1 1 *";

/// Returns the seconds from the first to the last request with this method.
fn seconds_between(harness: &Installation, method: &str) -> f64 {
    let world = harness.sandbox.world();
    let at: Vec<i64> = world
        .requests()
        .iter()
        .filter(|seen| seen.method == method)
        .map(|seen| seen.at.as_millisecond())
        .collect();
    (at[at.len() - 1] - at[0]) as f64 / 1000.0
}

/// Promises: key api.base_url; key api.api_version; key api.per_page; key database.path
#[test]
fn each_request_has_the_api_version_and_the_page_size() {
    let harness = Installation::with(PROGRAM, 20);
    harness.replace_in_config("per_page = 10\n", "per_page = 7\napi_version = \"2024-07-15\"\n");
    harness.expect(0, &["sync"]);
    let world = harness.sandbox.world();
    assert!(world.request_count() >= 3);
    for seen in world.requests() {
        assert_eq!(seen.header("x-komoju-api-version"), Some("2024-07-15"), "{seen:?}");
        assert!(seen.query.split('&').any(|part| part == "per_page=7"), "{seen:?}");
    }
    drop(world);
    assert!(harness.path("komoju.db").exists());
}

/// Promises: key api.max_concurrent_requests
#[test]
fn requests_in_flight_are_within_the_setting() {
    let harness = Installation::with(PROGRAM, 60);
    harness.replace_in_config("per_page = 10\n", "per_page = 10\nmax_concurrent_requests = 2\n");
    // The first page is requested before the others.
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).skip(1));
    let sync = harness.spawn(&["sync"]);
    harness.until(|world| world.fired(held) == 2);
    // No event shows that a third request is not sent; this time is long enough for one that is.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(harness.fired(held), 2);
    harness.sandbox.world().remove_fault(held);
    assert_eq!(sync.wait_with_output().unwrap().status.code(), Some(0));
}

/// Promises: key rate_limit.requests_per_second; key rate_limit.burst
#[test]
fn requests_follow_rate_and_burst() {
    let harness = Installation::with(PROGRAM, 60);
    harness.replace_in_config("requests_per_second = 0", "requests_per_second = 2\nburst = 1");
    let mut daemon = Daemon::start(&harness);
    harness.until(|world| world.request_count() >= 6);
    eventually("the first sweep is complete", || {
        harness.column("SELECT id FROM passes WHERE outcome = 'complete'").len() == 1
    });
    // Six pages. At the default rate of 4 a second they take 1.5 seconds at most.
    assert!(seconds_between(&harness, "GET") > 2.2, "{}", seconds_between(&harness, "GET"));
    // While no request is sent, the bucket fills up to the burst. No event shows that.
    std::thread::sleep(Duration::from_millis(2500));
    let ids = harness.sandbox.world().ids();
    for (n, id) in ids.iter().take(6).enumerate() {
        harness.intend(
            &format!("u{n}"),
            "update",
            Some(id),
            Some(json!({"email": format!("{n}@example.jp")})),
        );
    }
    eventually("the updates are done", || {
        harness.one("SELECT count(*) FROM intents WHERE state = 'done'") == "6"
    });
    // At the default burst of 4 they take one second.
    assert!(seconds_between(&harness, "PATCH") > 2.0, "{}", seconds_between(&harness, "PATCH"));
    assert_eq!(daemon.stop(), Some(0));
}

/// Promises: key inbound.sweep_cron
#[test]
fn sweeps_follow_their_cron_expression() {
    let harness = Installation::with(PROGRAM, 3)
        .inbound(&format!("sweep_cron = \"* * * * * *\"\nprobe_cron = \"{NEVER}\""));
    harness.expect(0, &["sync"]);
    let mut daemon = Daemon::start(&harness);
    // One sweep by `sync`, one at the start of the daemon, and two at ticks.
    eventually("four sweeps are complete", || {
        let sweeps = "SELECT count(*) FROM passes WHERE kind = 'sweep' AND outcome = 'complete'";
        harness.one(sweeps).parse::<u32>().unwrap() >= 4
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// Promises: key inbound.probe_cron
#[test]
fn probes_follow_their_cron_expression() {
    let harness = Installation::with(PROGRAM, 3)
        .inbound(&format!("sweep_cron = \"{NEVER}\"\nprobe_cron = \"* * * * * *\""));
    harness.expect(0, &["sync"]);
    let mut daemon = Daemon::start(&harness);
    eventually("the daemon has swept", || {
        harness.one("SELECT count(*) FROM passes WHERE kind = 'sweep' AND outcome = 'complete'") == "2"
    });
    harness.sandbox.world().create(json!({"email": "new@example.jp"}));
    eventually("a probe records the customer", || {
        harness.column("SELECT origin FROM changes WHERE seq > 3") == ["probe"]
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// Promises: key inbound.max_delete_percent
#[test]
fn deletions_within_the_percentage_are_recorded_at_once() {
    let harness = Installation::with(PROGRAM, 8).inbound("max_delete_count = 0\nmax_delete_percent = 50");
    harness.expect(0, &["sync"]);
    let ids = harness.sandbox.world().ids();
    for id in &ids[..3] {
        harness.sandbox.world().delete(id);
    }
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "3");
}

/// Returns when the pages of the event list were requested, in milliseconds.
fn event_list_read_at(harness: &Installation) -> Vec<i64> {
    let world = harness.sandbox.world();
    let events = world.requests().iter().filter(|seen| seen.path.ends_with("/events"));
    events.map(|seen| seen.at.as_millisecond()).collect()
}

/// Promises: key events.enabled
#[test]
fn event_list_is_read_only_where_it_is_enabled() {
    for is_enabled in [true, false] {
        let harness = Installation::swept(PROGRAM, 3).following_events();
        if !is_enabled {
            harness.replace_in_config("enabled = true\nfastest_s", "enabled = false\nfastest_s");
        }
        let mut daemon = Daemon::start(&harness);
        eventually("the first sweep is complete", || {
            harness.column("SELECT id FROM passes WHERE outcome = 'complete'").len() == 2
        });
        if is_enabled {
            eventually("the event list is read", || !event_list_read_at(&harness).is_empty());
        }
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(event_list_read_at(&harness).is_empty(), !is_enabled);
    }
}

/// Promises: key events.fastest_s
#[test]
fn event_list_is_read_every_fastest_s_while_events_are_young() {
    let harness = Installation::with(PROGRAM, 3).following_events();
    harness.replace_in_config("fastest_s = 1\n", "fastest_s = 2\n");
    let mut daemon = Daemon::start(&harness);
    eventually("the list is read four times", || event_list_read_at(&harness).len() >= 4);
    assert_eq!(daemon.stop(), Some(0));
    let at = event_list_read_at(&harness);
    for (earlier, later) in at.iter().zip(&at[1..4]) {
        let wait = later - earlier;
        // At the default of ten seconds the list is not read four times within the wait of a test.
        assert!((1900..6000).contains(&wait), "{wait} ms: {at:?}");
    }
}

/// Promises: key events.slowest_s
#[test]
fn event_list_is_read_every_slowest_s_while_it_cannot_be_read() {
    let harness = Installation::with(PROGRAM, 3).following_events();
    harness.replace_in_config("fastest_s = 1\n", "fastest_s = 1\nslowest_s = 3\n");
    harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Events));
    let mut daemon = Daemon::start(&harness);
    eventually("the list is requested three times", || event_list_read_at(&harness).len() >= 3);
    assert_eq!(daemon.stop(), Some(0));
    let at = event_list_read_at(&harness);
    for (earlier, later) in at.iter().zip(&at[1..3]) {
        let wait = later - earlier;
        assert!((2900..12_000).contains(&wait), "{wait} ms: {at:?}");
    }
}

/// Promises: key outbound.enabled
#[test]
fn nothing_is_accepted_or_sent_while_pushing_is_switched_off() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    harness.intend("before", "create", None, Some(json!({"email": "before@example.jp"})));
    harness.append_config("enabled = false");
    harness.drop_file("a.json", r#"{"op": "create", "body": {"email": "file@example.jp"}}"#);
    harness.expect(0, &["sync"]);
    let insert = "INSERT INTO intents (op, body) VALUES ('create', '{\"email\": \"sql@example.jp\"}')";
    let error = harness.writer().execute_batch(insert).unwrap_err().to_string();
    assert!(error.contains("pushing is switched off (outbound.enabled = false)"), "{error}");
    assert!(harness.path("spool/a.json").exists());
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'before'"), "queued");
    assert!(harness.run(&["status"]).stdout.contains("a.json"));
    assert!(harness.sandbox.world().requests().iter().all(|seen| seen.method == "GET"));
}

/// Promises: key outbound.spool_dir
#[test]
fn files_are_taken_from_the_spool_directory() {
    let harness = Installation::swept(PROGRAM, 0);
    let other = harness.path("other");
    let (before, after) =
        (format!("'{}'", harness.path("spool").display()), format!("'{}'", other.display()));
    harness.replace_in_config(&before, &after);
    std::fs::create_dir(&other).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o3770)).unwrap();
    std::fs::write(other.join(".a"), r#"{"op": "create", "body": {"email": "file@example.jp"}}"#).unwrap();
    std::fs::rename(other.join(".a"), other.join("a.json")).unwrap();
    harness.expect(0, &["sync"]);
    assert!(other.join("receipts/a.json.json").exists());
    assert_eq!(harness.sandbox.world().creates(), 1);
}

/// Promises: key outbound.hold_deletes_over
#[test]
fn deletes_above_hold_deletes_over_are_held() {
    let harness = Installation::swept(PROGRAM, 6);
    harness.append_config("hold_deletes_over = 1");
    let ids = harness.sandbox.world().ids();
    for id in &ids[..2] {
        harness.intend(&format!("d-{id}"), "delete", Some(id), None);
    }
    harness.expect(3, &["sync"]);
    assert_eq!(harness.sandbox.world().deletes(), 0);
    assert_eq!(harness.one("SELECT count(*) FROM intents WHERE state = 'queued'"), "2");
}

/// Promises: key outbound.park_after_h; key api.secret_key_file
#[test]
fn intent_parks_after_the_time_since_its_first_attempt() {
    for (park_after, expected) in [("park_after_h = 24", "parked"), ("", "waiting")] {
        let harness = Installation::swept(PROGRAM, 3);
        harness.append_config(park_after);
        // This process has no environment variable with the key.
        let key = harness.path("secret-key");
        std::fs::write(&key, KEY).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        harness.replace_in_config("[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", key.display()));
        let customer = harness.sandbox.world().ids()[0].clone();
        harness.intend("u", "update", Some(&customer), Some(json!({"email": "x@example.jp"})));
        harness.inject(Fault::new(FaultEffect::status(503)).call(FaultedCall::Update));
        let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
        let config = Config::load(&harness.path("config.toml")).unwrap();
        for hours in [0, 25] {
            clock.advance(Duration::try_from(SignedDuration::from_hours(hours)).unwrap());
            let sync = sync_by(&config, Arc::clone(&clock) as Arc<_>, CancellationToken::new());
            assert_eq!(
                harness.runtime.block_on(sync).code(),
                if hours == 0 || expected == "waiting" { 0 } else { 3 }
            );
        }
        assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'u'"), expected, "{park_after}");
    }
}

/// Promises: key outbound.reconcile_tag
#[test]
fn create_carries_its_intent_id_under_the_reconcile_tag() {
    let harness = Installation::swept(PROGRAM, 0);
    harness.append_config("reconcile_tag = 'made_by'");
    harness.intend("n1", "create", None, Some(json!({"email": "new@example.jp"})));
    harness.expect(0, &["sync"]);
    let truth = harness.sandbox.world().truth();
    assert_eq!(truth.values().next().unwrap()["metadata"], json!({"made_by": "n1"}));
}

/// Promises: key log.level; key log.format
#[test]
fn log_has_its_level_and_format() {
    let harness = Installation::with(PROGRAM, 3);
    let log = |lines: &str| {
        let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
        let text = text.split("[log]").next().unwrap().to_owned();
        std::fs::write(harness.path("config.toml"), format!("{text}[log]\n{lines}\n")).unwrap();
        let daemon = Process::start(
            harness
                .command(&["run"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::piped()),
        );
        let before = harness.sandbox.world().request_count();
        harness.until(|world| world.request_count() > before);
        signal("TERM", daemon.id());
        String::from_utf8(daemon.wait_with_output().unwrap().stderr).unwrap()
    };
    let text = log("level = \"debug\"\nformat = \"json\"");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{text}");
    let text = log("level = \"info\"\nformat = \"text\"");
    assert!(
        !text.is_empty() && text.lines().all(|line| serde_json::from_str::<Value>(line).is_err()),
        "{text}"
    );
    assert!(text.contains("INFO") && !text.contains("DEBUG"), "{text}");
    let text = log("level = \"error\"\nformat = \"text\"");
    assert!(!text.contains("INFO"), "{text}");
}

/// Promises: command config show
#[test]
fn config_show_prints_every_key_and_masks_secrets() {
    let harness = Installation::with(PROGRAM, 0);
    let proxied = "https://komoju.com/api/v1\"\nproxy = \"http://me:Q1Qsecret@127.0.0.1:3128";
    harness.replace_in_config(&harness.sandbox.base_url(), proxied);
    let shown = harness.expect(0, &["config", "show"]).stdout;
    assert!(!shown.contains("Q1Qsecret"), "{shown}");
    for key in Config::keys() {
        let name = key.split_once('.').unwrap().1;
        assert!(
            shown.contains(&format!("{name} = ")) || shown.contains(&format!("# {name} is not set")),
            "{key}: {shown}"
        );
    }
    assert!(shown.contains("per_page = 10\n"), "{shown}");
}
