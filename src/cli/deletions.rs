//! `deletions`: held deletions, and the operator's decisions on them.

use clap::Subcommand;

use super::operator::operator_name;
use super::print::{self, Out, Style, count, plain};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::store::log::holds::{self, Decision, HoldId};
use crate::store::{Reader, read, write_as_operator};
use komoju_core::time;

/// List, approve or reject held deletions.
///
/// A sweep holds deletions if it missed too many customers, or if no other customer proved that the
/// API answers. It also holds them if the database was restored from a backup.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync deletions list\n  komoju-sync deletions approve 7\n\n\
    The daemon's next pass (or the next `sync`) requests each approved customer again, and keeps those that \
    still exist.")]
pub(super) struct DeletionsArgs {
    #[command(subcommand)]
    command: DeletionsCommand,
}

#[derive(Debug, Subcommand)]
enum DeletionsCommand {
    /// List the deletions that wait.
    List {
        /// Include those that no longer wait.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        style: Style,
    },
    /// Approve deletions; each is recorded if KOMOJU still answers that the customer is gone.
    Approve {
        /// The number of the hold, which may be rejected already; all open holds if left out.
        hold: Option<HoldId>,
    },
    /// Reject deletions; the customers stay, and are not reported until they are seen again.
    Reject {
        /// The number of the hold, which may be approved and not carried out yet; all open holds if
        /// left out.
        hold: Option<HoldId>,
    },
}

pub(super) fn run(config: &ConfigFile, args: &DeletionsArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    match &args.command {
        DeletionsCommand::List { all, style } => list(&Reader::open(&path)?, *all, *style),
        DeletionsCommand::Approve { hold } => {
            let settled = decide(&path, *hold, Decision::Approve)?;
            print::note(&format!(
                "approved {}; the next sweep or probe requests each customer again, and records those that are still gone",
                count(settled as u64, "deletion")
            ));
            Ok(Exit::Fine)
        }
        DeletionsCommand::Reject { hold } => {
            let settled = decide(&path, *hold, Decision::Reject)?;
            print::note(&format!("rejected {}; the customers stay", count(settled as u64, "deletion")));
            Ok(Exit::Fine)
        }
    }
}

fn list(reader: &Reader, all: bool, style: Style) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    let (mut shown, mut waiting, mut unproven) = (0_u64, 0_u64, 0_u64);
    if !style.is_json() {
        out.header(&format!("{:<9}  {:<10}  {:<24}  customer", "hold", "state", "opened_at"))?;
    }
    print::printing(|check| {
        let visit = |record: read::Record| {
            let waits = record.text("state") == Some("held");
            shown += 1;
            waiting += u64::from(waits);
            unproven += u64::from(waits && record.text("because") == Some("unproven"));
            check(match style.is_json() {
                true => out.json(&record),
                false => {
                    let [hold, state, opened, id, email] =
                        ["hold_id", "state", "opened_at", "customer_id", "email"]
                            .map(|name| plain(record.get(name)));
                    out.row(format!("hold {hold:<4}  {state:<10}  {opened}  {id}  {email}").trim_end())
                }
            })
        };
        reader.query(|conn| match style.is_json() {
            true => read::held_deletions(conn, all, visit),
            false => read::held_customers(conn, all, visit),
        })
    })?;
    out.finish()?;
    if shown == 0 && !style.is_json() {
        print::note(if all { "no deletion was ever held" } else { "no deletion waits" });
    }
    if waiting > 0 && !style.is_json() {
        let which = match unproven {
            1 if waiting == 1 => "it".to_owned(),
            all if all == waiting => "them".to_owned(),
            some => format!("{some} of them"),
        };
        let by_itself = match unproven {
            0 => String::new(),
            _ => format!("; nothing is proven about {which}, and the next sweep checks again"),
        };
        print::note(&format!(
            "{} for `komoju-sync deletions approve` or `reject`{by_itself}",
            if waiting == 1 {
                "1 deletion waits".to_owned()
            } else {
                format!("{} wait", count(waiting, "deletion"))
            }
        ));
    }
    Ok(if waiting > 0 { Exit::Waits } else { Exit::Fine })
}

fn decide(path: &std::path::Path, hold: Option<HoldId>, decision: Decision) -> anyhow::Result<usize> {
    let at = time::written(SystemClock::new().now());
    let by = operator_name();
    Ok(write_as_operator(path, |tx| holds::decide(tx, hold, decision, &at, &by))?)
}
