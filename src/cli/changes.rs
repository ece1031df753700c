//! `changes`: the change log.

use std::io;
use std::time::Duration;

use super::customers::parse_id;
use super::print::{self, Out, Style, plain};
use super::{ConfigFile, Exit};
use crate::model::{CustomerId, Diff};
use crate::store::read::{ChangeFilter, Record};
use crate::store::{Reader, read};

/// How often `--follow` looks for news. Another process's commit gives no signal that a reader could wait for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The change log: who changed, when it was seen, and what differs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync changes --since 4200\n  komoju-sync changes --follow --json"
)]
pub(super) struct Args {
    /// Only changes after this one.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    since: i64,
    /// Only this customer's.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    customer: Option<CustomerId>,
    /// Go on with new ones as they come, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.load()?.database.path)?;
    let mut filter = ChangeFilter { since: args.since, customer: args.customer.clone(), until: None };
    let mut out = Out::new();
    loop {
        let seen_version = reader.data_version()?;
        print::printing(|check| {
            let from = filter.clone();
            let visit = |record: Record| {
                filter.since = filter.since.max(record.number("seq"));
                check(print(&mut out, &record, args.style))
            };
            reader.look(|conn| read::changes(conn, &from, visit))
        })?;
        out.flush()?;
        if !args.follow {
            return Ok(Exit::Fine);
        }
        while reader.data_version()? == seen_version {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// One change: a line for a person, or an object.
pub(super) fn print(out: &mut Out, record: &Record, style: Style) -> io::Result<()> {
    match style.is_json() {
        true => out.json(record),
        false => out.line(&line(record)),
    }
}

fn line(record: &Record) -> String {
    let [seq, at, kind, id, origin] =
        ["seq", "observed_at", "kind", "customer_id", "origin"].map(|column| plain(record.get(column)));
    let what = match (record.text("kind"), record.get("before").as_object(), record.get("after").as_object())
    {
        (Some("updated"), Some(before), Some(after)) => Diff::between(before, after).to_string(),
        (_, _, Some(after)) => after.get("email").map(plain).unwrap_or_default(),
        (_, Some(before), None) => before.get("email").map(plain).unwrap_or_default(),
        _ => String::new(),
    };
    format!("{seq:>8}  {at}  {kind:<8}  {origin:<8}  {id}  {}", print::safe(&what)).trim_end().to_owned()
}
