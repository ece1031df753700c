//! Events that are lost, repeated, shuffled, late, for unknown ids or with wrong data: the next
//! sweep makes the mirror equal the API, and without events the log would say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;

use komoju_sandbox::readings::{EventAnswers, EventData, Ties};
use komoju_sandbox::{EventIds, Readings};
use komoju_sync::store::log::recall;
use komoju_testkit::InProcess;
use komoju_testkit::daemon::exchange;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::seconds;

const CUSTOMERS: u32 = 120;

/// Events as the issue describes them at their worst.
fn unreliable(event_data: EventData, event_lag_ms: u64) -> Readings {
    Readings {
        event_loss_percent: 10,
        event_duplicate_percent: 20,
        event_disorder_s: 400,
        event_ties: Ties::Unstable,
        event_other_percent: 30,
        event_data,
        event_lag_ms,
        ..Readings::default()
    }
}

/// Changes some customers: each at most once, and fewer are deleted than a sweep may record.
/// `with_cards`: the card of one is removed, which only a sweep may record.
fn change_some(harness: &InProcess, dice: &mut StdRng, with_cards: bool) {
    let mut world = harness.sandbox.world();
    let ids = world.ids();
    let chosen: BTreeSet<&String> = ids.choose_multiple(dice, 9).collect();
    for (n, id) in chosen.into_iter().enumerate() {
        match n {
            0 | 1 => assert!(world.delete(id)),
            2 if with_cards => assert!(world.update(id, json!({"source": null}))),
            _ => assert!(world.update(id, json!({"email": format!("{}@example.com", dice.random::<u32>())}))),
        }
    }
    for _ in 0..3 {
        world.create(json!({"email": format!("{}@example.com", dice.random::<u32>())}));
    }
}

/// Returns the customers of the changes after `seq` with kind and state, sorted.
fn log_after(harness: &InProcess, seq: i64) -> Vec<String> {
    let mut log = harness.column(&format!(
        "SELECT customer_id || ' ' || kind || ' ' || coalesce(before, '') || ' ' || coalesce(after, '') FROM changes WHERE seq > {seq}"
    ));
    log.sort();
    log
}

#[tokio::test]
async fn log_and_mirror_are_those_of_a_run_without_events() {
    for seed in 0..6 {
        let readings = Readings { seed, ..unreliable(EventData::Customer, 0) };
        let mut with = InProcess::reading(CUSTOMERS, readings.clone()).await;
        let mut without = InProcess::reading(CUSTOMERS, readings).await;
        with.read_events().await;
        let (mut dice, mut same_dice) = (StdRng::seed_from_u64(seed), StdRng::seed_from_u64(seed));
        let mut other_dice = StdRng::seed_from_u64(!seed);
        for round in 0..5 {
            let (head, head_without) = (with.head(), without.head());
            for (harness, dice) in [(&with, &mut dice), (&without, &mut same_dice)] {
                harness.advance(seconds(200));
                change_some(harness, dice, true);
            }
            // Events about customers that did not change, and about none.
            let ids = with.sandbox.world().ids();
            for n in 0..other_dice.random_range(0..20) {
                let id = if n % 2 == 0 { ids.choose(&mut other_dice).unwrap() } else { "unknown" };
                let kind = ["customer.created", "customer.deleted", "customer.updated"][n % 3];
                with.sandbox
                    .world()
                    .emit(kind, &format!("{id}{}", if n % 2 == 0 { String::new() } else { n.to_string() }));
            }
            for _ in 0..other_dice.random_range(0..4) {
                with.read_events().await;
                with.read_hinted().await;
            }
            with.sweep().await;
            without.sweep().await;
            assert_eq!(with.sandbox.world().truth(), without.sandbox.world().truth(), "the runs differ");
            assert_eq!(
                log_after(&with, head),
                log_after(&without, head_without),
                "seed {seed}, round {round}"
            );
            with.assert_true();
            without.assert_true();
        }
        let by_event = with.one("SELECT count(*) FROM changes WHERE origin = 'event'");
        assert_ne!(by_event, "0", "seed {seed}: no event was followed");
    }
}

