//! The command line, one file for each command. A command parses, calls and prints.
//!
//! Data goes to standard output, everything else to standard error. Each command returns an
//! [`Exit`].

mod account;
mod arguments;
mod as_of;
mod backup;
mod blocking;
mod change_lines;
mod changes;
mod completions;
mod config;
mod customers;
mod deletions;
mod demo;
mod doctor;
mod erase;
mod exit;
mod export;
mod intent;
mod logging;
mod man;
mod operator;
mod print;
mod progress;
mod rebuild;
mod restore;
mod run;
mod sandbox;
mod service_key;
mod signals;
mod status;
mod sync;
mod terminal;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::exit_of;

use crate::config::{Config, ConfigError};

pub use exit::Exit;
pub use sync::sync_by;

/// The configuration file without `--config` and `$KOMOJU_SYNC_CONFIG`.
const DEFAULT_CONFIG: &str = "/etc/komoju-sync/config.toml";

/// Keeps a true SQLite mirror of a KOMOJU merchant's customers, with a change log, and pushes
/// changes back.
#[derive(Debug, Parser)]
#[command(name = "komoju-sync", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 fine; 1 failed; 2 usage or configuration; 3 done, but something waits for an \
    operator; 4 the API refused the key; 5 the database cannot be used.\n\nNew here? `komoju-sync demo` shows it all in a \
    temporary directory, without an account."
)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "KOMOJU_SYNC_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

// The help of a command is the comment of its arguments. A comment here would replace all of it.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Sync(sync::SyncArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Customers(customers::CustomersArgs),
    Changes(changes::ChangesArgs),
    Deletions(deletions::DeletionsArgs),
    Intent(intent::IntentArgs),
    Account(account::AccountArgs),
    Verify(verify::VerifyArgs),
    Rebuild(rebuild::RebuildArgs),
    Erase(erase::EraseArgs),
    Export(export::ExportArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Config(config::ConfigArgs),
    Sandbox(sandbox::SandboxArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs the command that the program's arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // clap returns help and the version as errors for standard output.
            let exit = if e.use_stderr() { Exit::Usage } else { Exit::Fine };
            let _ = e.print();
            return exit.into();
        }
    };
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(e) if exit::is_closed_pipe(&e) => Exit::Fine.into(),
        Err(e) => {
            print::error(&print::chain(&e));
            exit_of(&e).into()
        }
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<Exit> {
        let config = ConfigFile(self.config);
        match self.command {
            Command::Run(args) => run::run(&config, &args),
            Command::Sync(args) => sync::run(&config, &args),
            Command::Status(args) => status::run(&config, &args),
            Command::Doctor(args) => doctor::run(&config, &args),
            Command::Customers(args) => customers::run(&config, &args),
            Command::Changes(args) => changes::run(&config, &args),
            Command::Deletions(args) => deletions::run(&config, &args),
            Command::Intent(args) => intent::run(&config, &args),
            Command::Account(args) => account::run(&config, &args),
            Command::Verify(args) => verify::run(&config, &args),
            Command::Rebuild(args) => rebuild::run(&config, &args),
            Command::Erase(args) => erase::run(&config, &args),
            Command::Export(args) => export::run(&config, &args),
            Command::Backup(args) => backup::run(&config, &args),
            Command::Restore(args) => restore::run(&config, &args),
            Command::Config(args) => config::run(&config, &args),
            Command::Sandbox(args) => sandbox::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    }
}

/// The path of the configuration file. Each command that needs the configuration loads it.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn path(&self) -> &Path {
        &self.0
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.0)
    }
}

/// Returns the definition of the command line, for tests, manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}
