//! `intent`: the outbox by hand.
//!
//! Every command here only reads and writes rows, also beside a running daemon; what is queued, the daemon or the next `sync` sends.

mod decide;
mod enqueue;
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
pub(super) struct IntentArgs {
    #[command(subcommand)]
    command: IntentCommand,
}

#[derive(Debug, Subcommand)]
enum IntentCommand {
    /// Queue a new customer.
    Create(enqueue::IntentCreateArgs),
    /// Queue other values for a customer; what is not named stays.
    Update(enqueue::IntentUpdateArgs),
    /// Queue a customer's end.
    Delete(enqueue::IntentDeleteArgs),
    /// Queue a file of intents, all or none.
    Import(import::IntentImportArgs),
    /// The intents that are not settled yet, in the order of acceptance.
    List(list::IntentListArgs),
    /// One intent, its attempts, and what can be done about it.
    Show(list::IntentShowArgs),
    /// The calls that would be sent now, exactly; sends nothing.
    Plan(plan::IntentPlanArgs),
    /// Let deletes through that wait because there are too many of them.
    Approve(decide::IntentApproveArgs),
    /// Try one again that was rejected or parked.
    Retry(decide::IntentRetryArgs),
    /// Take intents back.
    Cancel(decide::IntentCancelArgs),
}

pub(super) fn run(config: &ConfigFile, args: &IntentArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let path = &config.database.path;
    match &args.command {
        IntentCommand::Create(args) => enqueue::create(path, args),
        IntentCommand::Update(args) => enqueue::update(path, args),
        IntentCommand::Delete(args) => enqueue::delete(path, args),
        IntentCommand::Import(args) => import::run(&config, args),
        IntentCommand::List(args) => list::list(path, args),
        IntentCommand::Show(args) => list::show(path, args),
        IntentCommand::Plan(args) => plan::run(&config, args),
        IntentCommand::Approve(args) => decide::approve(&config, args),
        IntentCommand::Retry(args) => decide::retry(path, args),
        IntentCommand::Cancel(args) => decide::cancel(path, args),
    }
}

impl From<BadIntent> for UsageError {
    fn from(bad: BadIntent) -> Self {
        Self(bad.to_string())
    }
}

/// Makes a refusal a usage error; failures of the database stay what they are.
fn as_usage_error(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Refused(why) => UsageError(why).into(),
        other => other.into(),
    }
}

/// Returns which process sends what is queued, and when.
fn sending_process(path: &Path) -> Result<&'static str, StoreError> {
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
