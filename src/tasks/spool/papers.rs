//! What is written about files: receipts for those that were accepted; copies and sentences for
//! those that were refused, and for bytes that arrived too late.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, ErrorKind, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;

use jiff::Timestamp;
use serde::Serialize;

use super::folder::{Folder, Staged};
use super::redact::{ByLine, redact};
use crate::secret::{MASK, Masker};
use crate::store::outbox::spool::{BadLine, BadLines, Receipt};

/// The longest file name, in bytes, that leaves room for `.json` behind it.
pub(super) const LONGEST_NAME: usize = 255 - ".json".len();

/// LONGEST_LIST limits the sentences about lines in an `.error` file, in bytes; the rest of the
/// lines are counted.
const LONGEST_LIST: usize = 32 * 1024;

/// The ending of the file beside a refused one.
pub(super) const ERROR: &str = ".error";

const LATE: &str = "These bytes arrived after the file was read, and nothing of them was accepted. To have them accepted, drop them \
                    as a file of another name. A program that adds to a file in place should write another file and rename it into \
                    the spool directory when it is complete.\n";

#[derive(Serialize)]
struct Written<'a> {
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
        let written = Written {
            line: entry.line,
            id: concealed(masker, &entry.id),
            state: &entry.state,
            customer: entry.customer.as_deref().map(|customer| concealed(masker, customer)),
            reason: entry.reason.as_deref().map(|reason| masker.text(reason)),
            repeated: entry.is_repeat,
        };
        out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &written)?;
    }
    out.write_all(b"\n]}\n")
}

/// What the dropper of a repeated intent must know.
fn note(receipt: &Receipt) -> Option<String> {
    let how =
        "to make the same change again, drop it under another file name or give each intent an id of its own";
    match (receipt.repeats(), receipt.intents.len()) {
        (0, _) => None,
        (repeats, all) if repeats == all => Some(format!(
            "nothing new was accepted: an earlier file had the same name and content, or the same ids; {how}"
        )),
        (repeats, all) => {
            Some(format!("{repeats} of {all} intents were accepted before and are not new; {how}"))
        }
    }
}

/// An id without what can only be a token or key. A number stays: ids are made of dates and
/// counters, and some look like cards.
fn concealed(masker: &Masker, id: &str) -> String {
    let mut shown = id.to_owned();
    for span in masker.spans(id).into_iter().rev() {
        if id[span.clone()].contains(|c: char| c.is_ascii_alphabetic()) {
            shown.replace_range(span, MASK);
        }
    }
    shown
}

/// Writes a receipt over the one that is there.
pub(super) fn write_receipt(receipts: &Folder, masker: &Masker, receipt: &Receipt) -> io::Result<()> {
    let name = receipt_name(&receipt.name);
    receipts.stage(&name, |out| render(masker, receipt, out))?.publish(&name)
}

/// Removes a receipt.
pub(super) fn remove_receipt(receipts: &Folder, name: &str) -> io::Result<()> {
    receipts.remove(receipt_name(name))?;
    receipts.sync()
}

pub(super) fn receipt_name(name: &str) -> String {
    format!("{name}.json")
}

/// Where and when files are put aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside<'a> {
    pub(super) rejected: &'a Folder,
    pub(super) masker: &'a Masker,
    /// The modification time that a copy gets.
    pub(super) now: Timestamp,
}

/// Puts a copy of a refused file aside, without its secrets, and beside it what is wrong with it.
/// Returns the copy's name.
pub(super) fn put_aside(
    aside: Aside<'_>,
    name: &str,
    bytes: &[u8],
    by_line: ByLine,
    bad: &BadLines,
) -> io::Result<String> {
    keep(aside, name, bytes, by_line, &sentences(aside.masker, name, by_line, bad))
}

/// Puts aside what arrived after the file was read. Returns the copy's name.
pub(super) fn put_late_aside(
    aside: Aside<'_>,
    name: &str,
    bytes: &[u8],
    by_line: ByLine,
) -> io::Result<String> {
    keep(aside, name, bytes, by_line, &format!("{}:\n{LATE}", aside.masker.text(name)))
}

