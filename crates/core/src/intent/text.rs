//! Parses the bytes that a door received as JSON.
//!
//! The most common faults of editors and exports have messages of their own: a byte order mark,
//! UTF-16, a trailing comma. A message never repeats the text, because the text may hold a payment
//! token.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::json::{self, DEEPEST, JsonError};

/// Why bytes are not JSON that this program accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// No bytes, or only white space.
    #[error("is empty")]
    Empty,
    /// The mark that some editors write before UTF-8 text.
    #[error("begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// UTF-16, with or without a byte order mark.
    #[error("is UTF-16; save it as UTF-8")]
    Utf16,
    /// Another encoding, such as Latin-1 or Shift_JIS.
    #[error("must be UTF-8, and is not from byte {byte} on")]
    NotUtf8 {
        /// The first invalid byte, from 1.
        byte: usize,
    },
    /// A comma before a closing bracket, or after the value.
    #[error("must be JSON, and has a trailing comma at {0}")]
    TrailingComma(TextPosition),
    /// The text ends before the value is complete.
    #[error("must be JSON, and ends at {0} before it is complete")]
    CutShort(TextPosition),
    /// Any other violation of the JSON grammar.
    #[error("must be JSON, and is not at {0}")]
    Syntax(TextPosition),
    /// More nested levels than are read.
    #[error("must be JSON of at most {DEEPEST} levels")]
    TooDeep,
    /// Half of a surrogate pair: valid by the JSON grammar, but not Unicode text.
    #[error("must be JSON, and has a text that is not Unicode (half of a surrogate pair)")]
    NotUnicode,
    /// A repeated key: valid by the JSON grammar, but ambiguous.
    #[error("a key appears twice in one object")]
    RepeatedKey,
}

/// A position in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPosition {
    /// The line, from 1.
    line: usize,
    /// The column in bytes, from 1; 0 where the text ends right after a line break.
    column: usize,
}

impl std::fmt::Display for TextPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 | 1 => write!(f, "column {}", self.column),
            line => write!(f, "line {line}, column {}", self.column),
        }
    }
}

/// Parses bytes as one JSON value.
///
/// # Errors
/// Why the bytes cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Value, TextFault> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(TextFault::Utf16);
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(TextFault::ByteOrderMark);
    }
    // JSON begins with an ASCII character. UTF-16 encodes that character with a zero byte; JSON in
    // UTF-8 has no zero byte.
    if bytes.iter().take(2).any(|byte| *byte == 0) {
        return Err(TextFault::Utf16);
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(TextFault::NotUtf8 { byte: error.valid_up_to() + 1 });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(TextFault::Empty);
    }
    json::parse_unique(bytes).map_err(|error| fault(bytes, &error))
}

fn fault(bytes: &[u8], error: &JsonError) -> TextFault {
    if matches!(error, JsonError::RepeatedKey) {
        return TextFault::RepeatedKey;
    }
    // The parser's own limit is higher than ours.
    if error.to_string().starts_with("recursion limit") || matches!(error, JsonError::TooDeep) {
        return TextFault::TooDeep;
    }
    // Check only the grammar, so that the message cannot repeat a value.
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) => TextFault::NotUnicode,
        Err(error) => {
            let place = TextPosition { line: error.line(), column: error.column() };
            if let Some(comma) = trailing_comma(bytes, place) {
                TextFault::TrailingComma(comma)
            } else if error.is_eof() {
                TextFault::CutShort(place)
            } else {
                TextFault::Syntax(place)
            }
        }
    }
}

/// Returns the comma that explains an error at `place`. It precedes a closing bracket there, or it
/// is itself there and is the last character.
fn trailing_comma(bytes: &[u8], place: TextPosition) -> Option<TextPosition> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let line_start: usize = lines.take(place.line.saturating_sub(1)).map(<[u8]>::len).sum();
    let (before, rest) = bytes.split_at_checked((line_start + place.column).saturating_sub(1))?;
    let comma = match rest {
        [b'}' | b']', ..] => before.trim_ascii_end().strip_suffix(b",")?.len(),
        _ if rest.trim_ascii() == b"," => before.len(),
        _ => return None,
    };
    let (line, column) = bytes[..comma].iter().fold((1, 1), |(line, column), byte| match byte {
        b'\n' => (line + 1, 1),
        _ => (line, column + 1),
    });
    Some(TextPosition { line, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn faults_of_editors_and_exports_are_named() {
        let utf16 = |order: fn(u16) -> [u8; 2]| r#"{"email":"é"}"#.encode_utf16().flat_map(order).collect();
        let little: Vec<u8> = utf16(u16::to_le_bytes);
        let big: Vec<u8> = utf16(u16::to_be_bytes);
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
        for (bytes, expected) in [
            (b"".to_vec(), "is empty"),
            (b" \r\n".to_vec(), "is empty"),
            ("\u{feff}{}".into(), "begins with a byte order mark; save it as UTF-8 without one"),
            ([&[0xff, 0xfe], &little[..]].concat(), "is UTF-16; save it as UTF-8"),
            ([&[0xfe, 0xff], &big[..]].concat(), "is UTF-16; save it as UTF-8"),
            (little, "is UTF-16; save it as UTF-8"),
            (big, "is UTF-16; save it as UTF-8"),
            (b"{\"a\":\"\xe9\"}".to_vec(), "must be UTF-8, and is not from byte 7 on"),
            (br#"{"a": 1,}"#.to_vec(), "must be JSON, and has a trailing comma at column 8"),
            (br#"{"a": 1}, "#.to_vec(), "must be JSON, and has a trailing comma at column 9"),
            (b"[1,\n2,\n]".to_vec(), "must be JSON, and has a trailing comma at line 2, column 2"),
            (b"{\"a\":\n".to_vec(), "must be JSON, and ends at line 2, column 0 before it is complete"),
            (br#"{"a": nope}"#.to_vec(), "must be JSON, and is not at column 8"),
            (br#"{"a": 1} x"#.to_vec(), "must be JSON, and is not at column 10"),
            (br#"{"a": "\ud800"}"#.to_vec(), "must be JSON, and has a text that is not Unicode"),
            (deep(101), "must be JSON of at most 100 levels"),
            (deep(150), "must be JSON of at most 100 levels"),
            (deep(200_000), "must be JSON of at most 100 levels"),
        ] {
            assert!(
                why(&bytes).starts_with(expected),
                "{:?}: {}",
                String::from_utf8_lossy(&bytes),
                why(&bytes)
            );
        }
        assert_eq!(parse(br#" {"a": 1} "#).unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn fault_message_does_not_repeat_the_text() {
        for text in [
            "tok_secret",
            "{tok_secret",
            r#"{"a": tok_secret}"#,
            r#"{"a": "tok_secret",}"#,
            r#"{"tok_secret": 1e}"#,
        ] {
            assert!(!why(text.as_bytes()).contains("secret"), "{text}");
        }
    }
}
