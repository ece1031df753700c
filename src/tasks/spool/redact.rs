//! A refused file without its secrets, and otherwise byte for byte.
//!
//! Three looks at the text: what looks like a secret wherever it stands ([`Masker::spans`]); whatever is the value of a key
//! `payment_details`, `card` or a card's verification value, at any depth and however it looks; and strings that hide one of both behind JSON's escapes. The reading of
//! JSON is lenient on purpose: most files that are refused are none.

use std::ops::Range;

use crate::mask::{MASK, Masker};

/// A token; and what is a card or of one, wherever somebody puts it: none of it may stay here.
pub(super) const SECRET_KEYS: [&str; 6] =
    ["payment_details", "card", "verification_value", "cvc", "cvv", "security_code"];

/// The bytes, each secret replaced.
pub(super) fn redacted(masker: &Masker, bytes: &[u8], by_line: ByLine) -> Vec<u8> {
    if !bytes.contains(&0) {
        return replaced(bytes, spans(masker, bytes, by_line));
    }
    // UTF-16, most likely: a secret is looked for in what is left without the zeros.
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let text: Vec<u8> = places.iter().map(|at| bytes[*at]).collect();
    let spans = spans(masker, &text, by_line).into_iter().filter(|span| !span.is_empty());
    replaced(bytes, spans.map(|span| places[span.start]..places[span.end - 1] + 1).collect())
}

/// Whether each line is a text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByLine {
    /// One JSON text.
    No,
    /// One in each line.
    Yes,
}

fn spans(masker: &Masker, bytes: &[u8], by_line: ByLine) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        spans.extend(masker.spans(chunk.valid()).into_iter().map(|span| at + span.start..at + span.end));
        at += chunk.valid().len() + chunk.invalid().len();
    }
    match by_line {
        ByLine::No => in_json(masker, bytes, 0, &mut spans),
        ByLine::Yes => {
            let mut at = 0;
            // Without its end: a string that nobody ended must not take the next line with it.
            for line in bytes.split(|byte| *byte == b'\n') {
                in_json(masker, line, at, &mut spans);
                at += line.len() + 1;
            }
        }
    }
    spans
}

fn replaced(bytes: &[u8], mut spans: Vec<Range<usize>>) -> Vec<u8> {
    spans.sort_by_key(|span| span.start);
    let mut shown = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for span in spans {
        if span.start >= at {
            shown.extend_from_slice(&bytes[at..span.start]);
            shown.extend_from_slice(MASK.as_bytes());
        }
        at = at.max(span.end);
    }
    shown.extend_from_slice(&bytes[at..]);
    shown
}

/// Finds secrets by their place in JSON; `offset` is where `json` begins.
fn in_json(masker: &Masker, json: &[u8], offset: usize, spans: &mut Vec<Range<usize>>) {
    let mut hide = |span: Range<usize>| spans.push(offset + span.start..offset + span.end);
    // The next value is the secret key's; and how many brackets are open within such a value.
    let (mut is_next, mut depth) = (false, 0_usize);
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = string_end(json, at + 1, is_next || depth > 0);
                let behind = (end + 1).min(json.len());
                let colon = skip_space(json, behind);
                let is_key = !is_next && json.get(colon) == Some(&b':');
                let inner = at + 1..end;
                if is_key && depth == 0 && is_secret_key(&json[at..behind]) {
                    is_next = true;
                    at = colon + 1;
                    continue;
                }
                let is_value_of_it = is_next || (depth > 0 && !is_key);
                if is_value_of_it || hides_a_secret(masker, &json[at..behind]) {
                    hide(inner);
                }
                is_next = false;
                at = behind;
                continue;
            }
            b'{' | b'[' if is_next || depth > 0 => {
                depth += 1;
                is_next = false;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                is_next = false;
            }
            b',' => is_next = false,
            byte if (is_next || depth > 0) && is_bare(byte) => {
                let len = json[at..].iter().take_while(|byte| is_bare(**byte)).count();
                if !matches!(&json[at..at + len], b"true" | b"false" | b"null") {
                    hide(at..at + len);
                }
                is_next = false;
                at += len;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// Where the string that begins at `from` ends: at its quote; or at the end of the line, where nobody ended it and no secret can
/// come out by that.
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

/// What a value without quotes is made of.
fn is_bare(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"{}[],:".contains(&byte)
}

fn decoded(string: &[u8]) -> Option<String> {
    serde_json::from_slice(string).ok()
}

fn is_secret_key(string: &[u8]) -> bool {
    decoded(string).is_some_and(|key| SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret)))
}

/// Whether escapes hide a secret, or JSON within JSON that may hold one.
fn hides_a_secret(masker: &Masker, string: &[u8]) -> bool {
    string.contains(&b'\\')
        && decoded(string).is_some_and(|text| {
            text.contains(SECRET_KEYS[0])
                || SECRET_KEYS.iter().any(|secret| text.contains(&format!("\"{secret}\"")))
                || !masker.spans(&text).is_empty()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        String::from_utf8(redacted(&Masker::default(), text.as_bytes(), ByLine::No)).unwrap()
    }

    #[test]
    fn secrets_go_and_every_other_byte_stays() {
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
            (r#"{"metadata": {"a": 1.50, "b": "\u00e9"}}"#, r#"{"metadata": {"a": 1.50, "b": "\u00e9"}}"#),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_text_keeps_its_bytes_and_loses_its_secrets() {
        let masked = redacted(&Masker::default(), b"\xff\xfe tok_abc \xc3", ByLine::No);
        assert_eq!(masked, b"\xff\xfe **** \xc3");
        let utf16: Vec<u8> =
            r#"{"payment_details":"abc"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let masked = redacted(&Masker::default(), &utf16, ByLine::No);
        assert!(masked.windows(4).any(|four| four == b"****"));
        assert!(!masked.windows(3).any(|three| three == b"a\0b"));
    }

    #[test]
    fn each_line_is_read_by_itself() {
        let text = "{\"payment_details\": {\n{\"email\": \"a\"}\n";
        assert_eq!(redacted(&Masker::default(), text.as_bytes(), ByLine::Yes), text.as_bytes());
        let text = "{\"cvc\": \"1\n{\"email\": \"a\"}\n";
        let shown = redacted(&Masker::default(), text.as_bytes(), ByLine::Yes);
        assert_eq!(shown, b"{\"cvc\": \"****\n{\"email\": \"a\"}\n");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            redacted(&Masker::default(), &bytes, ByLine::No);
            redacted(&Masker::default(), &bytes, ByLine::Yes);
        }

        #[test]
        fn no_value_of_the_key_is_left(secret in "[a-z]{8}", key in "[a-z]{1,5}", depth in 0..4_usize) {
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
