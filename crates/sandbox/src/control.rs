//! The routes below `/_sandbox/`: the functions of [`World`] over HTTP, without a key.
//!
//! Customers, events and webhooks are those of the default account; `?key=KEY` selects another
//! account. Errors have KOMOJU's form.

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{self, get, post};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::answer::ApiAnswer;
use crate::outcome::RequestOutcome;
use crate::request::{Id, Request};
use crate::server::SandboxServer;
use crate::world::World;

mod answered;
mod customers;
mod events;
mod settings;
mod webhooks;

use answered::{BASE, ControlAnswer, nothing_here};
use customers::{create, delete, delete_all, list, restore, show, update};
use events::{emit, events};
use settings::{
    add_account, clear_faults, clear_requests, clock, faults, inject, latency, patch_readings, readings,
    refuse_key, remove_fault, requests, rotate_key, set_clock, set_latency, stats, trickle,
};

use webhooks::{clear_deliveries, deliveries, register, remove_webhook, settled, webhooks};

/// The help page: method, path and effect of each call. A test calls each of them.
const HELP: &[(&str, &str, &str)] = &[
    ("GET", "/", "this page"),
    ("GET", "/customers", "all customers by id, as show answers"),
    ("POST", "/customers", "creates a customer from any fields; with ?raw=true from any JSON value"),
    ("DELETE", "/customers", "deletes all customers, without events"),
    ("GET", "/customers/{id}", "a customer, with the fields that the readings hide"),
    ("PATCH", "/customers/{id}", "sets some fields of a customer, unchecked"),
    ("DELETE", "/customers/{id}", "deletes a customer"),
    ("POST", "/customers/{id}", "restores a deleted customer"),
    ("GET", "/events", "all events of the list, also those that it does not show now"),
    (
        "POST",
        "/events",
        r#"emits events without a change: {"type": "customer.updated", "id": "unknown"} or {"flood": 1000, "ids": "live"}, or unknown, mixed"#,
    ),
    ("GET", "/faults", "the faults with their counters"),
    (
        "POST",
        "/faults",
        r#"injects a fault: {"on": {"call": "list", "page": 2}, "effect": {"kind": "status", "status": 503}, "skip": 0, "times": 1}"#,
    ),
    ("DELETE", "/faults", "removes all faults; held requests continue"),
    ("DELETE", "/faults/{id}", "removes a fault"),
    ("GET", "/clock", "the sandbox's time"),
    ("POST", "/clock", r#"moves the clock: {"advance_s": 86400} or {"set": "2026-01-01T00:00:00Z"}"#),
    ("GET", "/readings", "the behaviour that KOMOJU does not document"),
    ("PATCH", "/readings", r#"changes some readings: {"order": "oldest_first"}"#),
    ("GET", "/latency", "the least time of each request"),
    ("POST", "/latency", r#"sets the latency: {"ms": 20}"#),
    ("POST", "/accounts", r#"adds an account: {"key": "sk_test_other", "seed": 2, "customers": 10}"#),
    (
        "POST",
        "/key",
        r#"gives the default account a new key: {"new": "sk_test_new", "old": "revoked"}, or "kept""#,
    ),
    ("POST", "/refusal", r#"refuses every key: {"as": "json_401"}, or json_403, html_401, html_403, null"#),
    ("GET", "/webhooks", "the registered webhooks"),
    (
        "POST",
        "/webhooks",
        r#"registers a receiver on this machine: {"url": "http://127.0.0.1:8080/komoju", "secret": "s", "types": ["customer.updated"]}"#,
    ),
    ("DELETE", "/webhooks/{id}", "removes a webhook; its pending deliveries are canceled"),
    ("GET", "/deliveries", "the deliveries of webhooks with their states"),
    ("GET", "/deliveries/settled", "the same, answered once no delivery is pending"),
    ("DELETE", "/deliveries", "drops the settled deliveries"),
    ("GET", "/requests", "the latest requests to the API"),
    ("DELETE", "/requests", "drops the logged requests"),
    ("GET", "/stats", "counters"),
    ("POST", "/trickle", r#"makes some plausible changes: {"count": 5, "seed": 1}"#),
];

/// Returns the routes below [`BASE`].
pub(crate) fn routes() -> Router<Arc<SandboxServer>> {
    let routes = Router::new()
        .route("/", get(all(help)))
        .route("/customers", get(all(list)).post(all(create)).delete(all(delete_all)))
        .route("/customers/{id}", get(one(show)).patch(one(update)).delete(one(delete)).post(one(restore)))
        .route("/events", get(all(events)).post(all(emit)))
        .route("/faults", get(all(faults)).post(all(inject)).delete(all(clear_faults)))
        .route("/faults/{id}", routing::delete(one(remove_fault)))
        .route("/clock", get(all(clock)).post(all(set_clock)))
        .route("/readings", get(all(readings)).patch(all(patch_readings)))
        .route("/latency", get(all(latency)).post(all(set_latency)))
        .route("/accounts", post(all(add_account)))
        .route("/key", post(all(rotate_key)))
        .route("/refusal", post(all(refuse_key)))
        .route("/webhooks", get(all(webhooks)).post(all(register)))
        .route("/webhooks/{id}", routing::delete(one(remove_webhook)))
        .route("/deliveries", get(all(deliveries)).delete(all(clear_deliveries)))
        .route("/deliveries/settled", get(settled))
        .route("/requests", get(all(requests)).delete(all(clear_requests)))
        .route("/stats", get(all(stats)))
        .route("/trickle", post(all(trickle)))
        .fallback(all(nothing_here))
        .method_not_allowed_fallback(all(nothing_here));
    Router::new().nest(BASE, routes).route(&format!("{BASE}/"), get(all(help)))
}

/// Returns the handler for a call without an id.
fn all(
    call: fn(&mut World, &Request) -> ControlAnswer,
) -> impl Fn(State<Arc<SandboxServer>>, Request) -> Ready<RequestOutcome> + Clone + Send + Sync + 'static {
    move |State(server), request| {
        let mut world = server.world();
        // The router passes a HEAD to the handler of GET, but there are no HEAD calls.
        let head = request.method == Method::HEAD;
        let answer = if head { nothing_here(&mut world, &request) } else { call(&mut world, &request) };
        ready(RequestOutcome::plain(answer.unwrap_or_else(|refused| refused), world.now()))
    }
}

/// Returns the handler for a call with an id.
fn one(
    call: fn(&mut World, &Request, &str) -> ControlAnswer,
) -> impl Fn(State<Arc<SandboxServer>>, Id, Request) -> Ready<RequestOutcome> + Clone + Send + Sync + 'static
{
    move |State(server), id, request| {
        let mut world = server.world();
        let answer = match id {
            Ok(Path(id)) if request.method != Method::HEAD => call(&mut world, &request, &id),
            _ => nothing_here(&mut world, &request),
        };
        ready(RequestOutcome::plain(answer.unwrap_or_else(|refused| refused), world.now()))
    }
}

/// Returns the help page.
fn help(_: &mut World, _: &Request) -> ControlAnswer {
    let calls: Vec<Value> = HELP
        .iter()
        .map(|(method, path, does)| json!({"method": method, "path": format!("{BASE}{path}"), "does": does}))
        .collect();
    Ok(ApiAnswer::ok(&json!({
        "about": "A local KOMOJU for tests. The API itself is below /api/v1.",
        "calls": calls,
        "accounts": "?key=KEY selects another account in calls about customers, events and webhooks.",
    })))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::faults::Fault;
    use crate::options::Options;
    use crate::webhooks::SandboxWebhook;

    async fn ask(server: &Arc<SandboxServer>, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = hyper::Request::builder().method(method).uri(format!("{BASE}{path}"));
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let router = TowerToHyperService::new(routes().with_state(Arc::clone(server)));
        let Ok(response) = router.call(request).await;
        let RequestOutcome::Answer { answer, .. } = RequestOutcome::of(response) else {
            panic!("{method} {path} is not answered");
        };
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
    }

    fn webhook() -> SandboxWebhook {
        let url = "http://127.0.0.1:9/".to_owned();
        SandboxWebhook { url, secret: "s".to_owned(), types: Vec::new() }
    }

    fn server() -> Arc<SandboxServer> {
        let world = World::new(&Options {
            customers: 3,
            now: Some("2026-06-01T00:00:00Z".parse().unwrap()),
            ..Options::default()
        });
        Arc::new(SandboxServer::new(world, false))
    }

    #[tokio::test]
    async fn every_call_on_the_help_page_accepts_its_example() {
        for &(method, path, does) in HELP {
            let server = server();
            let id = server.world().ids()[0].clone();
            let fault = server.world().inject(Fault::new(crate::faults::FaultEffect::EmptyList));
            if (method, path) == ("POST", "/customers/{id}") {
                server.world().delete(&id);
            }
            let id = match path {
                path if path.starts_with("/faults") => fault.0.to_string(),
                "/webhooks/{id}" => server.world().register_webhook(webhook()).unwrap().0.to_string(),
                _ => id,
            };
            let example = match (does.find('{'), does.rfind('}')) {
                (Some(from), Some(to)) if !does.contains(" or {") => &does[from..=to],
                (Some(from), _) => &does[from..=from + does[from..].find('}').unwrap()],
                _ => "{}",
            };
            let (status, answer) = ask(&server, method, &path.replace("{id}", &id), example).await;
            assert_eq!(status, 200, "{method} {path} {example}: {answer}");
        }
    }

    #[tokio::test]
    async fn customers_are_created_changed_deleted_and_restored() {
        let server = server();
        let (_, customer) = ask(&server, "POST", "/customers", r#"{"email": "a@example.jp"}"#).await;
        let path = format!("/customers/{}", customer["id"].as_str().unwrap());
        let (_, changed) = ask(&server, "PATCH", &path, r#"{"email": null, "odd": [1]}"#).await;
        assert_eq!((&changed["email"], &changed["odd"]), (&Value::Null, &json!([1])));
        assert_eq!(ask(&server, "DELETE", &path, "").await.0, 200);
        assert_eq!(ask(&server, "GET", &path, "").await.0, 404);
        assert_eq!(ask(&server, "DELETE", &path, "").await.0, 404);
        assert_eq!(ask(&server, "POST", &path, "").await.1["odd"], json!([1]));
        assert_eq!(ask(&server, "POST", "/customers?raw=true", "[null]").await.0, 200);
        assert_eq!(server.world().len(), 5);
    }

    #[tokio::test]
    async fn key_selects_another_account() {
        let server = server();
        ask(&server, "POST", "/accounts", r#"{"key": "sk_test_b", "customers": 2}"#).await;
        let (_, customers) = ask(&server, "GET", "/customers?key=sk_test_b", "").await;
        assert_eq!(customers.as_object().unwrap().len(), 2);
        assert_eq!(ask(&server, "GET", "/customers?key=unknown", "").await.0, 404);
    }

    #[tokio::test]
    async fn invalid_body_is_refused_with_its_reason() {
        let server = server();
        for (method, path, body, why) in [
            ("POST", "/faults", r#"{"effect": {"kind": "sneeze"}}"#, "sneeze"),
            ("PATCH", "/readings", r#"{"order": "upwards"}"#, "upwards"),
            ("POST", "/key", r#"{"new": "a"}"#, "old"),
            ("POST", "/clock", "soon", "expected value"),
        ] {
            let (status, answer) = ask(&server, method, path, body).await;
            assert_eq!(status, 400);
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains(why), "{message}");
        }
    }

    #[tokio::test]
    async fn unknown_path_points_to_the_help_page() {
        let (status, answer) = ask(&server(), "GET", "/weather", "").await;
        assert_eq!(status, 404);
        assert!(answer.to_string().contains("GET /_sandbox/"), "{answer}");
    }
}
