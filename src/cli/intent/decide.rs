//! `intent approve`, `retry` and `cancel`: the operator's decisions.

use std::path::Path;

use super::{input, sending_process};
use crate::cli::Exit;
use crate::cli::operator::operator_name;
use crate::cli::print::{self, count, safe};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::store::outbox::{delete_limit, operator, rows};
use crate::store::{StoreError, Tx, write_as_operator};
use komoju_core::intent::lifecycle::{IntentState, OutcomeStatus};
use komoju_core::time;

/// Approve deletes that are held because there are too many of them.
///
/// Deletes are held if more than outbound.hold_deletes_over of them are open or were sent within
/// the last hour.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync intent approve\n  komoju-sync intent approve order-7 order-8\n\n\
    `komoju-sync intent plan` shows which customers they delete."
)]
pub(super) struct IntentApproveArgs {
    /// The ids of the intents; all held deletes if none is given.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// Retry a rejected or parked intent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent retry order-7\n  \
    komoju-sync intent retry order-7 --body @corrected.json\n\n\
    A new body makes a new request with a new idempotency key. Without one, an attempt that may have taken effect keeps \
    its key, so that nothing is created twice.")]
pub(super) struct IntentRetryArgs {
    /// The intent's id.
    id: String,
    /// A body that replaces the old one, from a file or (-) from standard input.
    #[arg(long, value_name = "@FILE|-", allow_hyphen_values = true)]
    body: Option<String>,
}

/// Cancel queued or parked intents: all that are given, or none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent cancel order-7\n\n\
    An intent that is being sent, or that may have taken effect and waits for its retry, cannot be cancelled.")]
pub(super) struct IntentCancelArgs {
    /// The ids of the intents.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(super) fn approve(config: &Config, args: &IntentApproveArgs) -> anyhow::Result<Exit> {
    let path = &config.database.path;
    let boot = SystemClock::new().boot();
    let approved = write_as_operator(path, |tx| {
        // First hold the deletes that were queued since the limit was last checked.
        delete_limit::hold(tx, config.outbound.hold_deletes_over, boot.as_ref())?;
        operator::approve(tx, &args.ids)
    })?;
    print::note(&match approved {
        0 if args.ids.is_empty() => "no delete waits for an approval".to_owned(),
        0 => "they were approved already".to_owned(),
        n => format!("{} approved: {}", count(n as u64, "delete"), sending_process(path)?),
    });
    Ok(Exit::Fine)
}

pub(super) fn retry(path: &Path, args: &IntentRetryArgs) -> anyhow::Result<Exit> {
    let corrected = args.body.as_deref().map(input::whole_body).transpose()?;
    let life = write_as_operator(path, |tx| operator::retry(tx, &args.id, corrected.as_ref()))?;
    let how = match life.state {
        IntentState::Waiting => "waits for a retry of the same request",
        _ => "is queued again",
    };
    print::note(&format!("{} {how}; {}", safe(&args.id), sending_process(path)?));
    Ok(Exit::Fine)
}

pub(super) fn cancel(path: &Path, args: &IntentCancelArgs) -> anyhow::Result<Exit> {
    let at = time::written(SystemClock::new().now());
    let by = operator_name();
    let cancel = |tx: &Tx<'_>, id: &String| {
        let known = rows::find(tx, id)?;
        operator::cancel(tx, id, &at, &by)?;
        Ok(known.is_some_and(|known| known.life.outcome == OutcomeStatus::Unknown))
    };
    let are_unclear: Vec<bool> = write_as_operator(path, |tx| {
        args.ids.iter().map(|id| cancel(tx, id)).collect::<Result<_, StoreError>>()
    })?;
    for (id, is_unclear) in args.ids.iter().zip(are_unclear) {
        let why =
            if is_unclear { "; whether an attempt took effect is not known: look at KOMOJU" } else { "" };
        print::note(&format!("cancelled {}{why}", safe(id)));
    }
    Ok(Exit::Fine)
}
