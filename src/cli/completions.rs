//! `completions`: the script with which a shell completes this command line.

use std::io::Write as _;

use clap_complete::Shell;

use super::print::Out;
use super::{Exit, command};

/// Print a script that completes this command line in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(komoju-sync completions bash)\n  \
    komoju-sync completions fish > ~/.config/fish/completions/komoju-sync.fish\n\n\
    The Debian package installs the scripts for bash, zsh and fish.")]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    // Generate into memory, because the generator panics if standard output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "komoju-sync", &mut script);
    let script = String::from_utf8_lossy(&script);
    // In half of its labels for bash, clap_complete 4.6 treats the hyphen in our name as the end of
    // a command. Nothing after the first word would complete.
    let script = script.replace("komoju__subcmd__sync", "komoju__sync");
    let mut out = Out::new();
    out.writer().write_all(script.as_bytes())?;
    out.finish()?;
    Ok(Exit::Fine)
}
