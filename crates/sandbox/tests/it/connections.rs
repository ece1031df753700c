//! Tests the faults of an answer and of its connection, as a client receives them.

use std::io::ErrorKind;
use std::time::Duration;

use komoju_sandbox::{
    Ending, Fault, FaultEffect, FaultId, FaultedCall, FaultedWork, Payload, RedirectTarget, Sandbox,
};
use serde_json::{Value, json};

use crate::client::{Ask, Reply, ask, get, sandbox};

/// Reads a fault from JSON.
fn fault(fault: Value) -> Fault {
    serde_json::from_value(fault).unwrap()
}

fn inject(sandbox: &Sandbox, effect: FaultEffect) -> FaultId {
    sandbox.world().inject(Fault::new(effect).once())
}

/// Requests one list under a fault, and checks that the fault fired and has ended.
async fn hit(sandbox: &Sandbox, effect: FaultEffect) -> Reply {
    let kind = effect.kind();
    let id = inject(sandbox, effect);
    let reply = get(sandbox, "/customers?per_page=100").await;
    {
        let world = sandbox.world();
        assert_eq!(world.fired(id), 1);
        assert_eq!(world.fired_by_kind().get(kind), Some(&1));
        let seen = world.requests().last().unwrap();
        assert_eq!(seen.status, (reply.status > 0).then_some(reply.status), "{seen:?}");
    }
    let next = get(sandbox, "/customers?per_page=100").await;
    assert_eq!((next.status, next.end), (200, None), "the next one is well");
    reply
}

