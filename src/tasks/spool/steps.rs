//! Handles one claimed file: reads it, accepts or refuses it, and moves it to its place.

use std::io;
use std::sync::Arc;

use super::{AGAIN, Handled, Look, SWITCHED_OFF, Spool, State, bad_name, cannot, claim, lines, papers};
use crate::store::StoreError;
use crate::store::outbox::spool::{self, Accepted, BadLines, Judged, SpoolFile};
use crate::tasks::spool::claim::Claim;
use crate::tasks::spool::directories::Directories;
use crate::tasks::spool::file::{Opened, Stamp};
use crate::tasks::spool::listing::ending;
use crate::tasks::spool::papers::Aside;
use crate::tasks::spool::redact::ByLine;
use komoju_core::time;
use komoju_core::words::count;

impl Spool {
    /// Processes a claimed file. `seen` is the file's stamp where it was just claimed.
    pub(super) async fn proceed(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        seen: Option<Stamp>,
        state: &mut State,
        look: &mut Look,
    ) -> Result<Handled, StoreError> {
        let Some((_, by_line)) = ending(&claim.name) else {
            self.leave(look, &claim.key(), "is none of the files that are taken: remove it");
            return Ok(Handled::Stays);
        };
        let (of, asked) = (Arc::clone(directories), claim.clone());
        let plain = match self.worker.run(move || asked.open(&of)).await? {
            Err(error) => return Ok(self.stays(look, claim, "is claimed and cannot be opened", &error)),
            Ok(Opened::Gone) => return Ok(Handled::Finished),
            Ok(Opened::Left(why)) => return self.put_back(directories, claim, &why, look).await,
            Ok(Opened::Plain(plain)) => plain,
        };
        // Another file may have taken the name before it was claimed: that one may still be
        // written.
        let is_ready = seen.is_some_and(|seen| plain.stamp.is_same_content(&seen));
        if !is_ready && let Some(wait) = state.unstill.wait(&claim.key(), plain.stamp, &*self.clock) {
            return Ok(match look.waits_for(wait, state.unstill.delay(&claim.key(), &*self.clock)) {
                true => Handled::Delays,
                false => Handled::Stays,
            });
        }
        let plain = Arc::new(plain);
        let of = Arc::clone(&plain);
        let content = match self.worker.run(move || of.read()).await? {
            Err(error) => return Ok(self.stays(look, claim, "is claimed and cannot be read", &error)),
            Ok(None) => {
                look.again_in(AGAIN);
                return Ok(Handled::Stays);
            }
            Ok(Some(content)) => content,
        };
        let (name, id) = (claim.name.clone(), claim.id.clone());
        let accepted = match seen {
            Some(_) => None,
            None => self.store.read(move |conn| spool::accepted(conn, &name, &id)).await?,
        };
        let dealt_with = match accepted {
            Some(accepted) => self.catch_up(directories, claim, content, by_line, &accepted).await?,
            None => match self.judge(directories, claim, &plain.owner, content, by_line, look).await? {
                Some(done) => done,
                None => return self.put_back(directories, claim, SWITCHED_OFF, look).await,
            },
        };
        if let Err(why) = dealt_with {
            self.leave(look, &claim.name, &why);
            return Ok(Handled::Stays);
        }
        // What was recorded of the file must outlive this process.
        self.store.still_in_place()?;
        let (of, asked) = (Arc::clone(directories), claim.clone());
        match self.worker.run(move || asked.finish(&of, &plain)).await? {
            Err(error) => {
                Ok(self.stays(look, claim, "is dealt with, but cannot be removed from .claimed/", &error))
            }
            Ok(false) => {
                look.again_in(AGAIN);
                Ok(Handled::Stays)
            }
            Ok(true) => {
                state.unstill.forget(&claim.key());
                Ok(Handled::Finished)
            }
        }
    }

    pub(super) fn stays(&self, look: &mut Look, claim: &Claim, what: &str, error: &io::Error) -> Handled {
        self.leave(look, &claim.name, &cannot(what, error));
        Handled::Stays
    }

    pub(super) async fn put_back(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        why: &str,
        look: &mut Look,
    ) -> Result<Handled, StoreError> {
        self.leave(look, &claim.name, why);
        let (of, asked) = (Arc::clone(directories), claim.clone());
        Ok(match self.worker.run(move || asked.put_back(&of)).await? {
            Ok(()) => Handled::Finished,
            Err(error) => self.stays(look, claim, &format!("{why}; it lies in {}", claim.key()), &error),
        })
    }

