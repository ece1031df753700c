//! `export`: the mirror to standard output.

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::customers::parse_moment;
use super::print::{self, Out};
use super::{ConfigFile, Exit};
use crate::store::read::Record;
use crate::store::{Reader, StoreError, read};

/// The live customers to standard output, by id, with the columns of the view `customers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync export --format csv > customers.csv\n  \
    komoju-sync export --format jsonl --as-of 2026-01-31")]
pub(super) struct Args {
    /// How.
    #[arg(long, value_enum)]
    format: Format,
    /// As it stood at this moment (RFC 3339, or a date for its beginning in UTC).
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    as_of: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Comma-separated, with a header line; JSON columns as JSON text.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.load()?.database.path)?;
    let mut out = Out::new();
    match args.format {
        Format::Jsonl => {
            print::printing(|check| each(&reader, args.as_of, |record| check(out.json(&record))))?
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(out.writer());
            csv.write_record(read::customer_columns(&reader)?)?;
            print::printing(|check| {
                each(&reader, args.as_of, |record| {
                    let row = record.columns().map(|(_, value)| cell(value));
                    check(csv.write_record(row).map_err(output_error))
                })
            })?;
            csv.flush()?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn each(
    reader: &Reader,
    as_of: Option<Timestamp>,
    visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match as_of {
        Some(moment) => read::customers_as_of(reader, moment, visit),
        None => read::customers(reader, visit),
    }
}

/// A closed pipe must be told apart, also from inside a CSV writer's error.
fn output_error(error: csv::Error) -> std::io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => std::io::Error::other(format!("{other:?}")),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
