//! Rewrites receipts when their last intent settles, and removes receipts and refused files that
//! are older than 30 days.

use std::sync::Arc;

use jiff::Timestamp;

use super::directories::Directories;
use super::file::{advice, cannot};
use super::{EXPIRE_EVERY, RETENTION, Spool, receipts, rejected};
use crate::store::StoreError;
use crate::store::outbox::spool::{self, Receipt};
use komoju_core::time;

impl Spool {
    /// Rewrites each receipt after its last intent settles, and removes receipts that are older
    /// than 30 days.
    ///
    /// # Errors
    /// The database failed.
    pub async fn update_receipts(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let before = self.expires_before().map(time::written).unwrap_or_default();
        let due = self
            .store
            .read(move |conn| Ok((spool::newly_settled(conn)?, spool::settled_before(conn, &before)?)));
        let (settled, old) = due.await?;
        if settled.is_empty() && old.is_empty() {
            return Ok(());
        }
        // The next scan reports why the directories cannot be used.
        let Ok(at) = self.directories(&mut state).await? else { return Ok(()) };
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for name in settled {
            let key = name.clone();
            let Some(receipt) = self.store.read(move |conn| spool::receipt(conn, &key)).await? else {
                continue;
            };
            match self.write_receipt(&at, receipt).await? {
                Ok(()) => written.push(name),
                Err(why) => self.warn_of_receipt(&name, &why),
            }
        }
        for name in old {
            let key = name.clone();
            match self.on_disk(&at, move |at| receipts::remove(&at.receipts, &key)).await? {
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

    /// Removes the copies in `rejected/` that are older than 30 days, at most once an hour. A door
    /// that takes no files removes none.
    ///
    /// # Errors
    /// The thread for file operations cannot be started, or it ended.
    pub async fn expire_rejected(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let now = self.clock.elapsed();
        let is_early = state.expired_at.is_some_and(|last| now.saturating_sub(last) < EXPIRE_EVERY);
        if is_early || state.directories.is_none() {
            return Ok(());
        }
        let Some(before) = self.expires_before() else { return Ok(()) };
        // The next scan reports why the directories cannot be used.
        let Ok(at) = self.directories(&mut state).await? else { return Ok(()) };
        state.expired_at = Some(now);
        match self.on_disk(&at, move |at| rejected::remove_before(&at.rejected, before)).await? {
            Ok(failed) => {
                for (name, error) in failed {
                    let file = self.masker.name(&name.to_string_lossy());
                    let why = cannot("it cannot be removed", &error);
                    tracing::warn!(file, "rejected/{file} is older than 30 days: {why}");
                }
            }
            Err(error) => tracing::warn!("rejected/ cannot be read: {error}; {}", advice(&error)),
        }
        Ok(())
    }

    /// Returns the moment before which records may be removed; `None` while the clock is not
    /// trusted.
    fn expires_before(&self) -> Option<Timestamp> {
        self.clock.now().checked_sub(RETENTION).ok().filter(|_| self.clock.may_expire())
    }

    /// Writes a receipt. The inner error says why it cannot be written.
    pub(super) async fn write_receipt(
        &self,
        at: &Arc<Directories>,
        receipt: Receipt,
    ) -> Result<Result<(), String>, StoreError> {
        let masker = Arc::clone(&self.masker);
        let written = self.on_disk(at, move |at| receipts::write(&at.receipts, &masker, &receipt)).await?;
        Ok(written
            .map_err(|error| cannot("its intents were accepted, but its receipt cannot be written", &error)))
    }

    fn warn_of_receipt(&self, name: &str, why: &str) {
        let (file, why) = (self.masker.name(name), self.masker.text(why));
        tracing::warn!(file, "the receipt of {file} is out of date: {why}");
    }
}
