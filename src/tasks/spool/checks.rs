//! The invariants of dropped files, for property tests and fuzzers.

use serde_json::Value;

use super::redact::{FileFormat, SECRET_KEYS, redacted};
use super::{lines, rejected};
use crate::secret::{MASK, Masker, SecretKey};
use crate::store::outbox::accept::checks::passes_the_triggers;
use crate::store::outbox::spool::{BadLine, SpoolLine};
use komoju_core::intent::{IntentOp, MASKED_TOKEN};
use komoju_core::json;

/// The secret key of the checked installation.
const KEY: &str = "sk_test_9aQ+x/Zr7";

/// Checks a file with these bytes, in both formats. The SQL door accepts each accepted intent in
/// the same way. Each refused line has a sentence. The copy in `rejected/` contains no secret.
///
/// # Panics
/// An invariant does not hold.
pub(crate) fn file(bytes: &[u8]) {
    json::checks::read(bytes);
    for format in [FileFormat::Json, FileFormat::JsonLines] {
        let (lines, bad) = read(bytes, format);
        assert!(!(lines.is_empty() && bad.is_empty()), "no line is reported");
        let mut numbers: Vec<u64> =
            lines.iter().map(|line| line.number).chain(bad.iter().map(|bad| bad.number)).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "each line is reported once");
        for line in &lines {
            assert!(line.intent.id.is_some());
            passes_the_triggers(&line.intent);
        }
        let masker = Masker::new(SecretKey::parse(KEY).ok().as_ref());
        for bad in &bad {
            let sentence = rejected::sentence(&masker, format, bad);
            assert!(
                !sentence.is_empty() && !sentence.contains(KEY) && !sentence.contains(char::is_control),
                "{sentence:?}"
            );
            assert!(bad.reason.contains(": ") || bad.number == 0, "a field and a rule: {}", bad.reason);
        }
        holds_no_secret(&masker, &redacted(&masker, bytes, format), format);
    }
}

/// Returns the accepted lines and the refused ones.
fn read(bytes: &[u8], format: FileFormat) -> (Vec<SpoolLine>, Vec<BadLine>) {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for line in lines::read("a", &lines::digest(bytes), bytes, format) {
        match line {
            Ok(line) => lines.push(line),
            Err(line) => bad.push(line),
        }
    }
    (lines, bad)
}

fn holds_no_secret(masker: &Masker, shown: &[u8], format: FileFormat) {
    assert!(!shown.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "the key");
    for line in read(shown, format).0 {
        if let IntentOp::Create(body) | IntentOp::Update(_, body) = &line.intent.op {
            assert!(
                body.token().is_none_or(|token| token == MASKED_TOKEN),
                "{:?}",
                String::from_utf8_lossy(shown)
            );
        }
    }
    let texts: Vec<&[u8]> = match format {
        FileFormat::Json => vec![shown],
        FileFormat::JsonLines => shown.split(|byte| *byte == b'\n').collect(),
    };
    for text in texts {
        if let Ok(value) = json::parse(text) {
            let secret = secret_in(masker, &value, false);
            assert_eq!(secret, None, "{:?}", String::from_utf8_lossy(text));
        }
    }
}

/// Returns a text of this JSON that should be masked. `within` says that the value belongs to a
/// secret key; then each of its texts should be.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_below_a_secret_key_counts_as_a_secret_until_it_is_masked() {
        let found = |value| secret_in(&Masker::default(), &value, false);
        for value in [json!("4"), json!({"number": "4"}), json!([{"x": ["4"]}]), json!({"cvc": 4})] {
            assert_eq!(found(json!({"body": {"card": value}})).as_deref(), Some("4"));
        }
        assert_eq!(found(json!({"card": {"number": MASK}, "email": "4"})), None);
    }
}
