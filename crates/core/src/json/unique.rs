//! Finds a repeated key in an object. `serde_json` silently keeps the last value.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Whether any object in this JSON text has a repeated key. Keys are compared after their escapes
/// are decoded.
///
/// # Errors
/// The text is not JSON.
pub(super) fn repeats_a_key(bytes: &[u8]) -> Result<bool, serde_json::Error> {
    serde_json::from_slice::<Repeats>(bytes).map(|Repeats(repeats)| repeats)
}

/// Whether a value contains a repeated key.
struct Repeats(bool);

impl<'de> Deserialize<'de> for Repeats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Repeats;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_unit<E>(self) -> Result<Repeats, E> {
        Ok(Repeats(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Repeats, A::Error> {
        let mut any = false;
        while let Some(Repeats(repeats)) = items.next_element()? {
            any |= repeats;
        }
        Ok(Repeats(any))
    }

    // Also visited for a number: `serde_json` passes it as an object with an internal key.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Repeats, A::Error> {
        let (mut keys, mut any) = (HashSet::new(), false);
        while let Some((key, Repeats(repeats))) = members.next_entry::<String, Repeats>()? {
            any |= repeats | !keys.insert(key);
        }
        Ok(Repeats(any))
    }
}

#[cfg(test)]
mod tests {
    use super::repeats_a_key;

    #[test]
    fn repeated_key_is_found_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"[0,{"b":{"a":[],"c":null,"a":{}}}]"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1,"a":{"b":1,"b":1}}"#,
        ] {
            assert!(repeats_a_key(text.as_bytes()).unwrap(), "{text}");
        }
        for text in [
            "1E5",
            r#"[1, -2, 3.5, true, null, "x"]"#,
            r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}],"":1e400}"#,
        ] {
            assert!(!repeats_a_key(text.as_bytes()).unwrap(), "{text}");
        }
    }
}
