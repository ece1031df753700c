//! Receipts are rewritten when their last intent settles; receipts and refused files expire.

use std::sync::Arc;

use jiff::Timestamp;

use super::{EXPIRE_EVERY, KEPT, Spool, cannot, file, papers};
use crate::store::StoreError;
use crate::store::outbox::spool::{self, Receipt};
use crate::tasks::spool::directories::Directories;
use komoju_core::time;

impl Spool {
    /// Rewrites the receipts whose last intent was settled, and removes those that are older than
    /// 30 days.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tend_receipts(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let settled = self.store.read(spool::newly_settled).await?;
        let before = self.expires_before().map(time::written).unwrap_or_default();
        let old = self.store.read(move |conn| spool::settled_before(conn, &before)).await?;
        if settled.is_empty() && old.is_empty() {
            return Ok(());
        }
        // The next look reports why they cannot be used.
        let Ok(directories) = self.directories(&mut state).await? else { return Ok(()) };
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for name in settled {
            let asked = name.clone();
            let Some(receipt) = self.store.read(move |conn| spool::receipt(conn, &asked)).await? else {
                continue;
            };
            match self.write_receipt(&directories, receipt).await? {
                Ok(()) => written.push(name),
                Err(why) => self.warn_of_receipt(&name, &why),
            }
        }
        for name in old {
            let (directories, receipt) = (Arc::clone(&directories), name.clone());
            match self.worker.run(move || papers::remove_receipt(&directories.receipts, &receipt)).await? {
                Ok(()) => removed.push(name),
                Err(error) => self.warn_of_receipt(&name, &cannot("it cannot be removed", &error)),
            }
        }
        let noted = self.store.write(move |tx| {
            written.iter().try_for_each(|name| spool::note_settled(tx, name))?;
            removed.iter().try_for_each(|name| spool::forget(tx, name))
        });
        noted.await
    }

    /// Removes the refused files that were put aside more than 30 days ago, at most once an hour. A
    /// door that takes no files removes none.
    ///
    /// # Errors
    /// The database failed, or its path leads elsewhere.
    pub async fn expire_rejected(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let is_early =
            state.expired_at.is_some_and(|last| self.clock.elapsed().saturating_sub(last) < EXPIRE_EVERY);
        if is_early || state.directories.is_none() {
            return Ok(());
        }
        let Some(before) = self.expires_before() else { return Ok(()) };
        // The next look reports why they cannot be used.
        let Ok(directories) = self.directories(&mut state).await? else { return Ok(()) };
        state.expired_at = Some(self.clock.elapsed());
        match self.worker.run(move || papers::remove_before(&directories.rejected, before)).await? {
            Ok(failed) => {
                for (name, error) in failed {
                    self.warn_of_refused(&name.to_string_lossy(), &cannot("it cannot be removed", &error));
                }
            }
            Err(error) => tracing::warn!("rejected/ cannot be read: {error}; {}", file::advice(&error)),
        }
        Ok(())
    }

    /// Records of what ended before this moment may be removed; `None` while the clock is not trusted.
    pub(super) fn expires_before(&self) -> Option<Timestamp> {
        self.clock.now().checked_sub(KEPT).ok().filter(|_| self.clock.may_expire())
    }

    pub(super) async fn write_receipt(
        &self,
        directories: &Arc<Directories>,
        receipt: Receipt,
    ) -> Result<Result<(), String>, StoreError> {
        let (of, masker) = (Arc::clone(directories), Arc::clone(&self.masker));
        let written = self.worker.run(move || papers::write_receipt(&of.receipts, &masker, &receipt)).await?;
        Ok(written
            .map_err(|error| cannot("its intents were accepted, but its receipt cannot be written", &error)))
    }

    pub(super) fn warn_of_receipt(&self, name: &str, why: &str) {
        let (file, why) = (self.masker.text(name), self.masker.text(why));
        tracing::warn!(file, "the receipt of {file} is out of date: {why}");
    }
}
