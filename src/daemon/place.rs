//! Watches that the path of the database still leads to the open file, and saves the file if not.

use std::time::Duration;

use super::App;
use crate::store::StoreError;
use crate::store::file::continuity;

/// COMPARE_EVERY controls how often the files of the database are compared with their paths.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// COMPARE_AGAIN controls how soon a path that leads elsewhere is compared once more. A file that
/// is moved away and back is not displaced.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);

impl App {
    /// Runs `work` while the path leads to the open database, and records the head of the change
    /// log in the lock file at the end.
    ///
    /// # Errors
    /// The errors of `work`, and [`StoreError::Displaced`] if the path leads elsewhere. The content
    /// of the open database is saved then.
    pub async fn in_place<T, E: From<StoreError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let ended = tokio::select! {
            biased;
            ended = work => ended,
            displaced = self.compare_places() => Err(displaced.into()),
        };
        if self.displaced_for_good().await.is_some() {
            let stamp = self.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
            tracing::error!("{} was moved or replaced; saving the open database", self.database.display());
            return Err(self.store.save_displaced(stamp).await.into());
        }
        if let Ok(mark) = self.store.read(continuity::mark).await {
            self.instance.note_log(mark);
        }
        ended
    }

    /// Compares until the path leads elsewhere, and returns that error.
    async fn compare_places(&self) -> StoreError {
        loop {
            // Not by `clock`: a sleep moves the clock of a test, so this loop would move it without
            // end.
            tokio::time::sleep(COMPARE_EVERY).await;
            if let Some(displaced) = self.displaced_for_good().await {
                return displaced;
            }
            self.instance.keep_lock_file();
        }
    }

    /// Returns the displacement, if the path leads elsewhere both now and a moment later.
    async fn displaced_for_good(&self) -> Option<StoreError> {
        self.store.still_in_place().err()?;
        tokio::time::sleep(COMPARE_AGAIN).await;
        self.store.still_in_place().err()
    }

    /// Returns `failed` as a condition to wait for, if it says that the path led elsewhere and the
    /// path leads to the open file again.
    ///
    /// # Errors
    /// `failed` in every other case.
    pub(super) async fn back_in_place(&self, failed: StoreError) -> Result<StoreError, StoreError> {
        let StoreError::Displaced { path, what, .. } = failed else { return Err(failed) };
        match self.displaced_for_good().await {
            Some(displaced) => Err(displaced),
            None => Ok(StoreError::Displaced { path, what, way_back: "It is back in its place".to_owned() }),
        }
    }
}
