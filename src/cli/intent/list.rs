//! `intent list` and `intent show`.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::Exit;
use crate::cli::exit::UsageError;
use crate::cli::print::{self, Out, Style, count, plain, safe};
use crate::store::outbox::queue::{self, Which};
use crate::store::read::Record;
use crate::store::{Conn, Reader, StoreError};
use komoju_core::intent::lifecycle::IntentState;

/// The intents that are not settled, in the order of acceptance.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync intent list\n  komoju-sync intent list --state rejected\n  \
    komoju-sync intent list --all --json | jq 'select(.door == \"file\")'\n\n\
    Exits 3 when one of those shown waits for an operator. Payment tokens are shown as ****."
)]
pub(super) struct List {
    /// Those that are settled, too.
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Only those in this state: queued, sending, waiting, done, rejected, parked or cancelled.
    #[arg(long, value_parser = parse_state)]
    state: Option<IntentState>,
    #[command(flatten)]
    style: Style,
}

/// One intent, its attempts, and what can be done about it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent show order-7\n  \
    komoju-sync intent show order-7 --json | jq .detail\n\n\
    Exits 3 when it waits for an operator. A payment token is shown as ****.")]
pub(super) struct Show {
    /// The intent's id.
    id: String,
    #[command(flatten)]
    style: Style,
}

fn parse_state(word: &str) -> Result<IntentState, UsageError> {
    IntentState::from_word(word).ok_or_else(|| {
        let words = IntentState::ALL.map(IntentState::word).join(", ");
        UsageError(format!("a state is one of {words}"))
    })
}

/// A row of `intents`, read by column name; `Display` is its line in the list.
struct Row {
    record: Record,
    /// Whether it is one of too many deletes, and waits for an approval.
    is_held: bool,
}

impl Row {
    fn read(conn: &Conn, record: Record) -> Result<Self, StoreError> {
        // Only deletes are held, so most rows need no second query.
        let is_held = record.text("op") == Some("delete") && queue::is_held(conn, record.number("position"))?;
        Ok(Self { record, is_held })
    }

    fn state(&self) -> Option<IntentState> {
        self.record.text("state").and_then(IntentState::from_word)
    }

    fn is_parked(&self) -> bool {
        self.state() == Some(IntentState::Parked)
    }

    /// The commands that an operator can decide with.
    fn ways_on(&self) -> Vec<String> {
        let id = plain(self.record.get("id"));
        let with_body = if self.record.text("op") == Some("delete") { "" } else { " [--body @FILE]" };
        let mut ways = Vec::new();
        if self.is_held {
            ways.push(format!("let it through: komoju-sync intent approve {id}"));
        }
        if matches!(self.state(), Some(IntentState::Parked | IntentState::Rejected)) {
            ways.push(format!("try it again:   komoju-sync intent retry {id}{with_body}"));
        }
        if matches!(self.state(), Some(IntentState::Parked | IntentState::Queued)) {
            ways.push(format!("take it back:   komoju-sync intent cancel {id}"));
        }
        ways
    }
}

/// Lays out the columns of the list.
fn columns(cells: [&str; 7]) -> String {
    let [id, state, op, customer, created_at, attempts, reason] = cells;
    let line =
        format!("{id:<32}  {state:<9}  {op:<6}  {customer:<26}  {created_at:<24}  {attempts:<11}  {reason}");
    line.trim_end().to_owned()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |name: &str| plain(self.record.get(name));
        // A create that is done has the customer that it made.
        let customer = Some(cell("customer_id")).filter(|id| !id.is_empty());
        let customer = customer.unwrap_or_else(|| cell("result_customer_id"));
        let attempts = match self.record.number("attempts") {
            0 => String::new(),
            n => count(n.unsigned_abs(), "attempt"),
        };
        let [id, state, op, at, reason] = ["id", "state", "op", "created_at", "reason"].map(cell);
        f.write_str(&columns([&id, &state, &op, &customer, &at, &attempts, &reason]))
    }
}

pub(super) fn list(path: &Path, args: &List) -> anyhow::Result<Exit> {
    let reader = Reader::open(path)?;
    let which = match args.state {
        Some(state) => Which::In(state),
        None if args.all => Which::All,
        None => Which::Open,
    };
    let is_json = args.style.is_json();
    let mut out = Out::new();
    let (mut shown, mut parked, mut held) = (0_u64, 0_u64, 0_u64);
    if !is_json {
        out.header(&columns(["id", "state", "op", "customer_id", "created_at", "attempts", "reason"]))?;
    }
    print::printing(|check| {
        reader.look(|conn| {
            queue::intents(conn, which, |record| {
                let row = Row::read(conn, record)?;
                shown += 1;
                parked += u64::from(row.is_parked());
                held += u64::from(row.is_held);
                check(if is_json { out.json(&row.record) } else { out.row(&row.to_string()) })
            })
        })
    })?;
    out.finish()?;
    let mut notes = Vec::new();
    match which {
        _ if shown > 0 => {}
        Which::Open => notes.push("no intent is open; `--all` shows the settled ones too".to_owned()),
        _ => notes.push("there is no such intent".to_owned()),
    }
    if parked > 0 {
        let (intents, are) = (count(parked, "intent"), if parked == 1 { "is" } else { "are" });
        notes.push(format!("{intents} {are} parked: `komoju-sync intent show ID` says what can be done"));
    }
    if held > 0 {
        let (deletes, wait) = (count(held, "delete"), if held == 1 { "waits" } else { "wait" });
        notes.push(format!("{deletes} {wait} for `komoju-sync intent approve`"));
    }
    if !is_json {
        notes.iter().for_each(|note| print::note(note));
    }
    Ok(if parked + held > 0 { Exit::Waits } else { Exit::Fine })
}

