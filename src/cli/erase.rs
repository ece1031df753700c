//! `erase`: a deleted customer's data out of everything that is kept here, with a receipt.

use std::path::{Path, PathBuf};

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

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let at = time::written(SystemClock::new().now());
    let ((erasure, papers), wiped) = wipe_beside(&config.database.path, |tx| {
        let erasure = erase::erase(tx, &args.id, &at)?;
        let papers = files::erase(tx, &config.outbound.spool_dir, &erasure.traces)?;
        Ok((erasure, papers))
    })?;
    let mut left = left(&erasure, &papers);
    left.extend(copies(&config.database.path)?);
    let mut out = Out::new();
    match args.style.is_json() {
        true => out.json(&as_json(&args.id, &erasure, &papers, &wiped, &left))?,
        false => {
            for line in in_words(&args.id, &erasure, &papers, &wiped, &left) {
                out.line(&print::safe(&line))?;
            }
        }
    }
    out.finish()?;
    let why = match &wiped {
        Wiped::Clean => None,
        Wiped::KeptByReader => Some(readers::sentence(&config.database.path)),
        Wiped::Failed(why) => Some(why.clone()),
    };
    if let Some(why) = why {
        print::note(&format!(
            "the erasure is not finished: {} and its -wal still hold what was erased. {why}. The daemon or the next `komoju-sync sync` \
             finishes it, and so does `komoju-sync erase {}`; until then `komoju-sync status` reports it",
            config.database.path.display(),
            args.id
        ));
    }
    Ok(if left.is_empty() && wiped == Wiped::Clean { Exit::Fine } else { Exit::Waits })
}

const BACKUPS: &str = "backups and copies that were made before still hold the data, and the journal of this program's messages may \
                       hold the id; the id of an intent from a file, which stays, ends with 12 digits of the SHA-256 of that file's \
                       content, by which a guess could be proven";

/// What a person must look at: where, and why.
fn left(erasure: &Erasure, papers: &Papers) -> Vec<(String, String)> {
    let intents = erasure
        .kept
        .iter()
        .map(|(position, why)| (format!("intent at position {position}"), (*why).to_owned()));
    let files = papers.left.iter().map(|(path, why)| (path.display().to_string(), why.clone()));
    let same = erasure.same_email.iter().map(|id| {
        (format!("customer {id}"), "has the same email; erase it too where it is the same person".to_owned())
    });
    intents.chain(files).chain(same).collect()
}

/// This program's own copies beside the database: those that nobody works on go, the others are for a person.
fn copies(database: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let place = restore::place_of(database)?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    let mut left = Vec::new();
    for prefix in [".komoju-sync-restore-", ".komoju-sync-backup-"] {
        let still = signals::take_away_left_behind(directory, prefix)?;
        left.extend(still.into_iter().map(|path| {
            (path, "a backup or restore that is under way, or could not be removed, may hold this customer: erase again after it")
        }));
    }
    let kept = format!("{}.before-restore-", place.file_name().unwrap_or_default().to_string_lossy());
    let files = |directory: &Path, prefix: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
        let named = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let before = "it was kept by a restore, and may hold this customer: remove it when it is of no more use";
    left.extend(files(directory, &kept).into_iter().map(|path| (path, before)));
    let backup = "it is a backup, and may hold this customer: remove it when it is of no more use";
    left.extend(files(&directory.join("backups"), "").into_iter().map(|path| (path, backup)));
    Ok(left.into_iter().map(|(path, why)| (path.display().to_string(), why.to_owned())).collect())
}

fn as_json(
    id: &CustomerId,
    erasure: &Erasure,
    papers: &Papers,
    wiped: &Wiped,
    left: &[(String, String)],
) -> Value {
    let left: Vec<Value> = left.iter().map(|(what, why)| json!({"what": what, "why": why})).collect();
    json!({
        "customer_id": id.as_str(),
        "erased_at": erasure.erased_at,
        "seq": erasure.redaction.seq,
        "redacted": erasure.redaction.redacted,
        "again": erasure.again,
        "intents": erasure.intents,
        "files_removed": papers.removed,
        "files_rewritten": papers.rewritten,
        "free_pages_clean": *wiped == Wiped::Clean,
        "wal_clean": *wiped == Wiped::Clean,
        "left": left,
        "head": erasure.head.to_string(),
        "note": BACKUPS,
    })
}

fn in_words(
    id: &CustomerId,
    erasure: &Erasure,
    papers: &Papers,
    wiped: &Wiped,
    left: &[(String, String)],
) -> Vec<String> {
    let clean = |is: bool| if is { "clean" } else { "not yet clean" };
    let Erasure { erased_at, redaction, .. } = erasure;
    let seqs: Vec<String> = redaction.redacted.iter().map(ToString::to_string).collect();
    let when = if erasure.again { "was erased already" } else { "is erased" };
    let mut lines = vec![
        format!("customer {id} {when}, at {erased_at}"),
        format!("change log  change {} says so; redacted: {}", redaction.seq, seqs.join(", ")),
        format!("outbox      {} redacted", count(erasure.intents, "intent")),
        format!(
            "files       {} removed, {} written anew",
            count(papers.removed, "file"),
            count(papers.rewritten, "receipt")
        ),
        format!("free pages  {}", clean(*wiped == Wiped::Clean)),
        format!("WAL         {}", clean(*wiped == Wiped::Clean)),
    ];
    lines.extend(left.iter().map(|(what, why)| format!("left        {what}: {why}")));
    lines.push(format!("head        {}", erasure.head));
    lines.push(format!("note        {BACKUPS}"));
    lines
}
