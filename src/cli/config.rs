//! `config`: check it, show it.

use clap::Subcommand;

use super::print::{self, Out};
use super::{ConfigFile, Exit};
use crate::config::{KeyError, SecretKey};

/// Checks the configuration, or shows what is in effect.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync --config ./config.toml config check")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tells every problem at once.
    Check,
    /// Prints what is in effect, defaults included, secrets masked.
    Show,
}

pub(super) fn run(file: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = file.load()?;
    let mut out = Out::new();
    match args.what {
        What::Show => out.line(config.render().trim_end())?,
        What::Check => {
            out.line(&format!("{} is fine", file.path().display()))?;
            match SecretKey::find(&config.api, &|name| std::env::var_os(name)) {
                Ok((key, source)) => {
                    out.line(&format!("the secret key comes from {source}"))?;
                    for warning in key.warnings(&source) {
                        print::note(&format!("note: {warning}"));
                    }
                }
                // Whoever checks the file need not be who may read the key.
                Err(why @ (KeyError::Nowhere | KeyError::Unreadable { .. })) => {
                    print::note(&format!("note: {why}"))
                }
                Err(why) => return Err(why.into()),
            }
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}
