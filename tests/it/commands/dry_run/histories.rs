//! After any history, a dry run plans what the next sweep records and holds: in the same order,
//! with the same requests.
//!
//! `DRY_RUNS=1000 cargo test --test it -- dry_run::histories` runs more histories.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use komoju_core::Tally;
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::writes::Write;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, OldKey, Payload, Readings, Repeated};
use komoju_sync::tasks::pull::{PlannedEffect, PlannedWrite, Report};
use komoju_testkit::InProcess;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// PASSES is the number of passes that each history compares.
const PASSES: usize = 10;

/// Returns `kind origin customer body` of each planned change, and `reason customer` of each
/// planned hold.
fn planned(writes: &[PlannedWrite]) -> (Vec<String>, BTreeSet<String>) {
    let (mut changes, mut held) = (Vec::new(), BTreeSet::new());
    for (origin, write) in writes {
        match write {
            PlannedEffect::Change(Write::Record { kind, customer, .. }) => {
                changes.push(format!("{kind} {origin} {} {}", customer.id(), customer.body()));
            }
            PlannedEffect::Change(Write::Delete { id, .. }) => {
                changes.push(format!("deleted {origin} {id} "));
            }
            PlannedEffect::Hold(id, reason) => {
                held.insert(format!("{} {id}", reason.word()));
            }
            PlannedEffect::Change(other) => panic!("a dry run must not show {other}"),
        }
    }
    (changes, held)
}

fn recorded(harness: &InProcess, head: i64, hold: i64) -> (Vec<String>, BTreeSet<String>) {
    let changes = harness.column(&format!(
        "SELECT kind || ' ' || origin || ' ' || customer_id || ' ' || coalesce(after, '') FROM changes
         WHERE seq > {head} ORDER BY seq"
    ));
    let held = harness.column(&format!(
        "SELECT because || ' ' || customer_id FROM held_customer JOIN hold ON hold.id = hold_id WHERE hold_id > {hold}"
    ));
    (changes, held.into_iter().collect())
}

/// Returns the requests since the last call: each list page once, each lookup as often as it was
/// sent.
fn requests(harness: &InProcess) -> (BTreeSet<String>, Vec<String>) {
    let mut world = harness.sandbox.world();
    let (mut pages, mut lookups) = (BTreeSet::new(), Vec::new());
    for seen in world.requests() {
        let text = format!("{} {}?{}", seen.method, seen.path, seen.query);
        match seen.path.ends_with("/customers") {
            true => drop(pages.insert(text)),
            false => lookups.push(text),
        }
    }
    world.clear_requests();
    lookups.sort();
    (pages, lookups)
}

fn files(harness: &InProcess) -> Vec<Vec<u8>> {
    ["komoju.db", "komoju.db-wal"]
        .map(|name| std::fs::read(harness.directory.path().join(name)).unwrap())
        .into()
}

/// Runs a dry run, then a sweep, and asserts that both agree.
async fn compare(harness: &mut InProcess, case: &str) {
    requests(harness);
    let before = files(harness);
    let (dry, writes) = harness.dry_sweep().await;
    assert!(files(harness) == before, "{case}: the dry run wrote to the database");
    let (dry_pages, dry_lookups) = requests(harness);
    // The canary of an approved deletion may be any live customer, also a new one, so the lookups
    // may differ.
    let are_canaries_known =
        harness.column("SELECT 1 FROM held_customer WHERE state = 'approved'").is_empty();
    let (head, hold) =
        (harness.head(), harness.one("SELECT coalesce(max(id), 0) FROM hold").parse().unwrap());
    let real = harness.sweep().await;
    assert_eq!(planned(&writes), recorded(harness, head, hold), "{case}");
    let (pages, lookups) = requests(harness);
    assert_eq!(dry_pages, pages, "{case}");
    if are_canaries_known {
        assert_eq!(dry_lookups, lookups, "{case}");
    }
    let facts = |report: &Report| {
        let tally = Tally { requests: 0, ..report.tally };
        (report.outcome, tally, report.held, report.new_unreadable, report.ignores_page)
    };
    assert_eq!(facts(&dry), facts(&real), "{case}");
}

fn edit(harness: &InProcess, dice: &mut StdRng) {
    let mut world = harness.sandbox.world();
    let ids = world.ids();
    let many = dice.random_bool(0.1);
    for _ in 0..dice.random_range(0..if many { 25 } else { 6 }) {
        let email = json!({"email": format!("{}@example.jp", dice.random::<u32>())});
        let some = ids.choose(dice).cloned().unwrap_or_default();
        match if many { 2 } else { dice.random_range(0..6) } {
            0 => drop(world.create(email)),
            1 => drop(world.update(&some, email)),
            2 => drop(world.delete(&some)),
            3 => drop(world.restore(&some)),
            4 => drop(world.update(&some, json!({"metadata": {"k": dice.random::<u8>().to_string()}}))),
            _ => {
                world.put_raw(json!({"id": format!("bad{}", dice.random_range(0..3)), "resource": "payment"}))
            }
        }
    }
}

#[test]
fn dry_run_plans_what_the_next_sweep_records() {
    let histories = std::env::var("DRY_RUNS").map_or(12, |count| count.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for seed in 0..histories {
            history(seed).await;
        }
    });
}

