//! `intent`: the outbox by hand.
//!
//! Every command here only reads and writes rows, also beside a running daemon; what is queued, the daemon or the next `sync` sends.

mod decide;
mod give;
mod import;
mod input;
mod list;
pub(super) mod plan;
mod wait;

use std::path::Path;

use clap::Subcommand;

use super::exit::UsageError;
use super::{ConfigFile, Exit};
use crate::store::{Instance, Reader, StoreError, read};
use komoju_core::intent::BadIntent;

/// The outbox: what is to be created, changed or deleted at KOMOJU, and what became of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync intent create --email new@example.com --metadata plan=gold --wait\n  \
    komoju-sync intent update cus_123 --email other@example.com\n  komoju-sync intent list\n\n\
    `komoju-sync intent COMMAND --help` has more of them."
)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Queue a new customer.
    Create(give::Create),
    /// Queue other values for a customer; what is not named stays.
    Update(give::Update),
    /// Queue a customer's end.
    Delete(give::Delete),
    /// Queue a file of intents, all or none.
    Import(import::Args),
    /// The intents that are not settled yet, in the order of acceptance.
    List(list::List),
    /// One intent, its attempts, and what can be done about it.
    Show(list::Show),
    /// The calls that would be sent now, exactly; sends nothing.
    Plan(plan::Args),
    /// Let deletes through that wait because there are too many of them.
    Approve(decide::Approve),
    /// Try one again that was rejected or parked.
    Retry(decide::Retry),
    /// Take intents back.
    Cancel(decide::Cancel),
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let path = &config.database.path;
    match &args.what {
        What::Create(args) => give::create(path, args),
        What::Update(args) => give::update(path, args),
        What::Delete(args) => give::delete(path, args),
        What::Import(args) => import::run(&config, args),
        What::List(args) => list::list(path, args),
        What::Show(args) => list::show(path, args),
        What::Plan(args) => plan::run(&config, args),
        What::Approve(args) => decide::approve(&config, args),
        What::Retry(args) => decide::retry(path, args),
        What::Cancel(args) => decide::cancel(path, args),
    }
}

impl From<BadIntent> for UsageError {
    fn from(bad: BadIntent) -> Self {
        Self(bad.to_string())
    }
}

/// Makes a refusal a usage error; failures of the database stay what they are.
fn refused_at_the_door(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Refused(why) => UsageError(why).into(),
        other => other.into(),
    }
}

/// Returns which process sends what is queued, and when.
fn what_happens_next(path: &Path) -> Result<&'static str, StoreError> {
    let reader = Reader::open(path)?;
    let sender = sender(path)?;
    if reader.look(read::obstacles)?.0.is_some() {
        return Ok(match sender {
            Sender::None => {
                "the API refused the key, and no daemon runs: correct the key, then `komoju-sync sync` or `komoju-sync run` sends what is due"
            }
            _ => "the API refuses the key; what is due is sent once a key is accepted",
        });
    }
    Ok(match sender {
        Sender::Daemon => "the daemon sends what is due at once",
        Sender::Sync => {
            "a `komoju-sync sync` runs and may send what is due; else the next `sync` or `run` does"
        }
        Sender::None => "no daemon runs: `komoju-sync sync` or `komoju-sync run` sends what is due",
    })
}

/// The process that sends what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// `run`.
    Daemon,
    /// `sync`, which ends by itself.
    Sync,
    /// No process that holds the database sends.
    None,
}

fn sender(path: &Path) -> Result<Sender, StoreError> {
    // The lock file names the holder's command in this form.
    let holder = Instance::holder(path)?.map(|holder| holder.name).unwrap_or_default();
    let is = |command: &str| holder.starts_with(&format!("`komoju-sync {command}`"));
    Ok(match holder.as_str() {
        "" => Sender::None,
        _ if is("run") || is("demo") => Sender::Daemon,
        _ if is("restore") || is("rebuild") => Sender::None,
        _ => Sender::Sync,
    })
}
