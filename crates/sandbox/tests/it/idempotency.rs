//! Tests `X-KOMOJU-IDEMPOTENCY`: at most once within a day, and its limits.

use std::time::Duration;

use komoju_sandbox::readings::ServerErrors;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload, Sandbox};
use serde_json::{Value, json};

use crate::client::{Ask, Reply, ask, sandbox};

fn create(sandbox: &Sandbox, key: &str, body: &Value) -> Ask {
    ask(sandbox, "POST", "/customers").header("X-KOMOJU-IDEMPOTENCY", key).json(body)
}

async fn created(sandbox: &Sandbox, key: &str) -> Reply {
    create(sandbox, key, &json!({"email": "a@example.jp"})).send(sandbox).await
}

#[tokio::test]
async fn first_answer_is_replayed_for_exactly_24_hours() {
    let sandbox = sandbox(0).await;
    let first = created(&sandbox, "k").await;
    assert_eq!(first.status, 200);
    sandbox.world().advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert_eq!(created(&sandbox, "k").await.json(), first.json());
    assert_eq!(sandbox.world().creates(), 1);

    sandbox.world().advance(Duration::from_secs(1));
    assert_ne!(created(&sandbox, "k").await.json()["id"], first.json()["id"]);
    assert_eq!(sandbox.world().creates(), 2);
}

#[tokio::test]
async fn second_request_is_answered_409_while_the_first_one_runs() {
    let sandbox = sandbox(0).await;
    let hold = sandbox.world().inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create).once());
    let (first, ()) = tokio::join!(created(&sandbox, "k"), async {
        sandbox.until(|world| world.fired(hold) == 1).await;
        assert_eq!(created(&sandbox, "k").await.error().0, 409);
        assert_eq!(sandbox.world().creates(), 0);
        sandbox.world().remove_fault(hold);
    });
    assert_eq!(first.status, 200);
    assert_eq!(created(&sandbox, "k").await.json(), first.json());
    assert_eq!(sandbox.world().creates(), 1);
}

#[tokio::test]
async fn same_key_with_another_body_is_refused() {
    let sandbox = sandbox(0).await;
    created(&sandbox, "k").await;
    let other = create(&sandbox, "k", &json!({"email": "b@example.jp"})).send(&sandbox).await;
    assert_eq!(other.error(), (422, "invalid_parameter".to_owned(), json!("X-KOMOJU-IDEMPOTENCY")));
    assert_eq!(sandbox.world().creates(), 1);
}

#[tokio::test]
async fn key_has_at_most_a_hundred_ascii_characters() {
    let sandbox = sandbox(0).await;
    assert_eq!(created(&sandbox, &"k".repeat(100)).await.status, 200);
    for key in ["k".repeat(101), "キー".to_owned()] {
        assert_eq!(created(&sandbox, &key).await.status, 422, "{key}");
    }
}

#[tokio::test]
async fn refusal_is_replayed() {
    let sandbox = sandbox(0).await;
    let body = json!({"payment_details": "nonsense"});
    let first = create(&sandbox, "k", &body).send(&sandbox).await;
    let again = create(&sandbox, "k", &body).send(&sandbox).await;
    assert_eq!((first.status, first.json()), (422, again.json()));
}

#[tokio::test]
async fn server_error_is_forgotten_or_stored() {
    for (reading, retried, creates) in [(ServerErrors::Forgotten, 200, 1), (ServerErrors::Stored, 500, 0)] {
        let sandbox = sandbox(0).await;
        sandbox.world().readings_mut().server_errors = reading;
        sandbox.world().inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Create).once());
        assert_eq!(created(&sandbox, "k").await.status, 500);
        assert_eq!(created(&sandbox, "k").await.status, retried, "{reading:?}");
        assert_eq!(sandbox.world().creates(), creates, "{reading:?}");
    }
}

#[tokio::test]
async fn declined_card_is_stored_as_a_server_error() {
    for (reading, declines) in [(ServerErrors::Forgotten, 2), (ServerErrors::Stored, 2)] {
        let sandbox = sandbox(0).await;
        sandbox.world().readings_mut().server_errors = reading;
        let body = json!({"payment_details": "tok_card_declined"});
        for _ in 0..declines {
            let declined = create(&sandbox, "k", &body).send(&sandbox).await;
            assert_eq!(declined.error(), (502, "card_declined".to_owned(), Value::Null));
        }
    }
}

/// The request takes effect, the answer is 500, and the key is forgotten.
#[tokio::test]
async fn retry_after_a_forgotten_error_creates_a_second_customer() {
    let sandbox = sandbox(0).await;
    let late = FaultEffect::Status {
        status: 500,
        body: Payload::Error,
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Done,
    };
    sandbox.world().inject(Fault::new(late).call(FaultedCall::Create).once());
    assert_eq!(created(&sandbox, "k").await.status, 500);
    assert_eq!(created(&sandbox, "k").await.status, 200);
    assert_eq!(sandbox.world().creates(), 2);
}

#[tokio::test]
async fn lost_answer_is_replayed() {
    for lost in
        [FaultEffect::Reset { work: FaultedWork::Done }, FaultEffect::Close { work: FaultedWork::Done }]
    {
        let sandbox = sandbox(0).await;
        sandbox.world().inject(Fault::new(lost).call(FaultedCall::Create).once());
        assert_eq!(created(&sandbox, "k").await.status, 0);
        assert_eq!(sandbox.world().creates(), 1);
        assert_eq!(created(&sandbox, "k").await.json()["id"], sandbox.world().ids()[0]);
        assert_eq!(sandbox.world().creates(), 1);
    }
}

#[tokio::test]
async fn answer_of_the_firewall_is_not_stored() {
    let sandbox = sandbox(0).await;
    sandbox.world().readings_mut().server_errors = ServerErrors::Stored;
    let mut page = FaultEffect::status(503);
    if let FaultEffect::Status { body, .. } = &mut page {
        *body = Payload::Html;
    }
    sandbox.world().inject(Fault::new(page).call(FaultedCall::Create).once());
    assert_eq!(created(&sandbox, "k").await.status, 503);
    assert_eq!(created(&sandbox, "k").await.status, 200);
}

#[tokio::test]
async fn other_methods_ignore_the_key() {
    let sandbox = sandbox(1).await;
    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    for email in ["a@example.jp", "b@example.jp"] {
        let ask = ask(&sandbox, "PATCH", &path).header("X-KOMOJU-IDEMPOTENCY", "k");
        assert_eq!(ask.json(&json!({"email": email})).send(&sandbox).await.json()["email"], email);
    }
}
