//! What always holds of a file that was dropped, for properties and fuzzers.

use serde_json::Value;

use super::redact::{ByLine, SECRET_KEYS, redacted};
use super::{lines, rejected};
use crate::secret::{MASK, Masker, SecretKey};
use crate::store::outbox::accept::checks::passes_the_triggers;
use crate::store::outbox::spool::{BadLine, Line};
use komoju_core::intent::{IntentOp, MASKED_TOKEN};
use komoju_core::json;

/// The key of this installation.
const KEY: &str = "sk_test_9aQ+x/Zr7";

/// A file of these bytes, as one intent and as one a line: what is taken of it, the SQL door takes as the same; what is refused
/// is refused in words; and what is put aside holds no secret.
///
/// # Panics
/// It does not hold.
pub(crate) fn file(bytes: &[u8]) {
    json::checks::read(bytes);
    for by_line in [ByLine::No, ByLine::Yes] {
        let (lines, bad) = read(bytes, by_line);
        assert!(!(lines.is_empty() && bad.is_empty()), "nothing is said of it");
        let mut numbers: Vec<u64> =
            lines.iter().map(|line| line.number).chain(bad.iter().map(|bad| bad.number)).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "each line is judged once");
        for line in &lines {
            assert!(line.intent.id.is_some());
            passes_the_triggers(&line.intent);
        }
        let masker = Masker::new(SecretKey::parse(KEY).ok().as_ref());
        for bad in &bad {
            let sentence = rejected::sentence(&masker, by_line, bad);
            assert!(
                !sentence.is_empty() && !sentence.contains(KEY) && !sentence.contains(char::is_control),
                "{sentence:?}"
            );
            assert!(bad.words.contains(": ") || bad.number == 0, "a field and a rule: {}", bad.words);
        }
        holds_no_secret(&masker, &redacted(&masker, bytes, by_line), by_line);
    }
}

/// The lines that are taken, and those that are not.
fn read(bytes: &[u8], by_line: ByLine) -> (Vec<Line>, Vec<BadLine>) {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for line in lines::read("a", &lines::digest(bytes), bytes, by_line) {
        match line {
            Ok(line) => lines.push(line),
            Err(line) => bad.push(line),
        }
    }
    (lines, bad)
}

fn holds_no_secret(masker: &Masker, shown: &[u8], by_line: ByLine) {
    assert!(!shown.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "the key");
    for line in read(shown, by_line).0 {
        if let IntentOp::Create(body) | IntentOp::Update(_, body) = &line.intent.op {
            assert!(
                body.token().is_none_or(|token| token == MASKED_TOKEN),
                "{:?}",
                String::from_utf8_lossy(shown)
            );
        }
    }
    let texts: Vec<&[u8]> = match by_line {
        ByLine::No => vec![shown],
        ByLine::Yes => shown.split(|byte| *byte == b'\n').collect(),
    };
    for text in texts {
        if let Ok(value) = json::parse(text) {
            let secret = secret_in(masker, &value, false);
            assert_eq!(secret, None, "{:?}", String::from_utf8_lossy(text));
        }
    }
}

/// A text of this JSON that should have been masked; `within` a secret key's value, every text is one.
fn secret_in(masker: &Masker, value: &Value, within: bool) -> Option<String> {
    match value {
        Value::String(text) if within => (text != MASK).then(|| text.clone()),
        Value::Number(number) if within => Some(number.to_string()),
        Value::String(text) => (!masker.spans(text).is_empty()).then(|| text.clone()),
        Value::Array(items) => items.iter().find_map(|item| secret_in(masker, item, within)),
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            if !masker.spans(key).is_empty() {
                return Some(key.clone());
            }
            let is_secret = SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret));
            secret_in(masker, value, within || is_secret)
        }),
        _ => None,
    }
}
