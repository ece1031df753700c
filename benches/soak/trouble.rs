//! Changes and faults at KOMOJU.

use komoju_sandbox::{Call, Effect, Ending, Fault, Payload, Work};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::daemon::Installation;
use crate::doors;
use crate::ledger::Ledger;

/// Changes a customer at KOMOJU; never one of an intent, so that the outcome of each intent can be
/// checked at the end.
pub fn churn(dice: &mut StdRng, harness: &Installation, ledger: &mut Ledger) {
    let mut world = harness.world();
    let ids = world.ids();
    let customer = ids.choose(dice).filter(|id| {
        world.get(id).is_some_and(|customer| !doors::is_ours(customer["email"].as_str().unwrap_or_default()))
    });
    match (dice.random_range(0..10), customer) {
        (0..5, Some(id)) => {
            let email = format!("churn-{}@example.jp", dice.random::<u32>());
            world.update(id, json!({ "email": email }));
            ledger.churned[1] += 1;
        }
        // About as many customers are deleted as are created.
        (5..7, Some(id)) => {
            world.delete(id);
            ledger.churned[2] += 1;
        }
        (7..10, _) if dice.random_bool(0.66) => {
            world
                .create(json!({"email": format!("new-{}@example.jp", dice.random::<u32>()), "metadata": {}}));
            ledger.churned[0] += 1;
        }
        _ => {}
    }
}

/// Injects a random fault.
pub fn strike(dice: &mut StdRng, harness: &Installation, ledger: &mut Ledger) {
    let mut world = harness.world();
    ledger.note_faults(&world);
    // Sometimes remove the faults that have not fired yet, so that none waits for the whole run.
    if dice.random_bool(0.1) {
        world.clear_faults();
    }
    let fault = any(dice);
    *ledger.injected.entry(fault.effect.kind().to_owned()).or_default() += 1;
    world.inject(fault);
}

/// Draws a fault.
fn any(dice: &mut StdRng) -> Fault {
    let work = if dice.random() { Work::Done } else { Work::Skipped };
    let push = *[Call::Create, Call::Update, Call::Delete].choose(dice).unwrap();
    let any = *[Call::List, Call::Show, Call::Create, Call::Update, Call::Delete].choose(dice).unwrap();
    let times = dice.random_range(1..4);
    match dice.random_range(0..24) {
        0..3 => Fault::new(Effect::Reset { work }).call(push).once(),
        3 => Fault::new(Effect::Close { work }).call(any).times(times),
        4..6 => {
            Fault::new(status(*[500, 502, 503, 504].choose(dice).unwrap(), work, None)).call(any).times(times)
        }
        6 => Fault::new(status(429, Work::Skipped, Some("1"))).call(any).once(),
        7 => Fault::new(status(409, Work::Skipped, None)).call(push).once(),
        8 => Fault::new(html(*[200, 403, 503].choose(dice).unwrap())).call(any).times(times),
        9 => Fault::new(Effect::Cut { after: dice.random_range(0..200), ending: Ending::Reset })
            .call(any)
            .once(),
        10 => Fault::new(Effect::Body { body: Payload::Text("{\"resource\":".to_owned()) })
            .call(Call::List)
            .once(),
        11 => Fault::new(Effect::Body { body: Payload::Json(json!({})) }).call(Call::List).once(),
        12 => Fault::new(Effect::HugeBody { bytes: 1 << 32 }).call(Call::List).once(),
        13 => Fault::new(Effect::GzipBomb { bytes: 1 << 30 }).call(Call::List).once(),
        14 => Fault::new(Effect::Envelope { fields: json!({"total": -1}).as_object().unwrap().clone() })
            .times(times),
        15 => Fault::new(Effect::SamePage { page: 1, echo: Default::default() }).times(times),
        16 => Fault::new(Effect::ShortList { keep: dice.random_range(0..1500) }).times(10),
        17 => Fault::new(Effect::EmptyList).times(times),
        18 => Fault::new(Effect::Hide { ids: Vec::new(), every: Some(dice.random_range(50..900)) }).times(40),
        19 => Fault::new(Effect::Delay { ms: dice.random_range(50..2000) }).call(any).times(times),
        20..22 => Fault::new(Effect::RandomDrift {
            seed: dice.random(),
            delete: 0,
            insert: 2,
            update: 0,
            reorder: 2,
        })
        .times(20),
        22 => Fault::new(Effect::Drip { every_ms: 1, bytes: 400 }).call(Call::List).once(),
        // A refused key is not used until the next start.
        _ if dice.random_bool(0.2) => Fault::new(Effect::status(401)).call(any).once(),
        _ => Fault::new(Effect::HugeHeader { bytes: 10 << 20 }).call(any).once(),
    }
}

fn status(status: u16, work: Work, retry_after: Option<&str>) -> Effect {
    Effect::Status {
        status,
        body: Payload::Error,
        retry_after: retry_after.map(str::to_owned),
        headers: Default::default(),
        work,
    }
}

fn html(status: u16) -> Effect {
    Effect::Status {
        status,
        body: Payload::Html,
        retry_after: None,
        headers: Default::default(),
        work: Work::Skipped,
    }
}
