//! The meaning of answers to pushes. No sequence of answers makes an attempt send twice.

#![expect(clippy::result_large_err, reason = "the answers of the API, as the client returns them")]

use super::*;

fn answered(intent: Value, outcome: OutcomeStatus, answer: Result<PushAnswer, PushError>) -> AttemptFacts {
    let mut facts = facts(intent, outcome);
    let push = facts.open.push().unwrap();
    facts.add_answer(push, answer);
    facts
}

fn failed(bytes_sent: BytesSent, cause: ErrorCause) -> Result<PushAnswer, PushError> {
    Err(PushError { error: error(cause), bytes_sent })
}

fn took(customer: PushedCustomer) -> Result<PushAnswer, PushError> {
    Ok(PushAnswer::Applied { customer, status: 200 })
}

#[test]
fn effect_is_known_by_the_answer_or_by_another_read() {
    let (update, delete) = (update(json!({"email": "b"})), json!({"op": "delete", "customer_id": "c"}));
    let (with_id, without_id) = (unreadable(r#"{"id": "c"}"#), unreadable("[]"));
    let shown = || PushedCustomer::Shown(customer(json!({"email": "b"})));
    let no_id = "POST /customers: answered HTTP 200 without a customer that can be read";
    let cases = [
        (create(), shown(), "done: answered HTTP 200"),
        (create(), PushedCustomer::Unreadable(with_id.clone()), "done: answered HTTP 200"),
        (create(), PushedCustomer::Unreadable(without_id.clone()), no_id),
        (create(), PushedCustomer::None, no_id),
        (update.clone(), shown(), "done: answered HTTP 200"),
        (update.clone(), PushedCustomer::None, "read customer c"),
        (update.clone(), PushedCustomer::Unreadable(with_id.clone()), "read customer c"),
        (delete, PushedCustomer::None, "done: answered HTTP 200"),
    ];
    for (intent, customer, expected) in cases {
        assert_plan(&answered(intent, OutcomeStatus::Known, took(customer)), expected);
    }
    let mut facts = answered(update, OutcomeStatus::Known, took(PushedCustomer::None));
    let cases = [
        (shows(json!({"email": "b"})), "done"),
        (reading(Ok(CustomerAnswer::Unreadable(with_id))), "done"),
        (reading(Ok(CustomerAnswer::NotFound)), "done"),
        (reading(Ok(CustomerAnswer::Unreadable(without_id))), "try again at 2026-06-01T13:00:02Z"),
        (reading(Err(no_answer())), "try again at 2026-06-01T13:00:02Z"),
    ];
    for (reading, expected) in cases {
        facts.reading = reading;
        assert_plan(&facts, expected);
        if let AttemptStep::Finish(AttemptOutcome::Retry(later)) = next_step(&facts) {
            assert_eq!(later.outcome, OutcomeStatus::Unknown);
        }
    }
    // A read may lag behind the push, so the customer is not requested now.
    facts.reading = None;
    facts.consistency = Consistency::seconds(60);
    assert_plan(&facts, "done");
}

#[test]
fn failed_push_waits_and_its_outcome_is_known_only_if_nothing_was_done() {
    let unreachable =
        || ErrorCause::Unreachable { stage: RequestStage::Connection, why: "refused".to_owned() };
    let cases = [
        (BytesSent::None, unreachable(), OutcomeStatus::Known, Obstacle::None),
        (BytesSent::Maybe, unreachable(), OutcomeStatus::Unknown, Obstacle::None),
        (BytesSent::Maybe, ErrorCause::Unexpected(api_error(500)), OutcomeStatus::Unknown, Obstacle::None),
        (
            BytesSent::Maybe,
            ErrorCause::KeyRefused(api_error(401)),
            OutcomeStatus::Known,
            Obstacle::KeyRefused,
        ),
        (
            BytesSent::Maybe,
            ErrorCause::Throttled(api_error(429)),
            OutcomeStatus::Known,
            Obstacle::Throttled { until: None },
        ),
        (
            BytesSent::Maybe,
            ErrorCause::Throttled(api_error(503)),
            OutcomeStatus::Unknown,
            Obstacle::Throttled { until: None },
        ),
    ];
    for (left, cause, outcome, obstacle) in cases {
        let facts = answered(create(), OutcomeStatus::Known, failed(left, cause.clone()));
        let AttemptStep::Finish(AttemptOutcome::Retry(later)) = next_step(&facts) else { panic!("{cause}") };
        assert_eq!((later.outcome, later.obstacle), (outcome, obstacle), "{cause}");
        assert_eq!(later.at.is_none(), obstacle == Obstacle::KeyRefused, "{cause}");
    }
    let retry_after = Some(Duration::from_secs(600));
    let asked_to_wait = RemoteError { retry_after, ..error(ErrorCause::Unexpected(api_error(500))) };
    let answer = Err(PushError { error: asked_to_wait, bytes_sent: BytesSent::Maybe });
    let mut facts = answered(create(), OutcomeStatus::Known, answer);
    facts.throttled_until = Some(began());
    let AttemptStep::Finish(AttemptOutcome::Retry(later)) = next_step(&facts) else { panic!("not later") };
    assert_eq!(later.at, Some(facts.now.wall + SignedDuration::from_secs(600)));
    assert_eq!(later.obstacle, Obstacle::Throttled { until: Some(began()) });
}

#[test]
fn refusal_rejects_and_a_missing_customer_is_an_outcome_of_its_own() {
    let rejected = answered(
        create(),
        OutcomeStatus::Known,
        failed(BytesSent::Maybe, ErrorCause::Rejected(api_error(422))),
    );
    assert_eq!(planned(&rejected), "reject: HTTP 422");
    let update = update(json!({"email": "b"}));
    let missing = answered(update, OutcomeStatus::Known, Ok(PushAnswer::NotFound { error: api_error(404) }));
    assert_eq!(planned(&missing), "the customer does not exist: HTTP 404");
}

#[test]
fn forbidden_push_is_rejected_only_if_the_list_is_answered() {
    use OutcomeStatus::{Known, Unknown};
    let untrusted = RequestStage::Tls(CertificateFault::Untrusted);
    let accepted = || {
        [
            Ok(()),
            Err(error(ErrorCause::Rejected(api_error(422)))),
            Err(error(ErrorCause::Unusable("why".into()))),
        ]
    };
    let refused = || [Err(error(ErrorCause::KeyRefused(api_error(403))))];
    // An answer from in front of the API says nothing about the key.
    let unanswered = || {
        let causes = [
            ErrorCause::Unreachable { stage: untrusted, why: "why".into() },
            ErrorCause::Unreachable { stage: RequestStage::Answer, why: "why".into() },
            ErrorCause::Redirected { status: 307, to: None },
            ErrorCause::Unexpected(api_error(503)),
            ErrorCause::Throttled(api_error(429)),
        ];
        causes.map(|cause| Err(error(cause)))
    };
    let update = || update(json!({"email": "b"}));
    let check = |intent: Value, outcome, checks: Vec<Result<(), RemoteError>>, expected| {
        let mut facts =
            answered(intent, outcome, failed(BytesSent::Maybe, ErrorCause::Rejected(api_error(403))));
        assert_plan(&facts, "request the list, to see whether the key is refused");
        for check in checks {
            facts.key_check = Some(check);
            assert_plan(&facts, expected);
            if let AttemptStep::Finish(AttemptOutcome::Retry(plan)) = next_step(&facts) {
                assert_eq!(plan.status, Some(403), "the status of the push is recorded");
            }
        }
    };
    for (intent, outcome) in [(create(), Known), (create(), Unknown), (update(), Known), (update(), Unknown)]
    {
        let is_unknown_create = intent["op"] == "create" && outcome == Unknown;
        let rejected =
            if is_unknown_create { "an earlier attempt may have taken effect" } else { "reject: HTTP 403" };
        check(intent.clone(), outcome, accepted().into(), rejected);
        check(
            intent.clone(),
            outcome,
            refused().into(),
            "the list is refused too, so the API refused the key",
        );
        check(intent, outcome, unanswered().into(), "it is not known whether the key is refused: ");
    }
}

/// Answers a step as `choice` selects.
fn answer(facts: &mut AttemptFacts, step: AttemptStep, choice: u8) {
    let list = || if choice.is_multiple_of(2) { Ok(()) } else { Err(no_answer()) };
    let shown = || match choice % 4 {
        0 => Ok(CustomerAnswer::NotFound),
        1 => Ok(CustomerAnswer::Unreadable(unreadable("[]"))),
        2 => Err(no_answer()),
        _ => Ok(CustomerAnswer::Found(customer(json!({"email": if choice < 128 { "a" } else { "b" }})))),
    };
    match step {
        AttemptStep::RequestServerTime => facts.time_check = Some(list()),
        AttemptStep::CheckKey => facts.key_check = Some(list()),
        AttemptStep::ReadCustomer(_) => facts.reading = reading(shown()),
        AttemptStep::FindLastPush(..) => {
            facts.last_push = Some(LastPush((choice.is_multiple_of(2)).then(began)))
        }
        AttemptStep::LookForCustomer(query) => {
            let listed = customer(json!({"email": "a"}));
            let listed = if choice.is_multiple_of(2) { vec![] } else { vec![listed] };
            let window = window(&query, &listed, (choice.is_multiple_of(3)).then_some(listed.len() as u64));
            let candidates = if choice < 200 { vec![] } else { vec![id("c")] };
            let result = match choice % 5 {
                0 => Err(WindowError::Moving("it moves".to_owned())),
                _ => Ok(LookupResult { window, candidates, has_twin: choice.is_multiple_of(7) }),
            };
            facts.lookup = Some(CreateLookup { query, took: Duration::ZERO, result });
        }
        AttemptStep::FreezeFirstAttempt => facts.is_dated = true,
        AttemptStep::FreezeNewKey => facts.has_new_key = true,
        AttemptStep::Send { push, .. } => {
            let answer = match choice % 5 {
                0 => took(PushedCustomer::None),
                1 => Ok(PushAnswer::NotFound { error: api_error(404) }),
                2 => failed(BytesSent::Maybe, ErrorCause::Rejected(api_error(403))),
                3 => failed(BytesSent::Maybe, ErrorCause::Unexpected(api_error(500))),
                _ => took(PushedCustomer::Shown(customer(json!({})))),
            };
            facts.add_answer(push, answer);
        }
        AttemptStep::Finish(outcome) => panic!("{outcome}"),
    }
}

proptest! {
    #[test]
    fn attempt_ends_after_at_most_one_push_whatever_is_answered(
        op in 0..4_usize, age in 0..30_i64, flags in 0..32_u8, choices in prop::collection::vec(any::<u8>(), 12)
    ) {
        let expecting = json!({"op": "delete", "customer_id": "c", "expect": {"email": "a"}});
        let with_token = json!({"email": "b", "payment_details": "tok"});
        let intent = [create(), update(json!({"email": "b"})), update(with_token), expecting][op].clone();
        let is_set = |flag: u8| flags & (1 << flag) != 0;
        let mut facts = facts(intent, if is_set(0) { OutcomeStatus::Unknown } else { OutcomeStatus::Known });
        facts.now.wall = began() + hours(age);
        facts.open.met_server_error = is_set(1);
        facts.server_time = is_set(2).then_some(facts.now.wall);
        if is_set(3) {
            facts.open.frozen.first_server_at = None;
        }
        let (mut pushes, mut choices) = (0, choices.into_iter());
        let outcome = loop {
            match next_step(&facts) {
                AttemptStep::Finish(outcome) => break outcome,
                step => {
                    pushes += u32::from(matches!(step, AttemptStep::Send { .. }));
                    let choice = choices.next().expect("an attempt takes few steps");
                    answer(&mut facts, step, choice);
                }
            }
        };
        prop_assert!(pushes <= 1, "{outcome}");
    }
}
