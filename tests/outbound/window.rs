//! The window of a create's reconciliation: where it begins, what it proves, and which customers count.

use jiff::{SignedDuration, Timestamp};
use komoju_sandbox::readings::{PastEnd, Repeated, Total};
use komoju_sandbox::{Call, Drift, Effect, Fault, Work};
use serde_json::{Map, Value, json};

use crate::desk::{Desk, START};

const HALF_AN_HOUR: i64 = 30 * 60;

/// Later than a key is counted on.
fn past() -> SignedDuration {
    SignedDuration::from_hours(21)
}

fn wanted() -> Value {
    json!({"email": "a@example.com", "metadata": {"n": "1"}})
}

/// A desk with a create whose answer was lost, at a server whose `Date` is so many seconds ahead meanwhile.
async fn desk_with_lost_answer(tag: Option<&str>, ahead_s: i64, work: Work) -> Desk {
    let mut desk = Desk::open(3).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    desk.intend("c", "create", None, Some(wanted()));
    desk.inject(Fault::new(Effect::Date { ahead_s }));
    desk.inject(Fault::new(Effect::Reset { work }).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    desk.sandbox.world().clear_faults();
    desk.restart();
    desk
}

/// A desk with a create that took effect or not, and was answered with a 500.
async fn desk_with_server_error(work: Work) -> Desk {
    let mut desk = Desk::open(3).await;
    desk.intend("c", "create", None, Some(wanted()));
    let (body, headers) = (Default::default(), Default::default());
    let failed = Effect::Status { status: 500, body, retry_after: None, headers, work };
    desk.inject(Fault::new(failed).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    desk
}

fn envelope(fields: Value) -> Fault {
    let fields: Map<String, Value> = fields.as_object().unwrap().clone();
    Fault::new(Effect::Envelope { fields }).call(Call::List)
}

fn ended(desk: &Desk) -> (String, u64) {
    (desk.state("c"), desk.sandbox.world().creates())
}

fn is(state: &str, creates: u64) -> (String, u64) {
    (state.to_owned(), creates)
}

#[tokio::test]
async fn create_at_a_server_whose_date_was_ahead_is_made_once() {
    for tag in [None, Some("intent")] {
        for ahead_s in [HALF_AN_HOUR, 25 * 60 * 60, -HALF_AN_HOUR] {
            let mut desk = desk_with_lost_answer(tag, ahead_s, Work::Done).await;
            desk.advance(past());
            desk.drain().await;
            let case = format!("{tag:?} {ahead_s}: {}", desk.of("c", "reason"));
            assert_eq!(ended(&desk), is("done", 1), "{case}");
            desk.assert_true();
        }
    }
}

#[tokio::test]
async fn create_in_a_mirror_that_holds_its_customer_is_made_once_though_both_clocks_were_ahead() {
    for (tag, state) in [(None, "parked"), (Some("intent"), "done")] {
        let mut desk = Desk::open(3).await;
        desk.settings.reconcile_tag = tag.map(str::to_owned);
        desk.clock.set_wall(START.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(2));
        desk.intend("c", "create", None, Some(wanted()));
        desk.inject(Fault::new(Effect::Date { ahead_s: 2 * 60 * 60 }));
        desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
        desk.drain().await;
        desk.sandbox.world().clear_faults();
        assert!(desk.sweep().await.failure.is_none());
        desk.restart();
        desk.advance(past());
        desk.drain().await;
        assert_eq!(ended(&desk), is(state, 1), "{tag:?}: {}", desk.of("c", "reason"));
        if state == "parked" {
            let reason = desk.of("c", "reason");
            assert!(reason.contains("says that it was created before"), "{reason}");
        }
    }
}

#[tokio::test]
async fn tag_that_was_edited_away_is_found_in_the_log() {
    let mut desk = desk_with_lost_answer(Some("intent"), 0, Work::Done).await;
    assert!(desk.sweep().await.failure.is_none());
    let made = desk.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    desk.sandbox.world().update(&made, json!({"email": "b@example.com", "metadata": {}}));
    assert!(desk.sweep().await.failure.is_none());
    desk.advance(past());
    desk.drain().await;
    assert_eq!(ended(&desk), is("done", 1), "{}", desk.of("c", "reason"));
    assert_eq!(desk.of("c", "result_customer_id"), made);
}

#[tokio::test]
async fn window_without_a_right_total_proves_no_absence() {
    for total in [json!({"total": null}), json!({"total": "2"}), json!({"total": 7}), json!({"total": -1})] {
        for tag in [None, Some("intent")] {
            let mut desk = desk_with_lost_answer(tag, 0, Work::Skipped).await;
            desk.advance(past());
            desk.inject(envelope(total.clone()));
            desk.drain().await;
            let case = format!("{total} {tag:?}: {}", desk.of("c", "reason"));
            assert_eq!(ended(&desk), is("parked", 0), "{case}");
            assert!(desk.of("c", "reason").contains("total"), "{case}");
        }
    }
}

#[tokio::test]
async fn window_without_a_right_total_proves_presence() {
    for total in [json!({"total": null}), json!({"total": 7}), json!({"total": 7, "last_page": "x"})] {
        for tag in [None, Some("intent")] {
            let mut desk = desk_with_lost_answer(tag, 0, Work::Done).await;
            desk.advance(past());
            desk.inject(envelope(total.clone()));
            desk.drain().await;
            assert_eq!(ended(&desk), is("done", 1), "{total} {tag:?}: {}", desk.of("c", "reason"));
        }
    }
}

#[tokio::test]
async fn window_that_hides_the_customer_twice_is_not_believed() {
    let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
    let made = desk.sandbox.world().ids()[0].clone();
    desk.advance(past());
    desk.inject(Fault::new(Effect::Hide { ids: vec![made], every: None }).call(Call::List));
    desk.inject(envelope(json!({"total": 1})));
    desk.drain().await;
    assert_eq!(ended(&desk), is("parked", 1), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn window_is_read_to_its_last_page_though_total_is_reached_before() {
    let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
    for n in 0..12 {
        desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    desk.advance(past());
    desk.inject(envelope(json!({"total": 10})));
    desk.drain().await;
    assert_eq!(ended(&desk), is("done", 1), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn window_does_not_end_at_a_full_page_whatever_its_numbers_say() {
    let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
    for n in 0..12 {
        desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    desk.advance(past());
    // As many as the first page shows: the create's customer is on the second one.
    desk.inject(envelope(json!({"total": 10, "last_page": 1})));
    desk.drain().await;
    assert_eq!(ended(&desk), is("done", 1), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn customer_that_the_mirror_holds_and_the_window_hides_is_requested_by_itself() {
    for tag in [None, Some("intent")] {
        let mut desk = desk_with_lost_answer(tag, 0, Work::Done).await;
        assert!(desk.sweep().await.failure.is_none());
        let made = desk.sandbox.world().ids()[0].clone();
        desk.advance(past());
        desk.inject(Fault::new(Effect::Hide { ids: vec![made.clone()], every: None }).call(Call::List));
        desk.inject(envelope(json!({"total": 0, "last_page": 0})));
        desk.drain().await;
        assert_eq!(ended(&desk), is("done", 1), "{tag:?}: {}", desk.of("c", "reason"));
        assert_eq!(desk.of("c", "result_customer_id"), made);
    }
}

#[tokio::test]
async fn lost_answer_with_a_fresh_key_is_asked_for_again_whatever_the_total_says() {
    for tag in [None, Some("intent")] {
        for work in [Work::Done, Work::Skipped] {
            let mut desk = desk_with_lost_answer(tag, 0, work).await;
            desk.advance(SignedDuration::from_mins(1));
            desk.inject(envelope(json!({"total": 7})));
            desk.drain().await;
            assert_eq!(ended(&desk), is("done", 1), "{tag:?} {work:?}: {}", desk.of("c", "reason"));
        }
    }
}

#[tokio::test]
async fn server_error_whose_window_proves_no_absence_parks() {
    let mut desk = desk_with_server_error(Work::Skipped).await;
    desk.advance(SignedDuration::from_mins(1));
    desk.inject(envelope(json!({"total": 7})));
    desk.drain().await;
    assert_eq!(ended(&desk), is("parked", 0), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn unrelated_customers_park_no_create() {
    let others = [
        json!({"email": "other@example.com"}),
        json!({"email": "third@example.com", "metadata": {"n": "2"}}),
        json!({"email": null}),
    ];
    for after in [SignedDuration::from_secs(5), past()] {
        for work in [Work::Done, Work::Skipped] {
            for is_noticed in [true, false] {
                let mut desk = desk_with_server_error(work).await;
                let ids = others.clone().map(|other| desk.sandbox.world().create(other));
                assert!(desk.sweep().await.failure.is_none());
                for id in &ids[1..] {
                    desk.sandbox.world().delete(id);
                }
                if is_noticed {
                    assert!(desk.sweep().await.failure.is_none());
                }
                desk.advance(after);
                desk.drain().await;
                let case = format!("{after} {work:?} {is_noticed}: {}", desk.of("c", "reason"));
                assert_eq!(ended(&desk), is("done", 1), "{case}");
                let made = desk.of("c", "result_customer_id");
                assert_eq!(desk.sandbox.world().get(&made).unwrap()["metadata"], json!({"n": "1"}), "{case}");
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
            let mut desk = desk_with_server_error(Work::Skipped).await;
            let id = desk.sandbox.world().create(other.clone());
            assert!(desk.sweep().await.failure.is_none());
            if is_gone {
                desk.sandbox.world().delete(&id);
            }
            desk.advance(SignedDuration::from_secs(5));
            desk.drain().await;
            assert_eq!(desk.state("c"), state, "{other} {is_gone}: {}", desk.of("c", "reason"));
        }
    }
}

#[tokio::test]
async fn customer_that_was_edited_since_is_not_made_again() {
    // The log has it as it was made, or its metadata still tells.
    for (is_seen_before, edit) in [
        (true, json!({"email": "b@example.com", "metadata": {"n": "9"}})),
        (false, json!({"email": "b@example.com"})),
        (false, json!({"metadata": {"n": "9"}})),
    ] {
        let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
        let made = desk.sandbox.world().ids()[0].clone();
        if is_seen_before {
            assert!(desk.sweep().await.failure.is_none());
        }
        desk.sandbox.world().update(&made, edit.clone());
        assert!(desk.sweep().await.failure.is_none());
        desk.advance(past());
        desk.drain().await;
        assert_eq!(ended(&desk), is("parked", 1), "{edit}: {}", desk.of("c", "reason"));
    }
}

#[tokio::test]
async fn old_customer_that_the_mirror_saw_late_is_not_taken_for_the_creates() {
    // The list hid it until after the first attempt.
    let mut desk = Desk::open(3).await;
    let old = desk.sandbox.world().create(wanted());
    desk.advance(SignedDuration::from_hours(48));
    desk.intend("c", "create", None, Some(wanted()));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Create).once());
    desk.drain().await;
    assert!(desk.sweep().await.failure.is_none());
    desk.advance(past());
    desk.drain().await;
    assert_eq!(ended(&desk), is("parked", 0), "{}", desk.of("c", "reason"));
    assert!(desk.of("c", "reason").contains(&old), "{}", desk.of("c", "reason"));
}

#[tokio::test]
async fn window_whose_total_changes_at_each_read_proves_presence_and_never_absence() {
    for (work, state, creates) in [(Work::Done, "done", 1), (Work::Skipped, "parked", 0)] {
        let mut desk = desk_with_lost_answer(None, 0, work).await;
        for n in 0..12 {
            desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
        }
        desk.advance(past());
        desk.sandbox.world().readings_mut().total = Total::Random(50);
        desk.drain().await;
        let reason = desk.of("c", "reason");
        assert_eq!(ended(&desk), is(state, creates), "{reason}");
        if state == "parked" {
            assert!(reason.contains("its total changes from answer to answer"), "{reason}");
        }
    }
}

#[tokio::test]
async fn window_whose_total_changes_within_or_between_readings_proves_no_absence() {
    // Within: the first of two pages says another total than the second, which is right.
    let mut desk = desk_with_lost_answer(None, 0, Work::Skipped).await;
    for n in 0..12 {
        desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    desk.advance(past());
    desk.inject(envelope(json!({"total": 40})).page(1));
    desk.drain().await;
    assert_eq!(ended(&desk), is("parked", 0), "{}", desk.of("c", "reason"));

    // Between: one of the first two readings, of one page each, counts seven customers, the other none; they show the same.
    for before in [0, 1] {
        let mut desk = desk_with_lost_answer(None, 0, Work::Skipped).await;
        desk.advance(past());
        let asks_the_time = 1;
        let seven = desk.inject(envelope(json!({"total": 7})).skip(asks_the_time + before).once());
        desk.drain().await;
        assert_eq!(ended(&desk), is("parked", 0), "{before}: {}", desk.of("c", "reason"));
        assert_eq!(desk.sandbox.world().fired(seven), 1);
    }
}

#[tokio::test]
async fn window_of_an_imprecise_list_that_repeats_rows_proves_presence() {
    for (past_end, repeated) in [(PastEnd::LastPage, Repeated::Never), (PastEnd::Empty, Repeated::Added)] {
        let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
        for n in 0..22 {
            desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
        }
        desk.advance(past());
        {
            let mut world = desk.sandbox.world();
            let readings = world.readings_mut();
            (readings.total, readings.past_end, readings.repeated) = (Total::Random(50), past_end, repeated);
        }
        desk.drain().await;
        assert_eq!(ended(&desk), is("done", 1), "{past_end:?} {repeated:?}: {}", desk.of("c", "reason"));
    }
}

#[tokio::test]
async fn window_that_grows_faster_than_it_is_read_is_not_read_for_ever() {
    let mut desk = desk_with_lost_answer(None, 0, Work::Done).await;
    desk.advance(past());
    let drift = Drift { insert: 25, ..Drift::default() };
    let grows = desk.inject(Fault::new(Effect::Drift(drift)).call(Call::List));
    desk.drain().await;
    assert_eq!(ended(&desk), is("waiting", 1), "{}", desk.of("c", "reason"));
    let fired = desk.sandbox.world().fired(grows);
    assert!(fired < 30, "{fired} pages");
    desk.sandbox.world().remove_fault(grows);
    desk.advance(SignedDuration::from_hours(1));
    desk.drain().await;
    assert_eq!(ended(&desk), is("done", 1), "{}", desk.of("c", "reason"));
}
