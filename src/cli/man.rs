//! `man`: the manual pages.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap_mangen::Man;

use super::print::Out;
use super::{Exit, command};

/// Print the manual page of the program, or write all pages to a directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync man | man -l -\n  komoju-sync man --dir ~/.local/share/man/man1"
)]
pub(super) struct ManArgs {
    /// Write komoju-sync.1 and one page for each command (komoju-sync-intent-create.1) to this
    /// directory; it is created if it is missing.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<Exit> {
    let mut whole = command().disable_help_subcommand(true);
    whole.build();
    match &args.dir {
        None => {
            let mut out = Out::new();
            out.writer().write_all(&page(&Man::new(whole))?)?;
            out.finish()?;
        }
        Some(dir) => fs::create_dir_all(dir)
            .and_then(|()| write_all(whole, dir))
            .with_context(|| format!("the manual pages cannot be written to {}", dir.display()))?,
    }
    Ok(Exit::Fine)
}

/// Writes the pages of a command and of its subcommands.
fn write_all(command: clap::Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        write_all(below.clone(), dir)?;
    }
    let man = Man::new(command);
    fs::write(dir.join(man.get_filename()), page(&man)?)
}

fn page(man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    // Commands to be copied must not be stretched or hyphenated.
    let page = String::from_utf8_lossy(&page).replace(".SH EXTRA\n", ".SH EXTRA\n.ad l\n.nh\n");
    Ok(page.into_bytes())
}
