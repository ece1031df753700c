//! Each imprecision of a list by itself. Every customer is mirrored, a deletion is recorded, and an
//! unchanged sweep costs little more than with an exact list.
//!
//! `CUSTOMERS=10000 cargo test --release --test it -- walk:: --nocapture` measures with more
//! customers.

use komoju_core::PassOutcome;
use komoju_sandbox::{Drift, FaultEffect, Readings};
use komoju_testkit::Installation;
use serde_json::{Value, json};

use crate::PROGRAM;

/// SWEEPS is the number of sweeps over which costs are averaged: further rounds are read in every
/// twelfth sweep.
const SWEEPS: u64 = 12;

/// One imprecision and its limits.
struct Case {
    name: &'static str,
    readings: Value,
    /// Sweeps until every customer is mirrored, and until a deletion is recorded.
    sweeps: usize,
    /// Limit of the list requests of an unchanged sweep, in percent of those of an exact list.
    most_percent: u64,
}

fn case(name: &'static str, readings: Value) -> Case {
    Case { name, readings, sweeps: 1, most_percent: 110 }
}

fn cases() -> Vec<Case> {
    vec![
        case("exact", json!({})),
        case("total three too high", json!({"total": {"off": 3}})),
        case("total three too low", json!({"total": {"off": -3}})),
        Case { most_percent: 300, ..case("total random within 5 %", json!({"total": {"random": 5}})) },
        case("total missing", json!({"total": "missing"})),
        case("total text", json!({"total": "text"})),
        case("last_page of pages of 7", json!({"last_page": {"divisor": 7}})),
        case("last_page of pages of 13", json!({"last_page": {"divisor": 13}})),
        case("last_page rounded down", json!({"last_page": "floor"})),
        case("last_page missing", json!({"last_page": "missing"})),
        case("last_page null", json!({"last_page": "null"})),
        case("last_page 0", json!({"last_page": "zero"})),
        case("every ninth customer left out", json!({"filtered_every": 9})),
        Case { sweeps: 3, most_percent: 300, ..case("unstable ties", json!({"ties": "unstable"})) },
        case("one row twice on each page", json!({"repeated": "added"})),
        case("one row in place of another on each page", json!({"repeated": "displacing"})),
        case("page past the end is empty", json!({"past_end": "empty"})),
        case("page past the end is the last one", json!({"past_end": "last_page"})),
        case("page past the end is a 404", json!({"past_end": "not_found"})),
        case("a deleted customer is another 404", json!({"deleted": "other_code"})),
        case("a deleted customer is a 410", json!({"deleted": "gone"})),
        case("a deleted customer is a 200 with a flag", json!({"deleted": "flagged"})),
        case(
            "deleted customers are listed as such",
            json!({"deleted": "flagged", "deleted_listed": "flagged"}),
        ),
        case("list times absent", json!({"list_times": "absent"})),
        case("list times null", json!({"list_times": "null"})),
    ]
}

/// Returns the numbers of list and single requests since the last call.
fn requests(harness: &Installation) -> (u64, u64) {
    let mut world = harness.sandbox.world();
    let is_list = |path: &str| path.ends_with("/customers");
    let lists = world.requests().iter().filter(|seen| is_list(&seen.path)).count() as u64;
    let all = world.requests().len() as u64;
    world.clear_requests();
    (lists, all - lists)
}

