//! Conditions of the database that can pass: a full disk, exhausted file handles, a disk that fails
//! for some time.
//!
//! ```text
//!   work ─▶ fails ─▶ close everything ─▶ wait ─▶ open, recover, write ─▶ work
//!                                         ▲          │ fails
//!                                         └──────────┘
//! ```
//!
//! Only the file knows whether a failed commit took effect. So work in progress is dropped, as at
//! the end of a process, and everything is read again. The process keeps its locks, its readiness
//! and its listener.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{App, AppError, chain};
use crate::config::Config;
use crate::store::StoreError;
use crate::store::log::passes;
use komoju_core::{Attention, time};

/// FIRST_WAIT controls the first wait …
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);

/// … and LAST_WAIT, after doubling, the last one. Short, because a try costs little: without room
/// it writes nothing.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// LAST_WAIT_OF_MANY controls how long the first sweep waits at most if the condition returns after
/// each success. A sweep reads the whole list; all other work continues at once.
const LAST_WAIT_OF_MANY: Duration = Duration::from_secs(5 * 60);

/// IS_OVER_AFTER controls after how much work a condition counts as a new one.
const IS_OVER_AFTER: Duration = Duration::from_secs(60 * 60);

/// ALERT_AFTER controls how long a condition lasts before `alerts.command` runs: most are over by
/// then.
const ALERT_AFTER: Duration = Duration::from_secs(5);

/// A condition that can pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    since: String,
    why: String,
}

impl Trouble {
    /// Returns the condition that needs the operator's attention.
    pub(super) fn attention(&self) -> Attention {
        Attention::DatabaseUnusable(self.to_string())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "since {}: {}", self.since, self.why)
    }
}

impl App {
    /// Works until the stop, and waits for conditions that can pass.
    pub(super) async fn work_through_trouble(&self, config: &Config) -> Result<(), AppError> {
        // A condition that returns delays the next sweep longer each time, and nothing else.
        let (mut wait, mut sweep_after) = (FIRST_WAIT, Duration::ZERO);
        loop {
            let began = self.clock.elapsed();
            let failed = match self.work(config, sweep_after).await {
                Err(AppError::Store(e)) if e.is_transient() => e,
                Err(AppError::Store(e)) => self.back_in_place(e).await?,
                ended => return ended,
            };
            if self.round.is_cancelled() {
                tracing::error!("{}; interrupted work is retried at the next start", chain(&failed));
                return Ok(());
            }
            if self.clock.elapsed().saturating_sub(began) >= IS_OVER_AFTER {
                wait = FIRST_WAIT;
            }
            let sweep_from = self.clock.elapsed() + wait;
            self.until_usable(failed, wait.min(LAST_WAIT), &self.round).await?;
            sweep_after = sweep_from.saturating_sub(self.clock.elapsed());
            wait = (wait * 2).min(LAST_WAIT_OF_MANY);
        }
    }

    /// Waits until the database can be written again, or until `stop`; `wait` is the first pause.
    pub(super) async fn until_usable(
        &self,
        failed: StoreError,
        mut wait: Duration,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let _idle = self.heartbeats.each_ref().map(|heartbeat| heartbeat.idle());
        let began = self.clock.elapsed();
        let known = self.trouble.borrow().as_ref().map(|trouble| trouble.since.clone());
        let since = known.unwrap_or_else(|| time::written(self.clock.now()));
        let mut alert_from = began + ALERT_AFTER;
        self.have_trouble(&since, &failed);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.clock.sleep(wait) => {}
            }
            wait = (wait * 2).min(LAST_WAIT);
            match self.begin_again().await {
                Ok(()) => break,
                Err(e) if e.is_transient() => self.have_trouble(&since, &e),
                Err(e) => return Err(e),
            }
            if let Some(alerts) = &self.alerts
                && self.clock.elapsed() >= alert_from
            {
                let trouble = self.trouble.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
                let retry_in = alerts.report_database(&since, &trouble).await;
                alert_from = self.clock.elapsed() + retry_in.unwrap_or(Duration::MAX / 2);
            }
        }
        let lasted = self.clock.elapsed().saturating_sub(began).as_secs();
        tracing::warn!("the database is usable again after {lasted} s; the work continues");
        self.end_trouble();
        Ok(())
    }

    /// Records that the database can be used.
    pub(super) fn end_trouble(&self) {
        self.trouble.send_replace(None);
        self.instance.note_trouble(None);
    }

    /// Opens the database again and recovers what was interrupted, as at a start. Ends with a
    /// commit, which proves that there is room.
    async fn begin_again(&self) -> Result<(), StoreError> {
        self.store.reopen().await?;
        let at = time::written(self.clock.now());
        self.store.write(move |tx| passes::close_orphans(tx, &at)).await?;
        self.pusher.recover().await?;
        self.store.write(passes::prove_writable).await
    }

    /// Records and logs why the database cannot be used, if that is new.
    fn have_trouble(&self, since: &str, error: &StoreError) {
        let trouble = Trouble { since: since.to_owned(), why: chain(error) };
        if self.trouble.borrow().as_ref() == Some(&trouble) {
            return;
        }
        tracing::error!("{}; retrying until the condition is over", trouble.why);
        self.instance.note_trouble(Some(trouble.to_string()));
        self.trouble.send_replace(Some(trouble));
    }
}
