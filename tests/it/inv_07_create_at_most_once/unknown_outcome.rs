//! A create whose outcome is unknown is looked for before it is sent again.

use komoju_sandbox::readings::Source;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload, Readings};
use komoju_testkit::InProcess;
use serde_json::json;

use super::{Cut, end_at, lost, minutes};

#[tokio::test]
async fn a_lost_answer_to_a_create_is_asked_for_again_under_the_same_key() {
    let mut harness = InProcess::open(3).await;
    harness.intend(
        "c",
        "create",
        None,
        Some(json!({"email": "a@example.com", "payment_details": "tok_once"})),
    );
    harness.inject(lost(FaultedCall::Create));
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    // Somebody else has made one like it: which is whose, only the key tells.
    harness.sandbox.world().create(json!({"email": "a@example.com"}));
    harness.restart();
    harness.advance(minutes(19 * 60 + 58));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    let world = harness.sandbox.world();
    let posts: Vec<_> = world.requests().iter().filter(|seen| seen.method == "POST").collect();
    let keys: Vec<_> = posts.iter().map(|seen| seen.header("x-komoju-idempotency").unwrap()).collect();
    assert_eq!((posts.len(), keys[0], &posts[0].body), (2, keys[1], &posts[1].body));
}

/// How often a create was sent.
fn posts(harness: &InProcess) -> usize {
    harness.sandbox.world().requests().iter().filter(|seen| seen.method == "POST").count()
}

#[tokio::test]
async fn a_create_whose_customer_is_plain_to_see_is_not_sent_again() {
    for token in [None, Some("tok_once")] {
        let mut harness = InProcess::open(3).await;
        harness.sandbox.world().readings_mut().list_source = Source::Hidden;
        let body = match token {
            Some(token) => json!({"email": "a@example.com", "payment_details": token}),
            None => json!({"email": "a@example.com"}),
        };
        harness.intend("c", "create", None, Some(body));
        // A server that keeps no 5xx under its key, and a process that ends before it has written down that it was one.
        let failed = FaultEffect::Status {
            status: 500,
            body: Payload::Code("internal_server_error".to_owned()),
            retry_after: None,
            headers: Default::default(),
            work: FaultedWork::Done,
        };
        harness.inject(Fault::new(failed).call(FaultedCall::Create).once());
        end_at(&mut harness, Cut::AfterPush(0)).await;
        harness.advance(minutes(1));
        harness.drain().await;
        let creates = harness.sandbox.world().creates();
        let ended = (harness.state("c"), creates, posts(&harness));
        assert_eq!(ended, ("done".to_owned(), 1, 1), "{token:?}: {}", harness.of("c", "reason"));
        let card = "SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com'";
        assert_eq!(harness.one(card), if token.is_some() { "1" } else { "0" });
    }
}

#[tokio::test]
async fn somebody_elses_customer_without_the_card_is_not_the_creates() {
    let mut harness = InProcess::open(3).await;
    harness.intend(
        "c",
        "create",
        None,
        Some(json!({"email": "a@example.com", "payment_details": "tok_once"})),
    );
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Create).once(),
    );
    harness.drain().await;
    harness.sandbox.world().create(json!({"email": "a@example.com"}));
    harness.advance(minutes(1));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    harness.sweep().await;
    let card = "SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com' ORDER BY 1";
    assert_eq!(harness.column(card), ["0", "1"]);
}

#[tokio::test]
async fn what_nobody_can_know_is_parked() {
    // Another customer that could be it came to be meanwhile, and there is no tag.
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(lost(FaultedCall::Create));
    harness.drain().await;
    harness.sandbox.world().create(json!({"email": "A@example.com"}));
    harness.advance(minutes(21 * 60));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("parked".to_owned(), 1));
    assert!(
        harness.of("c", "reason").contains("2 customers that were created since could be it"),
        "{}",
        harness.of("c", "reason")
    );
    assert_eq!(harness.detail("c")["unclaimed"].as_array().unwrap().len(), 2);

    // The same without the other, but for a twin whose outcome is unknown too.
    let mut harness = InProcess::open(1).await;
    for id in ["c", "twin"] {
        harness.intend(id, "create", None, Some(json!({"email": "a@example.com"})));
    }
    harness.settings.max_concurrent_requests = 1;
    harness.inject(lost(FaultedCall::Create));
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Create).once(),
    );
    harness.drain().await;
    assert_eq!(harness.states(), ["c waiting", "twin waiting"]);
    harness.advance(minutes(21 * 60));
    harness.drain().await;
    assert_eq!(harness.states(), ["c parked", "twin parked"]);
    assert_eq!(harness.sandbox.world().creates(), 1);

    // A customer that was made and is gone already.
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(lost(FaultedCall::Create));
    harness.drain().await;
    harness.sweep().await;
    let made = harness.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    harness.sandbox.world().delete(&made);
    harness.sweep().await;
    harness.advance(minutes(21 * 60));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("parked".to_owned(), 1));
}

#[tokio::test]
async fn customers_that_other_intents_made_are_accounted_for() {
    let mut harness = InProcess::open(1).await;
    harness.settings.max_concurrent_requests = 1;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.intend("d", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Create).once(),
    );
    harness.drain().await;
    assert_eq!(harness.states(), ["c waiting", "d done"]);
    harness.advance(minutes(21 * 60));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 2));
    assert_ne!(harness.of("c", "result_customer_id"), harness.of("d", "result_customer_id"));
}

