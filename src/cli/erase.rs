//! `erase`: removes a deleted customer's data from everything that this program keeps, and prints a
//! receipt.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::parse_id;
use super::print::{self, Out, Style, count};
use super::{ConfigFile, Exit, signals};
use crate::clock::{Clock, SystemClock};
use crate::store::file::{place, readers};
use crate::store::outbox::erase::{self, Erasure};
use crate::store::{WipeOutcome, write_and_wipe};
use crate::tasks::spool::erase::{self as files, ErasedFiles};
use komoju_core::{CustomerId, time};

/// Erase a deleted customer's data from everything that is kept here.
///
/// The data is erased from change log, mirror, outbox, spool files and free pages, and a receipt is
/// printed.
///
/// The customer must be deleted at KOMOJU; otherwise the next sweep would restore it. The log keeps
/// that there were changes, and when, and `verify` still proves it. The customer's id is kept. The
/// daemon may run meanwhile. At the end the unused bytes of the whole database file are
/// overwritten, which takes about as long as reading the file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync erase cus_123\n  komoju-sync erase cus_123 --json > receipt.json\n\n\
    Exits 3 if something is left for an operator: a file that also contains other customers, or a reader that keeps old \
    pages. Handle what it names at once. A second run overwrites what a reader kept, but finds other data by the \
    customer's id only, because the values are erased."
)]
pub(super) struct EraseArgs {
    /// The customer's id.
    #[arg(value_parser = parse_id)]
    id: CustomerId,
    #[command(flatten)]
    style: Style,
}

const BACKUPS: &str = "earlier backups and copies still contain the data, and the journal of this program's messages may contain \
                       the id; the id of an intent from a file is kept and ends with 12 digits of the SHA-256 of that file's \
                       content, which can confirm a guess of the content";

/// Something that the operator must handle, and why.
#[derive(Serialize)]
struct Leftover {
    what: String,
    why: String,
}

impl Leftover {
    fn new(what: impl ToString, why: &str) -> Self {
        Self { what: what.to_string(), why: why.to_owned() }
    }
}

/// What was erased, and what is left for the operator.
struct Receipt<'a> {
    id: &'a CustomerId,
    erasure: Erasure,
    spool_files: ErasedFiles,
    wiped: WipeOutcome,
    left: Vec<Leftover>,
}

pub(super) fn run(config: &ConfigFile, args: &EraseArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let database = &config.database.path;
    let at = time::written(SystemClock::new().now());
    let ((erasure, spool_files), wiped) = write_and_wipe(database, |tx| {
        let erasure = erase::erase(tx, &args.id, &at)?;
        let spool_files = files::erase(tx, &config.outbound.spool_dir, &erasure.traces)?;
        Ok((erasure, spool_files))
    })?;
    let mut left = left(&erasure, &spool_files);
    left.extend(copies(database)?);
    let receipt = Receipt { id: &args.id, erasure, spool_files, wiped, left };
    let mut out = Out::new();
    if args.style.is_json() {
        out.json(&receipt.json())?;
    } else {
        receipt.lines().iter().try_for_each(|line| out.line(&print::safe(line)))?;
    }
    out.finish()?;
    let why = match &receipt.wiped {
        WipeOutcome::Clean => return Ok(if receipt.left.is_empty() { Exit::Fine } else { Exit::Waits }),
        WipeOutcome::KeptByReader => readers::sentence(database),
        WipeOutcome::Failed(why) => why.clone(),
    };
    print::note(&format!(
        "the erasure is not finished: {} and its -wal still contain erased data. {why}. The daemon or the next `komoju-sync sync` \
         finishes it, and so does `komoju-sync erase {}`; until then `komoju-sync status` reports it",
        database.display(),
        args.id
    ));
    Ok(Exit::Waits)
}

impl Receipt<'_> {
    fn json(&self) -> Value {
        let (erasure, is_clean) = (&self.erasure, self.wiped == WipeOutcome::Clean);
        json!({
            "customer_id": self.id.as_str(),
            "erased_at": erasure.erased_at,
            "seq": erasure.redaction.seq,
            "redacted": erasure.redaction.redacted,
            "again": erasure.again,
            "intents": erasure.intents,
            "files_removed": self.spool_files.removed,
            "files_rewritten": self.spool_files.rewritten,
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
        let clean = if self.wiped == WipeOutcome::Clean { "clean" } else { "not yet clean" };
        let seqs = redaction.redacted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (removed, rewritten) =
            (count(self.spool_files.removed, "file"), count(self.spool_files.rewritten, "receipt"));
        let mut lines = vec![
            format!("customer {} {when}, at {erased_at}", self.id),
            format!("change log  recorded as change {}; redacted: {seqs}", redaction.seq),
            format!("outbox      {} redacted", count(*intents, "intent")),
            format!("files       {removed} removed, {rewritten} rewritten"),
            format!("free pages  {clean}"),
            format!("WAL         {clean}"),
        ];
        lines.extend(self.left.iter().map(|Leftover { what, why }| format!("left        {what}: {why}")));
        lines.extend([format!("head        {head}"), format!("note        {BACKUPS}")]);
        lines
    }
}

/// Returns what the operator must handle in the outbox, the spool and the mirror.
fn left(erasure: &Erasure, spool_files: &ErasedFiles) -> Vec<Leftover> {
    let intents = erasure.kept.iter();
    let intents = intents.map(|(position, why)| Leftover::new(format!("intent at position {position}"), why));
    let files = spool_files.left.iter().map(|(path, why)| Leftover::new(path.display(), why.as_str()));
    let same_email = "has the same email; erase it too if it is the same person";
    let same = erasure.same_email.iter().map(|id| Leftover::new(format!("customer {id}"), same_email));
    intents.chain(files).chain(same).collect()
}

/// Removes the copies of this program that no process uses, and returns the others.
fn copies(database: &Path) -> anyhow::Result<Vec<Leftover>> {
    let real = place::real(database)?;
    let directory = place::directory(&real);
    let mut left = Vec::new();
    let mut add = |paths: Vec<PathBuf>, why: &str| {
        left.extend(paths.iter().map(|path| Leftover::new(path.display(), why)));
    };
    for prefix in [".komoju-sync-restore-", ".komoju-sync-backup-"] {
        add(
            signals::remove_abandoned(directory, prefix)?,
            "a copy of a running backup or restore, or one that could not be removed, may contain this customer: erase again when it is gone",
        );
    }
    add(
        place::files_in(directory, &place::prefix(&real, ".before-restore-")),
        "a restore kept it, and it may contain this customer: remove it when it is no longer needed",
    );
    add(
        place::files_in(&directory.join("backups"), ""),
        "it is a backup, and may contain this customer: remove it when it is no longer needed",
    );
    Ok(left)
}
