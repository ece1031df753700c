//! `erase`: removes a deleted customer's data from all that this program keeps, with a receipt.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::parse_id;
use super::print::{self, Out, Style, count};
use super::{ConfigFile, Exit, signals};
use crate::clock::{Clock, SystemClock};
use crate::store::file::{readers, restore};
use crate::store::outbox::erase::{self, Erasure};
use crate::store::{Wiped, wipe_beside};
use crate::tasks::spool::erase as files;
use crate::tasks::spool::erase::Papers;
use komoju_core::{CustomerId, time};

/// Takes a deleted customer's data out of change log, mirror, outbox, spool files and free pages, and prints a receipt of that.
///
/// The customer must be deleted at KOMOJU, or it would come back. The log keeps that there were changes, and when; `verify` still
/// proves it. The customer's id stays. Works beside the daemon, and ends by overwriting the unused bytes of the whole database file,
/// which takes about as long as reading it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync erase cus_123\n  komoju-sync erase cus_123 --json > receipt.json\n\n\
    Exits 3 where something is left for an operator: a file that also holds others, or a reader that keeps old pages. See to what it \
    names at once: said again it finishes what a reader kept it from, but finds the rest by the customer's id alone, for the values are gone."
)]
pub(super) struct Args {
    /// The customer's id.
    #[arg(value_parser = parse_id)]
    id: CustomerId,
    #[command(flatten)]
    style: Style,
}

const BACKUPS: &str = "backups and copies that were made before still hold the data, and the journal of this program's messages may \
                       hold the id; the id of an intent from a file, which stays, ends with 12 digits of the SHA-256 of that file's \
                       content, by which a guess could be proven";

/// What the operator must look at, and why.
#[derive(Serialize)]
struct Left {
    what: String,
    why: String,
}

/// What was erased, and what is left.
struct Receipt<'a> {
    id: &'a CustomerId,
    erasure: Erasure,
    papers: Papers,
    wiped: Wiped,
    left: Vec<Left>,
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let database = &config.database.path;
    let at = time::written(SystemClock::new().now());
    let ((erasure, papers), wiped) = wipe_beside(database, |tx| {
        let erasure = erase::erase(tx, &args.id, &at)?;
        let papers = files::erase(tx, &config.outbound.spool_dir, &erasure.traces)?;
        Ok((erasure, papers))
    })?;
    let mut left = left(&erasure, &papers);
    left.extend(copies(database)?);
    let receipt = Receipt { id: &args.id, erasure, papers, wiped, left };
    let mut out = Out::new();
    if args.style.is_json() {
        out.json(&receipt.json())?;
    } else {
        receipt.lines().iter().try_for_each(|line| out.line(&print::safe(line)))?;
    }
    out.finish()?;
    let why = match &receipt.wiped {
        Wiped::Clean => return Ok(if receipt.left.is_empty() { Exit::Fine } else { Exit::Waits }),
        Wiped::KeptByReader => readers::sentence(database),
        Wiped::Failed(why) => why.clone(),
    };
    print::note(&format!(
        "the erasure is not finished: {} and its -wal still hold what was erased. {why}. The daemon or the next `komoju-sync sync` \
         finishes it, and so does `komoju-sync erase {}`; until then `komoju-sync status` reports it",
        database.display(),
        args.id
    ));
    Ok(Exit::Waits)
}

impl Receipt<'_> {
    fn json(&self) -> Value {
        let (erasure, is_clean) = (&self.erasure, self.wiped == Wiped::Clean);
        json!({
            "customer_id": self.id.as_str(),
            "erased_at": erasure.erased_at,
            "seq": erasure.redaction.seq,
            "redacted": erasure.redaction.redacted,
            "again": erasure.again,
            "intents": erasure.intents,
            "files_removed": self.papers.removed,
            "files_rewritten": self.papers.rewritten,
            "free_pages_clean": is_clean,
            "wal_clean": is_clean,
            "left": self.left,
            "head": erasure.head.to_string(),
            "note": BACKUPS,
        })
    }

    fn lines(&self) -> Vec<String> {
        let Erasure { erased_at, redaction, again, intents, head, .. } = &self.erasure;
        let when = if *again { "was erased already" } else { "is erased" };
        let clean = if self.wiped == Wiped::Clean { "clean" } else { "not yet clean" };
        let seqs = redaction.redacted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (removed, rewritten) =
            (count(self.papers.removed, "file"), count(self.papers.rewritten, "receipt"));
        let mut lines = vec![
            format!("customer {} {when}, at {erased_at}", self.id),
            format!("change log  change {} says so; redacted: {seqs}", redaction.seq),
            format!("outbox      {} redacted", count(*intents, "intent")),
            format!("files       {removed} removed, {rewritten} written anew"),
            format!("free pages  {clean}"),
            format!("WAL         {clean}"),
        ];
        lines.extend(self.left.iter().map(|Left { what, why }| format!("left        {what}: {why}")));
        lines.extend([format!("head        {head}"), format!("note        {BACKUPS}")]);
        lines
    }
}

/// Returns what in the outbox, the spool and the mirror needs the operator.
fn left(erasure: &Erasure, papers: &Papers) -> Vec<Left> {
    let intents = erasure
        .kept
        .iter()
        .map(|(position, why)| (format!("intent at position {position}"), (*why).to_owned()));
    let files = papers.left.iter().map(|(path, why)| (path.display().to_string(), why.clone()));
    let same_email = "has the same email; erase it too where it is the same person";
    let same = erasure.same_email.iter().map(|id| (format!("customer {id}"), same_email.to_owned()));
    intents.chain(files).chain(same).map(|(what, why)| Left { what, why }).collect()
}

/// Removes this program's own copies that no process works on; returns the others.
fn copies(database: &Path) -> anyhow::Result<Vec<Left>> {
    let place = restore::place_of(database)?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    let kept = format!("{}.before-restore-", place.file_name().unwrap_or_default().to_string_lossy());
    let mut under_way = Vec::new();
    for prefix in [".komoju-sync-restore-", ".komoju-sync-backup-"] {
        under_way.extend(signals::take_away_left_behind(directory, prefix)?);
    }
    let groups = [
        (
            under_way,
            "a backup or restore that is under way, or could not be removed, may hold this customer: erase again after it",
        ),
        (
            files_in(directory, &kept),
            "it was kept by a restore, and may hold this customer: remove it when it is of no more use",
        ),
        (
            files_in(&directory.join("backups"), ""),
            "it is a backup, and may hold this customer: remove it when it is of no more use",
        ),
    ];
    let left = |(paths, why): (Vec<PathBuf>, &str)| {
        let left = |path: PathBuf| Left { what: path.display().to_string(), why: why.to_owned() };
        paths.into_iter().map(left).collect::<Vec<_>>()
    };
    Ok(groups.into_iter().flat_map(left).collect())
}

/// Returns the files in a directory whose names begin with `prefix`, by name.
fn files_in(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let named = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