/// Keeps a copy and its explanation. A copy of the same content is replaced, which renews its
/// modification time: after a crash the same file is put aside again.
fn keep(
    aside: Aside<'_>,
    name: &str,
    bytes: &[u8],
    by_line: ByLine,
    explanation: &str,
) -> io::Result<String> {
    let Aside { rejected, masker, now } = aside;
    let staged = rejected.stage(name, |out| redact(masker, bytes, by_line, out))?;
    staged.set_modified(now)?;
    let (copy, is_new) = free_name(rejected, name, &staged)?;
    staged.publish(&copy)?;
    let error = format!("{copy}{ERROR}");
    if is_new || matches!(found(rejected, &error), Ok(None)) {
        rejected.write(&error, explanation.as_bytes()).inspect_err(|_| {
            if is_new {
                // It is put aside again with the next look: one copy is enough.
                let _ = rejected.remove(&copy);
            }
        })?;
    }
    Ok(copy)
}

/// Removes the copies that were put aside before this moment, each with its `.error`. Returns those
/// that could not be removed.
///
/// The age of a copy is its modification time: [`keep`] sets it from the trusted clock, and it
/// survives a chown, a chmod, a hard link and a restored backup. Each of these renews the time of
/// change, which also comes from a wall clock that may be wrong.
///
/// A copy without `.error`, something that is no regular file and a file of another owner stay: this
/// program did not put them there. An `.error` whose copy is gone is removed at the same age; a crash
/// between the two removals leaves one.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn remove_before(rejected: &Folder, before: Timestamp) -> io::Result<Vec<(OsString, io::Error)>> {
    let owner = rejected.metadata()?.uid();
    let ours =
        |name: &OsStr| rejected.metadata_of(name).ok().filter(|file| file.is_file() && file.uid() == owner);
    let is_old = |file: Metadata| file.mtime() < before.as_second();
    let mut old = Vec::new();
    rejected.each(|name, _| {
        let is_due = !name.as_bytes().starts_with(b".")
            && match name.as_bytes().strip_suffix(ERROR.as_bytes()) {
                None => ours(name).is_some_and(is_old) && ours(&error_of(name)).is_some(),
                Some(copy) => {
                    matches!(found(rejected, OsStr::from_bytes(copy)), Ok(None))
                        && ours(name).is_some_and(is_old)
                }
            };
        if is_due {
            old.push(name.to_owned());
        }
    })?;
    let mut failed = Vec::new();
    for name in old {
        let mut removed = rejected.remove(&name);
        if removed.is_ok() && !name.as_bytes().ends_with(ERROR.as_bytes()) {
            removed = rejected.remove(error_of(&name));
        }
        failed.extend(removed.err().map(|error| (name, error)));
    }
    rejected.sync()?;
    Ok(failed)
}

fn error_of(copy: &OsStr) -> OsString {
    OsString::from_vec([copy.as_bytes(), ERROR.as_bytes()].concat())
}

/// A name for this copy and its `.error`: `name`, or the same with a number. `false` where a copy
/// with the same content has it.
fn free_name(rejected: &Folder, name: &str, copy: &Staged<'_>) -> io::Result<(String, bool)> {
    const LONGEST: usize = 255 - ERROR.len();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut number = 1_u64;
    loop {
        let end = if number == 1 { format!(".{extension}") } else { format!(".{number}.{extension}") };
        let candidate = format!("{}{end}", &stem[..stem.floor_char_boundary(LONGEST - end.len())]);
        match found(rejected, &candidate)? {
            None if found(rejected, format!("{candidate}{ERROR}"))?.is_none() => {
                return Ok((candidate, true));
            }
            Some(there) if there.is_file() && is_same(rejected, &candidate, copy.temporary())? => {
                return Ok((candidate, false));
            }
            _ => number += 1,
        }
    }
}

