//! What is written about files: receipts for those that were taken, sentences beside those that were refused.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::file::{self, RECEIPTS, REJECTED};
use super::redact::{ByLine, redacted};
use crate::mask::{MASK, Masker};
use crate::store::spool::{BadLine, Entry, Receipt};

/// The longest file name, in bytes, that leaves room for `.json` behind it.
pub(super) const LONGEST_NAME: usize = 255 - ".json".len();

#[derive(Serialize)]
struct Written<'a> {
    line: u64,
    id: String,
    state: &'a str,
    customer: Option<String>,
    reason: Option<String>,
}

/// A receipt as JSON, one intent a line.
pub(super) fn rendered(masker: &Masker, receipt: &Receipt) -> String {
    // A map of owned values with text keys always serialises.
    let text = |value: &str| serde_json::to_string(value).unwrap_or_default();
    let intent = |entry: &Entry| {
        let written = Written {
            line: entry.line,
            id: concealed(masker, &entry.id),
            state: &entry.state,
            customer: entry.customer.as_deref().map(|customer| concealed(masker, customer)),
            reason: entry.reason.as_deref().map(|reason| masker.text(reason)),
        };
        serde_json::to_string(&written).unwrap_or_default()
    };
    let intents: Vec<String> = receipt.intents.iter().map(intent).collect();
    format!(
        "{{\"file\":{},\n\"taken_at\":{},\n\"intents\":[\n{}\n]}}\n",
        text(&receipt.name),
        text(&receipt.taken_at),
        intents.join(",\n")
    )
}

/// An id without what can only be a token or key. A number stays: ids are made of dates and counters, and some look like cards.
fn concealed(masker: &Masker, id: &str) -> String {
    let mut shown = id.to_owned();
    for span in masker.spans(id).into_iter().rev() {
        if id[span.clone()].contains(|c: char| c.is_ascii_alphabetic()) {
            shown.replace_range(span, MASK);
        }
    }
    shown
}

/// Writes a receipt, or writes it anew.
pub(super) fn write_receipt(spool: &Path, masker: &Masker, receipt: &Receipt) -> io::Result<()> {
    file::write(&spool.join(RECEIPTS), &receipt_name(&receipt.name), rendered(masker, receipt).as_bytes())
}

/// Removes a receipt.
pub(super) fn remove_receipt(spool: &Path, name: &str) -> io::Result<()> {
    let receipts = spool.join(RECEIPTS);
    file::remove(&receipts.join(receipt_name(name)))?;
    file::sync(&receipts)
}

pub(super) fn receipt_name(name: &str) -> String {
    format!("{name}.json")
}

/// Puts a copy of a refused file aside, without its secrets, and beside it what is wrong with it. Returns the copy's name.
pub(super) fn put_aside(
    spool: &Path,
    masker: &Masker,
    name: &str,
    bytes: &[u8],
    by_line: ByLine,
    bad: &[BadLine],
) -> io::Result<String> {
    let rejected = spool.join(REJECTED);
    let copy = file::free_name(&rejected, name)?;
    file::write(&rejected, &copy, &redacted(masker, bytes, by_line))?;
    let told =
        file::write(&rejected, &format!("{copy}.error"), sentences(masker, name, by_line, bad).as_bytes());
    told.inspect_err(|_| {
        // It is put aside again with the next look: one copy is enough.
        let _ = file::remove(&rejected.join(&copy));
    })?;
    Ok(copy)
}

fn sentences(masker: &Masker, name: &str, by_line: ByLine, bad: &[BadLine]) -> String {
    let lines: String = bad.iter().map(|bad| format!("{}\n", sentence(masker, by_line, bad))).collect();
    format!(
        "{} was refused, and nothing of it was accepted:\n{lines}Correct this and drop the file again. The copy beside this one \
         is what it said, but for secrets, which are masked.\n",
        masker.text(name)
    )
}

/// What is wrong with a line.
pub(super) fn sentence(masker: &Masker, by_line: ByLine, bad: &BadLine) -> String {
    let words = masker.text(&bad.words);
    match by_line {
        ByLine::Yes if bad.number > 0 => format!("line {}: {words}", bad.number),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_json_without_tokens() {
        let entry = Entry {
            line: 3,
            id: "tok_abc@1".to_owned(),
            state: "parked".to_owned(),
            customer: Some("@export-4111111111111111".to_owned()),
            reason: Some("the API said \"no\" to tok_xyz".to_owned()),
        };
        let receipt =
            Receipt { name: "a\".jsonl".to_owned(), taken_at: "now".to_owned(), intents: vec![entry] };
        let read: serde_json::Value = serde_json::from_str(&rendered(&Masker::default(), &receipt)).unwrap();
        let intent = serde_json::json!({
            "line": 3, "id": "****@1", "state": "parked", "customer": "@export-4111111111111111",
            "reason": "the API said \"no\" to ****",
        });
        assert_eq!(read, serde_json::json!({"file": "a\".jsonl", "taken_at": "now", "intents": [intent]}));
    }
}
