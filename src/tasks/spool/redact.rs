//! Copies a refused file byte for byte, except its secrets.
//!
//! Three kinds of text are masked:
//! - text that has the form of a secret, at any place ([`Masker::each_span`]);
//! - the value of a key `payment_details`, `card` or a card's verification value, at any depth and
//!   in any form;
//! - strings that hide one of these behind JSON escapes.
//!
//! The JSON reader is lenient on purpose, because most refused files are not JSON. Both searches
//! are iterators, and the copy is written as they advance. So the memory does not depend on the
//! number of secrets.

use std::io::{self, Write};
use std::iter::Peekable;
use std::ops::Range;

use crate::secret::{MASK, Masker};

/// SECRET_KEYS has the keys of a token, of a card and of its parts. Their values are masked at any
/// place.
pub(super) const SECRET_KEYS: [&str; 6] =
    ["payment_details", "card", "verification_value", "cvc", "cvv", "security_code"];

/// SPARE limits by how many bytes masks may make a copy longer than its original. After that a mask
/// is as short as its secret.
const SPARE: usize = 16 * 1024;

/// LONGEST_DECODED limits the strings that are decoded to search behind their escapes, in bytes. A
/// longer one with escapes is masked as a whole.
const LONGEST_DECODED: usize = 1024 * 1024;

/// Writes the bytes with each secret replaced by a mask.
pub(super) fn redact(
    masker: &Masker,
    bytes: &[u8],
    format: FileFormat,
    out: &mut dyn Write,
) -> io::Result<()> {
    if !bytes.contains(&0) {
        return replace(bytes, secrets(masker, bytes, format), out);
    }
    // The text is most likely UTF-16. Search for secrets in it without the zero bytes.
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    let mut places = (0..bytes.len()).filter(|at| bytes[*at] != 0).enumerate();
    // The spans are in order and do not overlap, so each place is after the last one.
    let mut place = |index| places.find(|(at, _)| *at == index).map_or(bytes.len(), |(_, place)| place);
    let spans = secrets(masker, &text, format).filter(|span| !span.is_empty()).map(|span| {
        let first = place(span.start);
        first..1 + if span.len() == 1 { first } else { place(span.end - 1) }
    });
    replace(bytes, spans, out)
}

/// Like [`redact`], in memory.
#[cfg(any(test, fuzzing))]
pub(super) fn redacted(masker: &Masker, bytes: &[u8], format: FileFormat) -> Vec<u8> {
    let mut shown = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = redact(masker, bytes, format, &mut shown);
    shown
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// One JSON text: `.json`.
    Json,
    /// One JSON text on each line: `.jsonl`.
    JsonLines,
}

/// Returns the spans of the secrets, in order and without overlaps.
fn secrets<'a>(
    masker: &'a Masker,
    bytes: &'a [u8],
    format: FileFormat,
) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut at = 0;
    let anywhere = bytes.utf8_chunks().flat_map(move |chunk| {
        let from = at;
        at += chunk.valid().len() + chunk.invalid().len();
        masker.each_span(chunk.valid()).map(move |span| from + span.start..from + span.end)
    });
    let mut at = 0;
    // Split at line feeds, so that a string without a closing quote does not include the next line.
    let texts = bytes.split(move |byte| format == FileFormat::JsonLines && *byte == b'\n');
    let by_place = texts.flat_map(move |json| {
        let from = at;
        at += json.len() + 1;
        SecretsInJson::new(masker, json).map(move |span| from + span.start..from + span.end)
    });
    merged(anywhere.peekable(), by_place.peekable())
}

/// Merges two ordered sequences of spans. Spans that overlap become one.
fn merged(
    mut one: Peekable<impl Iterator<Item = Range<usize>>>,
    mut other: Peekable<impl Iterator<Item = Range<usize>>>,
) -> impl Iterator<Item = Range<usize>> {
    let next = move || match (one.peek(), other.peek()) {
        (Some(left), Some(right)) if right.start < left.start => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    };
    let mut spans = std::iter::from_fn(next).peekable();
    std::iter::from_fn(move || {
        let mut span = spans.next()?;
        while let Some(more) = spans.next_if(|more| more.start < span.end) {
            span.end = span.end.max(more.end);
        }
        Some(span)
    })
}

fn replace(bytes: &[u8], spans: impl Iterator<Item = Range<usize>>, out: &mut dyn Write) -> io::Result<()> {
    let (mut at, mut spare) = (0, SPARE);
    for span in spans {
        out.write_all(&bytes[at..span.start])?;
        let longer = MASK.len().saturating_sub(span.len());
        let mask = if longer <= spare { MASK } else { &MASK[..span.len().min(MASK.len())] };
        spare -= longer.min(spare);
        out.write_all(mask.as_bytes())?;
        at = span.end;
    }
    out.write_all(&bytes[at..])
}

