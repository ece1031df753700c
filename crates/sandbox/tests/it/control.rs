//! Tests the control calls over HTTP, for use from another process.

use serde_json::{Value, json};

use crate::client::{Ask, get, sandbox};

#[tokio::test]
async fn whole_test_runs_over_http_without_a_key() {
    let sandbox = sandbox(10).await;
    let control = async |method: &'static str, path: &str, body: Value| {
        let reply = Ask::new(method, format!("/_sandbox/{path}")).json(&body).send(&sandbox).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        reply.json()
    };
    let fault = json!({"on": {"call": "list"}, "effect": {"kind": "status", "status": 503, "body": "html"}, "times": 1});
    let id = control("POST", "faults", fault).await["id"].clone();
    assert_eq!(get(&sandbox, "/customers").await.status, 503);
    let faults = control("GET", "faults", json!(null)).await;
    assert_eq!((&faults[0]["id"], &faults[0]["fired"], &faults[0]["times"]), (&id, &json!(1), &json!(1)));

    control("POST", "clock", json!({"advance_s": 86400})).await;
    assert_eq!(get(&sandbox, "/customers").await.header("date"), Some("Tue, 02 Jun 2026 00:00:00 GMT"));
    control("PATCH", "readings", json!({"envelope": "list"})).await;
    assert_eq!(get(&sandbox, "/customers").await.json()["resource"], "list");
    let changes = control("POST", "trickle", json!({"count": 3, "seed": 7})).await;
    assert_eq!(changes.as_array().unwrap().len(), 3);
    let truth = control("GET", "customers", json!(null)).await;
    assert_eq!(truth, json!(sandbox.world().truth()));

    let requests = control("GET", "requests", json!(null)).await;
    assert_eq!((requests.as_array().unwrap().len(), &requests[0]["status"]), (3, &json!(503)));
    let stats = control("GET", "stats", json!(null)).await;
    assert_eq!((&stats["requests"], &stats["fired"]), (&json!(3), &json!({"status": 1})));
}

#[tokio::test]
async fn control_calls_ignore_faults_and_refused_keys() {
    let sandbox = sandbox(1).await;
    let any = json!({"effect": {"kind": "reset"}});
    assert_eq!(Ask::new("POST", "/_sandbox/faults").json(&any).send(&sandbox).await.status, 200);
    let refuse = json!({"as": "json_401"});
    assert_eq!(Ask::new("POST", "/_sandbox/refusal").json(&refuse).send(&sandbox).await.status, 200);
    assert_eq!(get(&sandbox, "/customers").await.status, 0);
    assert_eq!(Ask::new("DELETE", "/_sandbox/faults").send(&sandbox).await.status, 200);
    assert_eq!(get(&sandbox, "/customers").await.status, 401);
    assert_eq!(sandbox.world().request_count(), 2, "control requests are not counted");
}

#[tokio::test]
async fn help_page_is_at_the_root() {
    let sandbox = sandbox(0).await;
    for path in ["/_sandbox", "/_sandbox/"] {
        let help = Ask::new("GET", path).send(&sandbox).await.json();
        assert!(help["calls"].as_array().unwrap().len() > 20);
    }
}

#[tokio::test]
async fn numbers_are_answered_as_they_were_written() {
    let sandbox = sandbox(0).await;
    let fault = r#"{"effect": {"kind": "splice", "at": 0, "customer": {"id": "x", "huge": 1e400,
                    "long": 123456789012345678901234567890, "exact": 1.10}}, "times": 1}"#;
    let fault: Value = serde_json::from_str(fault).unwrap();
    assert_eq!(Ask::new("POST", "/_sandbox/faults").json(&fault).send(&sandbox).await.status, 200);
    let list = get(&sandbox, "/customers").await.text();
    for number in ["1e+400", "123456789012345678901234567890", "1.10"] {
        assert!(list.contains(number), "{number} is not in {list}");
    }
}
