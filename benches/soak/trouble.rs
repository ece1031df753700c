//! Changes and faults at KOMOJU.

use komoju_sandbox::{Ending, Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
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
    // What has not struck yet is forgotten now and then, so that no trouble waits for ever.
    if dice.random_bool(0.1) {
        world.clear_faults();
    }
    let fault = any(dice);
    *ledger.injected.entry(fault.effect.kind().to_owned()).or_default() += 1;
    world.inject(fault);
}

/// Draws a fault.
fn any(dice: &mut StdRng) -> Fault {
    let work = if dice.random() { FaultedWork::Done } else { FaultedWork::Skipped };
    let push = *[FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete].choose(dice).unwrap();
    let any = *[
        FaultedCall::List,
        FaultedCall::Show,
        FaultedCall::Create,
        FaultedCall::Update,
        FaultedCall::Delete,
    ]
    .choose(dice)
    .unwrap();
    let times = dice.random_range(1..4);
    match dice.random_range(0..24) {
        0..3 => Fault::new(FaultEffect::Reset { work }).call(push).once(),
        3 => Fault::new(FaultEffect::Close { work }).call(any).times(times),
        4..6 => {
            Fault::new(status(*[500, 502, 503, 504].choose(dice).unwrap(), work, None)).call(any).times(times)
        }
        6 => Fault::new(status(429, FaultedWork::Skipped, Some("1"))).call(any).once(),
        7 => Fault::new(status(409, FaultedWork::Skipped, None)).call(push).once(),
        8 => Fault::new(html(*[200, 403, 503].choose(dice).unwrap())).call(any).times(times),
        9 => Fault::new(FaultEffect::Cut { after: dice.random_range(0..200), ending: Ending::Reset })
            .call(any)
            .once(),
        10 => Fault::new(FaultEffect::Body { body: Payload::Text("{\"resource\":".to_owned()) })
            .call(FaultedCall::List)
            .once(),
        11 => Fault::new(FaultEffect::Body { body: Payload::Json(json!({})) }).call(FaultedCall::List).once(),
        12 => Fault::new(FaultEffect::HugeBody { bytes: 1 << 32 }).call(FaultedCall::List).once(),
        13 => Fault::new(FaultEffect::GzipBomb { bytes: 1 << 30 }).call(FaultedCall::List).once(),
        14 => Fault::new(FaultEffect::Envelope { fields: json!({"total": -1}).as_object().unwrap().clone() })
            .times(times),
        15 => Fault::new(FaultEffect::SamePage { page: 1, echo: Default::default() }).times(times),
        16 => Fault::new(FaultEffect::ShortList { keep: dice.random_range(0..1500) }).times(10),
        17 => Fault::new(FaultEffect::EmptyList).times(times),
        18 => Fault::new(FaultEffect::Hide { ids: Vec::new(), every: Some(dice.random_range(50..900)) })
            .times(40),
        19 => Fault::new(FaultEffect::Delay { ms: dice.random_range(50..2000) }).call(any).times(times),
        20..22 => Fault::new(FaultEffect::RandomDrift {
            seed: dice.random(),
            delete: 0,
            insert: 2,
            update: 0,
            reorder: 2,
        })
        .times(20),
        22 => Fault::new(FaultEffect::Drip { every_ms: 1, bytes: 400 }).call(FaultedCall::List).once(),
        // A refused key is not used until the next start.
        _ if dice.random_bool(0.2) => Fault::new(FaultEffect::status(401)).call(any).once(),
        _ => Fault::new(FaultEffect::HugeHeader { bytes: 10 << 20 }).call(any).once(),
    }
}

fn status(status: u16, work: FaultedWork, retry_after: Option<&str>) -> FaultEffect {
    FaultEffect::Status {
        status,
        body: Payload::Error,
        retry_after: retry_after.map(str::to_owned),
        headers: Default::default(),
        work,
    }
}

fn html(status: u16) -> FaultEffect {
    FaultEffect::Status {
        status,
        body: Payload::Html,
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    }
}
