//! `verify`: proves that the change log is intact and folds to the mirror.

use super::exit::UsageError;
use super::print::{self, Out, count};
use super::{ConfigFile, Exit, progress};
use crate::store::Reader;
use crate::store::log::changes::{self, Head};
use crate::store::log::verify;

/// Verify that the change log is intact and folds to the mirror.
///
/// It also checks that the file is not damaged. Damage and partial edits are found. An attacker may
/// rewrite the whole file: to detect that, keep the head that is printed at the end elsewhere, and
/// pass it with --head.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync verify\n  komoju-sync verify --head 4200:9f86d081884c7d65…")]
pub(super) struct VerifyArgs {
    /// A head that was printed earlier; the log must still contain it.
    #[arg(long, value_name = "SEQ:CHAIN", value_parser = parse_head)]
    head: Option<Head>,
}

pub(super) fn run(config: &ConfigFile, args: &VerifyArgs) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.load()?.database.path)?;
    // One transaction, so that a running daemon changes nothing meanwhile.
    let verified = reader.in_snapshot(|conn| {
        let entries = u64::try_from(changes::head(conn)?.seq).unwrap_or(0);
        let bar = progress::bar("checking changes", entries);
        let verified = verify::verify_with_progress(conn, args.head, |seq| bar.set_position(seq));
        bar.finish_and_clear();
        verified
    })?;
    let mut out = Out::new();
    for finding in &verified.findings {
        print::error(finding);
    }
    if verified.finding_count > 0 {
        let more = verified.finding_count - verified.findings.len() as u64;
        if more > 0 {
            print::error(&format!("and {} more", count(more, "finding")));
        }
        print::note(
            "if only the mirror is wrong, `komoju-sync rebuild` rebuilds it from the log; if the log is wrong, restore a \
             backup",
        );
        return Ok(Exit::Failed);
    }
    let (entries, customers) = (count(verified.entries, "change"), count(verified.customers, "customer"));
    out.line(&format!("{entries} fold to {customers}; the chain is whole"))?;
    if let Some(head) = verified.head {
        out.line(&format!("head {head}"))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn parse_head(text: &str) -> Result<Head, UsageError> {
    text.parse().map_err(UsageError)
}
