//! What comes in, from rows to files: the pusher and whatever wakes it, and how things stand for those who watch.

use std::sync::Arc;
use std::time::Duration;

use super::{App, LOOKS_AT_ONCE, chain};
use crate::config::Config;
use crate::daemon::status::{LookRequest, Standing};
use crate::heartbeat;
use crate::store::file::continuity;
use crate::store::{Reader, StoreError};
use crate::watch::{DirectoryWatch, LOOK_EVERY, News, Watch};

/// How long pushing pauses when somebody else keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// How long a commit may take from its last write until it can be read.
const SLOWEST_COMMIT: Duration = Duration::from_secs(10);

/// How often database and spool directory are looked at though nothing was told: a network file system tells nothing of others.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// How soon others hear how things stand after something was committed …
const OBSERVE_EVERY: Duration = Duration::from_secs(2);

/// … and where nothing is committed: with time alone a mirror becomes stale.
const OBSERVE_ANYWAY: Duration = Duration::from_secs(30);

impl App {
    /// Pushes until told to stop.
    pub(super) async fn push(&self) -> Result<(), StoreError> {
        loop {
            match self.keeping_rate(self.pusher.serve()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_busy() && self.round.is_cancelled() => {
                    tracing::error!(
                        "{e}; what was being sent is tried again, with its key, at the next start"
                    );
                    return Ok(());
                }
                Err(e) if e.is_busy() => {
                    tracing::error!("pushing paused: {e}; it is tried again");
                    // What was under way is cut off; until that is written, nothing may begin.
                    loop {
                        tokio::select! {
                            () = self.round.cancelled() => return Ok(()),
                            () = self.clock.sleep(AFTER_BUSY) => {}
                        }
                        match self.pusher.recover().await {
                            Ok(()) => break,
                            Err(e) if e.is_busy() => {}
                            Err(e) => return Err(e),
                        }
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes files as they are dropped, until told to stop.
    pub(super) async fn take_files(&self) -> Result<(), StoreError> {
        self.look(&[]).await?;
        // The first look has made the directory; what came meanwhile is found by the next one.
        let mut watch = DirectoryWatch::on(&self.spool_dir)
            .map_err(|e| tracing::warn!("{}: it is looked at once a second instead", chain(&e)))
            .ok();
        // When the directory is scanned again, also where no notification arrives.
        let mut again_at = self.clock.elapsed();
        loop {
            let resting = heartbeat::idle();
            let news = tokio::select! {
                biased;
                () = self.round.cancelled() => return Ok(()),
                news = next_of(&mut watch) => Some(news),
                () = self.signals.settled.notified() => None,
                () = self.sleep_until(Some(again_at)) => Some(vec![News::Other]),
            };
            drop(resting);
            let Some(news) = news else {
                unless_busy(self.spool.tend_receipts().await)?;
                continue;
            };
            let renamed: Vec<String> = news.into_iter().filter_map(News::renamed).collect();
            let again_in = self.look(&renamed).await?;
            if watch.as_ref().is_none_or(|watch| !watch.is_on(&self.spool_dir)) {
                watch = DirectoryWatch::on(&self.spool_dir).ok();
            }
            let anyway = if watch.is_some() { LOOK_ANYWAY } else { LOOK_EVERY };
            again_at = self.clock.elapsed() + again_in.unwrap_or(anyway);
        }
    }

    /// Takes the files that are ready, and those that were renamed into place; returns when the next one can be.
    async fn look(&self, renamed: &[String]) -> Result<Option<Duration>, StoreError> {
        Ok(match unless_busy(self.spool.take(renamed).await)? {
            Some(looked) => {
                self.spool.expire_rejected().await?;
                looked.again_in
            }
            None => Some(AFTER_BUSY),
        })
    }

    /// Wakes the pusher whenever anybody commits; never ends but by an error.
    pub(super) async fn listen(&self) -> Result<(), StoreError> {
        let mut watch = Watch::on(&self.database).unwrap_or_else(|e| {
            tracing::warn!("{}: it is looked at once a second instead", chain(&e));
            Watch::by_the_clock()
        });
        let reader = Reader::open(&self.database)?;
        let mut seen = unless_locked(reader.data_version())?;
        loop {
            let patience = tokio::select! {
                () = watch.told() => SLOWEST_COMMIT,
                // Nothing was written, as far as anybody told: one look will do.
                () = self.clock.sleep(LOOK_ANYWAY) => Duration::ZERO,
            };
            // What was written is told before it is durable, and it can be read only after that: so it is looked for until it can.
            let mut waited = Duration::ZERO;
            let mut now = unless_locked(reader.data_version())?.or(seen);
            while now == seen && waited < patience {
                // Late by a quarter of what it took, at worst.
                let wait = (waited / 4).clamp(Duration::from_millis(1), Duration::from_millis(250));
                self.clock.sleep(wait).await;
                waited += wait;
                now = unless_locked(reader.data_version())?.or(seen);
            }
            if now != seen {
                seen = now;
                self.signals.wake.notify_one();
            }
        }
    }

    /// Tells [`App::standings`] whatever anybody commits; never ends but by an error.
    pub(super) async fn observe(&self, config: &Config) -> Result<(), StoreError> {
        let reader = Reader::open(&self.database)?;
        let mut seen = None;
        let mut seen_at = self.clock.elapsed();
        let mut asked = self.looks.1.lock().await;
        let mut answers: Vec<LookRequest> = Vec::new();
        loop {
            let version = unless_locked(reader.data_version())?;
            let is_old = self.clock.elapsed().saturating_sub(seen_at) >= OBSERVE_ANYWAY;
            if version.is_some()
                && (version != seen || is_old)
                && let Some(mut standing) = unless_locked(Standing::read(&reader, config, self.clock.now()))?
            {
                (seen, seen_at) = (version, self.clock.elapsed());
                standing.observed_at = seen_at;
                if let Some(mark) = unless_locked(reader.look(continuity::mark))? {
                    self.instance.note_log(mark);
                }
                self.standings.send_replace(Some(Arc::new(standing)));
            }
            for answer in answers.drain(..) {
                // The connection that asked may have ended meanwhile.
                let _ = answer.send(());
            }
            tokio::select! {
                () = self.clock.sleep(OBSERVE_EVERY) => {}
                _ = asked.recv_many(&mut answers, LOOKS_AT_ONCE) => {}
            }
        }
    }
}

/// News of the directory; never, where it cannot be watched.
async fn next_of(watch: &mut Option<DirectoryWatch>) -> Vec<News> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Whoever only looks sees nothing while somebody else keeps the database locked, and looks again.
fn unless_locked<T>(looked: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match looked {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_busy() => Ok(None),
        Err(e) => Err(e),
    }
}

/// What somebody else's lock kept from being done is done another time.
fn unless_busy<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_busy() => {
            tracing::error!("files wait: {e}; it is tried again");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