    /// A claim that was accepted before the last process ended: writes its receipt, and puts aside
    /// what arrived since.
    pub(super) async fn catch_up(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        content: Vec<u8>,
        by_line: ByLine,
        accepted: &Accepted,
    ) -> Result<Result<(), String>, StoreError> {
        let late = claim::late(content, accepted);
        if !late.is_empty() {
            let (of, masker, name) = (Arc::clone(directories), Arc::clone(&self.masker), claim.name.clone());
            let now = self.clock.now();
            let kept = self.worker.run(move || {
                let aside = Aside { rejected: &of.rejected, masker: &masker, now };
                papers::put_late_aside(aside, &name, &late, by_line)
            });
            match kept.await? {
                Ok(copy) => {
                    let copy = self.masker.text(&format!("rejected/{copy}"));
                    let file = self.masker.text(&claim.name);
                    tracing::warn!(
                        file,
                        copy,
                        "{file} was written to after it was read: nothing of that was accepted, and it is now {copy}"
                    );
                }
                Err(error) => {
                    let what = "was written to after it was read, and the rest cannot be kept";
                    return Ok(Err(cannot(what, &error)));
                }
            }
        }
        let name = claim.name.clone();
        match self.store.read(move |conn| spool::receipt(conn, &name)).await? {
            Some(receipt) => self.write_receipt(directories, receipt).await,
            None => Ok(Ok(())),
        }
    }

    /// Accepts or refuses a file; `None` where nothing is accepted just now.
    pub(super) async fn judge(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        owner: &str,
        content: Vec<u8>,
        by_line: ByLine,
        look: &mut Look,
    ) -> Result<Option<Result<(), String>>, StoreError> {
        let content = Arc::new(content);
        let (read, name) = (Arc::clone(&content), claim.name.clone());
        let digest = self.worker.run(move || lines::digest(&read)).await?;
        let file = SpoolFile {
            name: name.clone(),
            by: owner.to_owned(),
            at: time::written(self.clock.now()),
            claim: claim.id.clone(),
            content: Accepted { len: content.len() as u64, digest },
        };
        let read = Arc::clone(&content);
        let judged = self.store.write(move |tx| {
            let stem = ending(&name).map_or(name.as_str(), |(stem, _)| stem);
            let lines = bad_name(&name).into_iter().map(Err).chain(lines::read(stem, &read, by_line));
            spool::accept_file(tx, &file, lines)
        });
        Ok(match judged.await? {
            Judged::SwitchedOff => None,
            Judged::Taken { new, receipt } => {
                drop(content);
                let (file, intents) = (self.masker.text(&claim.name), receipt.intents.len());
                tracing::info!(
                    file,
                    intents,
                    new,
                    "{file} was taken: {}, {new} new",
                    count(intents as u64, "intent")
                );
                look.sums.taken += 1;
                look.sums.intents += new;
                Some(self.write_receipt(directories, receipt).await?)
            }
            Judged::Refused(bad) => {
                let put_aside = self.put_aside(directories, &claim.name, content, by_line, bad).await?;
                look.sums.refused += u64::from(put_aside.is_ok());
                Some(put_aside)
            }
        })
    }

    pub(super) async fn put_aside(
        &self,
        directories: &Arc<Directories>,
        name: &str,
        content: Arc<Vec<u8>>,
        by_line: ByLine,
        bad: BadLines,
    ) -> Result<Result<(), String>, StoreError> {
        let why =
            bad.first.first().map(|bad| papers::sentence(&self.masker, by_line, bad)).unwrap_or_default();
        let (of, masker, asked) = (Arc::clone(directories), Arc::clone(&self.masker), name.to_owned());
        let now = self.clock.now();
        let copied = self.worker.run(move || {
            let aside = Aside { rejected: &of.rejected, masker: &masker, now };
            papers::put_aside(aside, &asked, &content, by_line, &bad)
        });
        Ok(match copied.await? {
            Ok(copy) => {
                let (file, copy) = (self.masker.text(name), self.masker.text(&format!("rejected/{copy}")));
                tracing::warn!(
                    file,
                    copy,
                    why,
                    "{file} was refused: {why}; it is now {copy}, with the reason beside it"
                );
                Ok(())
            }
            Err(error) => {
                Err(cannot(&format!("is refused ({why}), but cannot be copied to rejected/"), &error))
            }
        })
    }
}
