//! Changes as the commands print them: a line each, or an object.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use super::print::{self, Out, Style, plain};
use crate::store::read::Record;
use crate::tasks::pull::Planned;
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::writes::Write;
use komoju_core::{ChangeKind, Customer, CustomerId, Diff, Origin};

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

/// Prints one change as a text line or as a JSON object.
pub(super) fn print(out: &mut Out, record: &Record, style: Style) -> io::Result<()> {
    match style.is_json() {
        true => out.json(record),
        false => out.row(&line(record)),
    }
}

/// Returns a change as a text line.
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

/// The names of the columns of [`print_planned`].
pub(super) fn planned_header(out: &mut Out, style: Style) -> io::Result<()> {
    match style.is_json() {
        true => Ok(()),
        false => out.header(&format!("{:<8}  {:<8}  customer, and what differs", "kind", "origin")),
    }
}

/// A change that would be recorded, or a deletion that would be held. The keys are those of `changes`, and `reason`.
#[derive(Serialize)]
struct PlannedChange<'a> {
    customer_id: &'a str,
    kind: &'a str,
    origin: &'a str,
    diff: Value,
    before: Value,
    after: Value,
    /// Why a deletion is recorded or held.
    reason: Option<&'a str>,
    #[serde(skip)]
    what: String,
}

impl<'a> PlannedChange<'a> {
    fn recorded(
        origin: Origin,
        kind: ChangeKind,
        id: &'a CustomerId,
        before: Option<Map<String, Value>>,
        after: Option<Map<String, Value>>,
    ) -> Self {
        let diff = Diff::between(&before.clone().unwrap_or_default(), &after.clone().unwrap_or_default());
        let shown = after.as_ref().or(before.as_ref());
        let email = shown.and_then(|fields| fields.get("email")).map(plain).unwrap_or_default();
        Self {
            customer_id: id.as_str(),
            kind: kind.word(),
            origin: origin.word(),
            what: if kind == ChangeKind::Updated { diff.to_string() } else { email },
            diff: diff.to_json(),
            before: before.map_or(Value::Null, Value::Object),
            after: after.map_or(Value::Null, Value::Object),
            reason: None,
        }
    }

    fn deleted(origin: Origin, id: &'a CustomerId, before: Option<Map<String, Value>>) -> Self {
        let change = Self::recorded(origin, ChangeKind::Deleted, id, before, None);
        let reason = match origin {
            Origin::Sweep => "not listed, and gone by its own request",
            _ => "approved by an operator, and gone by its own request",
        };
        let what = format!("{}  {reason}", change.what);
        Self { reason: Some(reason), what, ..change }
    }

    fn held(origin: Origin, id: &'a CustomerId, reason: HoldReason) -> Self {
        Self {
            customer_id: id.as_str(),
            kind: "held",
            origin: origin.word(),
            diff: Value::Null,
            before: Value::Null,
            after: Value::Null,
            reason: Some(reason.word()),
            what: reason.phrase().to_owned(),
        }
    }

    fn print(&self, out: &mut Out, style: Style) -> io::Result<()> {
        if style.is_json() {
            return out.json(self);
        }
        let Self { kind, origin, customer_id, what, .. } = self;
        let line = format!("{kind:<8}  {origin:<8}  {}  {}", print::safe(customer_id), print::safe(what));
        out.row(line.trim_end())
    }
}

/// Prints a planned change or hold.
pub(super) fn print_planned(
    out: &mut Out,
    origin: Origin,
    planned: &Planned,
    style: Style,
) -> io::Result<()> {
    let fields = |body: &Option<String>| {
        let customer = body.as_deref().and_then(|body| Customer::from_body(body).ok());
        customer.map(|customer| customer.fields().clone())
    };
    match planned {
        Planned::Change(Write::Record { kind, customer, before, .. }) => {
            // A restored customer had no content in the log's entry before.
            let before = if *kind == ChangeKind::Updated { fields(before) } else { None };
            let after = Some(customer.fields().clone());
            PlannedChange::recorded(origin, *kind, customer.id(), before, after).print(out, style)
        }
        Planned::Change(Write::Delete { id, before }) => {
            PlannedChange::deleted(origin, id, fields(before)).print(out, style)
        }
        Planned::Change(_) => Ok(()),
        Planned::Hold(id, reason) => PlannedChange::held(origin, id, *reason).print(out, style),
    }
}