/// Finds the secrets that are values of secret keys, or hidden behind escapes, in a JSON text.
struct SecretsInJson<'a> {
    masker: &'a Masker,
    json: &'a [u8],
    at: usize,
    /// Whether the next value belongs to a secret key.
    is_next: bool,
    /// The number of open brackets within the value of a secret key.
    depth: usize,
}

impl<'a> SecretsInJson<'a> {
    fn new(masker: &'a Masker, json: &'a [u8]) -> Self {
        Self { masker, json, at: 0, is_next: false, depth: 0 }
    }

    /// Skips the string that begins here. Returns its span if it must be masked.
    fn string(&mut self) -> Option<Range<usize>> {
        let (json, at) = (self.json, self.at);
        let end = string_end(json, at + 1, self.is_next || self.depth > 0);
        let behind = (end + 1).min(json.len());
        let colon = skip_space(json, behind);
        let is_key = !self.is_next && json.get(colon) == Some(&b':');
        if is_key && self.depth == 0 && is_secret_key(&json[at..behind]) {
            self.is_next = true;
            self.at = colon + 1;
            return None;
        }
        let is_value_of_it = self.is_next || (self.depth > 0 && !is_key);
        self.is_next = false;
        self.at = behind;
        (is_value_of_it || hides_a_secret(self.masker, &json[at..behind])).then_some(at + 1..end)
    }

    /// Skips the value without quotes that begins here. Returns its span if it must be masked.
    fn bare(&mut self) -> Option<Range<usize>> {
        let at = self.at;
        let len = self.json[at..].iter().take_while(|byte| is_bare(**byte)).count();
        self.is_next = false;
        self.at += len;
        (!matches!(&self.json[at..at + len], b"true" | b"false" | b"null")).then_some(at..at + len)
    }
}

impl Iterator for SecretsInJson<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some(&byte) = self.json.get(self.at) {
            let is_within = self.is_next || self.depth > 0;
            let found = match byte {
                b'"' => self.string(),
                byte if is_within && is_bare(byte) => self.bare(),
                _ => {
                    match byte {
                        b'{' | b'[' if is_within => {
                            self.depth += 1;
                            self.is_next = false;
                        }
                        b'}' | b']' => {
                            self.depth = self.depth.saturating_sub(1);
                            self.is_next = false;
                        }
                        b',' => self.is_next = false,
                        _ => {}
                    }
                    self.at += 1;
                    None
                }
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Returns the end of the string that begins at `from`: its closing quote, or the end of the line
/// if it has none. A secret string does not end at the line, because that could reveal a part of
/// it.
fn string_end(json: &[u8], from: usize, is_secret: bool) -> usize {
    let mut at = from;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 1,
            b'\n' if !is_secret => return at,
            _ => {}
        }
        at += 1;
    }
    json.len()
}

fn skip_space(json: &[u8], from: usize) -> usize {
    from + json[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Returns whether a value without quotes can contain this byte.
fn is_bare(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"{}[],:".contains(&byte)
}

fn decoded(string: &[u8]) -> Option<String> {
    serde_json::from_slice(string).ok()
}

fn is_secret_key(string: &[u8]) -> bool {
    decoded(string).is_some_and(|key| SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret)))
}

