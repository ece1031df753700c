//! The loops beside the passes: pushing, taking spool files, waking the pusher after a commit, and
//! publishing the status.

use std::sync::Arc;
use std::time::Duration;

use super::{App, MOST_STATUS_REQUESTS, chain};
use crate::config::Config;
use crate::daemon::status::{Status, StatusRequest};
use crate::heartbeat;
use crate::store::file::continuity;
use crate::store::{Reader, StoreError};
use crate::watch::{DirectoryWatch, FileEvent, LOOK_EVERY, Watch};

/// AFTER_BUSY controls how long a loop pauses if another program keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// SLOWEST_COMMIT controls how long a commit may take from its last write until it can be read.
const SLOWEST_COMMIT: Duration = Duration::from_secs(10);

/// POLL_EVERY controls how often the database and the spool directory are checked without a
/// notification. A network file system sends none for the changes of other machines.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// OBSERVE_EVERY controls how soon a new status is published after a commit …
const OBSERVE_EVERY: Duration = Duration::from_secs(2);

/// … and OBSERVE_ANYWAY how often without one, because a mirror becomes stale with time alone.
const OBSERVE_ANYWAY: Duration = Duration::from_secs(30);

impl App {
    /// Pushes intents until the stop. Pauses while another program keeps the database locked.
    pub(super) async fn push(&self) -> Result<(), StoreError> {
        loop {
            match self.keeping_rate(self.pusher.serve()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_busy() && self.round.is_cancelled() => {
                    tracing::error!("{e}; intents in flight are retried with their keys at the next start");
                    return Ok(());
                }
                Err(e) if e.is_busy() => {
                    tracing::error!("pushing paused: {e}; retrying");
                    // The attempts in flight were interrupted. No attempt may begin before that is
                    // recorded.
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

    /// Takes spool files as they arrive, until the stop.
    pub(super) async fn take_files(&self) -> Result<(), StoreError> {
        self.take_ready_files(&[]).await?;
        // The first scan has created the directory. The next one finds what arrived meanwhile.
        let mut watch = DirectoryWatch::of_path(&self.spool_dir)
            .map_err(|e| tracing::warn!("{}: polling once a second instead", chain(&e)))
            .ok();
        // When the directory is scanned again, also without a notification.
        let mut scan_at = self.clock.elapsed();
        loop {
            let idle = heartbeat::idle();
            let events = tokio::select! {
                biased;
                () = self.round.cancelled() => return Ok(()),
                events = next_of(&mut watch) => Some(events),
                () = self.signals.settled.notified() => None,
                () = self.sleep_until(Some(scan_at)) => Some(vec![FileEvent::Other]),
            };
            drop(idle);
            let Some(events) = events else {
                unless_busy(self.spool.update_receipts().await)?;
                continue;
            };
            let renamed: Vec<String> = events.into_iter().filter_map(FileEvent::renamed).collect();
            let next_in = self.take_ready_files(&renamed).await?;
            if watch.as_ref().is_none_or(|watch| !watch.is_on(&self.spool_dir)) {
                watch = DirectoryWatch::of_path(&self.spool_dir).ok();
            }
            let at_latest = if watch.is_some() { POLL_EVERY } else { LOOK_EVERY };
            scan_at = self.clock.elapsed() + next_in.unwrap_or(at_latest);
        }
    }

    /// Takes the files that are ready, `renamed` ones included. Returns when the next one may be
    /// ready, if one is not ready yet.
    async fn take_ready_files(&self, renamed: &[String]) -> Result<Option<Duration>, StoreError> {
        Ok(match unless_busy(self.spool.take(renamed).await)? {
            Some(looked) => {
                self.spool.expire_rejected().await?;
                looked.again_in
            }
            None => Some(AFTER_BUSY),
        })
    }

    /// Wakes the pusher after each commit of any process. Ends only with an error.
    pub(super) async fn wake_on_commit(&self) -> Result<(), StoreError> {
        let mut watch = Watch::of_path(&self.database).unwrap_or_else(|e| {
            tracing::warn!("{}: polling once a second instead", chain(&e));
            Watch::polling()
        });
        let reader = Reader::open(&self.database)?;
        let mut seen = unless_locked(reader.data_version())?;
        loop {
            let longest_wait = tokio::select! {
                () = watch.signalled() => SLOWEST_COMMIT,
                // Without a notification probably nothing was written, so check once.
                () = self.clock.sleep(POLL_EVERY) => Duration::ZERO,
            };
            // The notification arrives before the commit is durable, and the commit can be read
            // only after that. So check until it can be read.
            let mut waited = Duration::ZERO;
            let mut now = unless_locked(reader.data_version())?.or(seen);
            while now == seen && waited < longest_wait {
                // At worst this notices the commit a quarter of its duration late.
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

    /// Publishes [`App::statuses`] after each commit of any process. Ends only with an error.
    pub(super) async fn publish_status(&self, config: &Config) -> Result<(), StoreError> {
        let reader = Reader::open(&self.database)?;
        let mut seen = None;
        let mut seen_at = self.clock.elapsed();
        let mut requests = self.status_requests.1.lock().await;
        let mut answers: Vec<StatusRequest> = Vec::new();
        loop {
            let version = unless_locked(reader.data_version())?;
            let is_old = self.clock.elapsed().saturating_sub(seen_at) >= OBSERVE_ANYWAY;
            if version.is_some()
                && (version != seen || is_old)
                && let Some(mut status) = unless_locked(Status::read(&reader, config, self.clock.now()))?
            {
                (seen, seen_at) = (version, self.clock.elapsed());
                status.observed_at = seen_at;
                if let Some(mark) = unless_locked(reader.query(continuity::mark))? {
                    self.instance.note_log(mark);
                }
                self.statuses.send_replace(Some(Arc::new(status)));
            }
            for answer in answers.drain(..) {
                // The HTTP request may have ended meanwhile.
                let _ = answer.send(());
            }
            tokio::select! {
                () = self.clock.sleep(OBSERVE_EVERY) => {}
                _ = requests.recv_many(&mut answers, MOST_STATUS_REQUESTS) => {}
            }
        }
    }
}

/// Waits for events of the directory, without end if it cannot be watched.
async fn next_of(watch: &mut Option<DirectoryWatch>) -> Vec<FileEvent> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Returns what was read, or none if another program keeps the database locked. The caller reads
/// again later.
fn unless_locked<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_busy() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns what was done, or none, with a log entry, if another program keeps the database locked.
fn unless_busy<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_busy() => {
            tracing::error!("spool files are not taken yet: {e}; retrying");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
