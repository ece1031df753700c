//! Properties of all JSON that was read, for property tests and fuzzers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DEEPEST, parse};

/// Parses the bytes, and compares the result with an independent reader.
///
/// # Panics
/// The two results differ.
pub fn read(bytes: &[u8]) -> Option<Value> {
    let value = match parse(bytes) {
        Ok(value) => value,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return None;
        }
    };
    assert!(levels(&value) <= DEEPEST, "nested too deeply");
    assert_eq!(value.to_string(), canonical(bytes), "what was read is not what was written");
    Some(value)
}

/// Returns how many arrays and objects are nested in each other.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Returns valid JSON in canonical form: keys sorted, no white space, numbers digit for digit. It
/// shares only the decoding of a string with the product's code.
///
/// # Panics
/// The text is not valid.
pub fn canonical(json: &[u8]) -> String {
    Reader { json, at: 0 }.value()
}

struct Reader<'t> {
    json: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> String {
        match self.next() {
            b'{' => {
                let members = self.list(b'}', |reader| {
                    let key = reader.string();
                    assert_eq!(reader.next(), b':');
                    reader.at += 1;
                    (key, reader.value())
                });
                // For a repeated key the last value counts.
                let sorted: BTreeMap<String, String> = members.into_iter().collect();
                let members: Vec<String> =
                    sorted.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
                format!("{{{}}}", members.join(","))
            }
            b'[' => format!("[{}]", self.list(b']', Self::value).join(",")),
            b'"' => quoted(&self.string()),
            _ => {
                let rest = &self.json[self.at..];
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}".contains(byte);
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                self.at += length;
                String::from_utf8_lossy(&rest[..length]).into_owned()
            }
        }
    }

    /// Returns the next byte that is not white space.
    fn next(&mut self) -> u8 {
        self.at += self.json[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.json[self.at]
    }

    fn list<T>(&mut self, end: u8, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.next() {
                byte if byte == end => {
                    self.at += 1;
                    return items;
                }
                b',' => self.at += 1,
                _ => items.push(item(self)),
            }
        }
    }

    fn string(&mut self) -> String {
        assert_eq!(self.next(), b'"');
        let start = self.at;
        self.at += 1;
        while self.json[self.at] != b'"' {
            self.at += if self.json[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_slice(&self.json[start..self.at]).expect("a string of valid JSON")
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text that is nearly JSON, including keys that the parser could mistake for its own.
    fn any_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
            "\"([a-z ]|\\\\u00[2-7][0-9a-f]|\\\\n|é){0,6}\"",
            "\"[0-9\\[\\]{}:,\\\\\"]{0,9}\"",
        ];
        let key = prop_oneof![
            Just(r#""$serde_json::private::Number""#.to_owned()),
            Just(r#""$serde_json::private::RawValue""#.to_owned()),
            Just(r#""\u0024serde_json::private::Number""#.to_owned()),
            "\"[a-c]\"",
        ];
        leaf.prop_recursive(6, 40, 4, move |inner| {
            let member = (key.clone(), inner.clone()).prop_map(|(key, value)| format!("{key} :{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(", "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn parsed_value_equals_its_text(text in any_text()) {
            read(text.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            read(&bytes);
        }
    }
}
