//! The metrics, compared with their documentation.

use std::collections::{BTreeMap, BTreeSet};

use komoju_sandbox::readings::Total;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::metrics;
use komoju_sync::metrics::MetricKind;
use komoju_testkit::daemon::get;
use komoju_testkit::{Daemon, Installation, KEY, eventually, own};
use serde_json::json;

use super::exposition::{self, Family};
use crate::PROGRAM;

fn scraped(address: &str) -> BTreeMap<String, Family> {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    exposition::read(&answer.body).unwrap_or_else(|why| panic!("{why}\n{}", answer.body))
}

/// Returns the value of a series.
fn value(address: &str, series: &str) -> Option<f64> {
    scraped(address).values().find_map(|family| family.samples.get(series).copied())
}

#[track_caller]
pub fn eventually_is(address: &str, series: &str, expected: f64) {
    let mut last = None;
    for _ in 0..1000 {
        last = value(address, series);
        if last == Some(expected) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{series} is {last:?}, not {expected}");
}

/// A row of the table in docs/metrics.md.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    name: String,
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

#[test]
fn documentation_lists_every_metric_as_it_is_served() {
    let harness = Installation::with(PROGRAM, 2);
    let (_daemon, address) = Daemon::listening(&harness);
    eventually_is(&address, "komoju_sync_ready", 1.0);
    let served: Vec<Row> = scraped(&address)
        .into_iter()
        .map(|(name, Family { kind, help, labels, .. })| Row { name, kind, labels, help })
        .collect();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let plain = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let mut told: Vec<Row> = text
        .lines()
        .filter(|line| line.starts_with("| `komoju_sync_"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let labels = cells[2].split(',').map(plain).filter(|label| !label.is_empty()).collect();
            Row { name: plain(cells[0]), kind: plain(cells[1]), labels, help: cells[3].trim().to_owned() }
        })
        .collect();
    let order: Vec<String> = told.iter().map(|row| row.name.clone()).collect();
    assert_eq!(
        order,
        metrics::ALL.iter().map(|metric| metric.name).collect::<Vec<_>>(),
        "in the order of the code"
    );
    told.sort();
    assert_eq!(told, served);
    for metric in metrics::ALL {
        if let MetricKind::Histogram(buckets) = metric.kind {
            assert!(!buckets.is_empty() && buckets.is_sorted(), "{}", metric.name);
        }
    }
    // The values of the labels are documented, too.
    for family in scraped(&address).values() {
        for series in family.samples.keys() {
            let words = series.split('"').skip(1).step_by(2).filter(|word| word.parse::<f64>().is_err());
            for word in words.filter(|word| !word.contains('.')) {
                assert!(text.contains(&format!("`{word}`")), "{series}: {word} is not told");
            }
        }
    }
}

#[test]
fn reader_of_the_format_finds_errors() {
    let good =
        "# HELP komoju_sync_a_total A.\n# TYPE komoju_sync_a_total counter\nkomoju_sync_a_total{x=\"y\"} 1\n";
    assert!(exposition::read(good).is_ok());
    for (from, to) in [
        ("_total", ""),
        (" A.", ""),
        ("counter", "gauge"),
        ("} 1", "} -1"),
        ("} 1", "} NaN"),
        ("x=", "X="),
        ("\"y\"", "\"a@b\""),
        ("1\n", "1"),
        ("komoju_sync_a_total{", "komoju_sync_b_total{"),
        ("komoju_sync_", "other_"),
        ("a_total", "a_millis_total"),
    ] {
        assert!(exposition::read(&good.replace(from, to)).is_err(), "{from} {to}");
    }
    assert!(exposition::read(&good.repeat(2)).is_err(), "a family twice");
}

#[test]
fn imprecise_list_and_lag_are_gauges() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let ids = harness.sandbox.world().ids()[..2].to_vec();
    harness.on_lists(FaultEffect::Hide { ids, every: None });
    harness.sandbox.world().readings_mut().total = Total::Off(3);
    own(&harness.path("komoju.db")).execute("UPDATE meta SET longest_lag_ms = 4210", []).unwrap();
    let (_daemon, address) = Daemon::listening(&harness);
    eventually_is(&address, "komoju_sync_unlisted_customers", 2.0);
    eventually_is(&address, "komoju_sync_list_imprecise", 1.0);
    eventually_is(&address, "komoju_sync_longest_lag_seconds", 4.21);

    let exact = Installation::with(PROGRAM, 60);
    let (_other, address) = Daemon::listening(&exact);
    eventually_is(&address, "komoju_sync_customers{state=\"live\"}", 60.0);
    eventually_is(&address, "komoju_sync_list_imprecise", 0.0);
    eventually_is(&address, "komoju_sync_unlisted_customers", 0.0);
}

