//! Tests the list of events under each reading, and the events that a test emits.

use std::collections::BTreeSet;
use std::time::Duration;

use komoju_sandbox::readings::{Edge, EventAnswers, EventData, EventTime, Readings, Ties};
use komoju_sandbox::{EventIds, Sandbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::client::{Ask, get, sandbox, sandbox_with};

/// Starts a sandbox without customers under these readings.
async fn empty(readings: Readings) -> Sandbox {
    sandbox_with(0, readings).await
}

/// Requests the first hundred events.
async fn events(sandbox: &Sandbox, query: &str) -> Vec<Value> {
    let reply = get(sandbox, &format!("/events?per_page=100&{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["data"].as_array().unwrap().clone()
}

/// Returns one field of each event.
fn field(events: &[Value], name: &str) -> Vec<String> {
    events.iter().map(|event| event[name].as_str().unwrap().to_owned()).collect()
}

/// Returns the customers of events.
fn customers(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["data"]["id"].as_str().unwrap().to_owned()).collect()
}

fn create(sandbox: &Sandbox) -> String {
    sandbox.world().create(json!({"email": "a@example.jp"}))
}

fn advance(sandbox: &Sandbox, milliseconds: u64) {
    sandbox.world().advance(Duration::from_millis(milliseconds));
}

#[tokio::test]
async fn event_appears_after_its_lag_with_either_time() {
    for (event_time, seconds, place) in [(EventTime::Change, "00", 1), (EventTime::Appearance, "02", 0)] {
        let sandbox = empty(Readings { event_lag_ms: 2500, event_time, ..Readings::default() }).await;
        let late = create(&sandbox);
        advance(&sandbox, 1000);
        sandbox.world().readings_mut().event_lag_ms = 0;
        let early = create(&sandbox);
        assert_eq!(customers(&events(&sandbox, "").await), std::slice::from_ref(&early));
        advance(&sandbox, 1499);
        assert_eq!(events(&sandbox, "").await.len(), 1);
        advance(&sandbox, 1);
        let both = events(&sandbox, "").await;
        assert_eq!(customers(&both)[place], late, "{event_time:?}");
        assert_eq!(both[place]["created_at"], format!("2026-06-01T00:00:{seconds}Z"));
    }
}

#[tokio::test]
async fn event_is_not_shown_by_id_before_it_appears() {
    let sandbox = empty(Readings { event_lag_ms: 1000, ..Readings::default() }).await;
    create(&sandbox);
    let all = Ask::new("GET", "/_sandbox/events").send(&sandbox).await.json();
    let path = format!("/events/{}", all[0]["id"].as_str().unwrap());
    assert_eq!(get(&sandbox, &path).await.status, 404);
    advance(&sandbox, 1000);
    assert_eq!(get(&sandbox, &path).await.json(), all[0]);
}

#[tokio::test]
async fn share_of_events_is_lost() {
    let sandbox = empty(Readings { event_loss_percent: 30, ..Readings::default() }).await;
    (0..100).for_each(|_| drop(create(&sandbox)));
    let shown = events(&sandbox, "").await.len();
    assert!((55..85).contains(&shown), "{shown}");
    assert_eq!(sandbox.world().len(), 100);
}

#[tokio::test]
async fn share_of_events_is_listed_twice_with_one_id() {
    let sandbox = empty(Readings { event_duplicate_percent: 50, ..Readings::default() }).await;
    (0..50).for_each(|_| drop(create(&sandbox)));
    let ids = field(&events(&sandbox, "").await, "id");
    assert!((60..90).contains(&ids.len()), "{}", ids.len());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 50);
}

#[tokio::test]
async fn disorder_moves_events_and_keeps_their_times() {
    let sandbox = empty(Readings { event_disorder_s: 3, ..Readings::default() }).await;
    for _ in 0..50 {
        create(&sandbox);
        advance(&sandbox, 1000);
    }
    let listed = events(&sandbox, "").await;
    let times = field(&listed, "created_at");
    let ordered: BTreeSet<&String> = times.iter().collect();
    assert_eq!(ordered.len(), 50, "each event has the second of its change");
    let positions = ordered.iter().rev().enumerate();
    let distances: Vec<usize> = positions
        .map(|(position, time)| times.iter().position(|other| &other == time).unwrap().abs_diff(position))
        .collect();
    assert!(distances.iter().any(|&distance| distance > 0));
    assert!(distances.iter().all(|&distance| distance <= 6), "{distances:?}");
    assert_eq!(events(&sandbox, "").await, listed, "the order is stable");
}

#[tokio::test]
async fn order_of_equal_times_is_stable_or_not() {
    let sandbox = empty(Readings::default()).await;
    let created: Vec<String> = (0..30).map(|_| create(&sandbox)).collect();
    let newest_first: Vec<String> = created.into_iter().rev().collect();
    assert_eq!(customers(&events(&sandbox, "").await), newest_first);
    sandbox.world().readings_mut().event_ties = Ties::Unstable;
    let (one, other) = (events(&sandbox, "").await, events(&sandbox, "").await);
    assert_ne!(customers(&one), customers(&other));
    let sorted = |events: &[Value]| customers(events).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(&one), sorted(&other));
}

