//! What the submitter last saw of a customer (`expect`), compared with the customer now.

use super::*;

#[test]
fn expectation_is_compared_with_the_customer_and_a_difference_parks() {
    let mut intent = update(json!({"email": "b"}));
    intent["expect"] = json!({"email": "a"});
    let mut facts = facts(intent, OutcomeStatus::Known);
    facts.consistency = Consistency::seconds(60);
    let key_refused = error(ErrorCause::KeyRefused(api_error(401)));
    let cases = [
        (None, "read customer c"),
        (shows(json!({"email": "a"})), "send"),
        (shows(json!({"email": "x"})), "find the last push of customer c in the log"),
        (reading(Ok(CustomerAnswer::NotFound)), "send"),
        (
            reading(Ok(CustomerAnswer::Unreadable(unreadable("[]")))),
            "GET /customers/c: the customer is unreadable",
        ),
        (
            reading(Err(error(ErrorCause::Rejected(api_error(422))))),
            "GET /customers page 1: answered HTTP 422",
        ),
        (reading(Err(key_refused)), "try again at once: "),
    ];
    for (reading, expected) in cases {
        facts.reading = reading;
        assert_plan(&facts, expected);
    }
    facts.reading = shows(json!({"email": "x"}));
    facts.last_push = Some(LastPush(Some(began())));
    assert_plan(&facts, "try again at 2026-06-01T12:01:00Z: the customer is not as expected, shortly after");
    facts.last_push = Some(LastPush(None));
    let AttemptStep::Finish(AttemptOutcome::Park { reason, detail }) = next_step(&facts) else {
        panic!("no conflict")
    };
    assert_eq!(reason, "the customer is not as expected: email differs; nothing was sent");
    let ours = json!({"email": "b"});
    let kept = json!({"differs": ["email"], "base": {"email": "a"}, "theirs": {"id": "c", "email": "x"}, "ours": ours});
    assert_eq!(detail, Some(kept));
    // An earlier attempt of this intent may have made the difference.
    facts.open.life.outcome = OutcomeStatus::Unknown;
    facts.reading = shows(json!({"email": "b"}));
    assert_plan(&facts, "send again");
}

#[test]
fn difference_parks_a_repeated_update_unless_its_own_change_is_in_effect() {
    let mut intent = update(json!({"email": "b"}));
    intent["expect"] = json!({"email": "a"});
    for (status, email, parks) in [
        (OutcomeStatus::Unknown, "b", false),
        (OutcomeStatus::Unknown, "x", true),
        // An intent that was never sent made no difference.
        (OutcomeStatus::Known, "b", true),
    ] {
        let mut facts = facts(intent.clone(), status);
        facts.reading = shows(json!({"email": email}));
        facts.last_push = Some(LastPush(None));
        let is_parked = matches!(next_step(&facts), AttemptStep::Finish(AttemptOutcome::Park { .. }));
        assert_eq!(is_parked, parks, "{status:?} {email}");
    }
}
