//! Performs the remaining steps of one file: claim, read, accept or refuse, remove.

use std::sync::Arc;

use super::claim::{self, Claim};
use super::directories::Directories;
use super::file::{OpenedFile, ReadError, cannot};
use super::redact::FileFormat;
use super::scan::{ending, why_claimed};
use super::{SWITCHED_OFF, ScanSummary, Spool, lines, rejected};
use crate::store::outbox::spool::{self, AcceptedBytes, BadLine, FileOutcome, SpoolFile};
use crate::store::{StoreError, Tx};
use komoju_core::format::count;
use komoju_core::plan::spool::FoundFile;
use komoju_core::time;

/// LONGEST_NAME limits a file's name, in bytes, because its receipt adds `.json` to the name.
const LONGEST_NAME: usize = 255 - ".json".len();

/// Why a file is not finished.
pub(super) enum TakeError {
    /// The database failed.
    Database(StoreError),
    /// The file is skipped, for this reason.
    Skip(String),
    /// The file is being written to. Younger files wait for it for a limited time.
    Changing,
}

impl From<StoreError> for TakeError {
    fn from(error: StoreError) -> Self {
        Self::Database(error)
    }
}

impl TakeError {
    /// Converts a failure to read the file. `what` names the step that failed. `None` if the file
    /// does not exist any more.
    fn of(unread: ReadError, what: &str) -> Option<Self> {
        match unread {
            ReadError::Gone => None,
            ReadError::Changing => Some(Self::Changing),
            ReadError::Unfit(why) => Some(Self::Skip(why)),
            ReadError::Failed(error) => Some(Self::Skip(cannot(what, &error))),
        }
    }
}

/// The content of a claimed file.
struct Content {
    bytes: Vec<u8>,
    /// Whether it is one intent, or one on each line.
    format: FileFormat,
}

impl Spool {
    /// Takes a file that was dropped, or that an earlier scan claimed.
    pub(super) async fn take_file(
        &self,
        at: &Arc<Directories>,
        file: FoundFile,
        summary: &mut ScanSummary,
    ) -> Result<(), TakeError> {
        let (claim, accepted) = match file.claim.clone() {
            Some(id) => {
                let (name, key) = (file.name.clone(), id.clone());
                let accepted = self.store.read(move |conn| spool::accepted(conn, &name, &key)).await?;
                (Claim { id, file }, accepted)
            }
            None => match self.on_disk(at, |at| claim::claim(at, file)).await? {
                Ok(claim) => (claim, None),
                Err(unread) => {
                    return TakeError::of(unread, "cannot be moved to .claimed/").map_or(Ok(()), Err);
                }
            },
        };
        let to_read = claim.clone();
        let (opened, bytes) = match self.on_disk(at, move |at| to_read.read(at)).await? {
            Ok(read) => read,
            Err(ReadError::Unfit(why)) => {
                return Err(match accepted {
                    None => self.put_back(at, claim, &why).await?,
                    // Do not put it back, because it would be accepted again. Its intents are
                    // accepted, and the receipt says so.
                    Some(_) => {
                        self.write_receipt_of(at, &claim.file.name).await?;
                        TakeError::Skip(why_claimed(&why, &claim.file))
                    }
                });
            }
            Err(unread) => return TakeError::of(unread, "is claimed and cannot be read").map_or(Ok(()), Err),
        };
        let format = ending(&claim.file.name).map_or(FileFormat::Json, |(_, format)| format);
        match accepted {
            Some(accepted) => {
                let late = Content { bytes: claim::late(bytes, &accepted), format };
                self.resume(at, &claim.file.name, late).await?;
            }
            None => self.accept(at, &claim, &opened.owner, Content { bytes, format }, summary).await?,
        }
        self.finish(at, claim, opened).await
    }