#[tokio::test]
async fn a_window_that_keeps_moving_proves_nothing() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(
        Fault::new(FaultEffect::Reset { work: FaultedWork::Skipped }).call(FaultedCall::Create).once(),
    );
    harness.drain().await;
    harness.advance(minutes(21 * 60));
    let posts = harness.sandbox.world().creates();
    let short = harness.inject(
        Fault::new(FaultEffect::Body { body: komoju_sandbox::Payload::Html }).call(FaultedCall::List),
    );
    harness.drain().await;
    assert!(harness.sandbox.world().fired(short) > 0);
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("waiting".to_owned(), posts));
    harness.sandbox.world().remove_fault(short);
    harness.advance(minutes(10));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), posts + 1));
}

#[tokio::test]
async fn an_answer_without_a_customer_is_asked_for_again() {
    let mut harness = InProcess::open(1).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(
        Fault::new(FaultEffect::Body { body: komoju_sandbox::Payload::Html })
            .call(FaultedCall::Create)
            .once(),
    );
    harness.drain().await;
    assert_eq!(harness.state("c"), "waiting");
    harness.advance(minutes(1));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    harness.assert_true();
}

#[tokio::test]
async fn a_503_that_asks_to_wait_may_have_taken_effect_all_the_same() {
    let busy = || FaultEffect::Status {
        status: 503,
        body: komoju_sandbox::Payload::Html,
        retry_after: Some("5".to_owned()),
        headers: Default::default(),
        work: FaultedWork::Done,
    };
    for age in [60, 25 * 60] {
        let mut harness = InProcess::open(1).await;
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        harness.inject(Fault::new(busy()).call(FaultedCall::Create).once());
        harness.drain().await;
        harness.advance(minutes(age));
        harness.drain_on(80, minutes(20)).await;
        assert_eq!((harness.state("c"), harness.sandbox.world().creates()), ("done".to_owned(), 1));
    }
    let mut harness = InProcess::open(1).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "x", "payment_details": "tok_5"})));
    harness.inject(Fault::new(busy()).call(FaultedCall::Update).once());
    harness.drain().await;
    harness.advance(minutes(60));
    harness.drain().await;
    assert_eq!((harness.state("u"), harness.sandbox.world().updates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn after_a_server_error_strangers_stand_in_nobodys_way_and_a_likeness_is_for_a_person() {
    let failed = || FaultEffect::Status {
        status: 500,
        body: Default::default(),
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Done,
    };
    for (stranger, state, creates) in [("other@example.com", "done", 1), ("A@example.com", "parked", 1)] {
        let mut harness = InProcess::open(1).await;
        harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        harness.inject(Fault::new(failed()).call(FaultedCall::Create).once());
        harness.drain().await;
        harness.sandbox.world().create(json!({"email": stranger}));
        harness.advance(minutes(1));
        harness.drain().await;
        assert_eq!(
            (harness.state("c").as_str(), harness.sandbox.world().creates()),
            (state, creates),
            "{stranger}"
        );
    }
}

#[tokio::test]
async fn whom_the_mirror_knew_before_the_first_attempt_no_create_has_made() {
    for (wait, effect) in
        [(1, FaultEffect::status(500)), (21 * 60, FaultEffect::Reset { work: FaultedWork::Skipped })]
    {
        let mut harness = InProcess::open(1).await;
        let wanted = json!({"email": "a@example.com"});
        let theirs = harness.sandbox.world().create(wanted.clone());
        // Somebody else came and went.
        let gone = harness.sandbox.world().create(wanted.clone());
        harness.sweep().await;
        harness.sandbox.world().delete(&gone);
        harness.sweep().await;
        harness.intend("c", "create", None, Some(wanted));
        let fault = harness.inject(Fault::new(effect).call(FaultedCall::Create).once());
        harness.drain().await;
        assert_eq!((harness.sandbox.world().fired(fault), harness.state("c").as_str()), (1, "waiting"));
        harness.advance(minutes(wait));
        harness.drain().await;
        assert_eq!(harness.state("c"), "done", "{wait}: {}", harness.of("c", "reason"));
        assert_eq!(harness.sandbox.world().creates(), 1, "{wait}");
        assert_ne!(harness.of("c", "result_customer_id"), theirs, "{wait}");
        harness.assert_true();
    }
}

#[tokio::test]
async fn what_our_own_reads_are_refused_rejects_no_intent() {
    use komoju_sandbox::readings::PerPageOver;
    let small = Readings { per_page_over: PerPageOver::Refused, per_page_max: 10, ..Readings::default() };
    let mut harness = InProcess::reading(1, small).await;
    harness.settings.per_page = 100;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness.inject(lost(FaultedCall::Create));
    harness.drain().await;
    harness.advance(minutes(21 * 60));
    harness.drain().await;
    assert_eq!(
        (harness.state("c"), harness.sandbox.world().creates()),
        ("done".to_owned(), 1),
        "{}",
        harness.of("c", "reason")
    );

    let id = harness.some_id();
    harness.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('e', 'update', '{id}', '{{\"email\": \"x\"}}', '{{\"locale\": null}}')"
    ));
    harness.inject(Fault::new(FaultEffect::status(422)).call(FaultedCall::Show).once());
    harness.drain().await;
    assert_eq!(harness.state("e"), "waiting", "{}", harness.of("e", "reason"));
}