#[tokio::test]
async fn event_expires_after_the_retention() {
    let sandbox = empty(Readings { event_retention_s: Some(60), ..Readings::default() }).await;
    create(&sandbox);
    let path = format!("/events/{}", field(&events(&sandbox, "").await, "id")[0]);
    advance(&sandbox, 60_000);
    assert_eq!(get(&sandbox, &path).await.status, 200);
    advance(&sandbox, 1000);
    assert_eq!(events(&sandbox, "").await, Vec::<Value>::new());
    assert_eq!(get(&sandbox, &path).await.status, 404);
    sandbox.world().readings_mut().event_retention_s = None;
    assert_eq!(events(&sandbox, "").await.len(), 1);
}

#[tokio::test]
async fn data_is_the_customer_or_its_id_or_empty() {
    let sandbox = empty(Readings::default()).await;
    for data in [EventData::Customer, EventData::Id, EventData::Empty] {
        sandbox.world().readings_mut().event_data = data;
        let id = create(&sandbox);
        let expected = match data {
            EventData::Customer => sandbox.world().get(&id).unwrap(),
            EventData::Id => json!({"id": id}),
            _ => json!({}),
        };
        assert_eq!(events(&sandbox, "").await[0]["data"], expected);
    }
}

#[tokio::test]
async fn wrong_data_is_of_this_or_another_customer_and_never_true() {
    let sandbox = sandbox_with(20, Readings { event_data: EventData::Wrong, ..Readings::default() }).await;
    let created: Vec<String> = (0..60).map(|_| create(&sandbox)).collect();
    let listed = events(&sandbox, "").await;
    let (mut same, mut other) = (0, 0);
    for (event, id) in listed.iter().zip(created.iter().rev()) {
        let data = &event["data"];
        assert_ne!(Some(data), sandbox.world().get(id).as_ref());
        if data["id"] == **id { same += 1 } else { other += 1 }
    }
    assert!(same > 20 && other > 5, "{same} {other}");
}

#[tokio::test]
async fn bounds_of_events_are_inclusive_or_exclusive() {
    let sandbox = empty(Readings::default()).await;
    create(&sandbox);
    let query = "start_time=2026-06-01T00:00:00Z&end_time=2026-06-01T00:00:00Z";
    for (event_start_time, event_end_time, count) in [
        (Edge::Inclusive, Edge::Inclusive, 1),
        (Edge::Exclusive, Edge::Inclusive, 0),
        (Edge::Inclusive, Edge::Exclusive, 0),
    ] {
        *sandbox.world().readings_mut() =
            Readings { event_start_time, event_end_time, ..Readings::default() };
        assert_eq!(events(&sandbox, query).await.len(), count);
        assert_eq!(get(&sandbox, &format!("/customers?{query}")).await.json()["total"], 1);
    }
}

#[tokio::test]
async fn events_of_payments_follow_those_of_customers() {
    let sandbox = empty(Readings { event_other_percent: 100, ..Readings::default() }).await;
    let id = create(&sandbox);
    let listed = events(&sandbox, "").await;
    assert!(listed[0]["type"].as_str().unwrap().starts_with("payment."), "{listed:?}");
    assert_eq!(
        (&listed[0]["data"]["resource"], &listed[0]["data"]["customer"]),
        (&json!("payment"), &json!(id))
    );
    assert_eq!(listed[1]["type"], "customer.created");
}

