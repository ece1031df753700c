//! Tests the limit of requests a second: a sliding second, its refusals, and a ban that each
//! request extends.

use std::time::Duration;

use komoju_sandbox::readings::{RateLimit, Readings, Refused};
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Sandbox};
use serde_json::{Value, json};

use crate::client::{Ask, ask, get, sandbox_with};

async fn limited(rate_limit: RateLimit) -> Sandbox {
    sandbox_with(1, Readings { rate_limit: Some(rate_limit), ..Readings::default() }).await
}

fn two_a_second() -> RateLimit {
    RateLimit { per_second: 2.try_into().unwrap(), refused: Refused::Json429, retry_after: false, ban_s: 0 }
}

async fn status_after(sandbox: &Sandbox, milliseconds: u64) -> u16 {
    sandbox.world().advance(Duration::from_millis(milliseconds));
    get(sandbox, "/customers").await.status
}

#[tokio::test]
async fn limited_number_of_requests_is_accepted_in_any_second() {
    let sandbox = limited(two_a_second()).await;
    // Requests are accepted at 0 and 600 ms, so each one allows another exactly a second later.
    for (wait, status) in
        [(0, 200), (600, 200), (0, 429), (399, 429), (1, 200), (0, 429), (599, 429), (1, 200), (0, 429)]
    {
        assert_eq!(status_after(&sandbox, wait).await, status, "after {wait} ms");
    }
    assert_eq!(status_after(&sandbox, 5000).await, 200);
}

#[tokio::test]
async fn every_call_counts_and_a_refused_one_has_no_effect() {
    let sandbox = limited(two_a_second()).await;
    let create = || ask(&sandbox, "POST", "/customers").json(&json!({})).header("X-KOMOJU-IDEMPOTENCY", "k");
    assert_eq!(Ask::new("GET", "/api/v1/customers").send(&sandbox).await.status, 401);
    assert_eq!(get(&sandbox, "/nowhere").await.status, 404);
    let fault = sandbox.world().inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Create));
    assert_eq!(create().send(&sandbox).await.status, 429);
    assert_eq!(sandbox.world().creates(), 0);
    sandbox.world().clear_faults();
    assert_eq!(Ask::new("GET", "/_sandbox/clock").send(&sandbox).await.status, 200, "control is not limited");
    sandbox.world().advance(Duration::from_secs(1));
    assert_eq!(create().send(&sandbox).await.status, 200, "the refusal did not use the idempotency key");
    let world = sandbox.world();
    let statuses: Vec<Option<u16>> = world.requests().iter().map(|seen| seen.status).collect();
    assert_eq!((world.creates(), world.fired(fault)), (1, 0));
    assert_eq!(statuses, [Some(401), Some(404), Some(429), Some(200)]);
}

#[tokio::test]
async fn refusal_is_an_error_of_the_api_or_a_page_of_the_firewall() {
    for (refused, status, html) in [
        (Refused::Json429, 429, false),
        (Refused::Html403, 403, true),
        (Refused::Html429, 429, true),
        (Refused::Html503, 503, true),
    ] {
        for (retry_after, ban_s, header) in
            [(false, 0, None), (false, 5, None), (true, 0, Some("1")), (true, 5, Some("5"))]
        {
            let limit = RateLimit { refused, retry_after, ban_s, per_second: 1.try_into().unwrap() };
            let sandbox = limited(limit).await;
            assert_eq!(status_after(&sandbox, 0).await, 200);
            let reply = get(&sandbox, "/customers").await;
            assert_eq!((reply.status, reply.header("retry-after")), (status, header), "{limit:?}");
            match html {
                true => assert!(reply.text().contains("<html>")),
                false => assert_eq!(reply.error(), (429, "too_many_requests".to_owned(), Value::Null)),
            }
        }
    }
}

#[tokio::test]
async fn request_during_a_ban_extends_it() {
    let sandbox = limited(RateLimit { ban_s: 5, ..two_a_second() }).await;
    for (wait, status) in [
        (0, 200),
        (0, 200),
        (0, 429),
        // Without the ban, this request would be accepted.
        (4999, 429),
        (4999, 429),
        (5000, 200),
        (0, 200),
        (0, 429),
        (5000, 200),
    ] {
        assert_eq!(status_after(&sandbox, wait).await, status, "after {wait} ms");
    }
}

#[tokio::test]
async fn limit_set_at_run_time_survives_a_clock_set_back() {
    let sandbox = sandbox_with(1, Readings::default()).await;
    for _ in 0..5 {
        assert_eq!(status_after(&sandbox, 0).await, 200);
    }
    let patch = json!({"rate_limit": {"per_second": 1}});
    assert_eq!(Ask::new("PATCH", "/_sandbox/readings").json(&patch).send(&sandbox).await.status, 200);
    assert_eq!([status_after(&sandbox, 0).await, status_after(&sandbox, 0).await], [200, 429]);
    sandbox.world().set_now("2020-01-01T00:00:00Z".parse().unwrap());
    assert_eq!([status_after(&sandbox, 0).await, status_after(&sandbox, 0).await], [200, 429]);
}
