//! The writing half of the remote against the local KOMOJU: the result of each answer of the API.

use std::sync::Arc;

use komoju_core::CustomerId;
use komoju_core::intent::Body;
use komoju_sandbox::{
    Ending, Fault, FaultEffect, FaultedCall, FaultedWork, Options, Payload, Readings, Sandbox, readings,
};
use komoju_sync::clock::ManualClock;
use komoju_sync::config::Config;
use komoju_sync::remote::{
    Cause, Http, Left, Push, PushError, PushRemote, Pushed, PushedCustomer, Remote as _, RemoteError,
};
use komoju_sync::secret::SecretKey;
use serde_json::{Value, json};

struct RemoteHarness {
    sandbox: Sandbox,
    remote: Http,
}

impl RemoteHarness {
    async fn open(readings: Readings) -> Self {
        let sandbox = Sandbox::start(Options { customers: 3, readings, ..Options::default() }).await.unwrap();
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("config.toml");
        let text =
            format!("[api]\nbase_url = \"{}\"\n[rate_limit]\nrequests_per_second = 0\n", sandbox.base_url());
        std::fs::write(&file, text).unwrap();
        let clock = Arc::new(ManualClock::at("2026-06-01T00:00:00Z".parse().unwrap()));
        let key = SecretKey::parse(sandbox.key()).unwrap();
        let remote = Http::new(&Config::load(&file).unwrap(), &key, clock).unwrap();
        Self { sandbox, remote }
    }

    fn inject(&self, fault: Fault) {
        self.sandbox.world().inject(fault);
    }
}

fn body(value: Value) -> Body {
    Body::new(value).unwrap()
}

fn create(key: &str, email: &str) -> Push {
    Push::Create { key: key.to_owned(), body: body(json!({"email": email, "metadata": {"n": "1"}})) }
}

fn update(id: &str, value: Value) -> Push {
    Push::Update { id: CustomerId::new(id).unwrap(), body: body(value) }
}

fn delete(id: &str) -> Push {
    Push::Delete { id: CustomerId::new(id).unwrap() }
}

fn error(pushed: Result<Pushed, PushError>) -> PushError {
    pushed.unwrap_err()
}

#[tokio::test]
async fn push_that_takes_effect_shows_the_customer_and_is_sent_once() {
    let harness = RemoteHarness::open(Readings::default()).await;
    let Pushed::Took { customer: PushedCustomer::Shown(made), status: 200 } =
        harness.remote.push(&create("k1", "a@example.com")).await.unwrap()
    else {
        panic!("no customer");
    };
    let again = harness.remote.push(&create("k1", "a@example.com")).await.unwrap();
    assert!(matches!(again, Pushed::Took { customer: PushedCustomer::Shown(same), .. } if same == made));
    assert_eq!(harness.sandbox.world().creates(), 1, "the same key is the same create");
    assert_eq!(harness.sandbox.world().len(), 4);

    let id = made.id().as_str();
    let changed = harness.remote.push(&update(id, json!({"email": "b@example.com"}))).await.unwrap();
    assert!(
        matches!(&changed, Pushed::Took { customer: PushedCustomer::Shown(after), .. } if after.email() == Some("b@example.com"))
    );
    assert_eq!(
        harness.sandbox.world().get(id).unwrap()["metadata"],
        json!({"n": "1"}),
        "what is not named stays"
    );

    assert!(matches!(harness.remote.push(&delete(id)).await.unwrap(), Pushed::Took { .. }));
    for push in [delete(id), update(id, json!({"email": "c"}))] {
        let gone = harness.remote.push(&push).await.unwrap();
        assert!(
            matches!(&gone, Pushed::NotFound { told, .. } if told.code.as_deref() == Some("not_found")),
            "{gone:?}"
        );
    }
}

#[tokio::test]
async fn id_is_one_segment_and_token_is_only_in_the_body() {
    let harness = RemoteHarness::open(Readings::default()).await;
    let odd = "a/../b?c#d%2e é";
    harness.sandbox.world().put_raw(json!({"id": odd, "resource": "customer", "email": null}));
    harness.remote.push(&update(odd, json!({"payment_details": "tok_4242_secret"}))).await.ok();
    let world = harness.sandbox.world();
    let seen = world.requests().last().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.body.as_str()),
        ("PATCH", r#"{"payment_details":"tok_4242_secret"}"#)
    );
    assert!(seen.path.ends_with("/customers/a%2F..%2Fb%3Fc%23d%252e%20%C3%A9"), "{}", seen.path);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-komoju-idempotency"), None, "only creates carry a key");
}

