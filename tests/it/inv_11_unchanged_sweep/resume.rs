//! After a crash a sweep resumes from the pages that are done, and a fresh one follows.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, signal};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::PROGRAM;

#[test]
fn a_killed_sync_is_called_interrupted_and_the_next_one_is_true() {
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
fn an_interrupted_import_goes_on_after_its_last_page_and_is_read_anew() {
    let harness = Installation::with(PROGRAM, 300);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(16));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    // The pages before it are applied when the next requests are under way, at the latest.
    let applied = (0..20_000).any(|_| harness.one("SELECT pages FROM passes") == "15");
    assert!(applied, "the pages before it are never said to be applied");
    sync.kill().unwrap();
    sync.wait().unwrap();
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "150");
    harness.assert_proven();

    harness.sandbox.world().clear_faults();
    harness.sandbox.world().clear_requests();
    let gone = harness.sandbox.world().ids()[3].clone();
    harness.sandbox.world().delete(&gone);
    harness.expect(0, &["sync"]);
    let asked = lists(&harness);
    assert_eq!(
        asked.iter().position(|page| *page == 1),
        Some(15),
        "the rest first, then everything: {asked:?}"
    );
    assert_eq!(asked[0], 16);
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
fn a_stop_is_gone_on_from_too_and_another_page_size_does_not_matter() {
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
fn kills_at_random_moments_lose_the_pages_in_flight_at_most() {
    let harness = Installation::with(PROGRAM, 600);
    let mut dice = StdRng::seed_from_u64(11);
    let mut kills = 0;
    while kills == 0 || harness.one("SELECT count(*) FROM customers") != "600" {
        let until = harness.sandbox.world().request_count() + dice.random_range(1..40);
        let mut sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(async {
            // It may be over before so many requests are made.
            let asked = harness.sandbox.until(|world| world.request_count() >= until);
            let _ = tokio::time::timeout(Duration::from_secs(2), asked).await;
        });
        sync.kill().unwrap();
        sync.wait().unwrap();
        kills += 1;
        let customers: u64 = harness.one("SELECT count(*) FROM customers").parse().unwrap();
        let furthest = lists(&harness).into_iter().max().unwrap_or(0);
        // Four in flight and those that wait for the database: nothing else is lost.
        assert!(customers + 10 * 8 >= 10 * furthest, "{customers} customers after {furthest} pages");
        harness.assert_proven();
        let id = harness.sandbox.world().ids()[kills].clone();
        harness.sandbox.world().update(&id, serde_json::json!({"email": null}));
        assert!(kills < 60, "it never ends");
    }
    assert!(kills >= 3, "only {kills} kills");
    harness.expect(0, &["sync"]);
    harness.assert_true();
}
