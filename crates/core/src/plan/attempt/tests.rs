//! Plans of attempts in printed form. Each case sets the facts and names the next step.
//!
//! Longer than 400 lines because it is one table of cases over one set of facts.

use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::intent::lifecycle::{IntentState, Lifecycle};
use crate::open_intent::FrozenRequest;
use crate::plan::create_window::{CreateWindow, WindowError, WindowReading};
use crate::plan::creates::MatchMode;
use crate::plan::key_age::KeyTrust;
use crate::remote::BytesSent;
use crate::remote::error::{ApiError, CertificateFault, RequestStage};
use crate::{BadCustomer, Hints, Page, RawCustomer};

const BEGAN: &str = "2026-06-01T12:00:00.000Z";

fn began() -> Timestamp {
    BEGAN.parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// The facts of an attempt an hour after the first one.
fn facts(intent: Value, outcome: OutcomeStatus) -> AttemptFacts {
    let is_create = intent["op"] == "create";
    let open = OpenIntent {
        position: 1,
        id: "i1".to_owned(),
        intent: Ok(Intent::parse(&intent.to_string()).unwrap()),
        life: Lifecycle { state: IntentState::Sending, outcome, attempts: 2 },
        customer: (!is_create).then(|| id("c")),
        frozen: FrozenRequest {
            key: is_create.then(|| "k".to_owned()),
            first_attempt_at: Some(BEGAN.to_owned()),
            first_server_at: is_create.then(|| BEGAN.to_owned()),
            ..FrozenRequest::default()
        },
        park_timer: None,
        met_server_error: false,
        last_attempt_at: None,
    };
    let now = Moment { wall: began() + hours(1), boot: None, is_confirmed: true };
    let server_time = Some(now.wall);
    AttemptFacts { server_time, ..AttemptFacts::new(open, Consistency::default(), 0.5, now) }
}

fn id(text: &str) -> CustomerId {
    CustomerId::new(text).unwrap()
}

fn create() -> Value {
    json!({"op": "create", "body": {"email": "a"}})
}

fn update(body: Value) -> Value {
    json!({"op": "update", "customer_id": "c", "body": body})
}

fn customer(fields: Value) -> Customer {
    let mut fields = fields;
    fields.as_object_mut().unwrap().entry("id").or_insert("c".into());
    Customer::from_value(fields).unwrap()
}

fn api_error(status: u16) -> ApiError {
    ApiError { status, code: None, message: None, param: None }
}

fn error(cause: ErrorCause) -> RemoteError {
    RemoteError { call: ApiCall::List { page: 1 }, cause, retry_after: None }
}

fn no_answer() -> RemoteError {
    error(ErrorCause::Unreachable { stage: RequestStage::Answer, why: "reset".to_owned() })
}

fn unreadable(text: &str) -> Unreadable {
    Unreadable::new(text.as_bytes(), None, BadCustomer::NotAnObject)
}

fn reading(result: Result<CustomerAnswer, RemoteError>) -> Option<CustomerRead> {
    let call = ApiCall::Show { id: "c".to_owned() };
    Some(CustomerRead { id: id("c"), call, requested_at: began() + hours(1), result })
}

fn shows(fields: Value) -> Option<CustomerRead> {
    reading(Ok(CustomerAnswer::Found(customer(fields))))
}

fn planned(facts: &AttemptFacts) -> String {
    next_step(facts).to_string()
}

#[track_caller]
fn assert_plan(facts: &AttemptFacts, expected: &str) {
    let planned = planned(facts);
    assert!(planned.contains(expected), "{planned:?} is not {expected:?}");
}

#[test]
fn first_attempt_of_a_create_commits_the_servers_time_before_it_sends() {
    let mut facts = facts(create(), OutcomeStatus::Known);
    facts.open.frozen.first_server_at = None;
    assert_plan(&facts, "commit the time of the first attempt");
    facts.server_time = None;
    assert_plan(&facts, "request the server's time");
    facts.time_check = Some(Err(no_answer()));
    assert_plan(&facts, "try again at 2026-06-01T13:00:02Z: GET /customers page 1: no answer: reset");
    facts.time_check = Some(Ok(()));
    assert_plan(&facts, "commit the time of the first attempt");
    facts.is_dated = true;
    assert_plan(&facts, "send under its key");
}

#[test]
fn intent_that_cannot_be_sent_is_parked() {
    let mut facts = facts(update(json!({"email": "b"})), OutcomeStatus::Known);
    facts.open.customer = None;
    assert_plan(&facts, "park: the id of its customer cannot be requested");
    facts.open.intent = Err("bad row".to_owned());
    assert_plan(&facts, "park: bad row");
}

#[test]
fn plain_updates_and_deletes_with_an_unknown_outcome_are_sent_again() {
    for intent in [update(json!({"email": "b"})), json!({"op": "delete", "customer_id": "c"})] {
        assert_eq!(planned(&facts(intent.clone(), OutcomeStatus::Unknown)), "send again");
        assert_eq!(planned(&facts(intent, OutcomeStatus::Known)), "send");
    }
}

#[test]
fn update_with_a_token_is_read_back_before_it_is_sent_again() {
    let mut facts = facts(update(json!({"email": "b", "payment_details": "tok"})), OutcomeStatus::Unknown);
    facts.open.frozen.base = Some(customer(json!({"email": "a"})).body().to_owned());
    let cases = [
        (None, "read customer c"),
        (shows(json!({"email": "b"})), "done: it had taken effect already"),
        (shows(json!({"email": "a"})), "send again"),
        (shows(json!({"email": "x"})), "park: the customer does not show whether this update took effect"),
        (reading(Ok(CustomerAnswer::NotFound)), "send again"),
        (reading(Err(no_answer())), "try again at 2026-06-01T13:00:02Z"),
    ];
    for (reading, expected) in cases {
        facts.reading = reading;
        assert_plan(&facts, expected);
    }
    // A read that may be older than the attempt can prove an effect, but not its absence.
    facts.consistency = Consistency::seconds(60);
    facts.open.last_attempt_at = Some(began() + hours(1));
    facts.reading = shows(json!({"email": "a"}));
    assert_plan(
        &facts,
        "try again at 2026-06-01T13:01:00Z: whether this update took effect is checked again",
    );
    facts.reading = shows(json!({"email": "b"}));
    assert_plan(&facts, "done");
    facts.open.frozen.base = None;
    facts.open.last_attempt_at = Some(began());
    assert_plan(&facts, "park: ");
}

#[test]
fn create_with_an_unknown_outcome_is_looked_for_unless_its_key_alone_is_enough() {
    let window = "look for its customer first, in the window from 2026-06-01T11:50:00Z";
    let no_time = "park: the time of its first attempt by KOMOJU's clock is not known";
    let again = "send again under its key";
    // Hours since the first attempt, whether its server time is known, whether it has a tag, and
    // whether the API failed.
    let cases = [
        (1, true, false, false, window, Some((KeyTrust::Full, MatchMode::All))),
        (1, true, true, false, window, Some((KeyTrust::Doubtful, MatchMode::All))),
        (1, true, false, true, window, Some((KeyTrust::Doubtful, MatchMode::All))),
        (21, true, false, false, window, Some((KeyTrust::Expired, MatchMode::Any))),
        (1, false, false, false, again, None),
        (1, false, true, false, again, None),
        (1, false, false, true, no_time, None),
        (21, false, false, false, no_time, None),
    ];
    for (age, is_dated, is_tagged, met_server_error, expected, query) in cases {
        let mut facts = facts(create(), OutcomeStatus::Unknown);
        facts.now.wall = began() + hours(age);
        facts.open.met_server_error = met_server_error;
        facts.open.frozen.tag = is_tagged.then(|| "ref".to_owned());
        if !is_dated {
            facts.open.frozen.first_server_at = None;
        }
        assert_plan(&facts, expected);
        let planned = match next_step(&facts) {
            AttemptStep::LookForCustomer(query) => Some((query.trust, query.wanted.mode)),
            _ => None,
        };
        assert_eq!(planned, query, "{age} {is_dated} {is_tagged} {met_server_error}");
        // Proof of absence must be newer than the last attempt. A trusted key needs no proof.
        facts.consistency = Consistency::seconds(60);
        facts.open.last_attempt_at = Some(facts.now.wall);
        match query {
            Some((KeyTrust::Doubtful | KeyTrust::Expired, _)) => {
                assert_plan(&facts, "whether this create took effect is checked once");
            }
            _ => assert_plan(&facts, expected),
        }
        facts.server_time = None;
        assert_plan(&facts, "request the server's time");
    }
}

/// A window with these customers and this total.
fn window(query: &WindowQuery, customers: &[Customer], total: Option<u64>) -> CreateWindow {
    let listed = |customer: &Customer| {
        let value: Value = serde_json::from_str(customer.body()).unwrap();
        RawCustomer::from_value(&value).unwrap()
    };
    let hints = Hints { total, ..Hints::default() };
    let page = Page { hints, customers: customers.iter().map(listed).collect(), ..Page::default() };
    let mut reading = WindowReading::new(query, 10);
    (0..9).find_map(|_| reading.take(Ok(page.clone()))).unwrap().unwrap()
}

/// The facts after a search with this trust in the key and these listed customers. With `None` as
/// total the window proves no absence.
fn looked(trust: KeyTrust, body: Value, listed: &[Customer], total: Option<u64>) -> AttemptFacts {
    let mut facts = facts(json!({"op": "create", "body": body}), OutcomeStatus::Unknown);
    let age = if trust == KeyTrust::Expired { 21 } else { 1 };
    facts.now.wall = began() + hours(age);
    facts.open.met_server_error = trust == KeyTrust::Doubtful;
    let AttemptStep::LookForCustomer(query) = next_step(&facts) else { panic!("not looked for") };
    assert_eq!(query.trust, trust);
    let window = window(&query, listed, total);
    let candidates = window.candidates.iter().map(|customer| customer.id().clone()).collect();
    let result = Ok(LookupResult { window, candidates, has_twin: false });
    facts.lookup = Some(CreateLookup { query, took: Duration::ZERO, result });
    facts
}

const EVERY_TRUST: [KeyTrust; 3] = [KeyTrust::Full, KeyTrust::Doubtful, KeyTrust::Expired];

fn looked_for_a(trust: KeyTrust, listed: &[Customer], total: Option<u64>) -> AttemptFacts {
    looked(trust, json!({"email": "a"}), listed, total)
}

#[test]
fn create_without_a_candidate_is_sent_again_under_a_young_key_and_under_a_new_one_after_proof() {
    let again = "send again under its key";
    let unproven = "proves no absence (it shows 0 customers, and it gives no total)";
    let whole = [again, again, "commit a new key: the create did not take effect"];
    // After a 5xx the API may have forgotten the key.
    let partial = [again, unproven, unproven];
    for (total, expected) in [(Some(0), whole), (None, partial)] {
        for (trust, expected) in EVERY_TRUST.into_iter().zip(expected) {
            assert_plan(&looked_for_a(trust, &[], total), expected);
        }
    }
    // A tag alone also makes a key doubtful.
    let mut tagged = looked_for_a(KeyTrust::Doubtful, &[], None);
    tagged.open.met_server_error = false;
    assert_plan(&tagged, again);
    let mut facts = looked_for_a(KeyTrust::Expired, &[], Some(0));
    facts.has_new_key = true;
    assert_plan(&facts, "send under its key");
}

#[test]
fn create_with_one_exact_candidate_is_done_after_a_request_for_it() {
    let listed = [customer(json!({"email": "a"}))];
    for trust in EVERY_TRUST {
        let mut facts = looked_for_a(trust, &listed, None);
        assert_plan(&facts, "read customer c");
        for result in [Ok(CustomerAnswer::NotFound), Err(no_answer())] {
            facts.reading = reading(result);
            assert_plan(&facts, "done: it had taken effect already");
        }
        // A create with a token makes a customer with a source.
        let body = json!({"email": "a", "payment_details": "tok"});
        let mut facts = looked(trust, body, &listed, None);
        facts.reading = shows(json!({"email": "a", "source": {"brand": "visa"}}));
        assert_plan(&facts, "done: it had taken effect already");
        facts.reading = shows(json!({"email": "a"}));
        let by_another = if trust == KeyTrust::Full { "send again under its key" } else { "done" };
        assert_plan(&facts, by_another);
    }
}

#[test]
fn create_whose_effect_is_unclear_is_parked_unless_its_key_is_trusted() {
    let several = [customer(json!({"email": "a"})), customer(json!({"id": "d", "email": "a"}))];
    for trust in EVERY_TRUST {
        let mut twin = looked_for_a(trust, &several[..1], None);
        if let Some(CreateLookup { result: Ok(result), .. }) = &mut twin.lookup {
            result.has_twin = true;
        }
        for facts in [looked_for_a(trust, &several, None), twin] {
            let is_trusted = trust == KeyTrust::Full;
            assert_plan(
                &facts,
                if is_trusted { "send again under its key" } else { "park: it is not known whether" },
            );
        }
    }
    let facts = looked_for_a(KeyTrust::Expired, &several, None);
    let AttemptStep::Finish(AttemptOutcome::Park { detail, .. }) = next_step(&facts) else {
        panic!("not parked")
    };
    assert_eq!(detail, Some(json!({"window_from": "2026-06-01T11:50:00.000Z", "unclaimed": ["c", "d"]})));
}

#[test]
fn candidate_that_only_the_log_shows_is_requested() {
    for trust in EVERY_TRUST {
        let mut facts = looked_for_a(trust, &[], Some(0));
        if let Some(CreateLookup { result: Ok(result), .. }) = &mut facts.lookup {
            result.candidates = vec![id("c")];
        }
        assert_plan(&facts, "read customer c");
        let created = |at: &str| shows(json!({"email": "a", "created_at": at}));
        let unclear = |parked| if trust == KeyTrust::Full { "send again under its key" } else { parked };
        let cases = [
            (created("2026-06-01T12:00:00Z"), "done"),
            (shows(json!({"email": "a"})), "done"),
            (created("2026-06-01T11:00:00Z"), unclear("created before the first attempt")),
            (reading(Ok(CustomerAnswer::NotFound)), unclear("no longer exists")),
            (reading(Err(no_answer())), unclear("try again at ")),
        ];
        for (reading, expected) in cases {
            facts.reading = reading;
            assert_plan(&facts, expected);
        }
    }
}

#[test]
fn window_that_cannot_be_read_delays_a_create_and_a_moving_one_only_where_its_key_is_not_trusted() {
    let failed = |trust, took, error| {
        let mut facts = looked_for_a(trust, &[], None);
        let lookup = facts.lookup.take().unwrap();
        facts.lookup = Some(CreateLookup { took, result: Err(error), ..lookup });
        facts
    };
    let moving = || WindowError::Moving("it moves".to_owned());
    for trust in EVERY_TRUST {
        let facts = failed(trust, Duration::ZERO, WindowError::Remote(no_answer()));
        assert_plan(&facts, "GET /customers page 1: no answer: reset");
    }
    let facts = failed(KeyTrust::Full, Duration::ZERO, moving());
    assert_plan(&facts, "send again under its key");
    // Attempts, the duration of the reading in seconds, and the wait.
    let cases = [(1, 0, 1), (7, 0, 64), (20, 0, 64), (1, 60, 240), (1, 11_000, 43_200), (1, 90_000, 43_200)];
    for (attempts, took, wait) in cases {
        let mut facts = failed(KeyTrust::Doubtful, Duration::from_secs(took), moving());
        facts.open.life.attempts = attempts;
        let at = facts.now.wall + SignedDuration::from_secs(wait);
        assert_plan(&facts, &format!("try again at {at:.0}: it moves"));
    }
}

mod answers;
mod expectation;

#[test]
fn open_intent_is_summarized_by_its_operation_and_customer() {
    let summary = |intent| facts(intent, OutcomeStatus::Known).open.summary();
    assert_eq!(summary(update(json!({"email": "b"}))), "update of c");
    assert_eq!(summary(create()), "create");
}