#[tokio::test]
async fn next_sweep_is_true_whatever_events_say_and_recall_is_counted_correctly() {
    let twenty_minutes = 20 * 60 * 1000;
    for (data, lag) in [
        (EventData::Customer, 0),
        (EventData::Id, 0),
        (EventData::Wrong, 0),
        (EventData::Empty, 0),
        (EventData::Customer, twenty_minutes),
    ] {
        let mut harness = InProcess::reading(CUSTOMERS, unreliable(data, lag)).await;
        harness.read_events().await;
        let mut dice = StdRng::seed_from_u64(7);
        let follow = async |harness: &InProcess| {
            for _ in 0..3 {
                harness.advance(seconds(10));
                harness.read_events().await;
                harness.read_hinted().await;
            }
        };
        for round in 0..18 {
            harness.advance(seconds(150));
            change_some(&harness, &mut dice, false);
            harness.sandbox.world().flood(3, EventIds::Unknown, &mut dice);
            // The list cannot be read for a while, again and again.
            let answers =
                [EventAnswers::Json404, EventAnswers::Json500, EventAnswers::Html200, EventAnswers::Events];
            harness.sandbox.world().readings_mut().event_answers = answers[round % 4];
            follow(&harness).await;
            harness.sandbox.world().readings_mut().event_answers = EventAnswers::Events;
            follow(&harness).await;
            if round % 3 == 2 {
                let report = harness.sweep().await;
                assert!(report.failure.is_none(), "{}", report.sentence());
                harness.assert_true();
            }
        }
        // The last events appear.
        harness.advance(seconds(20 * 60));
        for _ in 0..5 {
            follow(&harness).await;
        }
        harness.sweep().await;
        harness.assert_true();

        let counted = harness
            .store()
            .read(move |conn| recall::read(conn, komoju_testkit::START.parse().unwrap()))
            .await
            .unwrap()
            .unwrap();
        let changes: u64 =
            harness.one(&format!("SELECT count(*) FROM changes WHERE seq > {CUSTOMERS}")).parse().unwrap();
        assert_eq!(counted.changes, changes, "{data:?}");
        if data == EventData::Wrong {
            // An event that names another customer reports nothing.
            assert!(counted.reported < counted.changes);
            continue;
        }
        let expected = reported(&harness).await;
        let is_close = counted.reported.abs_diff(expected) * 100 <= expected;
        assert!(
            is_close,
            "{data:?}, lag {lag}: {} reported, {expected} expected of {changes}",
            counted.reported
        );
        if data == EventData::Customer {
            assert!(expected < changes && expected * 10 > changes * 8, "{expected} of {changes}");
        }
    }
}

/// Returns how many changes of the log have an event in the list of the local KOMOJU, which keeps
/// all but the lost ones: as many events of a customer as it has changes, at most.
async fn reported(harness: &InProcess) -> u64 {
    let address = harness.sandbox.address();
    // The local KOMOJU answers on this thread.
    let answer = tokio::task::spawn_blocking(move || {
        let stream = TcpStream::connect(address).unwrap();
        exchange(stream, "GET /_sandbox/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    });
    let answer = answer.await.unwrap();
    let events: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let mut seen = BTreeSet::new();
    let named = events.iter().filter(|event| event["type"].as_str().unwrap().starts_with("customer."));
    let named: Vec<(&str, &str)> = named
        .filter(|event| seen.insert(event["id"].as_str().unwrap()))
        .filter_map(|event| Some((event["data"]["id"].as_str()?, event["created_at"].as_str()?)))
        .collect();
    // Each change is observed before the next one of its customer.
    let changes = harness.column(&format!(
        "SELECT customer_id || ' ' || observed_at FROM changes WHERE seq > {CUSTOMERS} ORDER BY seq"
    ));
    let mut latest = BTreeMap::new();
    let mut count = 0;
    for change in &changes {
        let (id, at) = change.split_once(' ').unwrap();
        let at = format!("{}Z", &at[..19]);
        let from = latest.insert(id.to_owned(), at.clone()).unwrap_or_default();
        let is_reported = named
            .iter()
            .any(|(customer, event_at)| *customer == id && **event_at > *from && **event_at <= *at);
        count += u64::from(is_reported);
    }
    count
}
