//! A new key for the running daemon.
//!
//! ```text
//!   SIGHUP ─▶ read the key again ─ it differs ─▶ stop the work with the old key ─▶ start with the new key
//! ```
//!
//! Invariant: no pass and no attempt uses two keys. The work with the old key ends before the work
//! with the new one is built. The new work begins like a start. The account guard runs before the
//! first page, and nothing is pushed before the guard has accepted the key.
//!
//! These designs were rejected:
//! - Replacing the key inside the client. A page or an attempt that waits for the rate limit would
//!   then be sent with a key that the guard has not checked.

use std::pin::pin;
use std::sync::Arc;

use super::trouble::FIRST_WAIT;
use super::{App, AppError};
use crate::config::Config;
use crate::daemon::systemd;
use crate::remote::Http;
use crate::secret::{SecretKey, SecretPlace, mask};

/// A key, and the client that sends it. The client is built while the work with the old key still
/// runs. So the old key stays in use if the client cannot be built.
struct NextKey {
    key: Arc<SecretKey>,
    remote: Arc<Http>,
}

impl App {
    /// Runs the daemon until the stop. Each time that `reload` returns, the key is read again.
    ///
    /// # Errors
    /// The database cannot be used, or was moved or replaced.
    pub async fn run(self, config: &Config, reload: impl AsyncFnMut()) -> Result<(), AppError> {
        let stop = self.stop.clone();
        systemd::announcing_stop(&stop, systemd::notify_stopping, self.run_with_keys(config, reload)).await
    }

    /// Runs with one key after the other until the stop.
    async fn run_with_keys(mut self, config: &Config, mut reload: impl AsyncFnMut()) -> Result<(), AppError> {
        loop {
            let next = {
                let mut work = pin!(self.run_with_key(config));
                tokio::select! {
                    biased;
                    ended = &mut work => return ended,
                    next = self.next_key(config, &mut reload) => {
                        self.round.cancel();
                        work.await?;
                        next
                    }
                }
            };
            match self.begin_with(config, next).await? {
                Some(next) => self = next,
                None => return Ok(()),
            }
        }
    }

    /// Returns a key that is not the one in use, once `reload` asks for it.
    async fn next_key(&self, config: &Config, reload: &mut impl AsyncFnMut()) -> NextKey {
        loop {
            reload().await;
            let (key, source) = match SecretKey::find(config.api.secret_key_file.as_deref(), &|name| {
                std::env::var_os(name)
            }) {
                Ok(found) => found,
                Err(e) => {
                    tracing::error!("SIGHUP: the current key stays in use: {}", super::chain(&e));
                    continue;
                }
            };
            if !matches!(source.place, SecretPlace::File { .. }) {
                tracing::warn!(
                    "SIGHUP: {source} is read only at the start; to change the key, run: systemctl restart komoju-sync"
                );
            } else if key.expose() == self.key.expose() {
                tracing::info!("SIGHUP: the key in {source} is unchanged");
            } else {
                for warning in key.warnings(&source) {
                    tracing::warn!("{warning}");
                }
                let remote = match Http::new(config, &key, Arc::clone(&self.clock)) {
                    Ok(remote) => Arc::new(remote),
                    Err(e) => {
                        tracing::error!("SIGHUP: the current key stays in use: {}", super::chain(&e));
                        continue;
                    }
                };
                tracing::info!("SIGHUP: new key in {source}; the account guard checks it before it is used");
                return NextKey { key: Arc::new(key), remote };
            }
        }
    }

    /// Starts the work with another key. Returns none if the stop is first. Meanwhile the
    /// watchdog is notified and the database is compared with its path, as during the work.
    async fn begin_with(&self, config: &Config, next: NextKey) -> Result<Option<Self>, AppError> {
        let _idle = self.heartbeats.each_ref().map(|heartbeat| heartbeat.idle());
        let beginning = async {
            tokio::select! {
                biased;
                begun = self.try_with(config, next) => begun,
                () = self.check_heartbeats() => Ok(None),
            }
        };
        self.in_place(beginning).await
    }

    /// Tries to build the work with another key, and waits for conditions that can pass.
    async fn try_with(&self, config: &Config, next: NextKey) -> Result<Option<Self>, AppError> {
        // Texts of the old work may reach the log or the database later.
        mask::remember(&self.key);
        while !self.stop.is_cancelled() {
            let trying = async {
                // The old work may have ended with a failed commit. Only the file knows whether the
                // commit took effect, so open the file again.
                self.store.reopen().await?;
                let (store, instance) = (Arc::clone(&self.store), Arc::clone(&self.instance));
                let (clock, stop) = (Arc::clone(&self.clock), self.stop.clone());
                let NextKey { key, remote } = &next;
                let (key, remote) = (Arc::clone(key), Arc::clone(remote));
                Self::with_key(store, instance, config, clock, key, remote, stop).await
            };
            match trying.await {
                Ok(next) => {
                    self.end_trouble();
                    let (statuses, health) = (self.statuses.clone(), self.health.clone());
                    let (status_requests, heartbeats) =
                        (self.status_requests.clone(), self.heartbeats.clone());
                    let (trouble, work_in_use) = (self.trouble.clone(), self.work_in_use.clone());
                    work_in_use.send_replace(next.work_in_use.borrow().clone());
                    // A webhook that used the work before may have woken only its loops.
                    next.signals.hinted.notify_one();
                    return Ok(Some(Self {
                        statuses,
                        status_requests,
                        health,
                        heartbeats,
                        trouble,
                        work_in_use,
                        ..next
                    }));
                }
                Err(AppError::Store(e)) if e.is_transient() => {
                    self.until_usable(e, FIRST_WAIT, &self.stop).await?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}
