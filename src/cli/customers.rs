//! `customers`: the mirror, now or at an earlier time.

use clap::Subcommand;
use serde_json::Value;

use super::arguments::{parse_id, unknown};
use super::as_of::AsOf;
use super::print::{self, Out, Style, plain};
use super::{ConfigFile, Exit, change_lines};
use crate::store::Reader;
use crate::store::log::coverage;
use crate::store::outbox::erase;
use crate::store::read::{self, ChangeFilter, Record};
use komoju_core::{CustomerId, time};

/// Show the mirror, now or at an earlier time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync customers list --json | jq .email\n  \
    komoju-sync customers show cus_123 --as-of 2026-01-31T00:00:00Z\n  komoju-sync customers history cus_123")]
pub(super) struct CustomersArgs {
    #[command(subcommand)]
    command: CustomersCommand,
}

#[derive(Debug, Subcommand)]
enum CustomersCommand {
    /// List all live customers by id.
    List(ViewOptions),
    /// Show all columns of one customer.
    Show {
        /// The customer's id.
        #[arg(value_parser = parse_id)]
        id: CustomerId,
        #[command(flatten)]
        options: ViewOptions,
    },
    /// List the changes of one customer, oldest first.
    History {
        /// The customer's id.
        #[arg(value_parser = parse_id)]
        id: CustomerId,
        #[command(flatten)]
        options: ViewOptions,
    },
}

#[derive(Debug, clap::Args)]
struct ViewOptions {
    #[command(flatten)]
    as_of: AsOf,
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &CustomersArgs) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.load()?.database.path)?;
    match &args.command {
        CustomersCommand::List(options) => list(&reader, options)?,
        CustomersCommand::Show { id, options } => show(&reader, id, options)?,
        CustomersCommand::History { id, options } => history(&reader, id, options)?,
    }
    Ok(Exit::Fine)
}

fn list(reader: &Reader, options: &ViewOptions) -> anyhow::Result<()> {
    let as_of = options.as_of.within(reader)?;
    let mut out = Out::new();
    if !options.style.is_json() {
        out.header(&format!("{:<26}  {:<24}  email", "id", "created_at"))?;
    }
    let mut is_empty = true;
    print::printing(|check| {
        let visit = |record: Record| {
            is_empty = false;
            check(match options.style.is_json() {
                true => out.json(&record),
                false => out.row(&list_line(&record)),
            })
        };
        reader.query(|conn| match as_of {
            Some(moment) => read::customers_as_of(conn, moment, visit),
            None => read::customers(conn, visit),
        })
    })?;
    out.finish()?;
    if is_empty && !options.style.is_json() {
        print::note(&match as_of {
            Some(moment) => format!("the mirror had no live customer at {}", time::written(moment)),
            None => "the mirror has no live customer: see `komoju-sync status`".to_owned(),
        });
    }
    Ok(())
}

fn list_line(record: &Record) -> String {
    let [id, created_at, mut email] = ["id", "created_at", "email"].map(|column| plain(record.get(column)));
    if record.get("body").is_null() {
        email = "(erased)".to_owned();
    }
    format!("{id:<26}  {created_at:<24}  {email}").trim_end().to_owned()
}

fn show(reader: &Reader, id: &CustomerId, options: &ViewOptions) -> anyhow::Result<()> {
    let as_of = options.as_of.within(reader)?;
    let found = reader.query(|conn| match as_of {
        Some(moment) => read::customer_as_of(conn, id, moment),
        None => read::customer(conn, id),
    })?;
    let when = as_of.map(|at| format!(" at {}", time::written(at))).unwrap_or_default();
    let erased_at = reader.query(|conn| erase::erased_before(conn, id))?.map(|(at, _)| at);
    let record = found.ok_or_else(|| match &erased_at {
        Some(at) => anyhow::anyhow!("customer {id} was erased at {at}: nothing of it is kept"),
        None => anyhow::anyhow!("the mirror knows no customer {id}{when}"),
    })?;
    let mut out = Out::new();
    if options.style.is_json() {
        out.json(&record)?;
        return Ok(out.finish()?);
    }
    for (name, value) in record.columns().filter(|(_, value)| !value.is_null()) {
        out.line(&format!("{name:<16}  {}", plain(value)))?;
    }
    if record.get("body").is_null() {
        print::note("the customer's data of that time was erased since");
    } else if let Value::String(at) = record.get("deleted_at") {
        print::note(&format!(
            "this customer was found deleted at {at}; the data above is the last known state"
        ));
    }
    Ok(out.finish()?)
}

fn history(reader: &Reader, id: &CustomerId, options: &ViewOptions) -> anyhow::Result<()> {
    let until = options.as_of.within(reader)?;
    let filter = ChangeFilter { customer: Some(id.clone()), until, ..ChangeFilter::default() };
    let mut out = Out::new();
    change_lines::header(&mut out, options.style)?;
    let mut entries = 0_u64;
    print::printing(|check| {
        let visit = |record: Record| {
            entries += 1;
            check(change_lines::print(&mut out, &record, options.style))
        };
        reader.query(|conn| read::changes(conn, &filter, visit))
    })?;
    out.finish()?;
    match (entries, until) {
        (0, Some(at)) if reader.query(|conn| coverage::knows(conn, id))? => {
            Err(anyhow::anyhow!("the change log has no entry of customer {id} until {}", time::written(at)))
        }
        (0, _) => Err(unknown(id)),
        _ => Ok(()),
    }
}
