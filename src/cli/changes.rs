//! `changes`: the change log.

use super::arguments::{parse_id, unknown};
use super::change_lines::{header, print};
use super::exit::UsageError;
use super::print::{self, Out, Style};
use super::{ConfigFile, Exit, signals};
use crate::store::Reader;
use crate::store::log::coverage;
use crate::store::read::{self, ChangeFilter, Record};
use crate::watch::Watch;
use komoju_core::CustomerId;

/// The change log: who changed, when it was seen, and what differs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync changes --since 4200\n  komoju-sync changes --follow --json"
)]
pub(super) struct Args {
    /// Only changes after this one.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..))]
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
    let path = config.load()?.database.path;
    let reader = Reader::open(&path)?;
    let head = read::mirror_info(&reader)?.number("head_seq");
    if args.since > head {
        let why = format!(
            "--since {}: the change log ends at {head}; after a restore it is another one (see log_id in mirror_info)",
            args.since
        );
        return Err(UsageError(why).into());
    }
    if let Some(id) = &args.customer
        && !reader.look(|conn| coverage::knows(conn, id))?
    {
        if !args.follow {
            return Err(unknown(id));
        }
        print::note(&format!("{}; waiting for its first entry", unknown(id)));
    }
    let mut filter = ChangeFilter { since: args.since, customer: args.customer.clone(), until: None };
    let mut out = Out::new();
    header(&mut out, args.style)?;
    if !args.follow {
        print_new(&reader, &mut filter, &mut out, args.style)?;
        return Ok(Exit::Fine);
    }
    signals::until_stopped(Exit::Fine, |stop| async move {
        // Before the first look: what is committed after it is heard.
        let mut watch = Watch::on(&path).unwrap_or_else(|_| Watch::by_the_clock());
        loop {
            let seen_version = reader.data_version()?;
            print_new(&reader, &mut filter, &mut out, args.style)?;
            while reader.data_version()? == seen_version {
                tokio::select! {
                    () = watch.changed() => {}
                    () = stop.cancelled() => return Ok(Exit::Fine),
                }
            }
        }
    })
}

/// Prints what is after `filter.since`, and moves that on.
fn print_new(reader: &Reader, filter: &mut ChangeFilter, out: &mut Out, style: Style) -> anyhow::Result<()> {
    print::printing(|check| {
        let from = filter.clone();
        let visit = |record: Record| {
            filter.since = filter.since.max(record.number("seq"));
            check(print(out, &record, style))
        };
        reader.look(|conn| read::changes(conn, &from, visit))
    })?;
    Ok(out.flush()?)
}