#[tokio::test]
async fn status_has_any_body_and_headers() {
    for (body, expected) in [
        (json!("error"), r#""code":"too_many_requests""#),
        (json!({"code": "slow_down"}), r#""code":"slow_down""#),
        (json!("html"), "<html>"),
        (json!("empty"), ""),
        (json!({"json": {"odd": [1]}}), r#"{"odd":[1]}"#),
        (json!({"text": "{\"torn\": "}), "{\"torn\": "),
        (json!({"bytes": [104, 105]}), "hi"),
    ] {
        let sandbox = sandbox(1).await;
        let effect = json!({
            "kind": "status", "status": 429, "body": body, "retry_after": "Fri, 31 Dec 9999 23:59:59 GMT",
            "headers": {"X-Trace": "7"},
        });
        let reply = hit(&sandbox, serde_json::from_value(effect).unwrap()).await;
        assert_eq!(reply.status, 429);
        assert!(reply.text().contains(expected), "{reply:?}");
        assert_eq!(body == json!("empty"), reply.body.is_empty());
        assert_eq!(reply.header("retry-after"), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        assert_eq!(reply.header("x-trace"), Some("7"));
    }
    for status in [204, 400, 404, 418, 500, 501, 502, 503, 504, 599, 999] {
        assert_eq!(hit(&sandbox(1).await, FaultEffect::status(status)).await.status, status);
    }
}

#[tokio::test]
async fn status_is_answered_before_the_key_is_checked() {
    let sandbox = sandbox(1).await;
    inject(&sandbox, FaultEffect::status(503));
    let reply = Ask::new("GET", "/api/v1/customers").send(&sandbox).await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn reset_sends_rst_and_the_request_takes_effect_or_not() {
    for (work, left) in [(FaultedWork::Skipped, 1), (FaultedWork::Done, 0)] {
        let sandbox = sandbox(1).await;
        let path = format!("/customers/{}", sandbox.world().ids()[0]);
        inject(&sandbox, FaultEffect::Reset { work });
        let reply = ask(&sandbox, "DELETE", &path).send(&sandbox).await;
        assert_eq!((reply.status, reply.end), (0, Some(ErrorKind::ConnectionReset)));
        assert_eq!(sandbox.world().len(), left, "{work:?}");
    }
}

#[tokio::test]
async fn close_is_orderly_and_without_an_answer() {
    for (work, left) in [(FaultedWork::Skipped, 1), (FaultedWork::Done, 0)] {
        let sandbox = sandbox(1).await;
        let path = format!("/customers/{}", sandbox.world().ids()[0]);
        inject(&sandbox, FaultEffect::Close { work });
        let reply = ask(&sandbox, "DELETE", &path).send(&sandbox).await;
        assert_eq!((reply.status, reply.end, reply.body.len()), (0, None, 0));
        assert_eq!(sandbox.world().len(), left, "{work:?}");
    }
}

#[tokio::test]
async fn cut_body_is_shorter_than_its_content_length() {
    let sandbox = sandbox(30).await;
    let whole = get(&sandbox, "/customers?per_page=100").await;
    for (ending, end) in [(Ending::Close, None), (Ending::Reset, Some(ErrorKind::ConnectionReset))] {
        for (after, arrives) in [(0, 0), (100, 100), (usize::MAX, whole.body.len() - 1)] {
            let id = inject(&sandbox, FaultEffect::Cut { after, ending });
            let cut = get(&sandbox, "/customers?per_page=100").await;
            assert_eq!((cut.status, cut.end), (200, end), "{ending:?} after {after}");
            assert_eq!(cut.header("content-length"), Some(whole.body.len().to_string().as_str()));
            assert_eq!(cut.body, whole.body[..arrives]);
            assert_eq!(sandbox.world().fired(id), 1);
        }
    }
}

#[tokio::test]
async fn dripping_answer_arrives_whole() {
    let sandbox = sandbox(0).await;
    let whole = get(&sandbox, "/customers?per_page=100").await;
    let started = tokio::time::Instant::now();
    let dripped = hit(&sandbox, FaultEffect::Drip { every_ms: 10, bytes: 20 }).await;
    assert_eq!(dripped.json(), whole.json());
    let pieces = whole.body.len().div_ceil(20) as u32;
    assert!(started.elapsed() >= pieces * Duration::from_millis(10));
}

#[tokio::test]
async fn delay_is_before_the_effect() {
    let sandbox = sandbox(1).await;
    let started = tokio::time::Instant::now();
    hit(&sandbox, FaultEffect::Delay { ms: 60 }).await;
    assert!(started.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn held_request_continues_when_its_fault_is_removed() {
    let sandbox = sandbox(1).await;
    let path = format!("/customers/{}", sandbox.world().ids()[0]);
    let hold = sandbox.world().inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Delete));
    let (reply, ()) = tokio::join!(ask(&sandbox, "DELETE", &path).send(&sandbox), async {
        sandbox.until(|world| world.fired(hold) == 1).await;
        assert_eq!(get(&sandbox, &path).await.status, 200, "it is still there");
        sandbox.world().clear_faults();
    });
    assert_eq!(reply.status, 200);
    assert!(sandbox.world().is_empty());
}

#[tokio::test]
async fn redirect_has_any_target() {
    let sandbox = sandbox(0).await;
    let port = sandbox.address().port();
    let path = "/api/v1/customers?per_page=100";
    for (to, location) in [
        (RedirectTarget::SameHost, path.to_owned()),
        (RedirectTarget::OtherHost, format!("http://localhost:{port}{path}")),
        (RedirectTarget::PlainHttp, format!("http://127.0.0.1:{port}{path}")),
        (RedirectTarget::Url("https://example.com/".to_owned()), "https://example.com/".to_owned()),
    ] {
        sandbox.world().clear_faults();
        let id = inject(&sandbox, FaultEffect::Redirect { status: 307, to, work: FaultedWork::Skipped });
        let reply = get(&sandbox, "/customers?per_page=100").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some(location.as_str())));
        assert_eq!(sandbox.world().fired(id), 1);
    }
}

#[tokio::test]
async fn replaced_body_of_a_200_has_any_content_and_the_request_takes_effect() {
    for (body, expected) in [
        (Payload::Html, None),
        (Payload::Empty, Some(&b""[..])),
        (Payload::Json(json!({})), Some(b"{}")),
        (Payload::Json(json!({"data": 1})), Some(br#"{"data":1}"#)),
        (Payload::Bytes(vec![0xFF, 0xFE, 0]), Some(&[0xFF, 0xFE, 0])),
    ] {
        let sandbox = sandbox(0).await;
        inject(&sandbox, FaultEffect::Body { body });
        let reply = ask(&sandbox, "POST", "/customers").json(&json!({})).send(&sandbox).await;
        assert_eq!(reply.status, 200);
        match expected {
            Some(bytes) => assert_eq!(reply.body, bytes),
            None => assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8")),
        }
        assert_eq!(sandbox.world().creates(), 1);
    }
}

#[tokio::test]
async fn huge_body_has_its_length_and_begins_like_a_list() {
    let reply = hit(&sandbox(1).await, FaultEffect::HugeBody { bytes: 3_000_000 }).await;
    assert_eq!((reply.status, reply.body.len()), (200, 3_000_000));
    assert!(reply.text().starts_with(r#"{"resource":"customer_list","#));
    assert!(reply.text().ends_with(' '));
}

#[tokio::test]
async fn gzip_bomb_is_small_when_sent() {
    let reply = hit(&sandbox(1).await, FaultEffect::GzipBomb { bytes: 100_000_000 }).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")));
    assert!(reply.body.starts_with(&[0x1F, 0x8B]) && reply.body.len() < 1_000_000, "{}", reply.body.len());
}

#[tokio::test]
async fn huge_header_is_in_a_valid_answer() {
    let reply = hit(&sandbox(1).await, FaultEffect::HugeHeader { bytes: 2_000_000 }).await;
    assert_eq!(reply.header("x-padding").map(str::len), Some(2_000_000));
    assert_eq!(reply.json()["total"], 1);
}

#[tokio::test]
async fn faults_are_combined_and_match_their_requests() {
    let sandbox = sandbox(30).await;
    let slow =
        fault(json!({"on": {"method": "GET", "path": "/customers"}, "effect": {"kind": "delay", "ms": 1}}));
    let torn =
        fault(json!({"on": {"call": "list", "page": 2}, "effect": {"kind": "cut", "after": 5}, "times": 1}));
    let late = fault(json!({"on": {"call": "list"}, "effect": {"kind": "status", "status": 500}, "skip": 2}));
    let [slow, torn, late] = [slow, torn, late].map(|fault| sandbox.world().inject(fault));
    assert_eq!(get(&sandbox, "/events").await.status, 200);
    assert_eq!(get(&sandbox, "/customers").await.json()["page"], 1);
    assert_eq!(get(&sandbox, "/customers?page=2").await.body.len(), 5);
    assert_eq!(get(&sandbox, "/customers?page=2").await.status, 500);
    let world = sandbox.world();
    assert_eq!([slow, torn, late].map(|id| world.fired(id)), [3, 1, 1]);
}
