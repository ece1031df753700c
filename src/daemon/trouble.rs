//! Conditions of the database that can pass: a full disk, exhausted file handles, a disk that fails for a while.
//!
//! ```text
//!   work ─▶ fails ─▶ everything is closed ─▶ wait ─▶ open, recover, write ─▶ work
//!                                             ▲          │ fails
//!                                             └──────────┘
//! ```
//!
//! Whether a commit that failed took effect is known only to the file. So what was under way is dropped, as at the end of a process,
//! and everything is read again. The process keeps its locks, its readiness and its listener meanwhile.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{App, AppError, chain};
use crate::config::Config;
use crate::store::StoreError;
use crate::store::log::passes;
use komoju_core::{Attention, time};

/// Controls the first wait …
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);

/// … and, after doubling, the last one. Short, because a try costs little: without room it writes nothing.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Controls how long the first sweep waits at last after a condition that comes back after each success: each time the whole list is
/// read again. All else continues at once.
const LAST_WAIT_OF_MANY: Duration = Duration::from_secs(5 * 60);

/// Controls after how much work a condition does not count as coming back.
const IS_OVER_AFTER: Duration = Duration::from_secs(60 * 60);

/// Controls how long a condition lasts before `alerts.command` is run for it: most are over by then.
const ALERT_AFTER: Duration = Duration::from_secs(5);

/// A condition that can pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    since: String,
    why: String,
}

impl Trouble {
    /// The condition that this is for an operator.
    pub(super) fn attention(&self) -> Attention {
        Attention::DatabaseUnusable { trouble: self.to_string() }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "since {}: {}", self.since, self.why)
    }
}

impl App {
    /// Works until told to stop, and waits for what can pass.
    pub(super) async fn work_through_trouble(&self, config: &Config) -> Result<(), AppError> {
        // A condition that comes back delays the next sweep longer each time, and nothing else.
        let (mut wait, mut sweep_after) = (FIRST_WAIT, Duration::ZERO);
        loop {
            let began = self.clock.elapsed();
            let failed = match self.work(config, sweep_after).await {
                Err(AppError::Store(e)) if e.can_pass() => e,
                Err(AppError::Store(e)) => self.back_in_place(e).await?,
                ended => return ended,
            };
            if self.round.is_cancelled() {
                tracing::error!("{}; what was under way is tried again at the next start", chain(&failed));
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

    /// Waits until the database can be written again, or until `stop`; at first as long as given.
    pub(super) async fn until_usable(
        &self,
        failed: StoreError,
        mut wait: Duration,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let _idle = self.pulses.each_ref().map(|pulse| pulse.idle());
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
                Err(e) if e.can_pass() => self.have_trouble(&since, &e),
                Err(e) => return Err(e),
            }
            if let Some(alerts) = &self.alerts
                && self.clock.elapsed() >= alert_from
            {
                let trouble = self.trouble.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
                let told = alerts.tell_database(&since, &trouble).await;
                alert_from = self.clock.elapsed() + told.unwrap_or(Duration::MAX / 2);
            }
        }
        let lasted = self.clock.elapsed().saturating_sub(began).as_secs();
        tracing::warn!("the database can be used again, after {lasted} s; everything continues");
        self.end_trouble();
        Ok(())
    }

    pub(super) fn end_trouble(&self) {
        self.trouble.send_replace(None);
        self.instance.note_trouble(None);
    }

    /// As at a start: opens the database again, and takes up what was cut off. Ends with a commit, which proves that there is room.
    async fn begin_again(&self) -> Result<(), StoreError> {
        self.store.reopen().await?;
        let at = time::written(self.clock.now());
        self.store.write(move |tx| passes::close_orphans(tx, &at)).await?;
        self.pusher.recover().await?;
        self.store.write(passes::prove_writable).await
    }

    fn have_trouble(&self, since: &str, error: &StoreError) {
        let trouble = Trouble { since: since.to_owned(), why: chain(error) };
        if self.trouble.borrow().as_ref() == Some(&trouble) {
            return;
        }
        tracing::error!("{}; it is tried again until that is over", trouble.why);
        self.instance.note_trouble(Some(trouble.to_string()));
        self.trouble.send_replace(Some(trouble));
    }
}
