//! `account`: the KOMOJU account that the database belongs to.

use clap::Subcommand;

use super::print::{self, Out, Style};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::store::state::account;
use crate::store::{Reader, write_as_operator};
use komoju_core::time;

/// Show or accept the account that the database belongs to.
///
/// A key that reads another account stops all work until an operator accepts it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  komoju-sync account show\n\nAfter `account accept`, the next sweep records the \
    new account's customers, and holds the deletion of the old ones."
)]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Show the fingerprint of the account's key, and whether another key stopped all work.
    Show {
        #[command(flatten)]
        style: Style,
    },
    /// Accept the key that stopped all work, and continue with it.
    Accept,
}

pub(super) fn run(config: &ConfigFile, args: &AccountArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    match &args.command {
        AccountCommand::Show { style } => show(&Reader::open(&path)?, *style),
        AccountCommand::Accept => {
            let at = time::written(SystemClock::new().now());
            let fingerprint = write_as_operator(&path, |tx| account::accept(tx, &at))?;
            print::note(&format!("accepted; this database now belongs to account {}", short(&fingerprint)));
            Ok(Exit::Fine)
        }
    }
}

fn show(reader: &Reader, style: Style) -> anyhow::Result<Exit> {
    let known = account::load(reader)?;
    let stopped = known.as_ref().and_then(|account| account.stopped.as_ref());
    let mut out = Out::new();
    if style.is_json() {
        out.json(&serde_json::json!({
            "account": known.as_ref().map(|account| short(&account.fingerprint)),
            "bound_at": known.as_ref().map(|account| &account.bound_at),
            "in_doubt": stopped.map(|(candidate, _)| short(candidate)),
            "stopped_at": stopped.map(|(_, at)| at),
        }))?;
    } else {
        match &known {
            Some(account) => {
                out.line(&format!("account {} since {}", short(&account.fingerprint), account.bound_at))?
            }
            None => out.line("no account yet: the first key that is used binds this database")?,
        }
        if let Some((candidate, at)) = stopped {
            out.line(&format!(
                "stopped since {at}: the key of account {} knows none of these customers; put the right key back, or \
                 run `komoju-sync account accept`",
                short(candidate)
            ))?;
        }
    }
    let exit = if stopped.is_some() { Exit::Waits } else { Exit::Fine };
    out.finish()?;
    Ok(exit)
}

/// Returns a fingerprint as `mirror_info.account` shows it.
fn short(fingerprint: &[u8; 32]) -> String {
    fingerprint[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
