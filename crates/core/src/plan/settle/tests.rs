//! Settlements in printed form. Each case sets the intent, its outcome and the mirror's row.

use std::time::Duration;

use super::*;
use crate::BadCustomer;
use crate::intent::Intent;
use crate::intent::lifecycle::{IntentState, OutcomeStatus};
use crate::open_intent::FrozenRequest;
use crate::park_timer::ParkTimer;

fn now() -> Moment {
    let boot = Some(("boot".to_owned(), Duration::from_secs(3600)));
    Moment { wall: "2026-06-01T12:00:00Z".parse().unwrap(), boot, is_confirmed: true }
}

fn sending(intent: Value, outcome: OutcomeStatus) -> OpenIntent {
    let customer = intent["customer_id"].as_str().map(|id| CustomerId::new(id).unwrap());
    OpenIntent {
        position: 1,
        id: "i1".to_owned(),
        intent: Ok(Intent::parse(&intent.to_string()).unwrap()),
        life: Lifecycle { state: IntentState::Sending, outcome, attempts: 1 },
        customer,
        frozen: FrozenRequest::default(),
        park_timer: None,
        met_server_error: false,
        last_attempt_at: None,
    }
}

fn create() -> OpenIntent {
    sending(json!({"op": "create", "body": {"email": "a", "payment_details": "tok_1"}}), OutcomeStatus::Known)
}

fn update() -> OpenIntent {
    sending(json!({"op": "update", "customer_id": "c", "body": {"email": "b"}}), OutcomeStatus::Known)
}

fn delete(outcome: OutcomeStatus) -> OpenIntent {
    sending(json!({"op": "delete", "customer_id": "c"}), outcome)
}

fn customer(fields: Value) -> Customer {
    let mut fields = fields;
    fields["id"] = "c".into();
    Customer::from_value(fields).unwrap()
}

fn live(fields: Value) -> MirrorRow {
    MirrorRow {
        body: Some(customer(fields).body().to_owned()),
        first_seen_at: String::new(),
        changed_at: String::new(),
        deleted_at: None,
        live_seq: 1,
        seq: 7,
    }
}

fn tombstone() -> MirrorRow {
    MirrorRow { deleted_at: Some(String::new()), ..live(json!({"email": "a"})) }
}

fn api_error(status: u16) -> ApiError {
    ApiError { status, code: Some("bad".to_owned()), message: Some("tok_1 is bad".to_owned()), param: None }
}

fn settled(open: &OpenIntent, outcome: AttemptOutcome, mirrored: Option<&MirrorRow>) -> Settlement {
    try_settle(open, outcome, mirrored).unwrap()
}

fn try_settle(
    open: &OpenIntent,
    outcome: AttemptOutcome,
    mirrored: Option<&MirrorRow>,
) -> Result<Settlement, IllegalTransition> {
    let (now, customer) = (now(), customer_of(open, &outcome));
    let facts = SettleFacts {
        open,
        now: &now,
        park_after: SignedDuration::from_hours(72),
        consistency: Consistency::seconds(60),
        customer: customer.as_ref(),
        mirrored,
        was_known: mirrored.is_some(),
    };
    settle(facts, outcome)
}

fn took(customer: PushedCustomer, status: Option<u16>) -> AttemptOutcome {
    AttemptOutcome::TookEffect { customer, status }
}

fn shown(fields: Value) -> PushedCustomer {
    PushedCustomer::Shown(customer(fields))
}

