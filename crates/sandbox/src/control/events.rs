//! The calls that read and emit events.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;

use super::answered::{ControlAnswer, account, body, done};
use crate::account::EventIds;
use crate::account::events::UPDATED;
use crate::account::ordered::Ordered;
use crate::api::answer::ApiAnswer;
use crate::request::Request;
use crate::world::World;

/// Answers `GET /events`.
pub(crate) fn events(world: &mut World, request: &Request) -> ControlAnswer {
    let account = account(world, request)?;
    let events: Vec<Ordered<'_>> = account.events.all().map(Ordered).collect();
    Ok(ApiAnswer::ok(&events))
}

/// Answers `POST /events`.
pub(crate) fn emit(world: &mut World, request: &Request) -> ControlAnswer {
    let now = world.now();
    let account = account(world, request)?;
    match body(request)? {
        NewEvents::One { kind, id } => account.emit(now, &kind, &id),
        NewEvents::Flood { flood, ids, seed } => {
            let mut rng = seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
            account.flood(now, flood, ids, &mut rng);
        }
    }
    Ok(done())
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum NewEvents {
    One {
        #[serde(rename = "type", default = "updated")]
        kind: String,
        id: String,
    },
    Flood {
        flood: u32,
        #[serde(default)]
        ids: EventIds,
        /// Without a seed, the events differ each time.
        seed: Option<u64>,
    },
}

/// Returns the default type of an event.
fn updated() -> String {
    UPDATED.to_owned()
}