fn found(folder: &Folder, name: impl AsRef<OsStr>) -> io::Result<Option<Metadata>> {
    match folder.metadata_of(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Whether two files have the same content.
fn is_same(folder: &Folder, one: &str, other: &str) -> io::Result<bool> {
    let (mut one, mut other) = (folder.file(one)?, folder.file(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = ([0; 8192], [0; 8192]);
    loop {
        let len = one.read(&mut left)?;
        if len == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..len])?;
        if left[..len] != right[..len] {
            return Ok(false);
        }
    }
}

fn sentences(masker: &Masker, name: &str, by_line: ByLine, bad: &BadLines) -> String {
    let mut lines = String::new();
    let mut told = 0;
    for bad in &bad.first {
        let sentence = sentence(masker, by_line, bad);
        if lines.len() + sentence.len() > LONGEST_LIST {
            break;
        }
        lines.push_str(&sentence);
        lines.push('\n');
        told += 1;
    }
    match bad.count - told {
        0 => {}
        more => lines.push_str(&format!("and {more} more lines are wrong\n")),
    }
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
    use std::fs;

    use super::*;
    use crate::store::outbox::spool::Entry;

    fn entry(id: &str, is_repeat: bool) -> Entry {
        Entry {
            line: 3,
            id: id.to_owned(),
            state: "parked".to_owned(),
            customer: Some("@export-4111111111111111".to_owned()),
            reason: Some("the API said \"no\" to tok_xyz".to_owned()),
            is_repeat,
        }
    }

    fn rendered(intents: Vec<Entry>) -> serde_json::Value {
        let receipt = Receipt { name: "a\".jsonl".to_owned(), taken_at: "now".to_owned(), intents };
        let mut text = Vec::new();
        render(&Masker::default(), &receipt, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_receipt_is_json_without_tokens() {
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
    fn a_receipt_says_what_is_not_new() {
        let all = rendered(vec![entry("a", true), entry("b", true)]);
        let note = all["note"].as_str().unwrap();
        assert!(note.starts_with("nothing new was accepted") && note.contains("another file name"), "{note}");
        assert_eq!(all["intents"][1]["repeated"], true);
        let some = rendered(vec![entry("a", false), entry("b", true)]);
        assert!(some["note"].as_str().unwrap().starts_with("1 of 2 intents"), "{some}");
    }

    fn aside(folder: &Folder, name: &str, bytes: &[u8]) -> String {
        let line = BadLine { number: 1, words: "op: must be create, update or delete".to_owned() };
        let aside = Aside { rejected: folder, masker: &Masker::default(), now: Timestamp::UNIX_EPOCH };
        put_aside(aside, name, bytes, ByLine::Yes, &BadLines::from(vec![line])).unwrap()
    }

    #[test]
    fn the_same_content_is_kept_once_and_another_gets_a_number() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert_eq!(aside(&folder, "a.json", b"two"), "a.2.json");
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert_eq!(aside(&folder, "a.json", b"two"), "a.2.json");
        assert_eq!(folder.names().unwrap(), ["a.2.json", "a.2.json.error", "a.json", "a.json.error"]);
        // A crash between the copy and its explanation.
        folder.remove("a.json.error").unwrap();
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert!(directory.path().join("a.json.error").exists());
    }

    #[test]
    fn names_are_numbered_and_fit() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        fs::write(directory.path().join("a.json"), "").unwrap();
        fs::write(directory.path().join("a.2.json.error"), "").unwrap();
        assert_eq!(aside(&folder, "a.json", b"x"), "a.3.json");
        let long = aside(&folder, &format!("{}.jsonl", "顧".repeat(83)), b"x");
        assert!(long.len() + ERROR.len() <= 255 && long.ends_with("顧.jsonl"), "{long}");
    }

    #[test]
    fn an_error_file_is_short_however_many_lines_are_wrong() {
        let words = "顧".repeat(200);
        let mut bad = BadLines::default();
        (1..=40_000).for_each(|number| bad.push(BadLine { number, words: words.clone() }));
        let told = sentences(&Masker::default(), "a.jsonl", ByLine::Yes, &bad);
        assert!(told.len() < 34 * 1024, "{}", told.len());
        let listed = told.lines().filter(|line| line.starts_with("line ")).count();
        assert!(
            listed > 10 && told.contains(&format!("and {} more lines are wrong", 40_000 - listed)),
            "{told}"
        );
    }
}
