//! `erase`: removes a deleted customer's data from all that this program keeps, with a receipt.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::parse_id;
use super::print::{self, Out, Style, count};
use super::{ConfigFile, Exit, signals};
use crate::clock::{Clock, SystemClock};
use crate::store::file::{place, readers};
use crate::store::outbox::erase::{self, Erasure};
use crate::store::{Wiped, wipe_beside};
use crate::tasks::spool::erase::{self as files, ErasedFiles};
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
pub(super) struct EraseArgs {
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
struct Leftover {
    what: String,
    why: String,
}

impl Leftover {
    fn new(what: impl ToString, why: &str) -> Self {
        Self { what: what.to_string(), why: why.to_owned() }
    }
}

/// What was erased, and what is left.
struct Receipt<'a> {
    id: &'a CustomerId,
    erasure: Erasure,
    spool_files: ErasedFiles,
    wiped: Wiped,
    left: Vec<Leftover>,
}

pub(super) fn run(config: &ConfigFile, args: &EraseArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let database = &config.database.path;
    let at = time::written(SystemClock::new().now());
    let ((erasure, spool_files), wiped) = wipe_beside(database, |tx| {
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
        let clean = if self.wiped == Wiped::Clean { "clean" } else { "not yet clean" };
        let seqs = redaction.redacted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (removed, rewritten) =
            (count(self.spool_files.removed, "file"), count(self.spool_files.rewritten, "receipt"));
        let mut lines = vec![
            format!("customer {} {when}, at {erased_at}", self.id),
            format!("change log  change {} says so; redacted: {seqs}", redaction.seq),
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

/// Returns what in the outbox, the spool and the mirror needs the operator.
fn left(erasure: &Erasure, spool_files: &ErasedFiles) -> Vec<Leftover> {
    let intents = erasure.kept.iter();
    let intents = intents.map(|(position, why)| Leftover::new(format!("intent at position {position}"), why));
    let files = spool_files.left.iter().map(|(path, why)| Leftover::new(path.display(), why.as_str()));
    let same_email = "has the same email; erase it too where it is the same person";
    let same = erasure.same_email.iter().map(|id| Leftover::new(format!("customer {id}"), same_email));
    intents.chain(files).chain(same).collect()
}

/// Removes this program's own copies that no process works on; returns the others.
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
            "a backup or restore that is under way, or could not be removed, may hold this customer: erase again after it",
        );
    }
    add(
        place::files_in(directory, &place::prefix(&real, ".before-restore-")),
        "it was kept by a restore, and may hold this customer: remove it when it is of no more use",
    );
    add(
        place::files_in(&directory.join("backups"), ""),
        "it is a backup, and may hold this customer: remove it when it is of no more use",
    );
    Ok(left)
}
