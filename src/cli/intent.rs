//! `intent`: the outbox by hand.
//!
//! These commands only read and write rows, also while a daemon runs. The daemon or the next `sync`
//! sends what is queued.

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

/// Queue and manage intents: customers to create, update or delete at KOMOJU.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync intent create --email new@example.com --metadata plan=gold --wait\n  \
    komoju-sync intent update cus_123 --email other@example.com\n  komoju-sync intent list\n\n\
    `komoju-sync intent COMMAND --help` shows more examples."
)]
pub(super) struct IntentArgs {
    #[command(subcommand)]
    command: IntentCommand,
}

// The help of a command is the comment of its arguments. A comment here would replace all of it.
#[derive(Debug, Subcommand)]
enum IntentCommand {
    Create(enqueue::IntentCreateArgs),
    Update(enqueue::IntentUpdateArgs),
    Delete(enqueue::IntentDeleteArgs),
    Import(import::IntentImportArgs),
    List(list::IntentListArgs),
    Show(list::IntentShowArgs),
    Plan(plan::IntentPlanArgs),
    Approve(decide::IntentApproveArgs),
    Retry(decide::IntentRetryArgs),
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

/// Returns a refusal as a usage error, and any other error unchanged.
fn as_usage_error(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Refused(why) => UsageError(why).into(),
        other => other.into(),
    }
}

/// Returns the sentence that says which process sends queued intents, and when.
fn sending_process(path: &Path) -> Result<&'static str, StoreError> {
    let reader = Reader::open(path)?;
    let sender = sender(path)?;
    if reader.query(read::obstacles)?.0.is_some() {
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

/// The process that sends queued intents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// `run`.
    Daemon,
    /// `sync`, which ends by itself.
    Sync,
    /// No process, or one that does not send.
    None,
}

fn sender(path: &Path) -> Result<Sender, StoreError> {
    let Some(holder) = Instance::holder(path)? else { return Ok(Sender::None) };
    Ok(match holder.command.as_deref() {
        Some("run" | "demo") => Sender::Daemon,
        Some("restore" | "rebuild") => Sender::None,
        _ => Sender::Sync,
    })
}
