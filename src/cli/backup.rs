//! `backup`: a checked copy of the database in one file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::exit::UsageError;
use super::print::{self, Out, count, grouped};
use super::signals::{self, Scratch};
use super::{ConfigFile, Exit, blocking};
use crate::store::Reader;
use crate::store::file::backup;

/// Make a checked copy of the database, without payment tokens.
///
/// The copy is consistent and one file, and it does not contain the secret key. The daemon may run
/// meanwhile.
///
/// The copy contains the personal data of all customers, so only the user that runs this command
/// can read it. Keep the head that is printed at the end: with it, `komoju-sync verify --head`
/// proves that a database still contains this log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync backup /var/backups/komoju-$(date +%F).db\n  \
    komoju-sync restore /var/backups/komoju-2026-01-31.db\n\n\
    An existing file is never overwritten. Only `komoju-sync restore` makes a backup the database; to read a \
    backup, any SQLite client is enough.")]
pub(super) struct BackupArgs {
    /// The file to create, in an existing directory.
    file: PathBuf,
}

pub(super) fn run(config: &ConfigFile, args: &BackupArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    // Report a missing database before anything else.
    drop(Reader::open(&path)?);
    let directory = directory_for(&args.file, &path)?;
    signals::until_stopped(Exit::Failed, |stop| backup(path, args.file.clone(), directory, stop))
}

async fn backup(
    path: PathBuf,
    file: PathBuf,
    directory: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let scratch = Scratch::within(&directory, ".komoju-sync-backup-")
        .with_context(|| format!("no backup can be made in {}", directory.display()))?;
    let copy = scratch.path().join("copy.db");
    let to = copy.clone();
    let made = blocking::run_with_progress(&stop, move |job| backup::make(&path, &to, job)).await?;
    if made.verified.finding_count > 0 {
        made.verified.findings.iter().for_each(|finding| print::error(finding));
        print::note("no backup was made: run `komoju-sync verify` to see what is wrong with the database");
        return Ok(Exit::Failed);
    }
    backup::publish(&copy, &file)?;
    scratch.close().ok();
    let (bytes, live) = (grouped(made.bytes), count(made.live, "live customer"));
    let mut out = Out::new();
    out.line(&format!("{}: {bytes} bytes, {live}", print::safe(&file.to_string_lossy())))?;
    out.line(&format!("head {}", made.head))?;
    Ok(out.finish().map(|()| Exit::Fine)?)
}

/// Returns the directory in which the file can be created.
fn directory_for(file: &Path, database: &Path) -> anyhow::Result<PathBuf> {
    let shown = file.display();
    let name = file.file_name().filter(|_| file != Path::new("-"));
    let name = name
        .ok_or_else(|| UsageError(format!("{shown}: a backup is written to a file; give the name of one")))?;
    let directory = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing =
        || UsageError(format!("{shown}: there is no directory {}; create it first", directory.display()));
    let directory = directory.canonicalize().map_err(|_| missing())?;
    let fault = if backup::is_own_file(database, &directory.join(name))? {
        format!("{shown} belongs to the database itself; choose another name")
    } else {
        match std::fs::symlink_metadata(file) {
            Ok(found) if found.is_dir() => format!("{shown} is a directory; give the name of a file in it"),
            Ok(_) => format!("{shown} exists, and a backup never overwrites anything; choose another name"),
            Err(_) if !directory.is_dir() => format!("{} is not a directory", directory.display()),
            Err(_) => return Ok(directory),
        }
    };
    Err(UsageError(fault).into())
}
