//! Finds fields that change in so many customers of a sweep that they may change on every read.
//!
//! Such a field (a time of access, a random link) adds one log entry per customer and sweep. The
//! log must match the API, so these changes are recorded as usual, and reported.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// MOST_FIELDS limits the number of counted names, because metadata may have any keys.
const MOST_FIELDS: usize = 1000;

/// LEAST_CUSTOMERS controls in how many customers a field must change at least: one edited customer
/// proves nothing.
const LEAST_CUSTOMERS: u64 = 2;

/// LEAST_SHARE controls in which fraction of the customers seen a field must change: one in 4. It
/// is not larger, because not every customer has every field.
const LEAST_SHARE: u64 = 4;

/// The number of customers in which each field changed.
#[derive(Clone, Debug, Default)]
pub struct FieldCounts {
    customers: BTreeMap<String, u64>,
}

impl FieldCounts {
    /// Counts the fields that differ between two states of one customer. A key inside an object
    /// counts as a field of its own, such as `metadata.visits`.
    pub fn count(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        for (name, from, to) in differing(before, after) {
            match (from, to) {
                (Some(Value::Object(from)), Some(Value::Object(to))) => {
                    for (key, ..) in differing(from, to) {
                        self.add(format!("{name}.{key}"));
                    }
                }
                _ => self.add(name.to_owned()),
            }
        }
    }

    fn add(&mut self, field: String) {
        let is_full = self.customers.len() >= MOST_FIELDS;
        match self.customers.get_mut(&field) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => drop(self.customers.insert(field, 1)),
        }
    }

    /// Returns the fields that changed in many of the customers that a sweep saw, each with its
    /// number of customers.
    pub fn busy(&self, seen: u64) -> Vec<(&str, u64)> {
        let is_busy = |count: u64| count >= LEAST_CUSTOMERS && count.saturating_mul(LEAST_SHARE) >= seen;
        let busy = self.customers.iter().filter(|(_, count)| is_busy(**count));
        busy.map(|(field, count)| (field.as_str(), *count)).collect()
    }
}

/// Returns the members that differ, with both values.
fn differing<'a>(
    before: &'a Map<String, Value>,
    after: &'a Map<String, Value>,
) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let pairs = names.into_iter().map(|name| (name.as_str(), before.get(name), after.get(name)));
    pairs.filter(|(_, before, after)| before != after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(counts: &mut FieldCounts, before: Value, after: Value) {
        counts.count(before.as_object().unwrap(), after.as_object().unwrap());
    }

    #[test]
    fn field_that_changes_in_a_quarter_of_the_customers_is_busy() {
        let mut counts = FieldCounts::default();
        for n in 0..25 {
            count(
                &mut counts,
                json!({"id": n, "seen": 1, "metadata": {"n": 1, "m": 1}}),
                json!({"id": n, "seen": 2, "metadata": {"n": 2, "m": 1}}),
            );
        }
        count(&mut counts, json!({"email": "a"}), json!({"email": "b"}));
        assert_eq!(counts.busy(100), [("metadata.n", 25), ("seen", 25)]);
        assert_eq!(counts.busy(101), []);
        assert_eq!(counts.busy(1).len(), 2, "one edited customer is not a busy field");
    }

    #[test]
    fn field_that_appears_or_becomes_an_object_counts_under_its_own_name() {
        let mut counts = FieldCounts::default();
        for _ in 0..2 {
            count(&mut counts, json!({"source": null}), json!({"source": {"type": "card"}, "new": {"a": 1}}));
        }
        assert_eq!(counts.busy(2), [("new", 2), ("source", 2)]);
    }

    #[test]
    fn names_are_bounded() {
        let mut counts = FieldCounts::default();
        let many: Map<String, Value> = (0..MOST_FIELDS + 9).map(|n| (format!("k{n:06}"), json!(n))).collect();
        counts.count(&Map::new(), &many);
        counts.count(&Map::new(), &many);
        assert_eq!(counts.busy(2).len(), MOST_FIELDS);
    }
}
