//! Reads JSON and keeps the exact digits, signs and exponents of its numbers.
//!
//! `serde_json` changes `1E5` to `1e+5`. The number is the same, but the mirror keeps numbers as
//! received. So if a number has an exponent, all numbers are taken from the text itself. More than
//! [`DEEPEST`] nested levels are refused: such a value is not a customer, and reading it must not
//! exhaust the stack.
//!
//! `serde_json` also passes numbers and raw text to itself as objects with one internal key. It
//! treats an outside object with that key in the same way. `{"$serde_json::private::Number": "1"}`
//! would become 1, and text inside such objects would be parsed without a depth limit. So a text
//! that may contain these keys is read by a method that does not know them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Number, Value};

// For tests and fuzzers, including those of other crates. The program itself does not call it.
#[doc(hidden)]
pub mod checks;
pub mod scan;
mod unique;

/// DEEPEST limits the nested levels of arrays and objects.
pub const DEEPEST: usize = 100;

/// Why a text is not JSON that can be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// A syntax error, in the parser's words.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// More nested levels than [`DEEPEST`].
    #[error("nested more than {DEEPEST} levels deep")]
    TooDeep,
    /// A key appears twice in one object. Only [`parse_unique`] refuses this.
    #[error("a key appears twice in one object")]
    RepeatedKey,
}

/// Parses one JSON value. A key that appears twice in one object is an error, because different
/// readers keep different values.
pub fn parse_unique(bytes: &[u8]) -> Result<Value, JsonError> {
    let value = parse(bytes)?;
    match unique::repeats_a_key(bytes)? {
        true => Err(JsonError::RepeatedKey),
        false => Ok(value),
    }
}

/// Parses one JSON value. For a repeated key the last value counts.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if may_contain_internal_key(bytes) {
        return value(serde_json::from_slice(bytes)?, 0);
    }
    let usual = serde_json::from_slice(bytes)?;
    match may_change_numbers(&usual, 0)? {
        false => Ok(usual),
        true => value(serde_json::from_slice(bytes)?, 0),
    }
}

/// Whether the text may contain an internal key of `serde_json`, plainly or with escaped letters.
pub(super) fn may_contain_internal_key(bytes: &[u8]) -> bool {
    // Most texts contain neither of the two characters with which such a key can begin.
    memchr::memchr2_iter(b'$', b'\\', bytes)
        .any(|at| matches!(bytes[at..].get(..5), Some(b"$serd" | [b'\\', b'u', b'0', b'0', b'2'..=b'7'])))
}

/// Whether `serde_json` may have changed the spelling of a number in this value. It changes only
/// numbers with an exponent.
fn may_change_numbers(value: &Value, depth: usize) -> Result<bool, JsonError> {
    let mut any = false;
    match value {
        Value::Number(number) => any = number.as_str().contains('e'),
        Value::Array(items) => {
            let depth = deeper(depth)?;
            for item in items {
                any |= may_change_numbers(item, depth)?;
            }
        }
        Value::Object(members) => {
            let depth = deeper(depth)?;
            for member in members.values() {
                any |= may_change_numbers(member, depth)?;
            }
        }
        _ => {}
    }
    Ok(any)
}

/// Returns the next level, if it is not deeper than [`DEEPEST`].
fn deeper(depth: usize) -> Result<usize, JsonError> {
    match depth < DEEPEST {
        true => Ok(depth + 1),
        false => Err(JsonError::TooDeep),
    }
}

fn value(raw: &RawValue, depth: usize) -> Result<Value, JsonError> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let depth = deeper(depth)?;
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let read = members.into_iter().map(|(key, raw)| Ok((key, value(raw, depth)?)));
            read.collect::<Result<_, JsonError>>().map(Value::Object)
        }
        Some(b'[') => {
            let depth = deeper(depth)?;
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let read = items.into_iter().map(|raw| value(raw, depth));
            read.collect::<Result<_, JsonError>>().map(Value::Array)
        }
        // This function is hidden from the library's documentation. It is the only way to create a
        // number with its original spelling. `numbers_keep_their_exact_spelling` detects a change.
        Some(b'-' | b'0'..=b'9') => Ok(Value::Number(Number::from_string_unchecked(text.to_owned()))),
        _ => Ok(serde_json::from_str(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_exact_spelling() {
        for text in
            ["1e400", "1E+05", "-0", "-0.0e-0", "1.10", "123456789012345678901234567890", "[0,{\"a\":1E5}]"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_values_parse_as_usual() {
        let text = r#" {"b": [true, null, "\u00e9\n", {}], "a": "x", "a": "y"} "#;
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), r#"{"a":"y","b":[true,null,"é\n",{}]}"#);
    }

    #[test]
    fn internal_keys_of_the_parser_are_ordinary_keys() {
        for key in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
            for spelled in [key.to_owned(), key.replace('$', "\\u0024"), key.replace('a', "\\u0061")] {
                let text = format!(r#"{{"a":[{{"{spelled}":"1"}}]}}"#);
                let read = parse(text.as_bytes()).unwrap().to_string();
                assert_eq!(read, format!(r#"{{"a":[{{"{key}":"1"}}]}}"#), "{text}");
            }
        }
    }

    #[test]
    fn json_inside_a_string_is_not_parsed() {
        // Each layer doubles the escapes inside it. A megabyte holds a dozen layers, each as deep
        // as the parser allows.
        let mut text = "1".to_owned();
        while text.len() < 1 << 20 {
            let quoted = Value::from(text).to_string();
            let object = format!(r#"{{"$serde_json::private::RawValue":{quoted}}}"#);
            text = ["[".repeat(90), object, "]".repeat(90)].concat();
        }
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn invalid_or_too_deep_json_is_refused() {
        for text in ["", "{", "1 2", "01", "{\"a\" 1}", "\u{feff}{}", "nul", "\"\\ud800\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        // Test both methods. In the usual method the parser's own limit is only slightly higher.
        for leaf in ["", "1", "1E5", "\"\\u0024\""] {
            for (open, close) in [("[", "]"), ("{\"a\":[", "]}")] {
                let nested = |levels: usize| {
                    let times = levels / open.matches(['[', '{']).count();
                    [&open.repeat(times), leaf, &close.repeat(times)].concat()
                };
                assert!(parse(nested(DEEPEST).as_bytes()).is_ok(), "{leaf}");
                let more = ["[", &nested(DEEPEST), "]"].concat();
                assert!(matches!(parse(more.as_bytes()), Err(JsonError::TooDeep)), "{leaf}");
                assert!(parse(nested(200_000).as_bytes()).is_err(), "{leaf}");
            }
        }
    }
}
