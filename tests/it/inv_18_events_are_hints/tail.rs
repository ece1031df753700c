//! Reading the event list: from where, how far, and what happens if it cannot be read.

use std::time::Duration;

use komoju_sandbox::readings::{EventAnswers, Ties};
use komoju_sandbox::{EventIds, Fault, FaultEffect, FaultedCall, KeyRefusal, Payload, Readings};
use komoju_sync::clock::Clock as _;
use komoju_sync::tasks::events::TailMemory;
use komoju_testkit::InProcess;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{event_pages, following, open_hints, seconds, shown, update, update_first};

fn memory(harness: &InProcess) -> TailMemory {
    TailMemory::new(harness.clock.elapsed())
}

/// Adds events without a change, for customers of this kind.
fn flood(harness: &InProcess, count: u32, ids: EventIds) {
    harness.sandbox.world().flood(count, ids, &mut StdRng::seed_from_u64(1));
}

/// Returns a column of the row that says how events are read.
fn state(harness: &InProcess, column: &str) -> String {
    harness.one(&format!("SELECT {column} FROM event_state"))
}

#[tokio::test]
async fn first_reading_sets_the_cursor_to_the_servers_time() {
    let harness = InProcess::open(5).await;
    update(&harness, &harness.some_id(), "before@example.com");
    harness.set_wall_by(seconds(3600));
    harness.sandbox.world().advance(Duration::from_secs(5));
    let report = harness.read_events().await;
    assert_eq!((report.new, report.hinted, report.needs_sweep), (0, 0, false));
    assert_eq!(state(&harness, "cursor_at"), "2026-06-01T00:00:05.000Z");
    assert_eq!(open_hints(&harness), "0");
}

#[tokio::test]
async fn wrong_date_at_the_first_reading_hides_no_later_event() {
    let harness = InProcess::open(5).await;
    let a_year = FaultEffect::Date { ahead_s: 365 * 24 * 3600 };
    harness.inject(Fault::new(a_year).call(FaultedCall::Events).once());
    harness.read_events().await;
    harness.advance(seconds(400));
    // Any other answer shows the right time.
    harness.read_events().await;
    update_first(&harness, 1);
    harness.advance(seconds(10));
    harness.read_events().await;
    harness.read_hinted().await;
    harness.assert_true();
}

#[tokio::test]
async fn event_listed_twice_and_read_again_after_a_restart_causes_one_request() {
    let mut harness =
        InProcess::reading(5, Readings { event_duplicate_percent: 100, ..Readings::default() }).await;
    harness.read_events().await;
    harness.sandbox.world().clear_requests();
    let id = harness.some_id();
    update(&harness, &id, "new@example.com");
    let report = harness.read_events().await;
    assert_eq!((report.new, report.hinted), (1, 1));
    harness.read_hinted().await;
    harness.restart();
    harness.advance(seconds(60));
    assert_eq!(harness.read_events().await.new, 0);
    harness.read_hinted().await;
    assert_eq!(shown(&harness), [id]);
    harness.assert_true();
}

#[tokio::test]
async fn late_event_behind_known_ones_is_read_within_a_minute() {
    let harness = following(20).await;
    let late = harness.sandbox.world().ids()[19].clone();
    harness.sandbox.world().readings_mut().event_lag_ms = 100_000;
    update(&harness, &late, "late@example.com");
    harness.sandbox.world().readings_mut().event_lag_ms = 0;
    harness.advance(seconds(90));
    update_first(&harness, 12);
    let (tail, mut memory) = (harness.tail(10), memory(&harness));
    assert_eq!(tail.read(&mut memory).await.unwrap().new, 12);
    // The late event appears on the second page. The first one has only known events.
    harness.advance(seconds(11));
    harness.sandbox.world().clear_requests();
    assert_eq!(tail.read(&mut memory).await.unwrap().new, 0);
    assert_eq!(event_pages(&harness), [1]);
    harness.advance(seconds(49));
    assert_eq!(tail.read(&mut memory).await.unwrap().new, 1);
    assert_eq!(event_pages(&harness), [1, 1, 2]);
    harness.read_hinted().await;
    harness.assert_true();
}

#[tokio::test]
async fn page_of_events_over_its_limit_is_read_in_smaller_pages() {
    let harness = following(10).await;
    let ids = harness.sandbox.world().ids();
    for id in ids {
        harness.sandbox.world().update(&id, json!({"metadata": {"k": "x".repeat(600_000)}}));
    }
    assert_eq!(harness.read_events().await.hinted, 10);
    harness.read_hinted().await;
    harness.assert_true();
}

