//! The window of a create's reconciliation: its start, what it proves, and which customers count.

use jiff::{SignedDuration, Timestamp};
use komoju_sandbox::readings::{PastEnd, Repeated, Total};
use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::{InProcess, START};
use serde_json::{Map, Value, json};

const HALF_AN_HOUR: i64 = 30 * 60;

/// Returns a wait after which a create's key is no longer used: it is used for 20 hours.
fn after_key_expiry() -> SignedDuration {
    SignedDuration::from_hours(21)
}

fn wanted() -> Value {
    json!({"email": "a@example.com", "metadata": {"n": "1"}})
}

/// Returns a harness with a create without an answer. The `Date` of the server is `ahead_s` seconds
/// fast during the attempt.
async fn harness_with_lost_answer(tag: Option<&str>, ahead_s: i64, work: FaultedWork) -> InProcess {
    let mut harness = InProcess::open(3).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    harness.intend("c", "create", None, Some(wanted()));
    harness.inject(Fault::new(FaultEffect::Date { ahead_s }));
    harness.inject(Fault::new(FaultEffect::Reset { work }).call(FaultedCall::Create).once());
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    harness.sandbox.world().clear_faults();
    harness.restart();
    harness
}

/// Returns a harness with a create that was answered with a 500, with or without effect.
async fn harness_with_server_error(work: FaultedWork) -> InProcess {
    let mut harness = InProcess::open(3).await;
    harness.intend("c", "create", None, Some(wanted()));
    let (body, headers) = (Default::default(), Default::default());
    let failed = FaultEffect::Status { status: 500, body, retry_after: None, headers, work };
    harness.inject(Fault::new(failed).call(FaultedCall::Create).once());
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    harness
}

fn envelope(fields: Value) -> Fault {
    let fields: Map<String, Value> = fields.as_object().unwrap().clone();
    Fault::new(FaultEffect::Envelope { fields }).call(FaultedCall::List)
}

fn outcome(harness: &InProcess) -> (String, u64) {
    (harness.state("c"), harness.sandbox.world().creates())
}

fn expected(state: &str, creates: u64) -> (String, u64) {
    (state.to_owned(), creates)
}

#[tokio::test]
async fn create_at_a_server_with_a_wrong_date_is_made_once() {
    for tag in [None, Some("intent")] {
        for ahead_s in [HALF_AN_HOUR, 25 * 60 * 60, -HALF_AN_HOUR] {
            let mut harness = harness_with_lost_answer(tag, ahead_s, FaultedWork::Done).await;
            harness.advance(after_key_expiry());
            harness.drain().await;
            let case = format!("{tag:?} {ahead_s}: {}", harness.of("c", "reason"));
            assert_eq!(outcome(&harness), expected("done", 1), "{case}");
            harness.assert_true();
        }
    }
}

#[tokio::test]
async fn mirrored_create_is_made_once_when_both_clocks_were_fast() {
    for (tag, state) in [(None, "parked"), (Some("intent"), "done")] {
        let mut harness = InProcess::open(3).await;
        harness.settings.reconcile_tag = tag.map(str::to_owned);
        harness.clock.set_wall(START.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(2));
        harness.intend("c", "create", None, Some(wanted()));
        harness.inject(Fault::new(FaultEffect::Date { ahead_s: 2 * 60 * 60 }));
        harness.inject(
            Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once(),
        );
        harness.drain().await;
        harness.sandbox.world().clear_faults();
        assert!(harness.sweep().await.failure.is_none());
        harness.restart();
        harness.advance(after_key_expiry());
        harness.drain().await;
        assert_eq!(outcome(&harness), expected(state, 1), "{tag:?}: {}", harness.of("c", "reason"));
        if state == "parked" {
            let reason = harness.of("c", "reason");
            assert!(reason.contains("says that it was created before"), "{reason}");
        }
    }
}

#[tokio::test]
async fn removed_tag_is_found_in_the_log() {
    let mut harness = harness_with_lost_answer(Some("intent"), 0, FaultedWork::Done).await;
    assert!(harness.sweep().await.failure.is_none());
    let made = harness.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    harness.sandbox.world().update(&made, json!({"email": "b@example.com", "metadata": {}}));
    assert!(harness.sweep().await.failure.is_none());
    harness.advance(after_key_expiry());
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("done", 1), "{}", harness.of("c", "reason"));
    assert_eq!(harness.of("c", "result_customer_id"), made);
}

#[tokio::test]
async fn window_without_a_right_total_proves_no_absence() {
    for total in [json!({"total": null}), json!({"total": "2"}), json!({"total": 7}), json!({"total": -1})] {
        for tag in [None, Some("intent")] {
            let mut harness = harness_with_lost_answer(tag, 0, FaultedWork::Skipped).await;
            harness.advance(after_key_expiry());
            harness.inject(envelope(total.clone()));
            harness.drain().await;
            let case = format!("{total} {tag:?}: {}", harness.of("c", "reason"));
            assert_eq!(outcome(&harness), expected("parked", 0), "{case}");
            assert!(harness.of("c", "reason").contains("total"), "{case}");
        }
    }
}