#[test]
fn effect_that_the_mirror_does_not_show_is_recorded() {
    let visa = || json!({"email": "a", "source": {"brand": "visa"}});
    let answered = Some(200);
    let recheck = "; request c again at 2026-06-01T12:01:00Z";
    let (known, unknown) = (Some(live(json!({"email": "a"}))), None::<MirrorRow>);
    let cases = [
        (
            update(),
            shown(json!({"email": "b"})),
            answered,
            known.clone(),
            "done; record c updated".to_owned(),
        ),
        (update(), shown(json!({"email": "a"})), answered, known.clone(), "done".to_owned()),
        (update(), shown(json!({"email": "b"})), None, known.clone(), "done; record c updated".to_owned()),
        (
            update(),
            shown(json!({"email": "b"})),
            answered,
            Some(tombstone()),
            "done; record c restored".to_owned(),
        ),
        (update(), PushedCustomer::None, answered, known.clone(), format!("done{recheck}")),
        (
            create(),
            shown(json!({"email": "a"})),
            answered,
            unknown.clone(),
            "done; record c created".to_owned(),
        ),
        // A create that is sent again is answered with the customer as it was created.
        (create(), shown(json!({"email": "old"})), answered, known.clone(), format!("done{recheck}")),
        (create(), shown(visa()), answered, known.clone(), format!("done; record c updated{recheck}")),
        (create(), shown(visa()), answered, Some(live(visa())), format!("done{recheck}")),
        (create(), shown(visa()), answered, Some(tombstone()), format!("done{recheck}")),
        (create(), shown(json!({"email": "new"})), None, known.clone(), "done; record c updated".to_owned()),
        (
            delete(OutcomeStatus::Known),
            PushedCustomer::None,
            answered,
            known,
            "done; record c deleted".to_owned(),
        ),
        (delete(OutcomeStatus::Known), PushedCustomer::None, answered, Some(tombstone()), "done".to_owned()),
        (delete(OutcomeStatus::Known), PushedCustomer::None, answered, unknown, "done".to_owned()),
    ];
    for (open, customer, status, mirrored, expected) in cases {
        let settlement = settled(&open, took(customer, status), mirrored.as_ref());
        assert_eq!(settlement.to_string(), expected, "{}", open.summary());
        let update = &settlement.update;
        assert_eq!(update.result_customer_id.as_deref(), Some("c"));
        assert_eq!(update.change_seq, mirrored.map(|_| 7));
        assert_eq!(update.settled_at.as_deref(), Some("2026-06-01T12:00:00.000Z"));
        assert_eq!(settlement.attempt, Some(AttemptEnd { status, error: None }));
    }
}

#[test]
fn created_source_is_added_to_the_state_that_the_mirror_has() {
    let mirrored = live(json!({"email": "edited"}));
    let answer = shown(json!({"email": "old", "source": {"brand": "visa"}}));
    let settlement = settled(&create(), took(answer, Some(200)), Some(&mirrored));
    let expected = customer(json!({"email": "edited", "source": {"brand": "visa"}}));
    assert_eq!(settlement.change, Some(CustomerChange::Put(ChangeKind::Updated, expected)));
}

#[test]
fn update_names_what_its_answer_does_not_show() {
    let settlement = settled(&update(), took(shown(json!({"email": "a"})), Some(200)), None);
    assert_eq!(settlement.update.detail, Some(json!({"not_applied": {"email": "b"}})));
    let settlement = settled(&update(), took(shown(json!({"email": "b"})), Some(200)), None);
    assert_eq!(settlement.update.detail, None);
}

