//! `changes`: the change log.

use super::arguments::{parse_id, unknown};
use super::change_lines::{header, print};
use super::exit::UsageError;
use super::print::{self, Out, Style};
use super::{ConfigFile, Exit, signals};
use crate::store::log::coverage;
use crate::store::read::{self, ChangeFilter, Record};
use crate::store::{Reader, StoreError};
use crate::watch::Watch;
use komoju_core::CustomerId;

/// Show the change log.
///
/// A line says which customer changed, when the change was seen, and what differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync changes --limit 20             the newest 20\n  \
    komoju-sync changes --since 4200\n  \
    komoju-sync changes --since 4200 --limit 100 --json\n  \
    komoju-sync changes --limit 10 --follow")]
pub(super) struct ChangesArgs {
    /// Only changes after this one.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    since: Option<i64>,
    /// At most N changes: the first ones after --since, or the newest where --since is left out.
    /// Printed oldest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Only changes of this customer.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    customer: Option<CustomerId>,
    /// Continue with new changes until Ctrl-C.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &ChangesArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    let reader = Reader::open(&path)?;
    check_options(args, read::mirror_info(&reader)?.number("head_seq"))?;
    if let Some(id) = &args.customer
        && !reader.query(|conn| coverage::knows(conn, id))?
    {
        if !args.follow {
            return Err(unknown(id));
        }
        print::note(&format!("{}; waiting for its first entry", unknown(id)));
    }
    let mut filter = filter(args, &reader)?;
    let mut out = Out::new();
    header(&mut out, args.style)?;
    if !args.follow {
        let since = filter.since;
        print_new(&reader, &mut filter, &mut out, args.style)?;
        if filter.since == since && !args.style.is_json() {
            print::note(&match since {
                0 => "the change log is empty".to_owned(),
                seq => format!("no change after {seq}"),
            });
        }
        return Ok(Exit::Fine);
    }
    signals::until_stopped(Exit::Fine, |stop| async move {
        // Start the watch before the first read, so that no later commit is missed.
        let mut watch = Watch::of_path(&path).unwrap_or_else(|_| Watch::polling());
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

/// Refuses a `--since` that no change can match, and `--limit` with `--since` and `--follow`.
fn check_options(args: &ChangesArgs, head: i64) -> Result<(), UsageError> {
    match (args.since, args.limit) {
        (Some(since), _) if since > head => Err(UsageError(format!(
            "--since {since}: the change log ends at {head}; after a restore the log has a new \
             log_id (see mirror_info)"
        ))),
        (Some(_), Some(_)) if args.follow => Err(UsageError(
            "--limit: with --follow it counts the newest changes, which are printed first; leave out --since"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn filter(args: &ChangesArgs, reader: &Reader) -> Result<ChangeFilter, StoreError> {
    let limit = args.limit.map(|limit| limit as usize);
    let customer = args.customer.clone();
    let (since, limit) = match (args.since, limit) {
        (None, Some(newest)) => {
            (reader.query(|conn| read::before_newest(conn, customer.as_ref(), newest))?, None)
        }
        (since, limit) => (since.unwrap_or(0), limit),
    };
    Ok(ChangeFilter { since, customer, until: None, limit })
}

/// Prints the changes after `filter.since`, and moves `filter.since` to the last of them.
fn print_new(reader: &Reader, filter: &mut ChangeFilter, out: &mut Out, style: Style) -> anyhow::Result<()> {
    print::printing(|check| {
        let from = filter.clone();
        let visit = |record: Record| {
            filter.since = filter.since.max(record.number("seq"));
            check(print(out, &record, style))
        };
        reader.query(|conn| read::changes(conn, &from, visit))
    })?;
    Ok(out.flush()?)
}