#[tokio::test]
async fn window_without_a_right_total_proves_presence() {
    for total in [json!({"total": null}), json!({"total": 7}), json!({"total": 7, "last_page": "x"})] {
        for tag in [None, Some("intent")] {
            let mut harness = harness_with_lost_answer(tag, 0, FaultedWork::Done).await;
            harness.advance(after_key_expiry());
            harness.inject(envelope(total.clone()));
            harness.drain().await;
            assert_eq!(
                outcome(&harness),
                expected("done", 1),
                "{total} {tag:?}: {}",
                harness.of("c", "reason")
            );
        }
    }
}

#[tokio::test]
async fn create_hidden_twice_by_a_window_with_a_wrong_total_parks() {
    let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
    let made = harness.sandbox.world().ids()[0].clone();
    harness.advance(after_key_expiry());
    harness.inject(Fault::new(FaultEffect::Hide { ids: vec![made], every: None }).call(FaultedCall::List));
    harness.inject(envelope(json!({"total": 1})));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("parked", 1), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn window_is_read_to_its_last_page_though_total_is_reached_before() {
    let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
    for n in 0..12 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.advance(after_key_expiry());
    harness.inject(envelope(json!({"total": 10})));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("done", 1), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn window_does_not_end_at_a_full_page_despite_its_hints() {
    let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
    for n in 0..12 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.advance(after_key_expiry());
    // `total` equals the first page, but the customer is on the second page.
    harness.inject(envelope(json!({"total": 10, "last_page": 1})));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("done", 1), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn mirrored_customer_hidden_by_the_window_is_requested_by_id() {
    for tag in [None, Some("intent")] {
        let mut harness = harness_with_lost_answer(tag, 0, FaultedWork::Done).await;
        assert!(harness.sweep().await.failure.is_none());
        let made = harness.sandbox.world().ids()[0].clone();
        harness.advance(after_key_expiry());
        harness.inject(
            Fault::new(FaultEffect::Hide { ids: vec![made.clone()], every: None }).call(FaultedCall::List),
        );
        harness.inject(envelope(json!({"total": 0, "last_page": 0})));
        harness.drain().await;
        assert_eq!(outcome(&harness), expected("done", 1), "{tag:?}: {}", harness.of("c", "reason"));
        assert_eq!(harness.of("c", "result_customer_id"), made);
    }
}

#[tokio::test]
async fn create_with_a_fresh_key_is_sent_again_with_any_total() {
    for tag in [None, Some("intent")] {
        for work in [FaultedWork::Done, FaultedWork::Skipped] {
            let mut harness = harness_with_lost_answer(tag, 0, work).await;
            harness.advance(SignedDuration::from_mins(1));
            harness.inject(envelope(json!({"total": 7})));
            harness.drain().await;
            assert_eq!(
                outcome(&harness),
                expected("done", 1),
                "{tag:?} {work:?}: {}",
                harness.of("c", "reason")
            );
        }
    }
}

#[tokio::test]
async fn create_after_a_server_error_parks_without_proof_of_absence() {
    let mut harness = harness_with_server_error(FaultedWork::Skipped).await;
    harness.advance(SignedDuration::from_mins(1));
    harness.inject(envelope(json!({"total": 7})));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("parked", 0), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn unrelated_customers_park_no_create() {
    let others = [
        json!({"email": "other@example.com"}),
        json!({"email": "third@example.com", "metadata": {"n": "2"}}),
        json!({"email": null}),
    ];
    for after in [SignedDuration::from_secs(5), after_key_expiry()] {
        for work in [FaultedWork::Done, FaultedWork::Skipped] {
            for is_noticed in [true, false] {
                let mut harness = harness_with_server_error(work).await;
                let ids = others.clone().map(|other| harness.sandbox.world().create(other));
                assert!(harness.sweep().await.failure.is_none());
                for id in &ids[1..] {
                    harness.sandbox.world().delete(id);
                }
                if is_noticed {
                    assert!(harness.sweep().await.failure.is_none());
                }
                harness.advance(after);
                harness.drain().await;
                let case = format!("{after} {work:?} {is_noticed}: {}", harness.of("c", "reason"));
                assert_eq!(outcome(&harness), expected("done", 1), "{case}");
                let made = harness.of("c", "result_customer_id");
                assert_eq!(
                    harness.sandbox.world().get(&made).unwrap()["metadata"],
                    json!({"n": "1"}),
                    "{case}"
                );
            }
        }
    }
}

#[tokio::test]
async fn customer_with_the_same_email_counts_only_where_metadata_and_card_fit() {
    let cases = [
        (json!({"email": "a@example.com", "metadata": {"n": "2"}}), "done"),
        (json!({"email": "a@example.com", "metadata": {"n": "1"}, "source": {"brand": "visa"}}), "done"),
        (json!({"email": "a@example.com", "metadata": {"n": "1", "m": "2"}}), "parked"),
        (json!({"email": "A@example.com", "metadata": {"n": "1"}}), "parked"),
    ];
    for (other, state) in cases {
        for is_gone in [false, true] {
            let mut harness = harness_with_server_error(FaultedWork::Skipped).await;
            let id = harness.sandbox.world().create(other.clone());
            assert!(harness.sweep().await.failure.is_none());
            if is_gone {
                harness.sandbox.world().delete(&id);
            }
            harness.advance(SignedDuration::from_secs(5));
            harness.drain().await;
            assert_eq!(harness.state("c"), state, "{other} {is_gone}: {}", harness.of("c", "reason"));
        }
    }
}

#[tokio::test]
async fn create_with_an_edited_customer_parks() {
    // The log shows the customer as created, or its metadata or email still matches.
    for (is_seen_before, edit) in [
        (true, json!({"email": "b@example.com", "metadata": {"n": "9"}})),
        (false, json!({"email": "b@example.com"})),
        (false, json!({"metadata": {"n": "9"}})),
    ] {
        let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
        let made = harness.sandbox.world().ids()[0].clone();
        if is_seen_before {
            assert!(harness.sweep().await.failure.is_none());
        }
        harness.sandbox.world().update(&made, edit.clone());
        assert!(harness.sweep().await.failure.is_none());
        harness.advance(after_key_expiry());
        harness.drain().await;
        assert_eq!(outcome(&harness), expected("parked", 1), "{edit}: {}", harness.of("c", "reason"));
    }
}

#[tokio::test]
async fn old_customer_first_seen_late_is_not_taken_for_the_created_one() {
    // The list hid the customer until after the first attempt.
    let mut harness = InProcess::open(3).await;
    let old = harness.sandbox.world().create(wanted());
    harness.advance(SignedDuration::from_hours(48));
    harness.intend("c", "create", None, Some(wanted()));
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Create).once(),
    );
    harness.drain().await;
    assert!(harness.sweep().await.failure.is_none());
    harness.advance(after_key_expiry());
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("parked", 0), "{}", harness.of("c", "reason"));
    assert!(harness.of("c", "reason").contains(&old), "{}", harness.of("c", "reason"));
}

#[tokio::test]
async fn window_with_a_random_total_proves_presence_and_never_absence() {
    for (work, state, creates) in [(FaultedWork::Done, "done", 1), (FaultedWork::Skipped, "parked", 0)] {
        let mut harness = harness_with_lost_answer(None, 0, work).await;
        for n in 0..12 {
            harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
        }
        harness.advance(after_key_expiry());
        harness.sandbox.world().readings_mut().total = Total::Random(50);
        harness.drain().await;
        let reason = harness.of("c", "reason");
        assert_eq!(outcome(&harness), expected(state, creates), "{reason}");
        if state == "parked" {
            assert!(reason.contains("its total changes from answer to answer"), "{reason}");
        }
    }
}

#[tokio::test]
async fn window_with_a_changing_total_proves_no_absence() {
    // Within a reading: the first page has another `total` than the second, which is correct.
    let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Skipped).await;
    for n in 0..12 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.advance(after_key_expiry());
    harness.inject(envelope(json!({"total": 40})).page(1));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("parked", 0), "{}", harness.of("c", "reason"));

    // Between readings: one of two readings of a page has another `total`, and equal customers.
    for before in [0, 1] {
        let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Skipped).await;
        harness.advance(after_key_expiry());
        let request_for_the_time = 1;
        let seven = harness.inject(envelope(json!({"total": 7})).skip(request_for_the_time + before).once());
        harness.drain().await;
        assert_eq!(outcome(&harness), expected("parked", 0), "{before}: {}", harness.of("c", "reason"));
        assert_eq!(harness.sandbox.world().fired(seven), 1);
    }
}