    /// Removes a file that was accepted or refused.
    async fn finish(&self, at: &Arc<Directories>, claim: Claim, opened: OpenedFile) -> Result<(), TakeError> {
        // The database that recorded the file must still be at its path: otherwise the record is
        // lost with this process.
        self.store.still_in_place()?;
        match self.on_disk(at, move |at| claim.finish(at, &opened)).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(TakeError::Changing),
            Err(error) => {
                Err(TakeError::Skip(cannot("is finished, but cannot be removed from .claimed/", &error)))
            }
        }
    }

    /// Puts a claimed file back, because it may not be taken.
    async fn put_back(
        &self,
        at: &Arc<Directories>,
        claim: Claim,
        why: &str,
    ) -> Result<TakeError, StoreError> {
        let file = FoundFile { claim: Some(claim.id.clone()), ..claim.file.clone() };
        let put_back = self.on_disk(at, move |at| claim.put_back(at)).await?;
        Ok(TakeError::Skip(match put_back {
            Ok(()) => why.to_owned(),
            Err(error) => cannot(&why_claimed(why, &file), &error),
        }))
    }

    /// Resumes a claim that was accepted before: copies the bytes that arrived since to
    /// `rejected/`, and writes the receipt.
    async fn resume(&self, at: &Arc<Directories>, name: &str, late: Content) -> Result<(), TakeError> {
        if !late.bytes.is_empty() {
            let file = self.masker.name(name);
            let what = "was written to after it was read, and the late bytes cannot be kept";
            let explanation = format!("{file}:\n{}", rejected::LATE);
            let copy = self.put_aside(at, name, Arc::new(late), explanation, what).await?;
            tracing::warn!(
                file,
                copy,
                "{file} was written to after it was read: the late bytes are not accepted, and are now {copy}"
            );
        }
        self.write_receipt_of(at, name).await
    }

    /// Writes the receipt of an accepted file.
    async fn write_receipt_of(&self, at: &Arc<Directories>, name: &str) -> Result<(), TakeError> {
        let name = name.to_owned();
        match self.store.read(move |conn| spool::receipt(conn, &name)).await? {
            Some(receipt) => self.write_receipt(at, receipt).await?.map_err(TakeError::Skip),
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
    ) -> Result<(), TakeError> {
        let (name, format, content) = (&claim.file.name, content.format, Arc::new(content));
        let file = self.masker.name(name);
        match self.record(at, claim, owner, Arc::clone(&content)).await? {
            FileOutcome::SwitchedOff => Err(self.put_back(at, claim.clone(), SWITCHED_OFF).await?),
            FileOutcome::Taken { new, receipt } => {
                drop(content);
                let intents = receipt.intents.len();
                let all = count(intents as u64, "intent");
                tracing::info!(file, intents, new, "{file} was taken: {all}, {new} new");
                summary.taken += 1;
                summary.intents += new;
                self.write_receipt(at, receipt).await?.map_err(TakeError::Skip)
            }
            FileOutcome::Refused(bad) => {
                let why = rejected::first_sentence(&self.masker, format, &bad);
                let explanation = rejected::sentences(&self.masker, name, format, &bad);
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
        // Hash before the transaction, so that other writers do not wait for it.
        let hashed = Arc::clone(&content);
        let digest = self.on_disk(at, move |_| lines::digest(&hashed.bytes)).await?;
        let (by, at) = (owner.to_owned(), time::written(self.clock.now()));
        let work = move |tx: &Tx<'_>| {
            let Content { bytes, format } = &*content;
            let stem = ending(&name).map_or(name.as_str(), |(stem, _)| stem);
            let lines = lines::read(stem, &digest, bytes, *format);
            let lines = bad_name(&name).into_iter().map(Err).chain(lines);
            let accepted = AcceptedBytes { len: bytes.len() as u64, digest };
            spool::accept_file(tx, &SpoolFile { name: &name, by: &by, at: &at, claim: &id, accepted }, lines)
        };
        self.store.write(work).await
    }

    /// Copies content to `rejected/`. Returns the copy's path, safe to show. `what` begins the
    /// message of a failure.
    async fn put_aside(
        &self,
        at: &Arc<Directories>,
        name: &str,
        content: Arc<Content>,
        explanation: String,
        what: &str,
    ) -> Result<String, TakeError> {
        let (name, masker, now) = (name.to_owned(), Arc::clone(&self.masker), self.clock.now());
        let copied = self.on_disk(at, move |at| {
            let Content { bytes, format } = &*content;
            rejected::keep(&at.rejected, &masker, now, &name, bytes, *format, &explanation)
        });
        match copied.await? {
            Ok(copy) => Ok(self.masker.name(&format!("rejected/{copy}"))),
            Err(error) => Err(TakeError::Skip(cannot(what, &error))),
        }
    }
}

/// Returns what is wrong with the file's name, if anything.
fn bad_name(name: &str) -> Option<BadLine> {
    let words =
        format!("the file's name: must have at most {LONGEST_NAME} bytes, because its receipt adds `.json`");
    (name.len() > LONGEST_NAME).then_some(BadLine { number: 0, reason: words })
}