#[tokio::test]
async fn total_last_page_and_order_of_the_event_list_are_not_trusted() {
    let harness = following(20).await;
    let ids = harness.sandbox.world().ids();
    let event = |n: usize, at: &str| json!({"id": format!("e{n}"), "type": "customer.updated", "created_at": at, "data": {"id": ids[n]}});
    let page = |number: u64, data: Vec<Value>| {
        let body = json!({"resource": "event_list", "total": 0, "last_page": 1, "page": "x", "per_page": 2, "data": data});
        Fault::new(FaultEffect::Body { body: Payload::Json(body) }).call(FaultedCall::Events).page(number)
    };
    // The oldest event comes first, and one has no readable time.
    harness.inject(page(1, vec![event(0, "2026-06-01T00:00:01Z"), event(1, "soon")]));
    harness.inject(page(2, vec![event(2, "2026-06-01T00:00:03Z"), event(3, "2026-06-01T00:00:02Z")]));
    harness.inject(page(3, vec![]));
    for id in &ids[..4] {
        harness.sandbox.world().update(id, json!({"email": "new@example.com"}));
    }
    assert_eq!(harness.read_events().await.hinted, 4);
    assert_eq!(event_pages(&harness), [1, 2, 3]);
    harness.read_hinted().await;
    harness.assert_true();
}

#[tokio::test]
async fn list_that_ignores_its_filter_is_read_to_the_first_older_page() {
    let harness = following(30).await;
    update_first(&harness, usize::MAX);
    harness.read_events().await;
    harness.advance(seconds(1000));
    update(&harness, &harness.some_id(), "newer@example.com");
    harness.read_events().await;
    harness.advance(seconds(400));
    // As a server answers that does not know the filter: page 1 with the newest ten events, page 2
    // with older ones.
    let old: Vec<Value> = (0..10)
        .map(|n| json!({"id": format!("old{n}"), "type": "customer.updated", "created_at": "2026-06-01T00:00:00Z", "data": "x"}))
        .collect();
    let body = Payload::Json(json!({"data": old, "per_page": 10}));
    harness.inject(Fault::new(FaultEffect::Body { body }).call(FaultedCall::Events));
    harness.sandbox.world().clear_requests();
    harness.read_events().await;
    assert_eq!(event_pages(&harness), [1]);
}

#[tokio::test]
async fn twenty_full_pages_of_new_events_are_a_gap_that_one_sweep_fills() {
    for ties in [Ties::Stable, Ties::Unstable] {
        let mut harness = following(40).await;
        harness.sandbox.world().readings_mut().event_ties = ties;
        let id = harness.some_id();
        update(&harness, &id, "new@example.com");
        harness.advance(seconds(1));
        flood(&harness, 250, EventIds::Live);
        let (tail, mut memory) = (harness.tail(10), memory(&harness));
        let report = tail.read(&mut memory).await.unwrap();
        assert!(report.needs_sweep, "{report:?}");
        assert_eq!(event_pages(&harness), (1..=20).collect::<Vec<_>>());
        assert_eq!(state(&harness, "gap_at"), "2026-06-01T00:00:02.000Z");
        assert_eq!(harness.read_hinted().await, None);
        assert_eq!(shown(&harness), Vec::<String>::new(), "the hints are left to the sweep");
        // All these events are covered by the sweep, also those that were not read.
        for _ in 0..6 {
            harness.advance(seconds(60));
            let report = tail.read(&mut memory).await.unwrap();
            assert_eq!((report.hinted, report.needs_sweep), (0, false), "{ties:?}: {report:?}");
        }
        harness.sweep().await;
        harness.assert_true();
        // An event after the gap is followed again.
        update(&harness, &id, "newer@example.com");
        assert_eq!(tail.read(&mut memory).await.unwrap().hinted, 1);
    }
}

#[tokio::test]
async fn hints_dropped_while_the_wall_clock_was_ahead_do_not_stop_later_ones() {
    let harness = following(600).await;
    harness.set_wall_by(seconds(365 * 24 * 3600));
    update_first(&harness, usize::MAX);
    let report = harness.tail(100).read(&mut memory(&harness)).await.unwrap();
    assert!(report.needs_sweep, "{report:?}");
    assert_eq!(open_hints(&harness), "0");
    harness.set_wall_by(seconds(-365 * 24 * 3600));
    harness.advance(seconds(10));
    update(&harness, &harness.some_id(), "newer@example.com");
    harness.advance(seconds(10));
    assert_eq!(harness.read_events().await.hinted, 1);
}

#[tokio::test]
async fn cursor_stays_until_all_pages_are_stored() {
    let mut harness = following(30).await;
    let before = state(&harness, "cursor_at");
    harness.advance(seconds(5));
    update_first(&harness, 15);
    let failing = harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Events).page(2));
    harness.read_events().await;
    assert_eq!((state(&harness, "cursor_at"), open_hints(&harness)), (before, "10".to_owned()));
    // A crash keeps what is stored. The next process reads what is not, however much later.
    harness.restart();
    harness.advance(seconds(2000));
    harness.sandbox.world().remove_fault(failing);
    assert_eq!(harness.read_events().await.hinted, 5);
    assert_eq!(state(&harness, "cursor_at"), "2026-06-01T00:00:06.000Z");
    harness.read_hinted().await;
    harness.assert_true();
}

