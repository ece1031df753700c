//! Owns the injected faults: which of them fire for a request, and their counters.

use std::collections::BTreeMap;

use serde::Serialize;

use super::effect::Effect;
use super::fault::{Call, Fault, FaultId, Match};

/// What a fault may ask of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// Below `/api/v1`.
    pub path: &'a str,
    pub call: Option<Call>,
    pub page: Option<u64>,
}

impl Match {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(asked.method))
            && self.path.as_ref().is_none_or(|path| asked.path.starts_with(path.as_str()))
            && self.call.is_none_or(|call| asked.call == Some(call))
            && self.page.is_none_or(|page| asked.page == Some(page))
    }
}

/// The injected faults and what they have done so far.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Vec<Armed>,
    /// Kept after a fault is removed.
    fired: BTreeMap<FaultId, u64>,
    by_kind: BTreeMap<&'static str, u64>,
}

/// An injected fault with its counters.
#[derive(Debug, Clone, Serialize)]
pub struct Armed {
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
    pub effect: Effect,
    /// How often it fired before this.
    pub earlier: u64,
}

impl Faults {
    pub fn inject(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.fired.len() as u64 + 1);
        self.fired.insert(id, 0);
        self.armed.push(Armed { id, fault, matched: 0, fired: 0 });
        id
    }

    /// False when it was not there (any more).
    pub fn remove(&mut self, id: FaultId) -> bool {
        let before = self.armed.len();
        self.armed.retain(|armed| armed.id != id);
        self.armed.len() < before
    }

    pub fn clear(&mut self) {
        self.armed.clear();
    }

    pub fn armed(&self) -> &[Armed] {
        &self.armed
    }

    pub fn is_armed(&self, id: FaultId) -> bool {
        self.armed.iter().any(|armed| armed.id == id)
    }

    pub fn fired(&self, id: FaultId) -> u64 {
        self.fired.get(&id).copied().unwrap_or(0)
    }

    pub fn fired_by_kind(&self) -> BTreeMap<String, u64> {
        self.by_kind.iter().map(|(&kind, &count)| (kind.to_owned(), count)).collect()
    }

    /// The faults that fire for a request, counted.
    pub fn fire(&mut self, asked: &Asked<'_>) -> Vec<Fired> {
        let mut firing = Vec::new();
        for armed in &mut self.armed {
            let effect = &armed.fault.effect;
            let can = !effect.shapes_lists() || asked.call == Some(Call::List);
            if !can || !armed.fault.on.fits(asked) {
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

    fn list(page: u64) -> Asked<'static> {
        Asked { method: "GET", path: "/customers", call: Some(Call::List), page: Some(page) }
    }

    fn show() -> Asked<'static> {
        Asked { method: "GET", path: "/customers/abc", call: Some(Call::Show), page: None }
    }

    #[test]
    fn a_fault_lets_some_through_fires_and_is_spent() {
        let mut faults = Faults::default();
        let id = faults.inject(Fault::new(Effect::status(500)).skip(1).times(2));
        let fired: Vec<usize> = (0..5).map(|_| faults.fire(&show()).len()).collect();
        assert_eq!(fired, [0, 1, 1, 0, 0]);
        assert_eq!(faults.fired(id), 2);
        assert_eq!(faults.fired_by_kind(), BTreeMap::from([("status".to_owned(), 2)]));
        faults.clear();
        assert_eq!(faults.fired(id), 2, "counters stay");
    }

    #[test]
    fn every_part_of_a_match_must_fit() {
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
    fn what_shapes_lists_does_not_fire_elsewhere() {
        let mut faults = Faults::default();
        let id = faults.inject(Fault::new(Effect::EmptyList));
        assert!(faults.fire(&show()).is_empty());
        assert_eq!(faults.fire(&list(1)).len(), 1);
        assert_eq!(faults.fired(id), 1);
    }

    #[test]
    fn behind_a_replaced_answer_nobody_is_asked() {
        let mut faults = Faults::default();
        faults.inject(Fault::new(Effect::Delay { ms: 1 }));
        faults.inject(Fault::new(Effect::status(503)));
        let behind = faults.inject(Fault::new(Effect::status(500)));
        let kinds: Vec<&str> = faults.fire(&show()).iter().map(|fired| fired.effect.kind()).collect();
        assert_eq!(kinds, ["delay", "status"]);
        assert_eq!(faults.fired(behind), 0);
    }
}
