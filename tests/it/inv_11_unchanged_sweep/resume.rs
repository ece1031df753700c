//! After a crash a sweep resumes from the pages that are done, and a fresh sweep follows.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, signal};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::PROGRAM;

#[test]
fn killed_sync_is_interrupted_and_the_next_one_is_complete() {
    let harness = Installation::with(PROGRAM, 57);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(4));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    sync.kill().unwrap();
    sync.wait().unwrap();
    harness.assert_proven();
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    assert_eq!(harness.column("SELECT outcome FROM passes ORDER BY id"), ["interrupted", "complete"]);
    harness.assert_true();
}

fn lists(harness: &Installation) -> Vec<u64> {
    harness.sandbox.world().requests().iter().filter_map(|seen| seen.page).collect()
}

#[test]
fn interrupted_import_resumes_and_a_fresh_sweep_follows() {
    let harness = Installation::with(PROGRAM, 300);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(16));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    // The earlier pages are applied at the latest when the next requests are in flight.
    let applied = (0..20_000).any(|_| harness.one("SELECT pages FROM passes") == "15");
    assert!(applied, "the earlier pages are never recorded as applied");
    sync.kill().unwrap();
    sync.wait().unwrap();
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "150");
    harness.assert_proven();

    harness.sandbox.world().clear_faults();
    harness.sandbox.world().clear_requests();
    let gone = harness.sandbox.world().ids()[3].clone();
    harness.sandbox.world().delete(&gone);
    harness.expect(0, &["sync"]);
    let pages = lists(&harness);
    assert_eq!(
        pages.iter().position(|page| *page == 1),
        Some(15),
        "the resumed sweep reads the rest, then a fresh one reads all: {pages:?}"
    );
    assert_eq!(pages[0], 16);
    let rows =
        "SELECT outcome || ' ' || resumed || ' ' || pages || ' ' || customers_seen FROM passes ORDER BY id";
    assert_eq!(harness.column(rows), ["interrupted 1 30 299", "complete 0 30 299"]);
    assert_eq!(
        harness.one("SELECT id FROM deleted_customers"),
        gone,
        "the fresh sweep has evidence of absence"
    );
    harness.assert_true();
}

#[test]
fn stopped_sweep_resumes_with_another_page_size() {
    let harness = Installation::with(PROGRAM, 300);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(11));
    let mut daemon = harness.spawn(&["run"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    signal("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    harness.sandbox.world().clear_faults();
    harness.sandbox.world().clear_requests();
    let text = std::fs::read_to_string(harness.path("config.toml")).unwrap();
    std::fs::write(harness.path("config.toml"), text.replace("per_page = 10", "per_page = 50")).unwrap();
    harness.expect(0, &["sync"]);
    assert!(lists(&harness)[0] > 1, "{:?}", lists(&harness));
    assert_eq!(harness.column("SELECT outcome FROM passes ORDER BY id"), ["interrupted", "complete"]);
    harness.assert_true();
}

#[test]
fn kills_at_random_moments_lose_only_the_pages_in_flight() {
    let harness = Installation::with(PROGRAM, 600);
    let mut dice = StdRng::seed_from_u64(11);
    let mut kills = 0;
    while kills == 0 || harness.one("SELECT count(*) FROM customers") != "600" {
        let until = harness.sandbox.world().request_count() + dice.random_range(1..40);
        let mut sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(async {
            // The sync may end before it has sent this many requests.
            let requested = harness.sandbox.until(|world| world.request_count() >= until);
            let _ = tokio::time::timeout(Duration::from_secs(2), requested).await;
        });
        sync.kill().unwrap();
        sync.wait().unwrap();
        kills += 1;
        let customers: u64 = harness.one("SELECT count(*) FROM customers").parse().unwrap();
        let furthest = lists(&harness).into_iter().max().unwrap_or(0);
        // At most four pages in flight and those that wait for the database are lost.
        assert!(customers + 10 * 8 >= 10 * furthest, "{customers} customers after {furthest} pages");
        harness.assert_proven();
        let id = harness.sandbox.world().ids()[kills].clone();
        harness.sandbox.world().update(&id, serde_json::json!({"email": null}));
        assert!(kills < 60, "the import is never complete");
    }
    assert!(kills >= 3, "only {kills} kills");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn killed_unchanged_sweep_resumes_after_the_page_whose_position_was_written() {
    let harness = Installation::swept(PROGRAM, 60);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(4));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    sync.kill().unwrap();
    sync.wait().unwrap();
    harness.sandbox.world().clear_faults();
    harness.sandbox.world().clear_requests();
    harness.expect(0, &["sync"]);
    // The first page is applied before the next ones are requested, and its position is written.
    assert!(lists(&harness)[0] > 1, "{:?}", lists(&harness));
}
