//! Takes one file through the steps that it still lacks: claim, read, accept or refuse, remove.

use std::sync::Arc;

use super::claim::{self, Claim};
use super::directories::Directories;
use super::file::{Plain, Unread, cannot};
use super::redact::ByLine;
use super::scan::{ending, why_claimed};
use super::{SWITCHED_OFF, ScanSummary, Spool, lines, rejected};
use crate::store::outbox::spool::{self, Accepted, BadLine, FileOutcome, SpoolFile};
use crate::store::{StoreError, Tx};
use komoju_core::format::count;
use komoju_core::plan::spool::FoundFile;
use komoju_core::time;

/// LONGEST_NAME limits a file's name, in bytes: its receipt has the name with `.json`.
const LONGEST_NAME: usize = 255 - ".json".len();

/// Why a file is not finished.
pub(super) enum Halt {
    /// The database failed.
    Database(StoreError),
    /// The file stays, for this reason.
    Stays(String),
    /// The file is being written to. Younger files wait for it, for a limited time.
    Changing,
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Database(error)
    }
}

impl Halt {
    /// The file is not read; this failed. `None` where the file does not exist any more.
    fn of(unread: Unread, what: &str) -> Option<Self> {
        match unread {
            Unread::Gone => None,
            Unread::Changing => Some(Self::Changing),
            Unread::Unfit(why) => Some(Self::Stays(why)),
            Unread::Failed(error) => Some(Self::Stays(cannot(what, &error))),
        }
    }
}

/// The content of a claimed file.
struct Content {
    bytes: Vec<u8>,
    /// Whether each line is an intent.
    by_line: ByLine,
}

impl Spool {
    /// Takes a file that is dropped, or that an earlier scan claimed.
    pub(super) async fn take_file(
        &self,
        at: &Arc<Directories>,
        file: FoundFile,
        summary: &mut ScanSummary,
    ) -> Result<(), Halt> {
        let (claim, accepted) = match file.claim.clone() {
            Some(id) => {
                let (name, key) = (file.name.clone(), id.clone());
                let accepted = self.store.read(move |conn| spool::accepted(conn, &name, &key)).await?;
                (Claim { id, file }, accepted)
            }
            None => match self.on_disk(at, |at| claim::claim(at, file)).await? {
                Ok(claim) => (claim, None),
                Err(unread) => return Halt::of(unread, "cannot be moved to .claimed/").map_or(Ok(()), Err),
            },
        };
        let asked = claim.clone();
        let (plain, bytes) = match self.on_disk(at, move |at| asked.read(at)).await? {
            Ok(read) => read,
            Err(Unread::Unfit(why)) => {
                return Err(match accepted {
                    None => self.put_back(at, claim, &why).await?,
                    // Put back, it would be accepted again. Its intents are accepted, and the receipt
                    // says so.
                    Some(_) => {
                        self.write_receipt_of(at, &claim.file.name).await?;
                        Halt::Stays(why_claimed(&why, &claim.file))
                    }
                });
            }
            Err(unread) => return Halt::of(unread, "is claimed and cannot be read").map_or(Ok(()), Err),
        };
        let by_line = ending(&claim.file.name).map_or(ByLine::No, |(_, by_line)| by_line);
        match accepted {
            Some(accepted) => {
                let late = Content { bytes: claim::late(bytes, &accepted), by_line };
                self.resume(at, &claim.file.name, late).await?;
            }
            None => self.accept(at, &claim, &plain.owner, Content { bytes, by_line }, summary).await?,
        }
        self.finish(at, claim, plain).await
    }

