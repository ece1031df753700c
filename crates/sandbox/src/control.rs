//! `/_sandbox/`: everything a test can do in-process, over HTTP and without a key.
//!
//! Customers are those of the default account; `?key=KEY` names another. Errors have KOMOJU's shape.

use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account::Account;
use super::answer::Answer;
use super::auth::{OldKey, Refusal};
use super::fault::{Fault, FaultId};
use super::request::{Request, split};
use super::world::World;

/// Where it begins.
pub(super) const BASE: &str = "/_sandbox";

/// Method, path, what it does: the help page, which a test compares with what is answered.
const HELP: &[(&str, &str, &str)] = &[
    ("GET", "/", "this page"),
    ("GET", "/customers", "every customer by id, as show would answer"),
    ("POST", "/customers", "creates one from any fields; with ?raw=true any JSON whatever becomes one"),
    ("DELETE", "/customers", "deletes all, without events"),
    ("GET", "/customers/{id}", "one, with what the readings hide"),
    ("PATCH", "/customers/{id}", "sets some of its fields, unchecked"),
    ("DELETE", "/customers/{id}", "deletes it"),
    ("POST", "/customers/{id}", "brings it back after a delete"),
    ("GET", "/faults", "the faults with their counters"),
    (
        "POST",
        "/faults",
        r#"injects one: {"on": {"call": "list", "page": 2}, "effect": {"kind": "status", "status": 503}, "skip": 0, "times": 1}"#,
    ),
    ("DELETE", "/faults", "ends all; a held request goes on"),
    ("DELETE", "/faults/{id}", "ends one"),
    ("GET", "/clock", "the time here"),
    ("POST", "/clock", r#"moves it: {"advance_s": 86400} or {"set": "2026-01-01T00:00:00Z"}"#),
    ("GET", "/readings", "how what KOMOJU does not say is read"),
    ("PATCH", "/readings", r#"changes some: {"order": "oldest_first"}"#),
    ("GET", "/latency", "how long every request takes at least"),
    ("POST", "/latency", r#"sets it: {"ms": 20}"#),
    ("POST", "/accounts", r#"adds one: {"key": "sk_test_other", "seed": 2, "customers": 10}"#),
    (
        "POST",
        "/key",
        r#"gives the default account a new key: {"new": "sk_test_new", "old": "revoked"}, or "kept""#,
    ),
    ("POST", "/refusal", r#"refuses every key: {"as": "json_401"}, or json_403, html_401, html_403, null"#),
    ("GET", "/requests", "the latest requests to the API"),
    ("DELETE", "/requests", "forgets them"),
    ("GET", "/stats", "counters"),
    ("POST", "/trickle", r#"some plausible changes: {"count": 5, "seed": 1}"#),
];

/// Answers a request below [`BASE`].
pub(super) fn answer(world: &mut World, request: &Request) -> Answer {
    route(world, request).unwrap_or_else(|refused| refused)
}

fn route(world: &mut World, request: &Request) -> Result<Answer, Answer> {
    let path = request.path.strip_prefix(BASE).unwrap_or_default();
    let Some((collection, id)) = split(if path.is_empty() { "/" } else { path }) else {
        return Err(nothing_here());
    };
    match (request.method.as_str(), collection, id.as_deref()) {
        ("GET", "", None) => Ok(help()),
        (_, "customers", _) => customers(world, request, id.as_deref()),
        (_, "faults", _) => faults(world, request, id.as_deref()),
        ("GET", "clock", None) => Ok(Answer::ok(&json!({"now": world.now().to_string()}))),
        ("POST", "clock", None) => {
            match body(request)? {
                Clock::Advance { advance_s } => world.advance(Duration::from_secs(advance_s)),
                Clock::Set { set } => world.set_now(time(&set)?),
            }
            Ok(Answer::ok(&json!({"now": world.now().to_string()})))
        }
        ("GET", "readings", None) => Ok(Answer::ok(world.readings_mut())),
        ("PATCH", "readings", None) => patch_readings(world, request),
        ("GET", "latency", None) => Ok(latency(world)),
        ("POST", "latency", None) => {
            let Latency { ms } = body(request)?;
            world.set_latency(Duration::from_millis(ms));
            Ok(latency(world))
        }
        ("POST", "accounts", None) => {
            let NewAccount { key, seed, customers } = body(request)?;
            world.add_account(&key, seed, customers);
            Ok(done())
        }
        ("POST", "key", None) => {
            let NewKey { new, old } = body(request)?;
            world.rotate_key(&new, old);
            Ok(done())
        }
        ("POST", "refusal", None) => {
            let Refuse { refusal } = body(request)?;
            world.refuse_key(refusal);
            Ok(done())
        }
        ("GET", "requests", None) => Ok(Answer::ok(&world.requests())),
        ("DELETE", "requests", None) => {
            world.clear_requests();
            Ok(done())
        }
        ("GET", "stats", None) => Ok(stats(world)),
        ("POST", "trickle", None) => {
            let Trickle { count, seed } = body(request)?;
            let mut rng = seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
            let changes: Vec<Value> = (0..count).map(|_| world.trickle(&mut rng)).collect();
            Ok(Answer::ok(&changes))
        }
        _ => Err(nothing_here()),
    }
}

fn customers(world: &mut World, request: &Request, id: Option<&str>) -> Result<Answer, Answer> {
    let (now, shown) = (world.now(), world.shown());
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(request.query.as_bytes());
        pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    };
    let key = parameter("key").unwrap_or_else(|| world.key().to_owned());
    let account =
        world.account(&key).ok_or_else(|| Answer::not_found("There is no account with this key."))?;
    match (request.method.as_str(), id) {
        ("GET", None) => Ok(Answer::ok(&account.truth(shown))),
        ("POST", None) if parameter("raw").is_some_and(|raw| raw == "true") => {
            account.put_raw(now, body(request)?);
            Ok(done())
        }
        ("POST", None) => {
            let id = account.create(now, body(request)?);
            one(account, &id)
        }
        ("DELETE", None) => {
            account.remove_all();
            Ok(done())
        }
        ("GET", Some(id)) => one(account, id),
        ("PATCH", Some(id)) => {
            account.update(now, id, body(request)?);
            one(account, id)
        }
        ("DELETE", Some(id)) if account.delete(now, id) => Ok(done()),
        ("DELETE", Some(_)) => Err(no_customer()),
        ("POST", Some(id)) if account.restore(id) => one(account, id),
        ("POST", Some(_)) => Err(Answer::not_found("No customer with this id has been deleted.")),
        _ => Err(nothing_here()),
    }
}

fn faults(world: &mut World, request: &Request, id: Option<&str>) -> Result<Answer, Answer> {
    match (request.method.as_str(), id) {
        ("GET", None) => Ok(Answer::ok(&world.faults())),
        ("POST", None) => {
            let fault: Fault = body(request)?;
            Ok(Answer::ok(&json!({"id": world.inject(fault)})))
        }
        ("DELETE", None) => {
            world.clear_faults();
            Ok(done())
        }
        ("DELETE", Some(id)) => {
            let known = id.parse().is_ok_and(|id| world.remove_fault(FaultId(id)));
            if known { Ok(done()) } else { Err(Answer::not_found("There is no fault with this id.")) }
        }
        _ => Err(nothing_here()),
    }
}

fn patch_readings(world: &mut World, request: &Request) -> Result<Answer, Answer> {
    let patch: serde_json::Map<String, Value> = body(request)?;
    let mut readings = serde_json::to_value(world.readings_mut()).unwrap_or_default();
    if let Some(fields) = readings.as_object_mut() {
        fields.extend(patch);
    }
    *world.readings_mut() = serde_json::from_value(readings).map_err(|error| unreadable(&error))?;
    Ok(Answer::ok(world.readings_mut()))
}

fn stats(world: &World) -> Answer {
    Answer::ok(&json!({
        "customers": world.len(),
        "requests": world.request_count(),
        "creates": world.creates(),
        "updates": world.updates(),
        "deletes": world.deletes(),
        "fired": world.fired_by_kind(),
    }))
}

fn help() -> Answer {
    let calls: Vec<Value> = HELP
        .iter()
        .map(|(method, path, does)| json!({"method": method, "path": format!("{BASE}{path}"), "does": does}))
        .collect();
    Answer::ok(&json!({
        "about": "A local KOMOJU for tests. The API itself is below /api/v1.",
        "calls": calls,
        "accounts": "?key=KEY names another account than the default one in calls about customers.",
    }))
}

fn one(account: &Account, id: &str) -> Result<Answer, Answer> {
    account.get(id).map(|customer| Answer::ok(&customer)).ok_or_else(no_customer)
}

fn latency(world: &World) -> Answer {
    Answer::ok(&Latency { ms: world.latency().as_millis() as u64 })
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Answer> {
    serde_json::from_slice(&request.body).map_err(|error| unreadable(&error))
}

fn time(text: &str) -> Result<Timestamp, Answer> {
    text.parse().map_err(|error| Answer::bad_request(&format!("{text} is no time: {error}.")))
}

fn unreadable(error: &serde_json::Error) -> Answer {
    Answer::bad_request(&format!("The body cannot be used: {error}. GET {BASE}/ shows examples."))
}

fn done() -> Answer {
    Answer::ok(&json!({"done": true}))
}

fn no_customer() -> Answer {
    Answer::not_found("There is no such customer.")
}

fn nothing_here() -> Answer {
    let message = format!("There is nothing at this address. GET {BASE}/ shows what there is.");
    Answer::error(StatusCode::NOT_FOUND, "not_found", &message)
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Clock {
    Advance { advance_s: u64 },
    Set { set: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    key: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    customers: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    new: String,
    old: OldKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    #[serde(rename = "as")]
    refusal: Option<Refusal>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Trickle {
    count: u32,
    /// Without it, other changes each time.
    seed: Option<u64>,
}

impl Default for Trickle {
    fn default() -> Self {
        Self { count: 1, seed: None }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, Method};

    use super::*;
    use crate::Options;

    fn ask(world: &mut World, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method: method.parse::<Method>().unwrap(),
            path: format!("{BASE}{path}"),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        };
        let answer = answer(world, &request);
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
    }

    fn world() -> World {
        World::new(&Options {
            customers: 3,
            now: Some("2026-06-01T00:00:00Z".parse().unwrap()),
            ..Options::default()
        })
    }

    #[test]
    fn every_call_on_the_help_page_is_answered_with_its_example() {
        for &(method, path, does) in HELP {
            let mut world = world();
            let id = world.ids()[0].clone();
            let fault = world.inject(Fault::new(super::super::fault::Effect::EmptyList));
            if (method, path) == ("POST", "/customers/{id}") {
                world.delete(&id);
            }
            let id = if path.starts_with("/faults") { fault.0.to_string() } else { id };
            let example = match (does.find('{'), does.rfind('}')) {
                (Some(from), Some(to)) if !does.contains(" or {") => &does[from..=to],
                (Some(from), _) => &does[from..=from + does[from..].find('}').unwrap()],
                _ => "{}",
            };
            let (status, answer) = ask(&mut world, method, &path.replace("{id}", &id), example);
            assert_eq!(status, 200, "{method} {path} {example}: {answer}");
        }
    }

    #[test]
    fn customers_are_made_changed_deleted_and_restored() {
        let mut world = world();
        let (_, customer) = ask(&mut world, "POST", "/customers", r#"{"email": "a@example.jp"}"#);
        let path = format!("/customers/{}", customer["id"].as_str().unwrap());
        let (_, changed) = ask(&mut world, "PATCH", &path, r#"{"email": null, "odd": [1]}"#);
        assert_eq!((&changed["email"], &changed["odd"]), (&Value::Null, &json!([1])));
        assert_eq!(ask(&mut world, "DELETE", &path, "").0, 200);
        assert_eq!(ask(&mut world, "GET", &path, "").0, 404);
        assert_eq!(ask(&mut world, "DELETE", &path, "").0, 404);
        assert_eq!(ask(&mut world, "POST", &path, "").1["odd"], json!([1]));
        assert_eq!(ask(&mut world, "POST", "/customers?raw=true", "[null]").0, 200);
        assert_eq!(world.len(), 5);
    }

    #[test]
    fn another_account_is_named_by_its_key() {
        let mut world = world();
        ask(&mut world, "POST", "/accounts", r#"{"key": "sk_test_b", "customers": 2}"#);
        let (_, customers) = ask(&mut world, "GET", "/customers?key=sk_test_b", "");
        assert_eq!(customers.as_object().unwrap().len(), 2);
        assert_eq!(ask(&mut world, "GET", "/customers?key=nobody", "").0, 404);
    }

    #[test]
    fn a_body_that_cannot_be_used_says_why() {
        let mut world = world();
        for (method, path, body, why) in [
            ("POST", "/faults", r#"{"effect": {"kind": "sneeze"}}"#, "sneeze"),
            ("PATCH", "/readings", r#"{"order": "upwards"}"#, "upwards"),
            ("POST", "/key", r#"{"new": "a"}"#, "old"),
            ("POST", "/clock", "soon", "expected value"),
        ] {
            let (status, answer) = ask(&mut world, method, path, body);
            assert_eq!(status, 400);
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn an_unknown_address_points_to_the_help_page() {
        let (status, answer) = ask(&mut world(), "GET", "/weather", "");
        assert_eq!(status, 404);
        assert!(answer.to_string().contains("GET /_sandbox/"), "{answer}");
    }
}
