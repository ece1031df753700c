//! The difference between two states of a customer, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

/// The fields that differ. A state that does not exist (before a creation, after a deletion) has no
/// fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff(BTreeMap<String, FieldChange>);

/// The two values of a field; `None` where the field is absent, which is not the same as `null`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The value before.
    pub from: Option<Value>,
    /// The value after.
    pub to: Option<Value>,
}

impl Diff {
    /// Compares the top-level fields of two states.
    pub fn between(from: &Map<String, Value>, to: &Map<String, Value>) -> Self {
        let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        let differing = names.into_iter().filter(|name| from.get(*name) != to.get(*name)).map(|name| {
            let change = FieldChange { from: from.get(name).cloned(), to: to.get(name).cloned() };
            (name.clone(), change)
        });
        Self(differing.collect())
    }

    /// Applies the difference to `state` and returns the result.
    pub fn apply(&self, state: &Map<String, Value>) -> Map<String, Value> {
        let mut state = state.clone();
        for (name, change) in &self.0 {
            match &change.to {
                Some(value) => state.insert(name.clone(), value.clone()),
                None => state.remove(name),
            };
        }
        state
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the content of the `diff` column: `{"field": {"from": …, "to": …}}`. An absent field
    /// is `null`.
    pub fn to_json(&self) -> Value {
        let fields =
            self.0.iter().map(|(name, change)| (name.clone(), json!({"from": change.from, "to": change.to})));
        Value::Object(fields.collect())
    }
}

impl fmt::Display for Diff {
    /// Formats as `email "a@example.com" → null, locale "ja" → "en"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side =
            |value: &Option<Value>| value.as_ref().map_or_else(|| "absent".to_owned(), Value::to_string);
        for (n, (name, change)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{} {} → {}", name.escape_debug(), side(&change.from), side(&change.to))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_state() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\u{3042}\"\\\\]{0,3}".prop_map(Value::from),
            prop::collection::btree_map("[a-c]", "[a-c]", 0..3).prop_map(|m| json!(m)),
        ];
        prop::collection::btree_map("[a-d]{1,2}", value, 0..6).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn applied_difference_gives_the_other_state(a in any_state(), b in any_state()) {
            let diff = Diff::between(&a, &b);
            prop_assert_eq!(diff.apply(&a), b.clone());
            prop_assert_eq!(diff.is_empty(), a == b);
        }
    }

    #[test]
    fn absent_and_null_differ_but_are_equal_in_json() {
        let (a, b) = (Map::new(), Map::from_iter([("locale".to_owned(), Value::Null)]));
        let diff = Diff::between(&a, &b);
        assert_eq!(diff.to_json(), json!({"locale": {"from": null, "to": null}}));
        assert_eq!(diff.to_string(), "locale absent → null");
    }
}