#[test]
fn requests_changes_and_attempts_are_counted() {
    let harness = Installation::with(PROGRAM, 30);
    let (_daemon, address) = Daemon::listening(&harness);
    let is =
        |series: &str, expected: f64| eventually_is(&address, &format!("komoju_sync_{series}"), expected);
    is("customers{state=\"live\"}", 30.0);
    is("changes_total{kind=\"created\",origin=\"sweep\"}", 30.0);
    is("pass_duration_seconds_count{kind=\"sweep\",outcome=\"complete\"}", 1.0);
    // The last page is full, so one more page is requested.
    is("requests_total{call=\"list\",answer=\"ok\"}", 4.0);
    is("request_duration_seconds_count{call=\"list\"}", 4.0);
    is("limiter_wait_seconds_count{share=\"read\"}", 4.0);
    is("mirror_stale", 0.0);
    is("key_refused", 0.0);
    let age = value(&address, "komoju_sync_mirror_age_seconds").unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
    let [now, at, started] = ["ready", "last_complete_sweep_timestamp_seconds", "process_start_time_seconds"]
        .map(|name| value(&address, &format!("komoju_sync_{name}")).unwrap());
    assert!(now == 1.0 && at > 1.7e9 && at >= started && started > 1.7e9, "{at} {started}");
    for (name, least) in [("database_size", 4096.0), ("wal_size", 1.0), ("database_disk_free", 1.0)] {
        assert!(value(&address, &format!("komoju_sync_{name}_bytes")).unwrap() >= least, "{name}");
    }
    // The sizes are those of these two files.
    for (name, file) in [("database_size", "komoju.db"), ("wal_size", "komoju.db-wal")] {
        eventually(name, || {
            let length = std::fs::metadata(harness.path(file)).unwrap().len() as f64;
            value(&address, &format!("komoju_sync_{name}_bytes")) == Some(length)
        });
    }

    // Pushes: one done, two rejected (one of them waits first), one parked.
    let id = harness.sandbox.world().ids()[0].clone();
    harness.inject(
        Fault::new(FaultEffect::Status {
            status: 429,
            body: Default::default(),
            retry_after: None,
            headers: Default::default(),
            work: komoju_sandbox::FaultedWork::Skipped,
        })
        .call(FaultedCall::Delete)
        .once(),
    );
    let intents = [
        ("done", "create", None, Some(json!({"email": "n@example.jp"})), None),
        ("gone", "update", Some("nobody"), Some(json!({"email": "n@example.jp"})), None),
        (
            "parked",
            "update",
            Some(id.as_str()),
            Some(json!({"email": "n@example.jp"})),
            Some(json!({"locale": "xx"})),
        ),
        ("later", "delete", Some("cus_none"), None, None),
    ];
    let conn = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    for (name, op, customer, body, expect) in intents {
        let text = |json: Option<serde_json::Value>| json.map(|json| json.to_string());
        conn.execute(
            "INSERT INTO intents (id, op, customer_id, body, expect) VALUES (?1, ?2, ?3, ?4, ?5)",
            rusqlite::params![name, op, customer, text(body), text(expect)],
        )
        .unwrap();
    }
    is("attempts_total{state=\"parked\"}", 1.0);
    is("attempts_total{state=\"rejected\"}", 2.0);
    is("attempts_total{state=\"waiting\"}", 1.0);
    is("attempts_total{state=\"done\"}", 1.0);
    is("requests_total{call=\"create\",answer=\"ok\"}", 1.0);
    is("requests_total{call=\"update\",answer=\"not_found\"}", 1.0);
    is("requests_total{call=\"delete\",answer=\"throttled\"}", 1.0);
    is("requests_total{call=\"delete\",answer=\"not_found\"}", 1.0);
    is("retries_total{of=\"intent\"}", 1.0);
    is("changes_total{kind=\"created\",origin=\"intent\"}", 1.0);
    is("intents{state=\"parked\"}", 1.0);
    is("intents{state=\"done\"}", 1.0);
    assert!(value(&address, "komoju_sync_oldest_intent_age_seconds{state=\"parked\"}").unwrap() > 0.0);
    is("oldest_intent_age_seconds{state=\"queued\"}", 0.0);

    // A file that is refused.
    std::fs::write(harness.path("spool/.bad"), "nonsense").unwrap();
    std::fs::rename(harness.path("spool/.bad"), harness.path("spool/bad.json")).unwrap();
    is("spool_files{state=\"rejected\"}", 1.0);
    is("spool_files{state=\"waiting\"}", 0.0);
}