    /// Removes a file that is accepted or refused.
    async fn finish(&self, at: &Arc<Directories>, claim: Claim, plain: Plain) -> Result<(), Halt> {
        // What was recorded of the file must outlive this process.
        self.store.still_in_place()?;
        match self.on_disk(at, move |at| claim.finish(at, &plain)).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Halt::Changing),
            Err(error) => {
                Err(Halt::Stays(cannot("is dealt with, but cannot be removed from .claimed/", &error)))
            }
        }
    }

    /// Puts a claimed file back, because it may not be taken.
    async fn put_back(&self, at: &Arc<Directories>, claim: Claim, why: &str) -> Result<Halt, StoreError> {
        let file = FoundFile { claim: Some(claim.id.clone()), ..claim.file.clone() };
        let put_back = self.on_disk(at, move |at| claim.put_back(at)).await?;
        Ok(Halt::Stays(match put_back {
            Ok(()) => why.to_owned(),
            Err(error) => cannot(&why_claimed(why, &file), &error),
        }))
    }

    /// Resumes a claim that was accepted before: puts aside the bytes that arrived since, and writes
    /// the receipt.
    async fn resume(&self, at: &Arc<Directories>, name: &str, late: Content) -> Result<(), Halt> {
        if !late.bytes.is_empty() {
            let file = self.masker.text(name);
            let what = "was written to after it was read, and the rest cannot be kept";
            let explanation = format!("{file}:\n{}", rejected::LATE);
            let copy = self.put_aside(at, name, Arc::new(late), explanation, what).await?;
            tracing::warn!(
                file,
                copy,
                "{file} was written to after it was read: nothing of that was accepted, and it is now {copy}"
            );
        }
        self.write_receipt_of(at, name).await
    }

    /// Writes the receipt of an accepted file.
    async fn write_receipt_of(&self, at: &Arc<Directories>, name: &str) -> Result<(), Halt> {
        let name = name.to_owned();
        match self.store.read(move |conn| spool::receipt(conn, &name)).await? {
            Some(receipt) => self.write_receipt(at, receipt).await?.map_err(Halt::Stays),
            None => Ok(()),
        }
    }

    /// Accepts or refuses a file.
    async fn accept(
        &self,
        at: &Arc<Directories>,
        claim: &Claim,
        owner: &str,
        content: Content,
        summary: &mut ScanSummary,
    ) -> Result<(), Halt> {
        let (name, by_line, content) = (&claim.file.name, content.by_line, Arc::new(content));
        let file = self.masker.text(name);
        match self.record(at, claim, owner, Arc::clone(&content)).await? {
            FileOutcome::SwitchedOff => Err(self.put_back(at, claim.clone(), SWITCHED_OFF).await?),
            FileOutcome::Taken { new, receipt } => {
                drop(content);
                let intents = receipt.intents.len();
                let all = count(intents as u64, "intent");
                tracing::info!(file, intents, new, "{file} was taken: {all}, {new} new");
                summary.taken += 1;
                summary.intents += new;
                self.write_receipt(at, receipt).await?.map_err(Halt::Stays)
            }
            FileOutcome::Refused(bad) => {
                let why = rejected::first_sentence(&self.masker, by_line, &bad);
                let explanation = rejected::sentences(&self.masker, name, by_line, &bad);
                let what = format!("is refused ({why}), but cannot be copied to rejected/");
                let copy = self.put_aside(at, name, content, explanation, &what).await?;
                tracing::warn!(
                    file,
                    copy,
                    why,
                    "{file} was refused: {why}; it is now {copy}, with the reason beside it"
                );
                summary.refused += 1;
                Ok(())
            }
        }
    }

    /// Accepts all intents of a file in one transaction, or none.
    async fn record(
        &self,
        at: &Arc<Directories>,
        claim: &Claim,
        owner: &str,
        content: Arc<Content>,
    ) -> Result<FileOutcome, StoreError> {
        let Claim { id, file: FoundFile { name, .. } } = claim.clone();
        // Before the transaction: other writers do not wait for it.
        let hashed = Arc::clone(&content);
        let digest = self.on_disk(at, move |_| lines::digest(&hashed.bytes)).await?;
        let (by, at) = (owner.to_owned(), time::written(self.clock.now()));
        let work = move |tx: &Tx<'_>| {
            let Content { bytes, by_line } = &*content;
            let stem = ending(&name).map_or(name.as_str(), |(stem, _)| stem);
            let lines = lines::read(stem, &digest, bytes, *by_line);
            let lines = bad_name(&name).into_iter().map(Err).chain(lines);
            let accepted = Accepted { len: bytes.len() as u64, digest };
            spool::accept_file(tx, &SpoolFile { name: &name, by: &by, at: &at, claim: &id, accepted }, lines)
        };
        self.store.write(work).await
    }

    /// Copies content to `rejected/`. Returns the copy's path, safe to show; `what` is said where
    /// that fails.
    async fn put_aside(
        &self,
        at: &Arc<Directories>,
        name: &str,
        content: Arc<Content>,
        explanation: String,
        what: &str,
    ) -> Result<String, Halt> {
        let (name, masker, now) = (name.to_owned(), Arc::clone(&self.masker), self.clock.now());
        let copied = self.on_disk(at, move |at| {
            let Content { bytes, by_line } = &*content;
            rejected::keep(&at.rejected, &masker, now, &name, bytes, *by_line, &explanation)
        });
        match copied.await? {
            Ok(copy) => Ok(self.masker.text(&format!("rejected/{copy}"))),
            Err(error) => Err(Halt::Stays(cannot(what, &error))),
        }
    }
}

/// Returns what is wrong with the file's name, if anything.
fn bad_name(name: &str) -> Option<BadLine> {
    let words =
        format!("the file's name: must have at most {LONGEST_NAME} bytes, because its receipt adds `.json`");
    (name.len() > LONGEST_NAME).then_some(BadLine { number: 0, words })
}