#[tokio::test]
async fn window_of_an_imprecise_list_that_repeats_rows_proves_presence() {
    for (past_end, repeated) in [(PastEnd::LastPage, Repeated::Never), (PastEnd::Empty, Repeated::Added)] {
        let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
        for n in 0..22 {
            harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
        }
        harness.advance(after_key_expiry());
        {
            let mut world = harness.sandbox.world();
            let readings = world.readings_mut();
            (readings.total, readings.past_end, readings.repeated) = (Total::Random(50), past_end, repeated);
        }
        harness.drain().await;
        assert_eq!(
            outcome(&harness),
            expected("done", 1),
            "{past_end:?} {repeated:?}: {}",
            harness.of("c", "reason")
        );
    }
}

#[tokio::test]
async fn window_that_grows_faster_than_it_is_read_has_a_page_limit() {
    let mut harness = harness_with_lost_answer(None, 0, FaultedWork::Done).await;
    harness.advance(after_key_expiry());
    let drift = Drift { insert: 25, ..Drift::default() };
    let grows = harness.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("waiting", 1), "{}", harness.of("c", "reason"));
    let fired = harness.sandbox.world().fired(grows);
    assert!(fired < 30, "{fired} pages");
    harness.sandbox.world().remove_fault(grows);
    harness.advance(SignedDuration::from_hours(1));
    harness.drain().await;
    assert_eq!(outcome(&harness), expected("done", 1), "{}", harness.of("c", "reason"));
}
