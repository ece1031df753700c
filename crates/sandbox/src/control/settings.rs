//! The calls about faults, clock, readings, keys and the request log.

use std::time::Duration;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answered::{ControlAnswer, body, done, unreadable};
use crate::api::answer::ApiAnswer;
use crate::api::keys::{KeyRefusal, OldKey};
use crate::faults::{Fault, FaultId};
use crate::request::Request;
use crate::world::World;

/// Answers `GET /faults`.
pub(crate) fn faults(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(&world.faults()))
}

/// Answers `POST /faults`.
pub(crate) fn inject(world: &mut World, request: &Request) -> ControlAnswer {
    let fault: Fault = body(request)?;
    Ok(ApiAnswer::ok(&json!({"id": world.inject(fault)})))
}

/// Answers `DELETE /faults`.
pub(crate) fn clear_faults(world: &mut World, _: &Request) -> ControlAnswer {
    world.clear_faults();
    Ok(done())
}

/// Answers `DELETE /faults/{id}`.
pub(crate) fn remove_fault(world: &mut World, _: &Request, id: &str) -> ControlAnswer {
    let known = id.parse().is_ok_and(|id| world.remove_fault(FaultId(id)));
    if known { Ok(done()) } else { Err(ApiAnswer::not_found("There is no fault with this id.")) }
}

/// Answers `GET /clock`.
pub(crate) fn clock(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(&json!({"now": world.now().to_string()})))
}

/// Answers `POST /clock`.
pub(crate) fn set_clock(world: &mut World, request: &Request) -> ControlAnswer {
    match body(request)? {
        ClockChange::Advance { advance_s } => world.advance(Duration::from_secs(advance_s)),
        ClockChange::Set { set } => world.set_now(time(&set)?),
    }
    clock(world, request)
}

/// Answers `GET /readings`.
pub(crate) fn readings(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(world.readings_mut()))
}

/// Answers `PATCH /readings`.
pub(crate) fn patch_readings(world: &mut World, request: &Request) -> ControlAnswer {
    let patch: serde_json::Map<String, Value> = body(request)?;
    let mut readings = serde_json::to_value(world.readings_mut()).unwrap_or_default();
    if let Some(fields) = readings.as_object_mut() {
        fields.extend(patch);
    }
    *world.readings_mut() = serde_json::from_value(readings).map_err(|error| unreadable(&error))?;
    Ok(ApiAnswer::ok(world.readings_mut()))
}

/// Answers `GET /latency`.
pub(crate) fn latency(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(&Latency { ms: world.latency().as_millis() as u64 }))
}

/// Answers `POST /latency`.
pub(crate) fn set_latency(world: &mut World, request: &Request) -> ControlAnswer {
    let Latency { ms } = body(request)?;
    world.set_latency(Duration::from_millis(ms));
    latency(world, request)
}

/// Answers `POST /accounts`.
pub(crate) fn add_account(world: &mut World, request: &Request) -> ControlAnswer {
    let NewAccount { key, seed, customers } = body(request)?;
    world.add_account(&key, seed, customers);
    Ok(done())
}

/// Answers `POST /key`.
pub(crate) fn rotate_key(world: &mut World, request: &Request) -> ControlAnswer {
    let NewKey { new, old } = body(request)?;
    world.rotate_key(&new, old);
    Ok(done())
}

/// Answers `POST /refusal`.
pub(crate) fn refuse_key(world: &mut World, request: &Request) -> ControlAnswer {
    let Refuse { refusal } = body(request)?;
    world.refuse_key(refusal);
    Ok(done())
}

/// Answers `GET /requests`.
pub(crate) fn requests(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(&world.requests()))
}

/// Answers `DELETE /requests`.
pub(crate) fn clear_requests(world: &mut World, _: &Request) -> ControlAnswer {
    world.clear_requests();
    Ok(done())
}

/// Answers `POST /trickle`.
pub(crate) fn trickle(world: &mut World, request: &Request) -> ControlAnswer {
    let Trickle { count, seed } = body(request)?;
    let mut rng = seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
    let changes: Vec<Value> = (0..count).map(|_| world.trickle(&mut rng)).collect();
    Ok(ApiAnswer::ok(&changes))
}

/// Answers `GET /stats`.
pub(crate) fn stats(world: &mut World, _: &Request) -> ControlAnswer {
    Ok(ApiAnswer::ok(&json!({
        "customers": world.len(),
        "requests": world.request_count(),
        "creates": world.creates(),
        "updates": world.updates(),
        "deletes": world.deletes(),
        "fired": world.fired_by_kind(),
    })))
}

/// Reads a time.
fn time(text: &str) -> Result<Timestamp, ApiAnswer> {
    text.parse().map_err(|error| ApiAnswer::bad_request(&format!("{text} is not a time: {error}.")))
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ClockChange {
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
    refusal: Option<KeyRefusal>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Trickle {
    count: u32,
    /// Without a seed, the changes differ each time.
    seed: Option<u64>,
}

impl Default for Trickle {
    fn default() -> Self {
        Self { count: 1, seed: None }
    }
}