pub(super) fn show(path: &Path, args: &Show) -> anyhow::Result<Exit> {
    let found = Reader::open(path)?.in_one_view(|conn| {
        let Some(record) = queue::intent(conn, &args.id)? else { return Ok(None) };
        Ok(Some((Row::read(conn, record)?, queue::attempts(conn, &args.id)?)))
    })?;
    let Some((row, attempts)) = found else {
        let id = safe(&args.id);
        anyhow::bail!("there is no intent {id}; `komoju-sync intent list --all` shows them all");
    };
    let mut out = Out::new();
    if args.style.is_json() {
        out.json(&row.record)?;
        out.finish()?;
    } else {
        print_whole(&mut out, &row.record, &attempts)?;
        out.finish()?;
        row.ways_on().iter().for_each(|way| print::note(way));
    }
    Ok(if row.is_held || row.is_parked() { Exit::Waits } else { Exit::Fine })
}

fn print_whole(out: &mut Out, record: &Record, attempts: &[Record]) -> io::Result<()> {
    let conflict = record.get("detail").as_object().and_then(Conflict::of);
    for (name, value) in record.columns().filter(|(_, value)| !value.is_null()) {
        if name != "detail" || conflict.is_none() {
            out.line(&format!("{name:<18}  {}", plain(value)))?;
        }
    }
    if let Some(conflict) = conflict {
        out.line(&format!("\n{conflict}"))?;
    }
    if !attempts.is_empty() {
        out.line("")?;
    }
    for attempt in attempts {
        let cell = |name: &str| Some(plain(attempt.get(name))).filter(|cell| !cell.is_empty());
        let [n, started_at, error] = ["n", "started_at", "error"].map(|name| cell(name).unwrap_or_default());
        // Without a status, the error says whether no answer came or nothing was sent.
        let status = cell("status").map(|status| format!("HTTP {status}")).unwrap_or_default();
        let outcome = cell("outcome").unwrap_or_else(|| "runs".to_owned());
        let line = format!("attempt {n:<4}  {started_at}  {status:<9}  {outcome:<8}  {error}");
        out.line(line.trim_end())?;
    }
    Ok(())
}

/// A conflict; `Display` has one line for each field that differs or was to be changed.
struct Conflict<'a> {
    differs: Vec<&'a str>,
    /// What was expected, what the customer has, what the intent wants.
    sides: [&'a Value; 3],
}

impl<'a> Conflict<'a> {
    fn of(detail: &'a Map<String, Value>) -> Option<Self> {
        let differs = detail.get("differs")?.as_array()?.iter().filter_map(Value::as_str).collect();
        Some(Self { differs, sides: [detail.get("base")?, detail.get("theirs")?, detail.get("ours")?] })
    }
}

impl fmt::Display for Conflict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = named(self.sides[2]);
        let wanted = wanted.iter().map(String::as_str).filter(|field| !self.differs.contains(field));
        let row = |[field, base, theirs, ours]: [&str; 4]| {
            format!("{field:<24}  {base:<28}  {theirs:<28}  {ours}").trim_end().to_owned()
        };
        f.write_str(&row(["field", "base (expected)", "theirs (there now)", "ours (wanted)"]))?;
        for field in self.differs.iter().copied().chain(wanted) {
            let [base, theirs, ours] = self.sides.map(|side| cell(side, field));
            write!(f, "\n{}", row([&safe(field), &base, &theirs, &ours]))?;
        }
        Ok(())
    }
}

/// Returns the fields that an object names, those of its metadata one by one.
fn named(object: &Value) -> Vec<String> {
    let fields = object.as_object().into_iter().flatten();
    let names = fields.map(|(name, value)| match value.as_object().filter(|_| name == "metadata") {
        Some(metadata) => metadata.keys().map(|key| format!("metadata.{key}")).collect(),
        None => vec![name.clone()],
    });
    names.flatten().collect()
}

/// Returns a field of a side; empty where the side does not name it.
fn cell(side: &Value, field: &str) -> String {
    let value = match field.strip_prefix("metadata.") {
        Some(key) => side.get("metadata").and_then(|metadata| metadata.get(key)),
        None => side.get(field),
    };
    value.map(|value| safe(&value.to_string())).unwrap_or_default()
}
