//! `intent list` and `intent show`.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::Exit;
use crate::cli::exit::UsageError;
use crate::cli::print::{self, Out, Style, count, plain, safe};
use crate::store::outbox::queue::{self, Which};
use crate::store::read::Record;
use crate::store::{Reader, StoreError};
use komoju_core::intent::lifecycle::State;

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
    state: Option<State>,
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

fn parse_state(word: &str) -> Result<State, UsageError> {
    State::from_word(word).ok_or_else(|| {
        let words = State::ALL.map(State::word).join(", ");
        UsageError(format!("a state is one of {words}"))
    })
}

pub(super) fn list(path: &Path, args: &List) -> anyhow::Result<Exit> {
    let reader = Reader::open(path)?;
    let which = match args.state {
        Some(state) => Which::In(state),
        None if args.all => Which::All,
        None => Which::Open,
    };
    let mut out = Out::new();
    let (mut shown, mut parked, mut held) = (0_u64, 0_u64, 0_u64);
    if !args.style.is_json() {
        out.header(&format!(
            "{:<32}  {:<9}  {:<6}  {:<26}  {:<24}  {:<11}  reason",
            "id", "state", "op", "customer_id", "created_at", "attempts"
        ))?;
    }
    print::printing(|check| {
        reader.look(|conn| {
            queue::intents(conn, which, |record| {
                let is_held = is_held(conn, &record)?;
                shown += 1;
                parked += u64::from(state(&record) == Some(State::Parked));
                held += u64::from(is_held);
                check(match args.style.is_json() {
                    true => out.json(&record),
                    false => out.row(&line(&record)),
                })
            })
        })
    })?;
    out.finish()?;
    if shown == 0 && !args.style.is_json() {
        print::note(match which {
            Which::Open => "no intent is open; `--all` shows the settled ones too",
            _ => "there is no such intent",
        });
    }
    if parked > 0 && !args.style.is_json() {
        let one = if parked == 1 { "is" } else { "are" };
        print::note(&format!(
            "{} {one} parked: `komoju-sync intent show ID` says what can be done",
            count(parked, "intent")
        ));
    }
    if held > 0 && !args.style.is_json() {
        let verb = if held == 1 { "waits" } else { "wait" };
        print::note(&format!("{} {verb} for `komoju-sync intent approve`", count(held, "delete")));
    }
    Ok(if parked + held > 0 { Exit::Waits } else { Exit::Fine })
}

fn is_held(conn: &crate::store::Conn, record: &Record) -> Result<bool, StoreError> {
    // Only deletes are ever held; most rows need no second look.
    Ok(record.text("op") == Some("delete") && queue::is_held(conn, record.number("position"))?)
}

fn state(record: &Record) -> Option<State> {
    record.text("state").and_then(State::from_word)
}

fn line(record: &Record) -> String {
    let [id, state, op, customer, made, created_at, reason] =
        ["id", "state", "op", "customer_id", "result_customer_id", "created_at", "reason"]
            .map(|name| plain(record.get(name)));
    // Of a create that is done: the customer that it made.
    let customer = if customer.is_empty() { made } else { customer };
    let attempts = match record.number("attempts") {
        0 => String::new(),
        n => count(u64::try_from(n).unwrap_or(0), "attempt"),
    };
    let line =
        format!("{id:<32}  {state:<9}  {op:<6}  {customer:<26}  {created_at}  {attempts:<11}  {reason}");
    line.trim_end().to_owned()
}

pub(super) fn show(path: &Path, args: &Show) -> anyhow::Result<Exit> {
    let reader = Reader::open(path)?;
    let found = reader.in_one_view(|conn| {
        let Some(record) = queue::intent(conn, &args.id)? else { return Ok(None) };
        let is_held = is_held(conn, &record)?;
        Ok(Some((record, is_held, queue::attempts(conn, &args.id)?)))
    })?;
    let Some((record, is_held, attempts)) = found else {
        anyhow::bail!(
            "there is no intent {}; `komoju-sync intent list --all` shows them all",
            safe(&args.id)
        );
    };
    let mut out = Out::new();
    match args.style.is_json() {
        true => out.json(&record)?,
        false => show_to_a_person(&mut out, &record, &attempts)?,
    }
    out.finish()?;
    let state = state(&record);
    if !args.style.is_json() {
        what_can_be_done(&record, state, is_held);
    }
    Ok(if is_held || state == Some(State::Parked) { Exit::Waits } else { Exit::Fine })
}