#[test]
fn conditions_that_stop_work_are_gauges() {
    let mut harness = Installation::with(PROGRAM, 5);
    harness.expect(0, &["sync"]);
    own(&harness.path("komoju.db"))
        .execute_batch(
            "UPDATE meta SET throttled_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+2 seconds')",
        )
        .unwrap();
    harness.use_key("sk_test_another_key");
    let (_daemon, address) = Daemon::listening(&harness);
    let is =
        |series: &str, expected: f64| eventually_is(&address, &format!("komoju_sync_{series}"), expected);
    eventually("the reason is shown", || {
        value(&address, "komoju_sync_throttled_until_timestamp_seconds").is_some_and(|until| until > 1.7e9)
    });
    is("key_refused", 1.0);
    is("ready", 0.0);
    is("requests_total{call=\"show\",answer=\"key_refused\"}", 1.0);
    is("pass_duration_seconds_count{kind=\"sweep\",outcome=\"failed\"}", 1.0);
    is("throttled_until_timestamp_seconds", 0.0);
}

#[test]
fn answers_contain_no_customer_and_series_do_not_grow() {
    let harness = Installation::with(PROGRAM, 12);
    let (_daemon, address) = Daemon::listening(&harness);
    eventually_is(&address, "komoju_sync_ready", 1.0);
    let series = |families: BTreeMap<String, Family>| -> BTreeSet<String> {
        families.into_values().flat_map(|family| family.samples.into_keys()).collect()
    };
    let before = series(scraped(&address));
    let conn = rusqlite::Connection::open(harness.path("komoju.db")).unwrap();
    for n in 0..20 {
        let body =
            json!({"email": format!("secret{n}@example.jp"), "payment_details": format!("tok_secret{n}")});
        conn.execute(
            "INSERT INTO intents (id, op, body) VALUES (?1, 'create', ?2)",
            [format!("intent-secret-{n}"), body.to_string()],
        )
        .unwrap();
    }
    harness
        .inject(Fault::new(FaultEffect::Reset { work: Default::default() }).call(FaultedCall::Create).once());
    eventually("all are attempted", || harness.one("SELECT count(*) FROM intents WHERE attempts = 0") == "0");
    let ids = harness.sandbox.world().ids();
    for path in ["/metrics", "/readyz", "/healthz", "/secret@example.jp", "/?secret"] {
        let answer = get(&address, path);
        let said = format!("{}\n{}", answer.head, answer.body);
        for hidden in
            ["secret", "example.jp", KEY, "sandbox", "127.0.0.1", harness.directory.path().to_str().unwrap()]
        {
            assert!(!said.contains(hidden), "{path}: {hidden}: {said}");
        }
        assert!(ids.iter().all(|id| !said.contains(id)));
    }
    assert_eq!(before, series(scraped(&address)));
}
