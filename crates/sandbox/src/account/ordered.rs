//! The order of keys in JSON objects, as KOMOJU writes them.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// The order of the keys of customers, events and sources. Other keys follow.
const KEYS: [&str; 13] = [
    "id",
    "type",
    "resource",
    "email",
    "source",
    "metadata",
    "data",
    "created_at",
    "reason",
    "brand",
    "last_four_digits",
    "month",
    "year",
];

/// A customer or an event that is serialised in this order.
pub(crate) struct Ordered<'a>(pub(crate) &'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(fields) = self.0 else {
            return self.0.serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        let known = KEYS.iter().filter_map(|&key| fields.get_key_value(key));
        let others = fields.iter().filter(|(key, _)| !KEYS.contains(&key.as_str()));
        for (key, value) in known.chain(others) {
            match key.as_str() {
                "source" | "data" => map.serialize_entry(key, &Ordered(value))?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}