fn show_to_a_person(out: &mut Out, record: &Record, attempts: &[Record]) -> io::Result<()> {
    let conflict = record.get("detail").as_object().and_then(Conflict::of);
    for (name, value) in record.columns().filter(|(_, value)| !value.is_null()) {
        if name == "detail" && conflict.is_some() {
            continue;
        }
        out.line(&format!("{name:<18}  {}", plain(value)))?;
    }
    if let Some(conflict) = conflict {
        out.line("")?;
        conflict.print(out)?;
    }
    if !attempts.is_empty() {
        out.line("")?;
    }
    for attempt in attempts {
        let [n, started_at, status, outcome, error] =
            ["n", "started_at", "status", "outcome", "error"].map(|name| plain(attempt.get(name)));
        // Without one no answer came, nothing was sent, or it is not over: the error tells.
        let status = if status.is_empty() { status } else { format!("HTTP {status}") };
        let outcome = if outcome.is_empty() { "runs".to_owned() } else { outcome };
        let line = format!("attempt {n:<4}  {started_at}  {status:<9}  {outcome:<8}  {error}");
        out.line(line.trim_end())?;
    }
    Ok(())
}

/// What was expected, what is there, what was wanted.
struct Conflict<'a> {
    differs: Vec<&'a str>,
    sides: [&'a Value; 3],
}

impl<'a> Conflict<'a> {
    fn of(detail: &'a Map<String, Value>) -> Option<Self> {
        let differs = detail.get("differs")?.as_array()?.iter().filter_map(Value::as_str).collect();
        Some(Self { differs, sides: [detail.get("base")?, detail.get("theirs")?, detail.get("ours")?] })
    }

    /// One line a field that differs or was to be changed.
    fn print(&self, out: &mut Out) -> io::Result<()> {
        let mut fields = self.differs.clone();
        let ours = self.sides[2];
        let wanted = named(ours);
        fields.extend(wanted.iter().map(String::as_str).filter(|field| !self.differs.contains(field)));
        let row = |cells: [&str; 4]| {
            let [field, base, theirs, ours] = cells;
            format!("{field:<24}  {base:<28}  {theirs:<28}  {ours}").trim_end().to_owned()
        };
        out.line(&row(["field", "base (expected)", "theirs (there now)", "ours (wanted)"]))?;
        for field in fields {
            let [base, theirs, ours] = self.sides.map(|side| cell(side, field));
            out.line(&row([&safe(field), &base, &theirs, &ours]))?;
        }
        Ok(())
    }
}

/// The fields that an object names, those of its metadata one by one.
fn named(object: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match value.as_object().filter(|_| name == "metadata") {
            Some(metadata) => names.extend(metadata.keys().map(|key| format!("metadata.{key}"))),
            None => names.push(name.clone()),
        }
    }
    names
}

/// A field of a side; nothing where it is not named.
fn cell(side: &Value, field: &str) -> String {
    let value = match field.strip_prefix("metadata.") {
        Some(key) => side.get("metadata").and_then(|metadata| metadata.get(key)),
        None => side.get(field),
    };
    value.map(|value| safe(&value.to_string())).unwrap_or_default()
}

fn what_can_be_done(record: &Record, state: Option<State>, is_held: bool) {
    let id = plain(record.get("id"));
    let with_body = match record.text("op") {
        Some("delete") => "",
        _ => " [--body @FILE]",
    };
    if is_held {
        print::note(&format!("let it through: komoju-sync intent approve {id}"));
    }
    if matches!(state, Some(State::Parked | State::Rejected)) {
        print::note(&format!("try it again:   komoju-sync intent retry {id}{with_body}"));
    }
    if matches!(state, Some(State::Parked | State::Queued)) {
        print::note(&format!("take it back:   komoju-sync intent cancel {id}"));
    }
}