async fn history(seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let random = Readings::random_list(&mut dice, 0);
    // Values drawn at each request would differ between the two passes.
    let calm = Readings::default();
    let is_drawn = format!("{:?}", random.total).starts_with("Random");
    let total = if is_drawn { calm.total } else { random.total };
    let readings = Readings {
        repeated: Repeated::Never,
        ties: calm.ties,
        list_lag_s: 0,
        show_lag_s: 0,
        total,
        ..random
    };
    let mut harness = InProcess::reading(dice.random_range(0..60), readings.clone()).await;
    harness.settings.consistency = Consistency::seconds(*[0, 60].choose(&mut dice).unwrap());
    for pass in 0..PASSES {
        edit(&harness, &mut dice);
        if dice.random_bool(0.2) {
            let state = ["approved", "rejected"].choose(&mut dice).unwrap();
            harness.sql(&format!("UPDATE held_customer SET state = '{state}' WHERE state = 'held'"));
        }
        harness.advance(SignedDuration::from_secs(dice.random_range(0..200)));
        compare(&mut harness, &format!("seed {seed}, pass {pass}, {readings:?}")).await;
    }
}

/// The list shows a new, a changed and an unchanged customer more than once, with different
/// content.
#[tokio::test(flavor = "multi_thread")]
async fn customer_that_a_list_repeats_is_planned_as_it_is_recorded() {
    for consistency in [0, 60] {
        let mut harness = InProcess::open(3).await;
        harness.settings.consistency = Consistency::seconds(consistency);
        harness.advance(SignedDuration::from_secs(600));
        let known: Vec<_> = harness.sandbox.world().truth().into_values().collect();
        let with = |n: usize, email: &str| {
            let mut customer = known[n].clone();
            customer["email"] = json!(email);
            customer
        };
        let created = |email: &str| json!({"id": "new", "resource": "customer", "email": email});
        let data = [
            created("a"),
            created("b"),
            created("a"),
            with(0, "x"),
            with(0, "y"),
            with(0, "x"),
            known[1].clone(),
            with(1, "z"),
            known[2].clone(),
        ];
        let body = json!({"resource": "customer_list", "total": 4, "page": 1, "per_page": 100, "last_page": 1, "data": data});
        harness.inject(Fault::new(FaultEffect::Body { body: Payload::Json(body) }).call(FaultedCall::List));
        compare(&mut harness, &format!("consistency {consistency}")).await;
    }
}

/// Returns an account with a hold of this many customers, and their ids.
async fn with_a_hold(customers: u32, held: usize) -> (InProcess, Vec<String>) {
    let mut harness = InProcess::open(customers).await;
    harness.advance(SignedDuration::from_secs(600));
    let gone = harness.sandbox.world().ids()[..held].to_vec();
    gone.iter().for_each(|id| assert!(harness.sandbox.world().delete(id)));
    assert_eq!(harness.sweep().await.held, held as u64);
    (harness, gone)
}

/// Schedules a recheck of a customer, as a read that was left out does.
fn schedule_recheck(harness: &InProcess, id: &str) {
    let due = "2026-06-01T00:00:00.000Z";
    harness.sql(&format!("INSERT INTO recheck (customer_id, due_at) VALUES ('{id}', '{due}')"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_does_not_count_a_held_customer_that_is_listed_again() {
    let (mut harness, gone) = with_a_hold(40, 15).await;
    gone[..5].iter().for_each(|id| assert!(harness.sandbox.world().restore(id)));
    compare(&mut harness, "five are listed again").await;
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_holds_a_customer_again_that_left_its_hold_and_is_gone() {
    let (harness, held) = with_a_hold(60, 11).await;
    // The recheck finds the customer, which leaves its hold. It is gone when the sweep requests it.
    let again = &held[0];
    harness.sandbox.world().restore(again);
    schedule_recheck(&harness, again);
    harness.inject(
        Fault::new(FaultEffect::Hide { ids: vec![again.clone()], every: None }).call(FaultedCall::List),
    );
    let body = Payload::Code("not_found".into());
    let (headers, work) = Default::default();
    let gone = FaultEffect::Status { status: 404, body, retry_after: None, headers, work };
    let mut gone = Fault::new(gone).call(FaultedCall::Show).skip(1);
    gone.on.path = Some(format!("/customers/{again}"));
    harness.inject(gone);
    // With ten more, the limit of ten is exceeded.
    let more = harness.sandbox.world().ids().into_iter().filter(|id| id != again).take(10);
    let expected: Vec<String> = more.chain([again.clone()]).collect();
    expected[..10].iter().for_each(|id| assert!(harness.sandbox.world().delete(id)));
    let (report, writes) = harness.dry_sweep().await;
    let expected = expected.iter().map(|id| format!("too_many {id}")).collect();
    assert_eq!(planned(&writes), (Vec::new(), expected), "{}", report.sentence());
    assert_eq!(report.held, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_with_a_new_key_checks_it_once() {
    let mut harness = InProcess::open(20).await;
    harness.advance(SignedDuration::from_secs(600));
    // The recheck checks the key first.
    schedule_recheck(&harness, &harness.some_id());
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.key = "sk_test_new".to_owned();
    compare(&mut harness, "a new key").await;
}
