//! Changes as the commands print them: a line each, or an object.

use std::io;

use super::print::{self, Out, Style, plain};
use crate::store::read::Record;
use komoju_core::Diff;

/// The names of the columns of [`print()`].
pub(super) fn header(out: &mut Out, style: Style) -> io::Result<()> {
    match style.is_json() {
        true => Ok(()),
        false => out.header(&format!(
            "{:>8}  {:<24}  {:<8}  {:<8}  customer, and what differs",
            "seq", "observed_at", "kind", "origin"
        )),
    }
}

/// One change: a line for a person, or an object.
pub(super) fn print(out: &mut Out, record: &Record, style: Style) -> io::Result<()> {
    match style.is_json() {
        true => out.json(record),
        false => out.row(&line(record)),
    }
}

/// Returns the line for a person.
pub(super) fn line(record: &Record) -> String {
    let [seq, at, kind, id, origin] =
        ["seq", "observed_at", "kind", "customer_id", "origin"].map(|column| plain(record.get(column)));
    let what = match (record.text("kind"), record.get("before").as_object(), record.get("after").as_object())
    {
        (Some("updated"), Some(before), Some(after)) => Diff::between(before, after).to_string(),
        (_, _, Some(after)) => after.get("email").map(plain).unwrap_or_default(),
        (_, Some(before), None) => before.get("email").map(plain).unwrap_or_default(),
        (Some("erased"), None, None) => "everything before this was taken away".to_owned(),
        // Only what was redacted has none.
        _ if record.get("diff").is_null() => "(erased)".to_owned(),
        _ => String::new(),
    };
    format!("{seq:>8}  {at}  {kind:<8}  {origin:<8}  {id}  {}", print::safe(&what)).trim_end().to_owned()
}
