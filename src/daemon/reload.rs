//! A new key for the daemon that runs.
//!
//! ```text
//!   SIGHUP ─▶ read the key again ─ another one ─▶ end the work with the old key as at a stop ─▶ begin with the new key
//! ```
//!
//! Invariant: no pass and no attempt uses two keys. The work with the old key ends before anything exists that knows the new
//! one, and the new work begins like a start: the account guard comes before its first page, and nothing is pushed before the
//! guard has accepted the key. Rejected: to exchange the key within the client, where a page or an attempt that waits for the
//! rate limit would be sent with a key that the guard has not seen.

use std::pin::pin;
use std::sync::Arc;

use super::trouble::FIRST_WAIT;
use super::{App, AppError};
use crate::config::Config;
use crate::daemon::systemd;
use crate::remote::Http;
use crate::secret::{KeyPlace, SecretKey, mask};

/// A key, and the client that sends it. The client is built while the work with the old key still runs: if that fails, the old key
/// stays in use.
struct NextKey {
    key: Arc<SecretKey>,
    remote: Arc<Http>,
}

impl App {
    /// The daemon, until told to stop. Each time that `reload` returns, the key is read again. Only the database can end it
    /// otherwise.
    pub async fn run(self, config: &Config, reload: impl AsyncFnMut()) -> Result<(), AppError> {
        let stop = self.stop.clone();
        systemd::announcing_stop(&stop, systemd::tell_stopping, self.run_with_keys(config, reload)).await
    }

    /// The same, without a word to the service manager that the stop has begun.
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
                    tracing::error!("SIGHUP: the key in use is kept: {}", super::chain(&e));
                    continue;
                }
            };
            if !matches!(source.place, KeyPlace::File(_)) {
                tracing::warn!(
                    "SIGHUP: the key comes from {source}, which is read at the start only: restart the service to change it"
                );
            } else if key.expose() == self.key.expose() {
                tracing::info!("SIGHUP: the key in {source} is the one in use");
            } else {
                for warning in key.warnings(&source) {
                    tracing::warn!("{warning}");
                }
                let remote = match Http::new(config, &key, Arc::clone(&self.clock)) {
                    Ok(remote) => Arc::new(remote),
                    Err(e) => {
                        tracing::error!("SIGHUP: the key in use is kept: {}", super::chain(&e));
                        continue;
                    }
                };
                tracing::info!(
                    "SIGHUP: there is a new key in {source}; the account guard checks it before it is used"
                );
                return NextKey { key: Arc::new(key), remote };
            }
        }
    }

    /// The same with another key; `None` where the process receives a stop signal. Meanwhile the watchdog is fed and the database's place is
    /// compared, as while it works.
    async fn begin_with(&self, config: &Config, next: NextKey) -> Result<Option<Self>, AppError> {
        let _idle = self.pulses.each_ref().map(|pulse| pulse.idle());
        let beginning = async {
            tokio::select! {
                biased;
                begun = self.try_with(config, next) => begun,
                () = self.watch_pulses() => Ok(None),
            }
        };
        self.in_place(beginning).await
    }

    async fn try_with(&self, config: &Config, next: NextKey) -> Result<Option<Self>, AppError> {
        // Texts of the old work may still be on their way to the log or the database.
        mask::remember(&self.key);
        while !self.stop.is_cancelled() {
            let trying = async {
                // The old work may have ended by a failure: whether its last commit took effect is known only to the file.
                self.store.reopen().await?;
                let (store, instance) = (Arc::clone(&self.store), Arc::clone(&self.instance));
                let (clock, stop) = (Arc::clone(&self.clock), self.stop.clone());
                let NextKey { key, remote } = &next;
                let (key, remote) = (Arc::clone(key), Arc::clone(remote));
                Self::on(store, instance, config, clock, key, remote, stop).await
            };
            match trying.await {
                Ok(next) => {
                    self.end_trouble();
                    let (standings, health) = (self.standings.clone(), self.health.clone());
                    let (looks, pulses) = (self.looks.clone(), self.pulses.clone());
                    let trouble = self.trouble.clone();
                    return Ok(Some(Self { standings, looks, health, pulses, trouble, ..next }));
                }
                Err(AppError::Store(e)) if e.can_pass() => {
                    self.until_usable(e, FIRST_WAIT, &self.stop).await?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}