#[tokio::test]
async fn requests_for_events_are_refused_as_the_reading_says() {
    let sandbox = empty(Readings::default()).await;
    for (event_answers, status, code) in [
        (EventAnswers::Json403, 403, Some("forbidden")),
        (EventAnswers::Json404, 404, Some("not_found")),
        (EventAnswers::Json500, 500, Some("internal_server_error")),
        (EventAnswers::Html200, 200, None),
        (EventAnswers::Html403, 403, None),
    ] {
        sandbox.world().readings_mut().event_answers = event_answers;
        for path in ["/events", "/events/x"] {
            let reply = get(&sandbox, path).await;
            assert_eq!(reply.status, status, "{event_answers:?}");
            match code {
                Some(code) => assert_eq!(reply.error().1, code),
                None => assert!(reply.text().starts_with("<!DOCTYPE html>")),
            }
        }
        assert_eq!(get(&sandbox, "/customers").await.status, 200);
    }
}

#[tokio::test]
async fn request_for_events_hangs_until_the_reading_changes() {
    let sandbox = empty(Readings { event_answers: EventAnswers::Hang, ..Readings::default() }).await;
    let change = async {
        sandbox.until(|world| world.request_count() == 1).await;
        assert_eq!(get(&sandbox, "/customers").await.status, 200);
        assert_eq!(sandbox.world().requests()[0].status, None);
        sandbox.world().readings_mut().event_answers = EventAnswers::Events;
    };
    let (reply, ()) = tokio::join!(get(&sandbox, "/events"), change);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn hanging_request_ends_with_the_sandbox() {
    let sandbox = empty(Readings { event_answers: EventAnswers::Hang, ..Readings::default() }).await;
    let refused = Ask::new("GET", "/api/v1/events").send(&sandbox).await;
    assert_eq!(refused.status, 401, "the key is checked first");
    let mut stream = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
    let head =
        b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2tfdGVzdF9zYW5kYm94Og==\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.unwrap();
    sandbox.until(|world| world.request_count() == 2).await;
    sandbox.stop().await;
}

#[tokio::test]
async fn events_are_emitted_for_live_and_unknown_ids_without_a_change() {
    let sandbox = sandbox(5).await;
    let live = sandbox.world().ids();
    let before = sandbox.world().truth();
    let mut rng = StdRng::seed_from_u64(1);
    for (ids, all_live, any_live) in
        [(EventIds::Live, true, true), (EventIds::Unknown, false, false), (EventIds::Mixed, false, true)]
    {
        sandbox.world().flood(40, ids, &mut rng);
        let named = customers(&events(&sandbox, "").await[..40]);
        assert_eq!(named.iter().all(|id| live.contains(id)), all_live, "{ids:?}");
        assert_eq!(named.iter().any(|id| live.contains(id)), any_live, "{ids:?}");
    }
    sandbox.world().emit("customer.deleted", "unknown");
    let newest = events(&sandbox, "").await[0].clone();
    assert_eq!((&newest["type"], &newest["data"]["id"]), (&json!("customer.deleted"), &json!("unknown")));
    assert_eq!(sandbox.world().truth(), before);
}

#[tokio::test]
async fn events_are_emitted_over_http() {
    let sandbox = sandbox(3).await;
    let emit = async |body: Value| {
        let reply = Ask::new("POST", "/_sandbox/events").json(&body).send(&sandbox).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    emit(json!({"id": "x"})).await;
    emit(json!({"flood": 30, "ids": "unknown", "seed": 7})).await;
    let listed = events(&sandbox, "").await;
    assert_eq!((listed.len(), &listed[30]["type"]), (31, &json!("customer.updated")));
    assert_eq!(Ask::new("GET", "/_sandbox/events").send(&sandbox).await.json(), json!(listed));
    let bad = Ask::new("POST", "/_sandbox/events").json(&json!({"flod": 1})).send(&sandbox).await;
    assert_eq!(bad.status, 400);
}
