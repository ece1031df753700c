//! The database stays where its path leads: compared while the daemon works, and saved where it does not.

use std::time::Duration;

use super::App;
use crate::store::StoreError;
use crate::store::file::continuity;

/// Controls how often the files of the database are compared with their paths.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// Controls after how long a path that leads elsewhere is compared once more: a file that is moved away and back is no displacement.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);

impl App {
    /// Runs `work` as long as the path leads to the open database, and notes at its end how far the change log has come.
    ///
    /// # Errors
    /// Those of `work`; and [`StoreError::Displaced`] where the path leads elsewhere. What the open database holds is saved then.
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
            tracing::error!("{} leads elsewhere; what it held is being saved", self.database.display());
            return Err(self.store.save_displaced(stamp).await.into());
        }
        if let Ok(mark) = self.store.read(continuity::mark).await {
            self.instance.note_log(mark);
        }
        ended
    }

    async fn compare_places(&self) -> StoreError {
        loop {
            // Not by `clock`: where a test's clock moves by being waited for, this would move it without an end.
            tokio::time::sleep(COMPARE_EVERY).await;
            if let Some(displaced) = self.displaced_for_good().await {
                return displaced;
            }
            self.instance.keep_lock_file();
        }
    }

    /// The displacement, if the path leads elsewhere now and a moment later.
    async fn displaced_for_good(&self) -> Option<StoreError> {
        self.store.still_in_place().err()?;
        tokio::time::sleep(COMPARE_AGAIN).await;
        self.store.still_in_place().err()
    }

    /// Returns what to wait for if `failed` says that the path led elsewhere, and it does not any more.
    ///
    /// # Errors
    /// `failed`, in every other case.
    pub(super) async fn back_in_place(&self, failed: StoreError) -> Result<StoreError, StoreError> {
        let StoreError::Displaced { path, what, .. } = failed else { return Err(failed) };
        match self.displaced_for_good().await {
            Some(displaced) => Err(displaced),
            None => Ok(StoreError::Displaced { path, what, way_back: "It is back in its place".to_owned() }),
        }
    }
}
