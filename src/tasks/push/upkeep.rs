//! Upkeep: copies of settled tokens, and of what was erased, leave the file while nothing else is to be done.

use std::time::Duration;

use super::{Pusher, Run};
use crate::store::{StoreError, erase, outbox};

/// In how long the whole file is written anew for an erasure where that failed.
const REWRITE_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);

impl<R> Pusher<R> {
    /// Takes copies of settled tokens, and of what was erased, out of free space and WAL, as far as no reader holds them. It is tried
    /// again later where one does (`false`), so a failure is no more than said.
    pub(super) async fn sweep_tokens_away(&self, run: &mut Run) -> bool {
        let swept = async {
            let now = self.clock.elapsed();
            let mut rewritten = Ok(Some(()));
            if now >= run.rewrite_from && self.store.read(erase::is_unscrubbed).await? {
                // It costs as much as all there is: where it fails, it is not tried again at once.
                run.rewrite_from = now + REWRITE_AGAIN_AFTER;
                rewritten = self.store.rewrite_unless(self.stop.cancelled()).await;
                if matches!(rewritten, Ok(Some(()))) {
                    run.rewrite_from = now;
                }
            }
            // Tokens leave by the time of a stop; for an erasure there may be no time, or no room.
            let left = self.store.read(outbox::left_over_tokens).await?;
            if left > 1 {
                self.store.write(outbox::scrub).await?;
            }
            let emptied = left == 0 || self.store.empty_wal().await?;
            if left > 0 && emptied {
                self.store.write(outbox::note_scrubbed).await?;
            }
            Ok::<_, StoreError>(rewritten?.is_some() && emptied)
        };
        swept.await.unwrap_or_else(|e| {
            tracing::warn!(
                "copies of settled payment tokens, or of what was erased, could not be overwritten yet: {e}"
            );
            false
        })
    }
}