#[tokio::test]
async fn push_took_effect_if_the_body_of_a_2xx_cannot_be_read() {
    for answer in [readings::Delete::Customer, readings::Delete::NoContent] {
        let harness = RemoteHarness::open(Readings { delete: answer, ..Readings::default() }).await;
        let id = harness.sandbox.world().ids()[0].clone();
        assert!(matches!(harness.remote.push(&delete(&id)).await, Ok(Pushed::Took { .. })), "{answer:?}");
    }
    let harness = RemoteHarness::open(Readings::default()).await;
    harness.inject(
        Fault::new(FaultEffect::Body { body: Payload::Text("{\"id\":".to_owned()) })
            .call(FaultedCall::Create),
    );
    let pushed = harness.remote.push(&create("k", "a")).await;
    assert!(matches!(pushed, Ok(Pushed::Took { customer: PushedCustomer::None, .. })), "{pushed:?}");
    assert_eq!(harness.sandbox.world().creates(), 1);
}

#[tokio::test]
async fn web_page_leaves_the_outcome_of_a_push_unknown() {
    let harness = RemoteHarness::open(Readings::default()).await;
    harness.inject(Fault::new(FaultEffect::Body { body: Payload::Html }));
    let id = harness.sandbox.world().ids()[0].clone();
    for push in [create("k", "a"), update(&id, json!({"email": "c"})), delete(&id)] {
        let pushed = harness.remote.push(&push).await;
        assert!(
            matches!(
                &pushed,
                Err(PushError {
                    left: Left::Perhaps,
                    error: RemoteError { cause: Cause::Unexpected(_), .. }
                })
            ),
            "{pushed:?}"
        );
    }
}

#[tokio::test]
async fn refusal_is_distinguished_from_a_transient_failure() {
    let coded = |status: u16, code: &str| FaultEffect::Status {
        status,
        body: Payload::Code(code.to_owned()),
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    };
    let html = |status: u16| FaultEffect::Status {
        status,
        body: Payload::Html,
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    };
    type Case = (FaultEffect, fn(&Cause) -> bool);
    let cases: [Case; 15] = [
        (coded(400, "bad_request"), |c| matches!(c, Cause::Rejected(_))),
        (coded(402, "request_failed"), |c| matches!(c, Cause::Rejected(_))),
        (coded(422, "invalid_parameter"), |c| matches!(c, Cause::Rejected(_))),
        (coded(502, "card_declined"), |c| matches!(c, Cause::Rejected(_))),
        (coded(502, "card_expired"), |c| matches!(c, Cause::Rejected(_))),
        (coded(502, "exceeds_limit"), |c| matches!(c, Cause::Rejected(_))),
        (coded(502, "bad_verification_value"), |c| matches!(c, Cause::Rejected(_))),
        (coded(502, "bad_gateway"), |c| matches!(c, Cause::Unexpected(_))),
        (html(502), |c| matches!(c, Cause::Unexpected(_))),
        (coded(409, "conflict"), |c| matches!(c, Cause::Unexpected(_))),
        (coded(429, "too_many_requests"), |c| matches!(c, Cause::Throttled(_))),
        (coded(401, "unauthorized"), |c| matches!(c, Cause::KeyRefused(_))),
        (coded(403, "forbidden"), |c| matches!(c, Cause::Rejected(_))),
        (html(403), |c| matches!(c, Cause::Unexpected(_))),
        (coded(503, "service_unavailable"), |c| matches!(c, Cause::Unexpected(_))),
    ];
    for (effect, expected) in cases {
        let harness = RemoteHarness::open(Readings::default()).await;
        harness.inject(Fault::new(effect.clone()).call(FaultedCall::Create));
        let refused = error(harness.remote.push(&create("k", "a")).await);
        assert!(expected(&refused.error.cause), "{effect:?}: {refused}");
        assert!(refused.to_string().starts_with("POST /customers: "), "{refused}");
        assert!(harness.remote.server_time().is_some());
    }
}

#[tokio::test]
async fn nothing_left_only_without_a_connection() {
    for effect in [
        FaultEffect::Reset { work: FaultedWork::Done },
        FaultEffect::Close { work: FaultedWork::Done },
        FaultEffect::Cut { after: 5, ending: Ending::Close },
        FaultEffect::Cut { after: 5, ending: Ending::Reset },
    ] {
        let harness = RemoteHarness::open(Readings::default()).await;
        harness.inject(Fault::new(effect.clone()).call(FaultedCall::Create));
        let lost = error(harness.remote.push(&create("k", "a")).await);
        assert!(matches!(lost.error.cause, Cause::Unreachable { .. }), "{effect:?}: {lost}");
        assert_eq!(lost.left, Left::Perhaps, "{effect:?}");
        assert_eq!(harness.sandbox.world().creates(), 1, "and it did");
    }
    let harness = RemoteHarness::open(Readings::default()).await;
    let RemoteHarness { sandbox, remote } = harness;
    sandbox.stop().await;
    let lost = error(remote.push(&create("k", "a")).await);
    assert_eq!(lost.left, Left::Nothing, "{lost}");
}
