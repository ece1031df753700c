//! Counters of the ops and faults. A simulation that never reaches a case proves nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// The numbers of ops and faults, by kind.
#[derive(Debug, Default)]
pub struct Count {
    pub ops: BTreeMap<String, u64>,
    /// Properties of the intents that were dropped.
    pub intents: BTreeMap<String, u64>,
    /// Faults and changes by other clients within a pass or a drain.
    pub faults: BTreeMap<String, u64>,
}

/// Below this number of ops a rare kind may be missing by chance.
const ENOUGH_OPS: u64 = 20_000;

/// The least share of each kind in its group, in hundredths.
const LEAST: u64 = 1;

impl Count {
    pub fn op(&mut self, kind: String) {
        *self.ops.entry(kind).or_default() += 1;
    }

    pub fn fired(&mut self, fired: BTreeMap<String, u64>) {
        for (kind, times) in fired {
            let group = if kind.starts_with("Intent::") { &mut self.intents } else { &mut self.faults };
            *group.entry(kind).or_default() += times;
        }
    }

    pub fn add(&mut self, other: Self) {
        let pairs = [
            (&mut self.ops, other.ops),
            (&mut self.intents, other.intents),
            (&mut self.faults, other.faults),
        ];
        for (group, more) in pairs {
            for (kind, times) in more {
                *group.entry(kind).or_default() += times;
            }
        }
    }

    pub fn to_json(&self) -> Value {
        json!([self.ops, self.intents, self.faults])
    }

    pub fn from_json(text: &str) -> Self {
        let [ops, intents, faults] = serde_json::from_str(text).unwrap();
        Self { ops, intents, faults }
    }

    fn groups(&self) -> [(&'static str, &BTreeMap<String, u64>); 3] {
        [("ops", &self.ops), ("intents", &self.intents), ("faults", &self.faults)]
    }

    pub fn sum(&self) -> u64 {
        self.ops.values().sum()
    }

    /// Asserts that every kind has occurred, and that none is rarer than one in a hundred of its
    /// group.
    pub fn assert_every_kind_occurs(&self, kinds: [usize; 3]) {
        if self.sum() < ENOUGH_OPS {
            return;
        }
        for ((name, group), kinds) in self.groups().into_iter().zip(kinds) {
            let sum: u64 = group.values().sum();
            assert_eq!(group.len(), kinds, "each kind of {name} must occur: {group:?}");
            for (kind, times) in group {
                assert!(times * 100 >= sum * LEAST, "{kind}: {times} of {sum} {name} is too rare");
            }
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, group) in self.groups() {
            let sum: u64 = group.values().sum();
            writeln!(f, "{name}: {sum}")?;
            for (kind, times) in group {
                writeln!(f, "  {kind:<28} {times:>9}  {:>5.1} %", *times as f64 * 100.0 / sum as f64)?;
            }
        }
        Ok(())
    }
}
