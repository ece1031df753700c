//! The loops that keep the mirror fresh between passes: reading the event list, and requesting the
//! customers that events name.

use std::time::Duration;

use super::App;
use crate::heartbeat;
use crate::store::StoreError;
use crate::tasks::events::{TailMemory, TailReport};
use crate::tasks::pull::HintWait;

/// AFTER_BUSY controls how long a loop pauses if another program keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(5);

/// LONGEST_WAIT controls how often the hints are checked without a notification.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl App {
    /// Reads the event list again and again until the work with this key stops. Without
    /// `events.enabled` it only waits for that.
    pub(super) async fn follow_events(&self) -> Result<(), StoreError> {
        let Some(tail) = &self.tail else {
            let _idle = heartbeat::idle();
            self.round.cancelled().await;
            return Ok(());
        };
        let mut memory = TailMemory::new(self.clock.elapsed());
        while !self.round.is_cancelled() {
            let report = match self.keeping_rate(tail.read(&mut memory)).await {
                Ok(report) => report,
                Err(e) if e.is_busy() => TailReport { wait: AFTER_BUSY, ..TailReport::default() },
                Err(e) => return Err(e),
            };
            if report.new > 0 {
                tracing::debug!(new = report.new, hinted = report.hinted, "events read");
            }
            if report.hinted > 0 {
                self.signals.hinted.notify_one();
            }
            if report.needs_sweep {
                self.signals.extra_sweep.notify_one();
            }
            let _idle = heartbeat::idle();
            tokio::select! {
                () = self.round.cancelled() => {}
                () = self.clock.sleep(report.wait) => {}
            }
        }
        Ok(())
    }

    /// Requests the customers that events name, until the work with this key stops.
    pub(super) async fn read_hinted(&self) -> Result<(), StoreError> {
        while !self.round.is_cancelled() {
            let HintWait { wait, is_blocked } = match self.keeping_rate(self.pull.read_hinted()).await {
                Ok(next) => next,
                Err(e) if e.is_busy() => HintWait { wait: Some(AFTER_BUSY), is_blocked: true },
                Err(e) => return Err(e),
            };
            let _idle = heartbeat::idle();
            tokio::select! {
                () = self.round.cancelled() => {}
                () = self.signals.hinted.notified(), if !is_blocked => {}
                () = self.clock.sleep(wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)) => {}
            }
        }
        Ok(())
    }
}
