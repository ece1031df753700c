//! Invariant 4: a delete needs evidence.
//!
//! Promises: invariant 4

mod canary;
mod decisions;
mod holds;
mod suspects;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::Installation;

fn delete(harness: &Installation, count: usize) -> Vec<String> {
    let ids: Vec<String> = harness.sandbox.world().ids().into_iter().take(count).collect();
    for id in &ids {
        assert!(harness.sandbox.world().delete(id));
    }
    ids
}

/// An answer of this status and body.
fn answered(status: u16, body: komoju_sandbox::Payload) -> FaultEffect {
    FaultEffect::Status {
        status,
        body,
        retry_after: None,
        headers: Default::default(),
        work: Default::default(),
    }
}

/// A fault on one customer's own GET.
pub(crate) fn on_show(effect: FaultEffect, id: &str) -> Fault {
    let mut fault = Fault::new(effect).call(FaultedCall::Show);
    fault.on.path = Some(format!("/customers/{id}"));
    fault
}

fn unusable() -> [FaultEffect; 3] {
    [FaultEffect::status(400), FaultEffect::status(500), answered(404, komoju_sandbox::Payload::Html)]
}
