//! JSON read without rewriting it: numbers keep their very digits, signs and exponents.
//!
//! The usual parser gives `1E5` back as `1e+5`. That is the same number, but the mirror promises numbers as they came, so where
//! one has an exponent, numbers are taken from the text itself. What is nested more than [`DEEPEST`] levels is refused: it is no
//! customer, and reading it must not exhaust the stack.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// How many levels of arrays and objects are read.
pub const DEEPEST: usize = 100;

/// Why a text is not JSON that can be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The parser's words.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// Nested too deeply.
    #[error("nested more than {DEEPEST} levels deep")]
    TooDeep,
}

/// Reads one JSON value. A key that is repeated in an object counts with its last value.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let usual = serde_json::from_slice(bytes)?;
    match respells(&usual, 0)? {
        false => Ok(usual),
        true => value(serde_json::from_slice(bytes)?, 0),
    }
}

/// Whether the usual parser may have spelled a number of this value anew: one with an exponent. All others it keeps.
fn respells(value: &Value, depth: usize) -> Result<bool, JsonError> {
    if depth > DEEPEST {
        return Err(JsonError::TooDeep);
    }
    let mut any = false;
    match value {
        Value::Number(number) => any = number.as_str().contains('e'),
        Value::Array(items) => {
            for item in items {
                any |= respells(item, depth + 1)?;
            }
        }
        Value::Object(members) => {
            for member in members.values() {
                any |= respells(member, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(any)
}

fn value(raw: &RawValue, depth: usize) -> Result<Value, JsonError> {
    if depth > DEEPEST {
        return Err(JsonError::TooDeep);
    }
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let read = members.into_iter().map(|(key, raw)| Ok((key, value(raw, depth + 1)?)));
            read.collect::<Result<_, JsonError>>().map(Value::Object)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let read = items.into_iter().map(|raw| value(raw, depth + 1));
            read.collect::<Result<_, JsonError>>().map(Value::Array)
        }
        // Hidden from the library's documentation, and the only way to a number that is not respelled; a test holds it.
        Some(b'-' | b'0'..=b'9') => Ok(Value::Number(Number::from_string_unchecked(text.to_owned()))),
        _ => Ok(serde_json::from_str(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_very_spelling() {
        for text in
            ["1e400", "1E+05", "-0", "-0.0e-0", "1.10", "123456789012345678901234567890", "[0,{\"a\":1E5}]"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn everything_else_reads_as_usual() {
        let text = r#" {"b": [true, null, "\u00e9\n", {}], "a": "x", "a": "y"} "#;
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), r#"{"a":"y","b":[true,null,"é\n",{}]}"#);
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "{", "1 2", "01", "{\"a\" 1}", "\u{feff}{}", "nul", "\"\\ud800\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(parse(&nested(DEEPEST)).is_ok());
        assert!(parse(&nested(200_000)).is_err());
    }
}
