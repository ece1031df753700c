//! `restore`: an earlier copy becomes the database again.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::exit::UsageError;
use super::print::{self, count};
use super::signals::{self, Scratch};
use super::{ConfigFile, Exit, lengthy};
use crate::clock::{Clock, SystemClock};
use crate::store::file::{backup, restore};
use crate::store::{Instance, LogMark};
use komoju_core::time;

/// Puts a backup in the place of the database. Needs the daemon to be stopped.
///
/// The backup is checked first, and only read. The database that was there is kept beside the new one under another name. Intents
/// that were unfinished are parked, for they may have been carried out since; the next complete sweep records no deletion, they all
/// wait for a person; and the change log gets a new log_id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  systemctl stop komoju-sync\n  \
    komoju-sync restore /var/backups/komoju-2026-01-31.db\n  systemctl start komoju-sync\n\n\
    Exits 3 when intents are parked (`komoju-sync intent list --state parked` shows them), and when customers are in it again that \
    were erased since: each is named, to be erased again.")]
pub(super) struct Args {
    /// A file that `komoju-sync backup` made, or a copy of a database that nobody worked on.
    file: PathBuf,
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    if args.file == Path::new("-") {
        return Err(UsageError("-: a backup is restored from a file; give its name".to_owned()).into());
    }
    let now = SystemClock::new().now();
    let instance = Instance::take(&path, "restore", now)?;
    let file = args
        .file
        .canonicalize()
        .map_err(|e| UsageError(format!("{} cannot be read: {e}", args.file.display())))?;
    if backup::is_own_file(&path, &file)? {
        let shown = args.file.display();
        return Err(UsageError(format!("{shown} belongs to the database itself; give a copy of it")).into());
    }
    signals::until_stopped(Exit::Failed, |stop| restore(&instance, path, file, args.file.clone(), now, stop))
}

async fn restore(
    instance: &Instance,
    path: PathBuf,
    file: PathBuf,
    named: PathBuf,
    now: Timestamp,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let place = restore::place_of(&path)?;
    let directory = place.parent().unwrap_or(Path::new("/")).to_owned();
    let scratch = Scratch::within(&directory, ".komoju-sync-restore-")
        .with_context(|| format!("nothing can be restored in {}", directory.display()))?;
    let copy = scratch.path().join("copy.db");
    let (to, at) = (copy.clone(), time::written(now));
    let prepared = lengthy::carry_out(&stop, move |work| restore::prepare(&file, &to, &at, work)).await?;
    restore::give_to_owner(&copy, &place)?;
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    // From its first moment under the database's name no other process can work on it.
    instance.cover_prepared(&copy)?;
    let placed = restore::put_in_place(&copy, &place, &stamp)?;
    instance.note_log(LogMark { log_id: prepared.log_id.clone(), head: prepared.head });
    scratch.close().ok();

    let (path, named) = (print::safe(&path.to_string_lossy()), print::safe(&named.to_string_lossy()));
    let live = count(prepared.live, "live customer");
    let as_of = prepared.last_at.map(|at| format!(", as of {at}")).unwrap_or_default();
    print::note(&format!("restored {path} from {named}: {live}{as_of}; head {}", prepared.head));
    if let Some(kept) = &placed.kept {
        let kept = print::safe(&kept.to_string_lossy());
        let who = match placed.is_private {
            true => "only its owner can read it (mode 0600)",
            false => "its mode could not be set to 0600: do that",
        };
        print::note(&format!(
            "what was there is kept as {kept}; it may hold payment tokens of intents that were not settled, so {who}. Remove it when \
             it is of no more use"
        ));
    }
    print::note(&format!(
        "the change log is another one from here on: log_id {}; whoever read it by seq begins anew",
        prepared.log_id
    ));
    print::note("the next complete sweep records no deletion: see `komoju-sync deletions list` after it");
    if prepared.parked > 0 {
        print::note(&format!(
            "{} parked, for they may have been carried out since: look at KOMOJU, then `komoju-sync intent retry` or `cancel`; \
             `komoju-sync intent list --state parked` shows them",
            if prepared.parked == 1 {
                "1 intent is".to_owned()
            } else {
                format!("{} are", count(prepared.parked, "intent"))
            }
        ));
    }
    let back = tell_who_came_back(&placed);
    print::note(
        "intents and receipts from after the backup are not in it; files dropped again are taken again",
    );
    print::note("now start the service: `systemctl start komoju-sync`, or `komoju-sync run`");
    Ok(if prepared.parked > 0 || back { Exit::Waits } else { Exit::Fine })
}

/// Names those whose erasure must be repeated; whether there is anybody.
fn tell_who_came_back(placed: &restore::Placed) -> bool {
    let Some(back) = &placed.came_back else {
        print::note(
            "the database that was there cannot be read, so customers that were erased since the backup was made may be in it again, \
             unnamed: erase them again by your own records",
        );
        return false;
    };
    if back.is_empty() {
        return false;
    }
    print::note(&format!(
        "the backup is older than the erasure of {}, whose data is here again. Erase each again; where `erase` says that it is not \
         deleted, first let a sweep hold its deletion, and approve it (`komoju-sync deletions approve`):",
        count(back.len() as u64, "customer")
    ));
    back.iter().for_each(|id| print::note(&format!("  komoju-sync erase {}", print::safe(id))));
    true
}