#[tokio::test]
async fn list_that_the_api_rejects_is_off_and_requested_again_in_an_hour() {
    for (answers, status) in [(EventAnswers::Json403, 403), (EventAnswers::Json404, 404)] {
        let harness = following(5).await;
        harness.sandbox.world().readings_mut().event_answers = answers;
        assert_eq!(harness.read_events().await.wait, Duration::from_secs(3600), "{answers:?}");
        let reason = state(&harness, "off_reason");
        assert!(reason.contains("GET /events page 1") && reason.contains(&status.to_string()), "{reason}");
        assert_eq!(state(&harness, "off_since"), "2026-06-01T00:00:01.000Z");
        assert_eq!(harness.one("SELECT refused_since IS NULL FROM meta"), "1", "the key is not refused");
        // The changes of that time are not lost once the list answers.
        update_first(&harness, 1);
        harness.advance(seconds(3600));
        harness.read_events().await;
        assert_eq!(state(&harness, "off_since"), "2026-06-01T00:00:01.000Z", "the first time stays");
        harness.sandbox.world().readings_mut().event_answers = EventAnswers::Events;
        harness.read_events().await;
        assert_eq!(state(&harness, "off_since IS NULL AND off_reason IS NULL"), "1");
        harness.read_hinted().await;
        harness.assert_true();
    }
}

#[tokio::test]
async fn third_failure_in_a_row_is_noted_and_the_list_is_read_at_the_slower_pace() {
    for answers in [EventAnswers::Json500, EventAnswers::Html200, EventAnswers::Html403] {
        let harness = following(5).await;
        harness.sandbox.world().readings_mut().event_answers = answers;
        let (tail, mut memory) = (harness.tail(10), memory(&harness));
        for failure in 1..=3 {
            let report = tail.read(&mut memory).await.unwrap();
            assert_eq!(report.wait, Duration::from_secs(60), "{answers:?}");
            let is_noted = state(&harness, "off_since IS NOT NULL");
            assert_eq!(is_noted, if failure < 3 { "0" } else { "1" }, "{answers:?}, failure {failure}");
        }
    }
}

#[tokio::test]
async fn list_is_read_at_the_slower_pace_after_ten_quiet_minutes() {
    let harness = following(5).await;
    let (tail, mut memory) = (harness.tail(10), memory(&harness));
    harness.advance(seconds(599));
    assert_eq!(tail.read(&mut memory).await.unwrap().wait, Duration::from_secs(10));
    harness.advance(seconds(1));
    assert_eq!(tail.read(&mut memory).await.unwrap().wait, Duration::from_secs(60));
    update_first(&harness, 1);
    assert_eq!(tail.read(&mut memory).await.unwrap().wait, Duration::from_secs(10));
}

#[tokio::test]
async fn hinted_request_that_meets_a_refused_key_is_the_last_one() {
    let mut harness = following(30).await;
    update_first(&harness, 20);
    harness.tail(100).read(&mut memory(&harness)).await.unwrap();
    let refused = harness.on(FaultedCall::Show, FaultEffect::status(401));
    assert_eq!(harness.read_hinted().await, Some(Duration::from_secs(60)));
    assert_eq!(harness.one("SELECT refused_since IS NULL FROM meta"), "0");
    let requested = shown(&harness).len();
    assert!(requested <= 8, "{requested} were requested");
    harness.advance(seconds(60));
    assert_eq!(harness.read_hinted().await, Some(Duration::from_secs(60)));
    assert_eq!(shown(&harness).len(), requested);

    harness.sandbox.world().remove_fault(refused);
    harness.sweep().await;
    harness.read_hinted().await;
    assert_eq!(open_hints(&harness), "0");
    harness.assert_true();
}

#[tokio::test]
async fn refused_key_requests_neither_events_nor_customers() {
    let mut harness = following(5).await;
    let id = harness.some_id();
    update(&harness, &id, "new@example.com");
    harness.read_events().await;
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Json401));
    // The event list meets the refusal first.
    harness.read_events().await;
    assert_eq!(harness.one("SELECT refused_since IS NULL FROM meta"), "0");
    harness.sandbox.world().clear_requests();
    harness.read_events().await;
    assert_eq!(harness.read_hinted().await, Some(Duration::from_secs(60)));
    assert_eq!(harness.sandbox.world().requests().len(), 0);

    harness.sandbox.world().refuse_key(None);
    harness.sweep().await;
    harness.sandbox.world().clear_requests();
    harness.read_hinted().await;
    assert_eq!(shown(&harness), [id]);
    harness.assert_true();
}
