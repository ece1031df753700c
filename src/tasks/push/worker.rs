//! The worker loop: commits, starts attempts, and waits.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::commit::{CommitResult, FinishedAttempt, due_time, may_push};
use super::report::DrainSummary;
use super::{AFTER_BUSY, Pusher, upkeep};
use crate::heartbeat;
use crate::metrics;
use crate::remote::{PushRemote, Remote};
use crate::store::StoreError;
use crate::store::outbox::engine;
use komoju_core::time;

/// LAST_ANSWERS controls how long a stop waits for the answers to requests in flight.
const LAST_ANSWERS: Duration = Duration::from_millis(1000);

/// LAST_WIPE controls how long a stop wipes copies of tokens and erased data. With the last answers
/// that is within two seconds.
const LAST_WIPE: Duration = Duration::from_millis(700);

/// LONGEST_WAIT controls how often the outbox is read while nothing is due. The wall clock can be
/// set, so a computed wait can be wrong.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// MOST_BUSY controls how many times in a row a drain meets a locked database before it gives up.
/// Each time takes as long as the store waits for the lock.
const MOST_BUSY: u32 = 5;

/// What the worker loop does, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerMode {
    /// Attempts each due intent at most once, then ends.
    Drain,
    /// Attempts intents as they become due, until the stop token is cancelled.
    Serve,
}

/// The attempts without a committed outcome.
#[derive(Default)]
struct Attempts<'a> {
    under_way: FuturesUnordered<BoxFuture<'a, Result<FinishedAttempt, StoreError>>>,
    finished: Vec<FinishedAttempt>,
}

impl Attempts<'_> {
    fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.finished.is_empty()
    }

    /// Waits for `work` and continues the attempts meanwhile, because an answer that is not read in
    /// time counts as late.
    async fn poll_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                Some(over) = self.under_way.next() => self.finished.push(over?),
            }
        }
    }

    /// Collects every attempt that has ended by now.
    fn collect_finished(&mut self) -> Result<(), StoreError> {
        while let Some(Some(over)) = self.under_way.next().now_or_never() {
            self.finished.push(over?);
        }
        Ok(())
    }
}

/// Settles finished attempts and claims due intents in shared commits: whatever is finished when a
/// commit begins is part of it.
pub(super) struct CommitBatcher<'a, R> {
    pusher: &'a Pusher<R>,
    mode: WorkerMode,
    attempts: Attempts<'a>,
    /// The positions that this drain has attempted.
    tried: Arc<HashSet<i64>>,
    /// The position up to which queued intents have a `reason` that says what they wait for.
    reasons_written_to: i64,
    /// How many times in a row the database was locked.
    busy: u32,
    wiping: upkeep::WipeSchedule,
    summary: DrainSummary,
}

impl<'a, R: Remote + PushRemote> CommitBatcher<'a, R> {
    pub(super) fn new(pusher: &'a Pusher<R>, mode: WorkerMode) -> Self {
        Self {
            pusher,
            mode,
            attempts: Attempts::default(),
            tried: Arc::default(),
            reasons_written_to: 0,
            busy: 0,
            wiping: upkeep::WipeSchedule::new(pusher.clock.elapsed()),
            summary: DrainSummary::default(),
        }
    }

    /// Settles, claims and attempts until there is nothing left to do.
    pub(super) async fn run(mut self) -> Result<DrainSummary, StoreError> {
        let result = loop {
            match self.commit_if_due().await {
                Ok(true) => {}
                Ok(false) if self.is_over() => break Ok(()),
                Ok(false) => self.wait().await?,
                Err(e) if !self.can_retry(&e) => return Err(e),
                Err(e) if self.gives_up() => break Err(e),
                Err(e) => self.pause(&e).await?,
            }
            if self.busy > 0 && self.pusher.stop.is_cancelled() {
                break Ok(());
            }
        };
        self.end().await?;
        result.map(|()| self.summary)
    }

    fn is_over(&self) -> bool {
        let is_drained = self.mode == WorkerMode::Drain && self.attempts.is_empty();
        self.pusher.stop.is_cancelled() || is_drained
    }

    /// Returns how many more attempts may begin. A drain begins none after the API refused the key,
    /// because they would be refused too.
    fn room(&self) -> usize {
        let is_key_refused = self.mode == WorkerMode::Drain && self.summary.key_refused;
        if self.pusher.stop.is_cancelled() || is_key_refused {
            return 0;
        }
        self.pusher.settings.max_concurrent_requests.saturating_sub(self.attempts.under_way.len())
    }

    /// Commits if an attempt is finished or an intent is due. Returns whether it did.
    async fn commit_if_due(&mut self) -> Result<bool, StoreError> {
        self.attempts.collect_finished()?;
        let room = self.room();
        let looked = self.pusher.is_anything_due(Arc::clone(&self.tried), self.reasons_written_to);
        let is_due =
            self.attempts.finished.is_empty() && room > 0 && self.attempts.poll_while(looked).await??;
        if !is_due && self.attempts.finished.is_empty() {
            return Ok(false);
        }
        self.commit(room).await?;
        Ok(true)
    }

    /// Settles the finished attempts and claims up to `room` due intents, in one transaction.
    /// Results that cannot be committed are kept.
    async fn commit(&mut self, room: usize) -> Result<(), StoreError> {
        let answered = std::mem::take(&mut self.attempts.finished);
        let (push_commit, finished) = (self.pusher.push_commit(), answered.clone());
        let (tried, reasons_written_to) = (Arc::clone(&self.tried), self.reasons_written_to);
        let committed = self
            .pusher
            .store
            .write(move |tx| push_commit.run(tx, finished, room, &tried, reasons_written_to));
        match self.attempts.poll_while(committed).await? {
            Ok(committed) => {
                self.busy = 0;
                self.start(committed);
                Ok(())
            }
            Err(e) => {
                self.busy += 1;
                self.attempts.finished.splice(..0, answered);
                Err(e)
            }
        }
    }

