//! The injected faults: which of them fire for a request, and their counters.

use std::collections::BTreeMap;

use serde::Serialize;

use super::effect::FaultEffect;
use super::fault::{Fault, FaultId, FaultedCall, Match};

/// The properties of a request that a fault can match.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a str,
    /// The path below `/api/v1`.
    pub path: &'a str,
    pub call: Option<FaultedCall>,
    pub page: Option<u64>,
}

impl Match {
    /// Whether a request has all properties of this match.
    fn fits(&self, facts: &RequestFacts<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(facts.method))
            && self.path.as_ref().is_none_or(|path| facts.path.starts_with(path.as_str()))
            && self.call.is_none_or(|call| facts.call == Some(call))
            && self.page.is_none_or(|page| facts.page == Some(page))
    }
}

/// The injected faults and their counters.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Vec<ArmedFault>,
    /// How often each fault has fired; kept after a fault is removed.
    fired: BTreeMap<FaultId, u64>,
    by_kind: BTreeMap<&'static str, u64>,
}

/// An injected fault and its counters.
#[derive(Debug, Clone, Serialize)]
pub struct ArmedFault {
    pub id: FaultId,
    #[serde(flatten)]
    fault: Fault,
    matched: u64,
    fired: u64,
}

/// A fault that fired for one request.
#[derive(Debug, Clone)]
pub struct Fired {
    pub id: FaultId,
    pub effect: FaultEffect,
    /// How often it fired before.
    pub earlier: u64,
}

impl Faults {
    /// Adds a fault.
    pub fn inject(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.fired.len() as u64 + 1);
        self.fired.insert(id, 0);
        self.armed.push(ArmedFault { id, fault, matched: 0, fired: 0 });
        id
    }

    /// Removes a fault. Returns false if there is no such fault.
    pub fn remove(&mut self, id: FaultId) -> bool {
        let before = self.armed.len();
        self.armed.retain(|armed| armed.id != id);
        self.armed.len() < before
    }

    /// Removes all faults.
    pub fn clear(&mut self) {
        self.armed.clear();
    }

    /// Returns the faults that are not removed.
    pub fn armed(&self) -> &[ArmedFault] {
        &self.armed
    }

    /// Whether a fault is not removed.
    pub fn is_armed(&self, id: FaultId) -> bool {
        self.armed.iter().any(|armed| armed.id == id)
    }

    /// Returns how often a fault has fired.
    pub fn fired(&self, id: FaultId) -> u64 {
        self.fired.get(&id).copied().unwrap_or(0)
    }

    /// Returns how often the faults of each kind have fired.
    pub fn fired_by_kind(&self) -> BTreeMap<String, u64> {
        self.by_kind.iter().map(|(&kind, &count)| (kind.to_owned(), count)).collect()
    }

    /// Counts and returns the faults that fire for a request.
    pub fn fire(&mut self, facts: &RequestFacts<'_>) -> Vec<Fired> {
        let mut firing = Vec::new();
        for armed in &mut self.armed {
            let effect = &armed.fault.effect;
            let can = !effect.shapes_lists() || facts.call == Some(FaultedCall::List);
            if !can || !armed.fault.on.fits(facts) {
                continue;
            }
            armed.matched += 1;
            let spent = armed.fault.times.is_some_and(|times| armed.fired >= times);
            if armed.matched <= armed.fault.skip || spent {
                continue;
            }
            firing.push(Fired { id: armed.id, effect: effect.clone(), earlier: armed.fired });
            armed.fired += 1;
            *self.fired.entry(armed.id).or_default() += 1;
            *self.by_kind.entry(effect.kind()).or_default() += 1;
            if effect.replaces_answer() {
                break;
            }
        }
        firing
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(page: u64) -> RequestFacts<'static> {
        RequestFacts { method: "GET", path: "/customers", call: Some(FaultedCall::List), page: Some(page) }
    }

    fn show() -> RequestFacts<'static> {
        RequestFacts { method: "GET", path: "/customers/abc", call: Some(FaultedCall::Show), page: None }
    }

    #[test]
    fn fault_skips_requests_fires_and_ends() {
        let mut faults = Faults::default();
        let id = faults.inject(Fault::new(FaultEffect::status(500)).skip(1).times(2));
        let fired: Vec<usize> = (0..5).map(|_| faults.fire(&show()).len()).collect();
        assert_eq!(fired, [0, 1, 1, 0, 0]);
        assert_eq!(faults.fired(id), 2);
        assert_eq!(faults.fired_by_kind(), BTreeMap::from([("status".to_owned(), 2)]));
        faults.clear();
        assert_eq!(faults.fired(id), 2, "counters are kept");
    }

    #[test]
    fn request_must_have_every_property_of_a_match() {
        for (on, fits) in [
            (json!({}), true),
            (json!({"method": "get", "path": "/customers", "page": 3, "call": "list"}), true),
            (json!({"method": "POST"}), false),
            (json!({"path": "/events"}), false),
            (json!({"page": 2}), false),
            (json!({"call": "show"}), false),
        ] {
            let on: Match = serde_json::from_value(on).unwrap();
            assert_eq!(on.fits(&list(3)), fits, "{on:?}");
        }
    }

    #[test]
    fn effect_on_lists_does_not_fire_for_other_calls() {
        let mut faults = Faults::default();
        let id = faults.inject(Fault::new(FaultEffect::EmptyList));
        assert!(faults.fire(&show()).is_empty());
        assert_eq!(faults.fire(&list(1)).len(), 1);
        assert_eq!(faults.fired(id), 1);
    }

    #[test]
    fn fault_after_a_replaced_answer_does_not_fire() {
        let mut faults = Faults::default();
        faults.inject(Fault::new(FaultEffect::Delay { ms: 1 }));
        faults.inject(Fault::new(FaultEffect::status(503)));
        let behind = faults.inject(Fault::new(FaultEffect::status(500)));
        let kinds: Vec<&str> = faults.fire(&show()).iter().map(|fired| fired.effect.kind()).collect();
        assert_eq!(kinds, ["delay", "status"]);
        assert_eq!(faults.fired(behind), 0);
    }
}
