//! Receipts: files with the states of the intents of an accepted file.

use std::io::{self, Write};

use serde::Serialize;

use super::folder::Folder;
use crate::secret::Masker;
use crate::store::outbox::spool::Receipt;

/// An intent in a receipt.
#[derive(Serialize)]
struct ReceiptEntry<'a> {
    line: u64,
    id: String,
    state: &'a str,
    customer: Option<String>,
    reason: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
}

/// Writes a receipt as JSON, one intent a line.
pub(super) fn render(masker: &Masker, receipt: &Receipt, out: &mut dyn Write) -> io::Result<()> {
    let text = |value: &str| serde_json::to_string(value).map_err(io::Error::from);
    write!(out, "{{\"file\":{},\n\"taken_at\":{},\n", text(&receipt.name)?, text(&receipt.taken_at)?)?;
    if let Some(note) = note(receipt) {
        writeln!(out, "\"note\":{},", text(&note)?)?;
    }
    out.write_all(b"\"intents\":[")?;
    for (at, entry) in receipt.intents.iter().enumerate() {
        let written = ReceiptEntry {
            line: entry.line,
            id: masker.name(&entry.id),
            state: &entry.state,
            customer: entry.customer.as_deref().map(|customer| masker.name(customer)),
            reason: entry.reason.as_deref().map(|reason| masker.text(reason)),
            repeated: entry.is_repeat,
        };
        out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &written)?;
    }
    out.write_all(b"\n]}\n")
}

/// Returns the note for the submitter of repeated intents.
fn note(receipt: &Receipt) -> Option<String> {
    let repeats = receipt.intents.iter().filter(|entry| entry.is_repeat).count();
    let what = match receipt.intents.len() {
        _ if repeats == 0 => return None,
        all if repeats == all => {
            "nothing new was accepted: an earlier file had the same name and content, or the same ids"
                .to_owned()
        }
        all => format!("{repeats} of {all} intents were accepted before and are not new"),
    };
    Some(format!(
        "{what}; to make the same change again, drop it under another file name or give each intent an id of its own"
    ))
}

/// Writes a receipt, and replaces an older one of the same name.
pub(super) fn write(receipts: &Folder, masker: &Masker, receipt: &Receipt) -> io::Result<()> {
    receipts.write(&file_name(&receipt.name), |out| render(masker, receipt, out))
}

/// Removes the receipt of the file `name`.
pub(super) fn remove(receipts: &Folder, name: &str) -> io::Result<()> {
    receipts.remove(file_name(name))?;
    receipts.sync()
}

/// Returns the name of the receipt of the file `name`.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::outbox::spool::ReceiptIntent;

    fn entry(id: &str, is_repeat: bool) -> ReceiptIntent {
        ReceiptIntent {
            line: 3,
            id: id.to_owned(),
            state: "parked".to_owned(),
            customer: Some("@export-4111111111111111".to_owned()),
            reason: Some("the API said \"no\" to tok_xyz".to_owned()),
            is_repeat,
        }
    }

    fn rendered(intents: Vec<ReceiptIntent>) -> serde_json::Value {
        let receipt = Receipt { name: "a\".jsonl".to_owned(), taken_at: "now".to_owned(), intents };
        let mut text = Vec::new();
        render(&Masker::default(), &receipt, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn receipt_is_json_without_tokens() {
        let intent = serde_json::json!({
            "line": 3, "id": "****@1", "state": "parked", "customer": "@export-4111111111111111",
            "reason": "the API said \"no\" to ****",
        });
        assert_eq!(
            rendered(vec![entry("tok_abc@1", false)]),
            serde_json::json!({"file": "a\".jsonl", "taken_at": "now", "intents": [intent]})
        );
    }

    #[test]
    fn receipt_says_which_intents_are_not_new() {
        let all = rendered(vec![entry("a", true), entry("b", true)]);
        let note = all["note"].as_str().unwrap();
        assert!(note.starts_with("nothing new was accepted") && note.contains("another file name"), "{note}");
        assert_eq!(all["intents"][1]["repeated"], true);
        let some = rendered(vec![entry("a", false), entry("b", true)]);
        assert!(some["note"].as_str().unwrap().starts_with("1 of 2 intents"), "{some}");
    }
}