    /// Reports what was settled and starts the claimed attempts.
    fn start(&mut self, committed: CommitResult) {
        let CommitResult { claimed, settled, reasons_written_to } = committed;
        self.reasons_written_to = reasons_written_to;
        for settled in &settled {
            settled.report(&mut self.summary, &self.pusher.signals);
        }
        if self.mode == WorkerMode::Drain {
            let positions = claimed.iter().map(|open| open.position);
            let tried = positions.chain(settled.iter().map(|settled| settled.position));
            Arc::make_mut(&mut self.tried).extend(tried);
        }
        for open in claimed {
            if open.life.attempts > 1 {
                metrics::attempted_again();
            }
            self.attempts.under_way.push(self.pusher.attempt(open).boxed());
        }
    }

    /// Returns whether to retry after this error: the database is locked, and only this process has
    /// the results of some attempts.
    fn can_retry(&self, e: &StoreError) -> bool {
        e.is_busy() && !self.attempts.is_empty()
    }

    fn gives_up(&self) -> bool {
        self.mode == WorkerMode::Drain && self.busy >= MOST_BUSY && !self.pusher.stop.is_cancelled()
    }

    /// Waits before a retry, because another program locks the database.
    async fn pause(&mut self, e: &StoreError) -> Result<(), StoreError> {
        let stop = &self.pusher.stop;
        if !stop.is_cancelled() {
            tracing::error!("pushing paused: {e}; retrying");
            let pause = self.pusher.clock.sleep(AFTER_BUSY);
            self.attempts.poll_while(stop.run_until_cancelled(pause)).await?;
        }
        Ok(())
    }

    /// Waits until an attempt ends, another task wakes the pusher, or an intent or a wipe
    /// becomes due.
    async fn wait(&mut self) -> Result<(), StoreError> {
        let timer = if self.mode == WorkerMode::Serve { self.timer().await? } else { None };
        if !self.attempts.finished.is_empty() {
            return Ok(());
        }
        let _idle = self.attempts.is_empty().then(heartbeat::idle);
        let pusher = self.pusher;
        tokio::select! {
            biased;
            () = pusher.stop.cancelled() => {}
            Some(over) = self.attempts.under_way.next() => self.attempts.finished.push(over?),
            () = pusher.signals.wake.notified(), if self.mode == WorkerMode::Serve => {}
            () = pusher.clock.sleep(timer.unwrap_or_default()), if timer.is_some() => {}
        }
        Ok(())
    }

    /// Wipes if that is due. Returns the time until an intent or the next wipe is due without
    /// another event; `None` if there is none.
    async fn timer(&mut self) -> Result<Option<Duration>, StoreError> {
        let pusher = self.pusher;
        let (is_quiet, has_room) = (self.attempts.is_empty(), self.room() > 0);
        // Without room, only the end of an attempt lets a due intent begin.
        let due = if has_room { self.attempts.poll_while(pusher.until_due()).await?? } else { None };
        if self.wiping.is_due(pusher.clock.elapsed(), is_quiet) {
            let wiped = pusher.wipe(&mut self.wiping, pusher.stop.cancelled());
            self.attempts.poll_while(wiped).await?;
        }
        let wipe = self.wiping.wait(pusher.clock.elapsed()).map(|wait| wait.min(LONGEST_WAIT));
        Ok([due, wipe].into_iter().flatten().min())
    }

    /// Waits up to [`LAST_ANSWERS`] for the last answers and settles them. Attempts without an
    /// answer by then are interrupted, and their intents are due at once at the next start.
    pub(super) async fn end(&mut self) -> Result<(), StoreError> {
        let pusher = self.pusher;
        let mut deadline = pusher.clock.sleep(LAST_ANSWERS);
        while !self.attempts.under_way.is_empty() {
            tokio::select! {
                biased;
                Some(over) = self.attempts.under_way.next() => self.attempts.finished.push(over?),
                () = &mut deadline => break,
            }
        }
        while !self.attempts.finished.is_empty() {
            self.commit(0).await?;
        }
        if !self.attempts.under_way.is_empty() {
            let at = time::written(pusher.clock.now());
            pusher.store.write(move |tx| engine::interrupt(tx, &at)).await?;
        }
        let until = async {
            pusher.stop.cancelled().await;
            tokio::time::sleep(LAST_WIPE).await;
        };
        pusher.wipe(&mut self.wiping, until).await;
        Ok(())
    }
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// Returns whether a commit would find anything to do. Reads only, because most wake-ups
    /// concern something else.
    async fn is_anything_due(
        &self,
        tried: Arc<HashSet<i64>>,
        reasons_written_to: i64,
    ) -> Result<bool, StoreError> {
        let (now, enabled) = (due_time(&*self.clock), self.settings.enabled);
        let key = Arc::clone(&self.key);
        let due = self.store.read(move |conn| {
            if !engine::has_open(conn)? {
                return Ok(false);
            }
            if engine::last_position(conn)? > reasons_written_to || engine::is_any_stuck(conn)? {
                return Ok(true);
            }
            Ok(may_push(conn, enabled, &key)? && engine::is_any_due(conn, &now, &tried)?)
        });
        due.await
    }

    /// Returns the time until an intent is due without another event; `None` if there is none.
    async fn until_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        let at = time::written(now);
        let next = self.store.read(move |conn| engine::next_due(conn, &at)).await?;
        let next = next.as_deref().and_then(time::read);
        Ok(next
            .map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default().min(LONGEST_WAIT)))
    }
}
