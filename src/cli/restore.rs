//! `restore`: a backup becomes the database.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::exit::UsageError;
use super::print::{self, count, safe};
use super::signals::{self, Scratch};
use super::{ConfigFile, Exit, blocking};
use crate::clock::{Clock, SystemClock};
use crate::store::file::{backup, place, restore};
use crate::store::{Instance, LogMark};
use komoju_core::time;

/// Replace the database with a backup.
///
/// The daemon must be stopped. The backup is checked first, and only read. The old database is kept
/// beside the new one under another name. Unfinished intents are parked, because they may have been
/// carried out since the backup. The next complete sweep holds all deletions for an operator and
/// records none. The change log gets a new log_id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  systemctl stop komoju-sync\n  \
    komoju-sync restore /var/backups/komoju-2026-01-31.db\n  systemctl start komoju-sync\n\n\
    Exits 3 if intents are parked (`komoju-sync intent list --state parked` shows them), or if the backup contains \
    customers that were erased since: each is named, and must be erased again.")]
pub(super) struct RestoreArgs {
    /// A file from `komoju-sync backup`, or a copy of a database that no process was using.
    file: PathBuf,
}

pub(super) fn run(config: &ConfigFile, args: &RestoreArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    let shown = args.file.display();
    if args.file == Path::new("-") {
        return Err(UsageError("-: a backup is restored from a file; give its name".to_owned()).into());
    }
    let now = SystemClock::new().now();
    let instance = Instance::take(&path, "restore", now)?;
    let file = args.file.canonicalize().map_err(|e| UsageError(format!("{shown} cannot be read: {e}")))?;
    if backup::is_own_file(&path, &file)? {
        return Err(UsageError(format!("{shown} belongs to the database itself; give a copy of it")).into());
    }
    let (prepared, placed) =
        signals::until_stopped(Exit::Failed, |stop| replace(&instance, &path, file, now, stop))?;
    let path = safe(&path.to_string_lossy());
    report(&path, &safe(&args.file.to_string_lossy()), &prepared, &placed);
    let needs_erasure = placed.lost_erasures.as_ref().is_some_and(|customers| !customers.is_empty());
    Ok(if prepared.parked > 0 || needs_erasure { Exit::Waits } else { Exit::Fine })
}

/// Puts a prepared copy of `file` in the place of the database.
async fn replace(
    instance: &Instance,
    path: &Path,
    file: PathBuf,
    now: Timestamp,
    stop: CancellationToken,
) -> anyhow::Result<(restore::Prepared, restore::Replacement)> {
    let real = place::real(path)?;
    let directory = place::directory(&real);
    let scratch = Scratch::within(directory, ".komoju-sync-restore-")
        .with_context(|| format!("nothing can be restored in {}", directory.display()))?;
    let copy = scratch.path().join("copy.db");
    let (to, at) = (copy.clone(), time::written(now));
    let prepared =
        blocking::run_with_progress(&stop, move |job| restore::prepare(&file, &to, &at, job)).await?;
    restore::give_to_owner(&copy, &real)?;
    // Lock the copy before it gets the database's name, so that no other process uses it first.
    instance.lock_prepared_file(&copy)?;
    let placed = restore::put_in_place(&copy, &real, &now.strftime("%Y%m%dT%H%M%SZ").to_string())?;
    instance.note_log(LogMark { log_id: prepared.log_id.clone(), head: prepared.head });
    scratch.close().ok();
    Ok((prepared, placed))
}

/// Reports what was restored, and what to do next.
fn report(path: &str, file: &str, prepared: &restore::Prepared, placed: &restore::Replacement) {
    let live = count(prepared.live, "live customer");
    let as_of = prepared.last_at.as_ref().map(|at| format!(", as of {at}")).unwrap_or_default();
    print::note(&format!("restored {path} from {file}: {live}{as_of}; head {}", prepared.head));
    if let Some(kept) = &placed.kept {
        let mode = if placed.is_private {
            "only its owner can read it (mode 0600)"
        } else {
            "its mode could not be set to 0600: do that"
        };
        print::note(&format!(
            "the old database is kept as {}; it may contain payment tokens of intents that were not settled, so {mode}. Remove it \
             when it is no longer needed",
            safe(&kept.to_string_lossy())
        ));
    }
    print::note(&format!(
        "the change log has a new log_id: {}; consumers that track seq must start over",
        prepared.log_id
    ));
    print::note("the next complete sweep records no deletion: see `komoju-sync deletions list` after it");
    if prepared.parked > 0 {
        let are = if prepared.parked == 1 { "is" } else { "are" };
        print::note(&format!(
            "{} {are} parked, because they may have been carried out since: look at KOMOJU, then `komoju-sync intent retry` or \
             `cancel`; `komoju-sync intent list --state parked` shows them",
            count(prepared.parked, "intent")
        ));
    }
    report_erased(placed.lost_erasures.as_deref());
    print::note(
        "later intents and receipts are not in the backup; a file that is dropped again is accepted again",
    );
    print::note("now start the service: `systemctl start komoju-sync`, or `komoju-sync run`");
}

/// Names the customers that must be erased again; `None` if the old database is unreadable.
fn report_erased(customers: Option<&[String]>) {
    match customers {
        None => print::note(
            "the old database cannot be read, so the backup may contain customers that were erased since, and they \
             cannot be named: erase them again by your own records",
        ),
        Some([]) => {}
        Some(customers) => {
            print::note(&format!(
                "the backup contains {} that were erased since. Erase each again; if `erase` says that \
                 the customer is not deleted, first let a sweep hold its deletion, and approve it (`komoju-sync deletions approve`):",
                count(customers.len() as u64, "customer")
            ));
            customers.iter().for_each(|id| print::note(&format!("  komoju-sync erase {}", safe(id))));
        }
    }
}
