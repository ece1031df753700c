//! A sweep that was cut off goes on where it was, and what is sent stays within the limit however often it starts anew.

use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::house::House;

fn lists(house: &House) -> Vec<u64> {
    house.sandbox.world().requests().iter().filter_map(|seen| seen.page).collect()
}

#[test]
fn an_interrupted_import_goes_on_after_its_last_page_and_is_read_anew() {
    let house = House::with(300);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::List).page(16));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    // The pages before it are applied when the next requests are under way, at the latest.
    let applied = (0..20_000).any(|_| house.one("SELECT pages FROM passes") == "15");
    assert!(applied, "the pages before it are never said to be applied");
    sync.kill().unwrap();
    sync.wait().unwrap();
    assert_eq!(house.one("SELECT count(*) FROM customers"), "150");
    house.assert_proven();

    house.sandbox.world().clear_faults();
    house.sandbox.world().clear_requests();
    let gone = house.sandbox.world().ids()[3].clone();
    house.sandbox.world().delete(&gone);
    house.expect(0, &["sync"]);
    let asked = lists(&house);
    assert_eq!(
        asked.iter().position(|page| *page == 1),
        Some(15),
        "the rest first, then everything: {asked:?}"
    );
    assert_eq!(asked[0], 16);
    let rows =
        "SELECT outcome || ' ' || resumed || ' ' || pages || ' ' || customers_seen FROM passes ORDER BY id";
    assert_eq!(house.column(rows), ["interrupted 1 30 299", "complete 0 30 299"]);
    assert_eq!(
        house.one("SELECT id FROM deleted_customers"),
        gone,
        "the fresh sweep has evidence of absence"
    );
    house.assert_true();
}

#[test]
fn a_stop_is_gone_on_from_too_and_another_page_size_does_not_matter() {
    let house = House::with(300);
    let held = house.inject(Fault::new(Effect::Hold).call(Call::List).page(11));
    let mut daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(held) > 0));
    let stop = std::process::Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
    assert!(stop.unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    house.sandbox.world().clear_faults();
    house.sandbox.world().clear_requests();
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(house.path("config.toml"), text.replace("per_page = 10", "per_page = 50")).unwrap();
    house.expect(0, &["sync"]);
    assert!(lists(&house)[0] > 1, "{:?}", lists(&house));
    assert_eq!(house.column("SELECT outcome FROM passes ORDER BY id"), ["interrupted", "complete"]);
    house.assert_true();
}

#[test]
fn kills_at_random_moments_lose_the_pages_in_flight_at_most() {
    let house = House::with(600);
    let mut dice = StdRng::seed_from_u64(11);
    let mut kills = 0;
    while kills == 0 || house.one("SELECT count(*) FROM customers") != "600" {
        let until = house.sandbox.world().request_count() + dice.random_range(1..40);
        let mut sync = house.spawn(&["sync"]);
        house.runtime.block_on(async {
            // It may be over before so many requests are made.
            let asked = house.sandbox.until(|world| world.request_count() >= until);
            let _ = tokio::time::timeout(Duration::from_secs(2), asked).await;
        });
        sync.kill().unwrap();
        sync.wait().unwrap();
        kills += 1;
        let customers: u64 = house.one("SELECT count(*) FROM customers").parse().unwrap();
        let furthest = lists(&house).into_iter().max().unwrap_or(0);
        // Four in flight and those that wait for the database: nothing else is lost.
        assert!(customers + 10 * 8 >= 10 * furthest, "{customers} customers after {furthest} pages");
        house.assert_proven();
        let id = house.sandbox.world().ids()[kills].clone();
        house.sandbox.world().update(&id, serde_json::json!({"email": null}));
        assert!(kills < 60, "it never ends");
    }
    assert!(kills >= 3, "only {kills} kills");
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn twenty_restarts_keep_the_limit() {
    let (per_second, burst) = (50.0, 10.0);
    let house = House::with(3000);
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    let limited = "requests_per_second = 50\nburst = 10";
    std::fs::write(house.path("config.toml"), text.replace("requests_per_second = 0", limited)).unwrap();
    for restart in 1..=20 {
        let mut sync = house.spawn(&["sync"]);
        house.runtime.block_on(house.sandbox.until(|world| world.request_count() >= restart * 8));
        sync.kill().unwrap();
        sync.wait().unwrap();
    }
    let at: Vec<i64> = house.sandbox.world().requests().iter().map(|seen| seen.at.as_millisecond()).collect();
    assert!(at.len() >= 160);
    for first in 0..at.len() {
        for last in first..at.len() {
            let seconds = (at[last] - at[first]) as f64 / 1000.0;
            let sent = (last - first + 1) as f64;
            // Two more for what was admitted late and arrived together.
            assert!(sent <= burst + per_second * seconds + 2.0, "{sent} requests within {seconds} s");
        }
    }
}

#[test]
fn a_failed_sweep_is_made_again_long_before_the_next_tick() {
    let house = House::with(12).inbound("sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"");
    // Rejected, so that it is not tried again within the pass.
    let fault = house.inject(Fault::new(Effect::status(422)).call(Call::List).once());
    let mut daemon = house.spawn(&["run"]);
    house.runtime.block_on(house.sandbox.until(|world| world.request_count() >= 3));
    let complete = "SELECT count(*) FROM passes WHERE outcome = 'complete'";
    assert!((0..20_000).any(|_| house.one(complete) == "1"), "it is never complete");
    assert_eq!(house.fired(fault), 1);
    let stop = std::process::Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
    assert!(stop.unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(house.one("SELECT outcome FROM passes ORDER BY id LIMIT 1"), "failed");
    assert_eq!(house.one("SELECT count(*) FROM customers"), "12");
}
