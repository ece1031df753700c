//! `config`: checks or shows the configuration.

use clap::Subcommand;

use super::print::{self, Out};
use super::service_key::{OWNER_AND_MODE, ServiceKey};
use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::secret::{KeyError, SecretKey, SecretPlace};

/// Check the configuration, or show the effective one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync --config ./config.toml config check")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the file and report all problems at once.
    Check,
    /// Show the effective configuration, with defaults, secrets masked.
    Show,
}

pub(super) fn run(file: &ConfigFile, args: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = file.load()?;
    let mut out = Out::new();
    match args.command {
        ConfigCommand::Show => out.line(config.render().trim_end())?,
        ConfigCommand::Check => {
            out.line(&format!("{} is fine", file.path().display()))?;
            out.flush()?;
            check_key(&config, file, &mut out)?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

/// Prints where the key comes from. The user that checks the file may have no permission to read
/// the key.
fn check_key(config: &Config, file: &ConfigFile, out: &mut Out) -> anyhow::Result<()> {
    let of_service = ServiceKey::of(file.path());
    let (key, source, loaded) = match SecretKey::find(config.api.secret_key_file.as_deref(), &|name| {
        std::env::var_os(name)
    }) {
        Ok((key, source)) => (key, source, ""),
        Err(nowhere @ KeyError::Nowhere) => match of_service.read() {
            Some(Ok((key, source))) => {
                (key, source, "; the service loads it, commands by hand do not find it")
            }
            Some(Err(KeyError::Unreadable { source, .. })) => {
                print::note(&format!(
                    "note: the secret key of the service, {} ({OWNER_AND_MODE}), cannot be read by this user: {source}",
                    of_service.path().display()
                ));
                return Ok(());
            }
            Some(Err(unusable)) => return Err(unusable.into()),
            None => {
                print::note(&format!("note: {nowhere}"));
                return Ok(());
            }
        },
        Err(why @ KeyError::Unreadable { .. }) => {
            print::note(&format!("note: {why}"));
            return Ok(());
        }
        Err(why) => return Err(why.into()),
    };
    let place = match &source.place {
        SecretPlace::File { path, .. } if !loaded.is_empty() => format!("the file {}", path.display()),
        _ => source.to_string(),
    };
    let mode = source.mode.map(|mode| format!(" (mode {:04o})", mode & 0o7777)).unwrap_or_default();
    out.line(&format!("the secret key comes from {place}{mode}{loaded}"))?;
    for warning in key.warnings(&source) {
        print::note(&format!("note: {warning}"));
    }
    Ok(())
}
