//! `completions`: what a shell needs to complete this command line.

use std::io::Write as _;

use clap_complete::Shell;

use super::print::Out;
use super::{Exit, command};

/// A script that completes this command line in a shell, to standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(komoju-sync completions bash)\n  \
    komoju-sync completions fish > ~/.config/fish/completions/komoju-sync.fish\n\n\
    The Debian package has those for bash, zsh and fish.")]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    // Into memory first: the generator panics where the reader of our output has gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "komoju-sync", &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 takes the hyphen in our name for the end of a command in half of its labels for bash, so that nothing below
    // the first word would complete.
    let script = script.replace("komoju__subcmd__sync", "komoju__sync");
    let mut out = Out::new();
    out.writer().write_all(script.as_bytes())?;
    out.finish()?;
    Ok(Exit::Fine)
}
