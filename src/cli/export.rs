//! `export`: the mirror to standard output.

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::as_of::AsOf;
use super::print::{self, Out};
use super::{ConfigFile, Exit, progress};
use crate::store::log::passes;
use crate::store::read::{self, Record};
use crate::store::{Reader, StoreError};

/// Write the mirror to standard output.
///
/// The live customers are written by id, with the columns of the view `customers`.
///
/// Exits 1 if no sweep has read all customers yet, because the export is incomplete then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync export --format csv > customers.csv\n  \
    komoju-sync export --format jsonl --as-of 2026-01-31")]
pub(super) struct ExportArgs {
    /// The output format.
    #[arg(long, value_enum)]
    format: ExportFormat,
    #[command(flatten)]
    as_of: AsOf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    /// Comma-separated, with a header line; JSON columns as JSON text.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

pub(super) fn run(config: &ConfigFile, args: &ExportArgs) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.load()?.database.path)?;
    let as_of = args.as_of.within(&reader)?;
    // Check before the export, because a sweep that ends during the export would hide that the
    // export is incomplete.
    let is_partial = reader.query(|conn| passes::is_partial(conn, as_of))?;
    let mut out = Out::new();
    match args.format {
        ExportFormat::Jsonl => {
            print::printing(|check| each(&reader, as_of, |record| check(out.json(&record))))?
        }
        ExportFormat::Csv => {
            let mut csv = csv::Writer::from_writer(out.writer());
            csv.write_record(read::customer_columns(&reader)?)?;
            print::printing(|check| {
                each(&reader, as_of, |record| {
                    let row = record.columns().map(|(_, value)| cell(value));
                    check(csv.write_record(row).map_err(output_error))
                })
            })?;
            csv.flush()?;
        }
    }
    out.finish()?;
    if is_partial {
        let when = as_of.map_or("yet", |_| "by then");
        print::note(&format!(
            "the export is incomplete: no sweep had read all customers {when}. `komoju-sync status` shows the last sweep, \
             and `komoju-sync sync` runs one"
        ));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Fine)
}

fn each(
    reader: &Reader,
    as_of: Option<Timestamp>,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // One snapshot for the whole export.
    reader.in_snapshot(|conn| {
        let live = u64::try_from(read::mirror_info(conn)?.number("live")).unwrap_or(0);
        let bar = progress::bar("exporting customers", live);
        let visit = |record| {
            bar.inc(1);
            visit(record)
        };
        let exported = match as_of {
            Some(moment) => read::customers_as_of(conn, moment, visit),
            None => read::customers(conn, visit),
        };
        bar.finish_and_clear();
        exported
    })
}

/// Returns the I/O error inside a CSV error, so that a closed pipe is recognized.
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
