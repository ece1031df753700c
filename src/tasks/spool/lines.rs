//! What a file says: its intents, each with its id, and what is wrong with it.

use std::fmt::Write as _;

use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use super::redact::ByLine;
use crate::model::intent::{Intent, IntentId, Rule};
use crate::store::spool::{BadLine, Line};

/// How many bytes of the content's digest are in an id that nobody chose.
const DIGEST_BYTES: usize = 6;

/// Reads a file: `stem` is its name without the extension.
pub(super) fn read(stem: &str, content: &[u8], by_line: ByLine) -> (Vec<Line>, Vec<BadLine>) {
    let source = format!("{stem}@{}", hex(&Sha256::digest(content)[..DIGEST_BYTES]));
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    let mut take = |number: u64, text: &[u8], id: &str| match intent(text, id) {
        Ok(intent) => lines.push(Line { number, intent }),
        Err(words) => bad.push(BadLine { number, words }),
    };
    match by_line {
        ByLine::No => take(1, content, &source),
        ByLine::Yes => {
            for (number, text) in (1..).zip(content.split(|byte| *byte == b'\n')) {
                if !text.trim_ascii().is_empty() {
                    take(number, text, &format!("{source}:{number}"));
                }
            }
        }
    }
    if lines.is_empty() && bad.is_empty() {
        bad.push(BadLine { number: 0, words: "there is no intent in it".to_owned() });
    }
    (lines, bad)
}

fn intent(text: &[u8], id: &str) -> Result<Intent, String> {
    if text.starts_with("\u{feff}".as_bytes()) {
        return Err("the intent: begins with a byte order mark; write UTF-8 without".to_owned());
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        format!("the intent: must be UTF-8, and is not from byte {} on", error.valid_up_to() + 1)
    })?;
    let mut intent =
        Intent::parse(text).map_err(|bad| match (bad.rule, serde_json::from_str::<IgnoredAny>(text)) {
            (Rule::Json, Err(error)) if error.line() > 1 => {
                format!("{bad}, and is not at line {}, column {} of it", error.line(), error.column())
            }
            (Rule::Json, Err(error)) => format!("{bad}, and is not at column {}", error.column()),
            _ => bad.to_string(),
        })?;
    if intent.id.is_none() {
        let id = IntentId::new(id).map_err(|bad| {
            format!("{bad}; it was made of the file's name: give the file another name, or each intent an id")
        })?;
        intent.id = Some(id);
    }
    Ok(intent)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