#[test]
fn unreadable_answer_is_noted_with_its_id_and_the_customer_requested_again() {
    let bad = Unreadable::new(br#"{"id": "c"}"#, None, BadCustomer::Unreadable("at tok_1".to_owned()));
    let settlement = settled(&create(), took(PushedCustomer::Unreadable(bad.clone()), Some(201)), None);
    let (noted, reason) = settlement.unreadable.unwrap();
    assert_eq!((noted, reason.as_str()), (bad.clone(), "it is not JSON that can be read (at ****)"));
    assert_eq!(settlement.update.result_customer_id.as_deref(), Some("c"));
    assert!(settlement.recheck.is_some() && settlement.change.is_none());
    let settlement =
        settled(&delete(OutcomeStatus::Known), took(PushedCustomer::Unreadable(bad), Some(200)), None);
    assert!(settlement.unreadable.is_none() && settlement.recheck.is_none());
}

#[test]
fn missing_customer_completes_a_delete_that_may_have_had_an_effect_and_rejects_the_rest() {
    let (known, gone) = (live(json!({})), tombstone());
    let lost = "done: the customer did not exist at the retry: an attempt whose answer was lost deleted it, or another program did";
    let typo =
        "rejected: HTTP 404 bad (tok_1 is bad); the mirror never had a customer with this id: check the id";
    let already = "done: the customer was already deleted at KOMOJU";
    let cases = [
        (delete(OutcomeStatus::Known), None, typo.to_owned()),
        (delete(OutcomeStatus::Known), Some(&gone), already.to_owned()),
        (delete(OutcomeStatus::Known), Some(&known), format!("{already}; record c deleted")),
        (delete(OutcomeStatus::Unknown), None, lost.to_owned()),
        (update(), Some(&known), "rejected: HTTP 404 bad (tok_1 is bad)".to_owned()),
    ];
    for (open, mirrored, expected) in cases {
        let settlement = settled(&open, AttemptOutcome::NotFound(api_error(404)), mirrored);
        assert_eq!(settlement.to_string(), expected);
        assert_eq!(settlement.is_customer_missing, !open.is_delete());
        assert_eq!(settlement.attempt.unwrap().status, Some(404));
    }
}

#[test]
fn refusal_is_kept_with_its_fields_and_without_the_token() {
    let settlement = settled(&create(), AttemptOutcome::Rejected(api_error(422)), None);
    assert_eq!(settlement.to_string(), "rejected: HTTP 422 bad (**** is bad)");
    let detail = json!({"status": 422, "code": "bad", "message": "**** is bad", "param": null});
    assert_eq!(settlement.update.detail, Some(detail));
    let error = Some("HTTP 422 bad (**** is bad)".to_owned());
    assert_eq!(settlement.attempt, Some(AttemptEnd { status: Some(422), error }));
    assert!(!settlement.is_customer_missing && !settlement.is_key_refused);
    let parked = settled(&create(), AttemptOutcome::park("tok_1: look", Some(json!({"a": 1}))), None);
    assert_eq!(parked.to_string(), "parked: ****: look");
    assert_eq!((parked.update.detail, parked.update.settled_at), (Some(json!({"a": 1})), None));
}

#[test]
fn failed_attempt_waits_until_its_park_timer_expires_unless_the_key_is_refused() {
    let at: Timestamp = "2026-06-01T12:00:02Z".parse().unwrap();
    let throttled = Obstacle::Throttled { until: Some(at) };
    let over = "parked: no attempt succeeded within 72 hours; the last: **** failed";
    let waits = "waiting until 2026-06-01T12:00:02.000Z: **** failed";
    let cases = [
        (71, Obstacle::None, waits),
        (72, Obstacle::None, over),
        (72, throttled, over),
        (71, throttled, waits),
        (72, Obstacle::KeyRefused, waits),
    ];
    for (hours, obstacle, expected) in cases {
        let mut open = create();
        let from = now().wall - SignedDuration::from_hours(hours);
        open.park_timer = Some(ParkTimer { from, boot: None });
        let (why, outcome) = ("tok_1 failed".to_owned(), OutcomeStatus::Unknown);
        let later = RetryPlan { why, status: Some(500), outcome, at: Some(at), obstacle };
        let settlement = settled(&open, AttemptOutcome::Retry(later), None);
        assert_eq!(settlement.to_string(), expected, "{hours} {obstacle:?}");
        assert_eq!(settlement.life.outcome, OutcomeStatus::Unknown);
        assert_eq!(settlement.update.wait_ms, (expected == waits).then_some(2000));
        assert_eq!(settlement.is_key_refused, obstacle == Obstacle::KeyRefused);
        assert_eq!(settlement.throttled_until, (obstacle == throttled).then_some(at));
        let error = Some("**** failed".to_owned());
        assert_eq!(settlement.attempt, Some(AttemptEnd { status: Some(500), error }));
    }
}

#[test]
fn intent_that_cannot_be_sent_is_rejected_or_parked_if_it_may_have_taken_effect() {
    let mut open = update();
    assert_eq!(refusal(&open), None);
    assert_eq!(refusal(&create()), None);
    open.customer = Some(CustomerId::new("..").unwrap());
    assert_eq!(refusal(&open).unwrap(), "the id of its customer cannot be requested; nothing was sent");
    open.customer = None;
    assert_eq!(refusal(&open).unwrap(), "the id of its customer cannot be requested; nothing was sent");
    open.intent = Err("bad op".to_owned());
    assert_eq!(refusal(&open).unwrap(), "its row cannot be read: bad op; nothing was sent");

    open.life = Lifecycle::accepted();
    let rejected = refuse(&open, "why".to_owned(), now().wall).unwrap();
    assert_eq!((rejected.to_string(), rejected.life.attempts), ("rejected: why".to_owned(), 1));
    assert_eq!(rejected.attempt, Some(AttemptEnd { status: None, error: Some("why".to_owned()) }));
    assert!(rejected.update.settled_at.is_some());
    open.life = Lifecycle { state: IntentState::Waiting, outcome: OutcomeStatus::Unknown, attempts: 1 };
    let parked = refuse(&open, "why".to_owned(), now().wall).unwrap();
    assert_eq!((parked.to_string(), parked.attempt), ("parked: why".to_owned(), None));
}

#[test]
fn intent_that_is_not_sending_is_not_settled() {
    let open = OpenIntent { life: Lifecycle::accepted(), ..update() };
    let outcomes = [
        took(shown(json!({})), Some(200)),
        AttemptOutcome::Rejected(api_error(422)),
        AttemptOutcome::not_sent("locked", None),
    ];
    for outcome in outcomes {
        assert!(try_settle(&open, outcome, None).is_err());
    }
}
