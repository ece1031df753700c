//! `intent approve`, `retry` and `cancel`: the operator's decisions.

use std::path::Path;

use super::{input, what_happens_next};
use crate::cli::print::{self, count, safe};
use crate::cli::{Exit, person};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::store::outbox::{delete_limit, operator, rows};
use crate::store::{StoreError, Tx, write_beside};
use komoju_core::intent::lifecycle::{IntentState, OutcomeStatus};
use komoju_core::time;

/// Let deletes through that wait because more than outbound.hold_deletes_over of them are open or were sent within the last hour.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync intent approve\n  komoju-sync intent approve order-7 order-8\n\n\
    `komoju-sync intent plan` shows whom they delete."
)]
pub(super) struct Approve {
    /// The intents' ids; every delete that waits where none is given.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// Try an intent again that was rejected or parked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent retry order-7\n  \
    komoju-sync intent retry order-7 --body @corrected.json\n\n\
    With another body it is another request, with a key of its own. Where an attempt may have taken effect and the body stays, \
    so does the key, and nothing is created twice.")]
pub(super) struct Retry {
    /// The intent's id.
    id: String,
    /// Its whole body anew, from a file or (-) from standard input.
    #[arg(long, value_name = "@FILE|-", allow_hyphen_values = true)]
    body: Option<String>,
}

/// Take intents back that are queued or parked: all of those given, or none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent cancel order-7\n\n\
    What is being sent, or may have taken effect and is tried again by itself, cannot be taken back.")]
pub(super) struct Cancel {
    /// The intents' ids.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(super) fn approve(config: &Config, args: &Approve) -> anyhow::Result<Exit> {
    let path = &config.database.path;
    let boot = SystemClock::new().boot();
    let approved = write_beside(path, |tx| {
        // Hold the deletes first that were queued since the outbox was last looked at.
        delete_limit::hold(tx, config.outbound.hold_deletes_over, boot.as_ref())?;
        operator::approve(tx, &args.ids)
    })?;
    print::note(&match approved {
        0 if args.ids.is_empty() => "no delete waits for an approval".to_owned(),
        0 => "they were approved already".to_owned(),
        n => format!("{} approved: {}", count(n as u64, "delete"), what_happens_next(path)?),
    });
    Ok(Exit::Fine)
}

pub(super) fn retry(path: &Path, args: &Retry) -> anyhow::Result<Exit> {
    let corrected = args.body.as_deref().map(input::whole_body).transpose()?;
    let life = write_beside(path, |tx| operator::retry(tx, &args.id, corrected.as_ref()))?;
    let how = match life.state {
        IntentState::Waiting => "waits to be tried again as the very same request",
        _ => "is queued again",
    };
    print::note(&format!("{} {how}; {}", safe(&args.id), what_happens_next(path)?));
    Ok(Exit::Fine)
}

pub(super) fn cancel(path: &Path, args: &Cancel) -> anyhow::Result<Exit> {
    let at = time::written(SystemClock::new().now());
    let by = person::name();
    let cancel = |tx: &Tx<'_>, id: &String| {
        let known = rows::find(tx, id)?;
        operator::cancel(tx, id, &at, &by)?;
        Ok(known.is_some_and(|known| known.life.outcome == OutcomeStatus::Unknown))
    };
    let are_unclear: Vec<bool> =
        write_beside(path, |tx| args.ids.iter().map(|id| cancel(tx, id)).collect::<Result<_, StoreError>>())?;
    for (id, is_unclear) in args.ids.iter().zip(are_unclear) {
        let why =
            if is_unclear { "; whether an attempt took effect is not known: look at KOMOJU" } else { "" };
        print::note(&format!("cancelled {}{why}", safe(id)));
    }
    Ok(Exit::Fine)
}