#[test]
#[expect(clippy::print_stdout, reason = "prints the measurements when CUSTOMERS is set")]
fn sweep_of_each_imprecise_list_is_complete_within_its_request_limit() {
    let measured = std::env::var("CUSTOMERS").ok();
    let is_measured = measured.is_some();
    let customers: u32 = measured.map_or(245, |text| text.parse().unwrap());
    let mut exact = 0;
    for Case { name, readings, sweeps, most_percent } in cases() {
        let readings: Readings = serde_json::from_value(readings).unwrap();
        let harness = Installation::reading(PROGRAM, customers, readings.clone());
        // A hundred customers with the same `created_at`.
        for n in 0..100 {
            harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
        }
        for _ in 0..sweeps {
            let report = harness.sweep();
            assert_eq!(report.outcome, PassOutcome::Complete, "{name}: {}", report.sentence());
        }
        // Every customer that the list can show is mirrored.
        let truth = harness.sandbox.world().truth();
        let mirror = harness.mirror();
        assert!(mirror.iter().all(|(id, body)| truth.get(id) == Some(body)), "{name}");
        let hides = truth.len() - mirror.len();
        let is_hiding = readings.filtered_every.is_some() || name.contains("in place of another");
        assert!(hides == 0 || is_hiding, "{name}: {hides} of {} are not mirrored", truth.len());

        let gone = mirror.keys().nth(mirror.len() / 2).unwrap().clone();
        assert!(harness.sandbox.world().delete(&gone));
        for _ in 0..sweeps {
            let report = harness.sweep();
            assert_eq!(report.outcome, PassOutcome::Complete, "{name}: {}", report.sentence());
        }
        assert_eq!(harness.column("SELECT id FROM deleted_customers"), [gone], "{name}");

        // After two sweeps without a new customer, further rounds are read rarely.
        harness.sweep();
        harness.sweep();
        requests(&harness);
        let (before, mut lists, mut shows) = (harness.head(), 0, 0);
        for _ in 0..SWEEPS {
            let report = harness.sweep();
            assert_eq!(report.outcome, PassOutcome::Complete, "{name}: {}", report.sentence());
            // Counted after each sweep: the sandbox keeps a bounded number of requests.
            let made = requests(&harness);
            (lists, shows) = (lists + made.0, shows + made.1);
        }
        assert_eq!(harness.head(), before, "{name}: nothing has changed");
        exact = if name == "exact" { lists } else { exact };
        let unlisted: u64 = harness.one("SELECT count(*) FROM customers").parse().unwrap();
        if is_measured {
            let percent = lists * 100 / exact;
            println!("{name}: {lists} list requests in {SWEEPS} sweeps ({percent} %), {shows} single ones");
        }
        // Each round may read three pages past the end.
        let past_end = 3 * SWEEPS * most_percent;
        assert!(
            lists * 100 <= exact * most_percent + past_end,
            "{name}: {lists} list requests, {exact} of an exact list"
        );
        assert!(shows <= SWEEPS * unlisted / 3, "{name}: {shows} single requests");
    }
}

#[test]
fn envelope_with_the_largest_numbers_costs_at_most_three_extra_pages() {
    for fields in [json!({"total": u64::MAX, "last_page": u64::MAX}), json!({"last_page": u64::MAX})] {
        let harness = Installation::with(PROGRAM, 57);
        harness.on_lists(FaultEffect::Envelope { fields: fields.as_object().unwrap().clone() });
        for _ in 0..2 {
            requests(&harness);
            let report = harness.sweep();
            assert_eq!(report.outcome, PassOutcome::Complete, "{fields}: {}", report.sentence());
            let (lists, _) = requests(&harness);
            assert!(lists <= 6 + 3, "{fields}: {lists} requests for six pages");
        }
        harness.assert_true();
    }
}

/// Promises: exit code 1
#[test]
fn sweep_of_a_list_that_grows_faster_than_it_is_read_is_partial() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let drift = Drift { insert: 25, ..Drift::default() };
    let grows = harness.on_lists(FaultEffect::Drift(drift));
    let ran = harness.expect(1, &["sync"]);
    assert!(ran.stderr.contains("was not read to its end"), "{}", ran.stderr);
    let status = harness.run(&["status"]);
    assert!(status.stdout.contains("partial: the list was not read to its end"), "{}", status.stdout);
    assert_eq!(harness.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1"), "partial");
    assert!(harness.fired(grows) < 40, "{} pages were read", harness.fired(grows));
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn unlisted_customer_that_answered_is_not_requested_in_the_next_two_sweeps() {
    let harness = Installation::with(PROGRAM, 30);
    harness.sweep();
    let id = harness.sandbox.world().ids()[2].clone();
    harness.on_lists(FaultEffect::Hide { ids: vec![id], every: None });
    let singles = [(); 4].map(|()| {
        requests(&harness);
        let report = harness.sweep();
        assert_eq!(report.outcome, PassOutcome::Complete, "{}", report.sentence());
        requests(&harness).1
    });
    assert_eq!(singles, [1, 0, 0, 1]);
    harness.assert_true();
}

#[test]
fn sweep_of_a_list_without_hints_reads_past_the_end_only_until_every_live_customer_is_listed() {
    let readings = json!({"total": "missing", "last_page": "missing", "past_end": "empty"});
    let harness = Installation::reading(PROGRAM, 57, serde_json::from_value(readings).unwrap());
    // After these sweeps the list is read in one round.
    for _ in 0..4 {
        harness.sweep();
    }
    requests(&harness);
    harness.sweep();
    assert_eq!(requests(&harness).0, 6 + 1, "every live customer was listed");
    let id = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().delete(&id);
    harness.sweep();
    assert_eq!(requests(&harness).0, 6 + 3, "a live customer was not listed");
    harness.assert_true();
}