/// Returns whether escapes hide a secret, or JSON within a string that may contain one.
fn hides_a_secret(masker: &Masker, string: &[u8]) -> bool {
    string.contains(&b'\\')
        && (string.len() > LONGEST_DECODED
            || decoded(string).is_some_and(|text| {
                text.contains(SECRET_KEYS[0])
                    || SECRET_KEYS.iter().any(|secret| text.contains(&format!("\"{secret}\"")))
                    || masker.each_span(&text).next().is_some()
            }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        String::from_utf8(redacted(&Masker::default(), text.as_bytes(), FileFormat::Json)).unwrap()
    }

    #[test]
    fn secrets_are_masked_and_every_other_byte_is_kept() {
        let table = [
            (
                r#"{"payment_details" :  "abc", "email": "a"}"#,
                r#"{"payment_details" :  "****", "email": "a"}"#,
            ),
            (r#"{"payment_details":"a\"b","x":"y"}"#, r#"{"payment_details":"****","x":"y"}"#),
            (r#"{"payment\u005fdetails":"abc"}"#, r#"{"payment\u005fdetails":"****"}"#),
            (
                r#"{"payment_details":"a","payment_details":"b"}"#,
                r#"{"payment_details":"****","payment_details":"****"}"#,
            ),
            (
                r#"{"payment_details":{"number":"4","cvc":12,"x":[true,"y"]},"email":"z"}"#,
                r#"{"payment_details":{"number":"****","cvc":****,"x":[true,"****"]},"email":"z"}"#,
            ),
            (
                r#"{"card":{"number":"4","verification_value":"987"},"cvc":1,"cardinal":2}"#,
                r#"{"card":{"number":"****","verification_value":"****"},"cvc":****,"cardinal":2}"#,
            ),
            (r#"{"payment_details":null,"email":"z"}"#, r#"{"payment_details":null,"email":"z"}"#),
            (r#"{"email":"tok\u005fabc"}"#, r#"{"email":"****"}"#),
            (r#"{"body":"{\"payment_details\":\"x\"}"}"#, r#"{"body":"****"}"#),
            (r#"{"email":"tok_abc", "n": 4111111111111111 "#, r#"{"email":"****", "n": **** "#),
            (r#"{"payment_details":"not ended"#, r#"{"payment_details":"****"#),
            (r#"{"payment_details": bare, "a": 1}"#, r#"{"payment_details": ****, "a": 1}"#),
            (
                "{\"email\": \"x\n, \"payment_details\": \"y\"}",
                "{\"email\": \"x\n, \"payment_details\": \"****\"}",
            ),
            ("{\"payment_details\":\"x\ny\"}", "{\"payment_details\":\"****\"}"),
            ("{\"card\":{\"name\":\"x\ny\"}}", "{\"card\":{\"name\":\"****\"}}"),
            (r#"{"metadata": {"a": 1.50, "b": "\u00e9"}}"#, r#"{"metadata": {"a": 1.50, "b": "\u00e9"}}"#),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_without_their_secrets() {
        let masked = redacted(&Masker::default(), b"\xff\xfe tok_abc \xc3", FileFormat::Json);
        assert_eq!(masked, b"\xff\xfe **** \xc3");
        let utf16: Vec<u8> =
            r#"{"payment_details":"abc"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let masked = redacted(&Masker::default(), &utf16, FileFormat::Json);
        assert!(masked.windows(4).any(|four| four == b"****"));
        assert!(!masked.windows(3).any(|three| three == b"a\0b"));
    }

    #[test]
    fn unfinished_line_does_not_affect_the_next() {
        let text = "{\"payment_details\": {\n{\"email\": \"a\"}\n";
        assert_eq!(redacted(&Masker::default(), text.as_bytes(), FileFormat::JsonLines), text.as_bytes());
        let text = "{\"cvc\": \"1\n{\"email\": \"a\"}\n";
        let shown = redacted(&Masker::default(), text.as_bytes(), FileFormat::JsonLines);
        assert_eq!(shown, b"{\"cvc\": \"****\n{\"email\": \"a\"}\n");
    }

    #[test]
    fn copy_with_many_short_secrets_is_not_much_longer_than_its_original() {
        let text = "{\"cvc\":1}\n".repeat(100_000);
        let shown = redacted(&Masker::default(), text.as_bytes(), FileFormat::JsonLines);
        assert!(shown.len() <= text.len() + SPARE, "{} of {}", shown.len(), text.len());
        assert!(!shown.contains(&b'1') && shown.starts_with(b"{\"cvc\":****}"));
    }

    #[test]
    fn overlapping_secrets_get_one_mask() {
        let text = r#"{"payment_details": "a tok_abc b", "x": "tok_def"}"#;
        assert_eq!(shown(text), r#"{"payment_details": "****", "x": "****"}"#);
        let text = r#"{"x": "tok_a\u0062c"}"#;
        assert_eq!(shown(text), r#"{"x": "****"}"#);
    }

    proptest! {
        #[test]
        fn redaction_of_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            redacted(&Masker::default(), &bytes, FileFormat::Json);
            redacted(&Masker::default(), &bytes, FileFormat::JsonLines);
        }

        #[test]
        fn every_value_of_a_secret_key_is_masked(secret in "[a-z]{8}", key in "[a-z]{1,5}", depth in 0..4_usize) {
            prop_assume!(!SECRET_KEYS.contains(&key.as_str()));
            let mut value = serde_json::json!({"payment_details": secret, key: "other"});
            for _ in 0..depth {
                value = serde_json::json!({"body": [value]});
            }
            let text = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(shown(&text), text.replace(&secret, MASK));
        }
    }
}
