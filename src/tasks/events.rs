//! The events tail: reads the event list from the cursor on, and stores the hints that follow.
//!
//! The cursor moves when all pages of a reading are stored. After a crash they are read again, and
//! known events are recognized by their ids. An event list that cannot be read stops
//! nothing: the sweeps and probes find every change later.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::remote::{ErrorClass, EventRemote, RemoteError};
use crate::secret::SecretKey;
use crate::store::log::{hints, passes, recall};
use crate::store::state::{account, events};
use crate::store::{Store, StoreError};
use komoju_core::event::EventPage;
use komoju_core::plan::tail::{self, Depth, EventsPageFacts, TailStep, TailWalk};
use komoju_core::{PageQuery, time};

/// AFTER_REJECTED controls when an event list that the API rejects is requested again.
const AFTER_REJECTED: Duration = Duration::from_secs(3600);

/// LONGEST_PAGE controls how many events are requested in one page.
const LONGEST_PAGE: u32 = 100;

/// SMALLER_PAGES controls by how much pages are made smaller where one is too large.
const SMALLER_PAGES: u32 = 10;

/// How the event list is read.
#[derive(Clone, Copy, Debug)]
pub struct TailSettings {
    /// How many events a page should hold.
    pub per_page: u32,
    /// The wait between two readings while events arrive.
    pub fastest: Duration,
    /// The wait after ten minutes without a new event.
    pub slowest: Duration,
}

/// What one reading of the event list brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailReport {
    /// How many events about customers were new.
    pub new: u64,
    /// How many hints follow from them.
    pub hinted: u64,
    /// Whether a sweep must read the customers: more events were new than are followed.
    pub needs_sweep: bool,
    /// How long to wait before the next reading.
    pub wait: Duration,
}

/// The events tail.
pub struct EventTail<R> {
    store: Arc<Store>,
    remote: Arc<R>,
    key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    settings: TailSettings,
    stop: CancellationToken,
}

/// What the tail remembers between two readings, by the steady clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct TailMemory {
    /// When a new event was last read; at first the start of the daemon.
    last_new_at: Duration,
    /// When the whole overlap was last read.
    whole_overlap_at: Option<Duration>,
    /// How many readings in a row failed.
    failures: u32,
}

impl TailMemory {
    /// Nothing was read yet; `now` counts as the last event, so that the first readings are fast.
    pub fn new(now: Duration) -> Self {
        Self { last_new_at: now, whole_overlap_at: None, failures: 0 }
    }

    fn depth(&self, now: Duration) -> Depth {
        let every = tail::whole_overlap_every(now.saturating_sub(self.last_new_at));
        let is_due = self.whole_overlap_at.is_none_or(|at| now.saturating_sub(at) >= every);
        if is_due { Depth::WholeOverlap } else { Depth::FirstKnownEvent }
    }
}

impl<R: EventRemote> EventTail<R> {
    /// A tail. It does nothing until [`EventTail::read`] is called.
    pub fn new(
        store: Arc<Store>,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: TailSettings,
        stop: CancellationToken,
    ) -> Self {
        Self { store, remote, key, clock, settings, stop }
    }

    /// Reads the events that are new. An error is the database's; a list that cannot be read is
    /// noted, and returned as a longer wait.
    pub async fn read(&self, memory: &mut TailMemory) -> Result<TailReport, StoreError> {
        // The passes find out whether the key is accepted, and whether it reads this account.
        let key = Arc::clone(&self.key);
        if !self
            .store
            .read(move |conn| account::is_accepted(conn, |salt| key.salted_fingerprint(salt)))
            .await?
        {
            return Ok(TailReport { wait: self.settings.fastest, ..TailReport::default() });
        }
        let now = self.clock.elapsed();
        let depth = memory.depth(now);
        match self.read_pages(depth).await {
            Ok(mut report) => {
                memory.failures = 0;
                if depth == Depth::WholeOverlap {
                    memory.whole_overlap_at = Some(now);
                }
                if report.new > 0 {
                    memory.last_new_at = now;
                }
                let TailSettings { fastest, slowest, .. } = self.settings;
                report.wait = tail::wait(now.saturating_sub(memory.last_new_at), fastest, slowest);
                Ok(report)
            }
            Err(TailError::Store(e)) => Err(e),
            Err(TailError::Stopped) => Ok(TailReport::default()),
            Err(TailError::Remote(e)) => {
                memory.failures = memory.failures.saturating_add(1);
                let wait = self.note_failure(&e, memory.failures).await?;
                Ok(TailReport { wait, ..TailReport::default() })
            }
        }
    }

    /// Reads the pages of the list, with smaller pages where one is too large.
    async fn read_pages(&self, depth: Depth) -> Result<TailReport, TailError> {
        let Some(cursor) = self.cursor().await? else {
            // The first request tells the server's time.
            return self.begin().await;
        };
        let cursor = tail::start(cursor, self.server_now());
        let mut per_page = self.settings.per_page.min(LONGEST_PAGE);
        loop {
            match self.read_pages_of(depth, cursor, per_page).await {
                Err(TailError::Remote(e)) if e.is_too_large() && per_page > 1 => {
                    per_page = per_page.div_ceil(SMALLER_PAGES);
                }
                read => return read,
            }
        }
    }

    async fn read_pages_of(
        &self,
        depth: Depth,
        cursor: Timestamp,
        per_page: u32,
    ) -> Result<TailReport, TailError> {
        let mut walk = TailWalk::new(cursor, per_page, depth);
        let from = walk.from();
        let mut report = TailReport::default();
        let (mut page, mut cursor) = (1, cursor);
        loop {
            let query = PageQuery { page, per_page, created_from: Some(from) };
            let read = match self.request(query).await {
                // How the API answers a page past the end is not known.
                Err(TailError::Remote(e)) if page > 1 && e.is_not_found() => break,
                read => read?,
            };
            cursor = tail::cursor(cursor, read.newest, self.server_now());
            let (events, per_page, newest) = (read.len(), read.per_page, read.newest);
            let about_customers = read.events.len() as u64;
            let stored = self.store_page(read).await?;
            report.new += stored.new;
            report.hinted += stored.hinted;
            report.needs_sweep |= stored.dropped > 0;
            let known = about_customers.saturating_sub(stored.new);
            // A sweep reads the customers of the others.
            let new = stored.new - stored.left_to_sweep;
            match walk.next(EventsPageFacts { events, per_page, new, known, newest }) {
                TailStep::Read(next) => page = next,
                TailStep::Done => break,
                TailStep::Gap => {
                    tracing::warn!("too many new events: a sweep is started instead of single requests");
                    report.needs_sweep = true;
                    break;
                }
            }
        }
        self.finish(cursor, report.needs_sweep).await?;
        Ok(report)
    }

    /// Reads one page to learn the server's time, from which on events are followed.
    async fn begin(&self) -> Result<TailReport, TailError> {
        let query = PageQuery { page: 1, per_page: 1, created_from: None };
        self.request(query).await?;
        self.finish(self.server_now(), false).await?;
        Ok(TailReport::default())
    }

    async fn cursor(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.store.read(events::read).await?.cursor)
    }

    async fn request(&self, query: PageQuery) -> Result<EventPage, TailError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(TailError::Stopped),
            page = self.remote.events(query) => Ok(page?),
        }
    }

    /// Stores the events of a page, and the hints that follow from them.
    async fn store_page(&self, page: EventPage) -> Result<hints::StoredEvents, StoreError> {
        let times = (self.clock.now(), self.server_now());
        self.store
            .write(move |tx| {
                let stored = hints::store_events(tx, &page.events, times)?;
                stored.customers.iter().try_for_each(|customer| recall::match_events(tx, customer))?;
                Ok(stored)
            })
            .await
    }

    /// Moves the cursor: all events up to it are stored.
    async fn finish(&self, cursor: Timestamp, is_gap: bool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let at = time::written(now);
        self.store
            .write(move |tx| {
                events::note_read(tx, cursor, &at)?;
                recall::start(tx, now)?;
                if is_gap {
                    hints::leave_to_sweep(tx, &at)?;
                }
                Ok(())
            })
            .await
    }

    /// Notes a list that cannot be read; returns how long to wait before it is requested again.
    async fn note_failure(&self, error: &RemoteError, failures: u32) -> Result<Duration, StoreError> {
        let (at, reason) = (time::written(self.clock.now()), error.to_string());
        match error.class() {
            ErrorClass::Auth => {
                self.store.write(move |tx| passes::note_refused(tx, &at)).await?;
                Ok(self.settings.slowest)
            }
            ErrorClass::Rejected => {
                tracing::warn!("events are not followed: {reason}; requesting them again in an hour");
                self.store.write(move |tx| events::note_off(tx, &at, &reason)).await?;
                Ok(AFTER_REJECTED)
            }
            ErrorClass::Transient | ErrorClass::Throttled | ErrorClass::Corrupt => {
                tracing::debug!("events cannot be read now: {reason}");
                // One failure is normal. Three in a row are reported.
                if failures >= 3 {
                    self.store.write(move |tx| events::note_off(tx, &at, &reason)).await?;
                }
                Ok(self.settings.slowest)
            }
        }
    }

    fn server_now(&self) -> Timestamp {
        self.remote.server_time().unwrap_or_else(|| self.clock.now())
    }
}

/// Why a reading ended early.
enum TailError {
    Store(StoreError),
    Remote(RemoteError),
    Stopped,
}

impl From<StoreError> for TailError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RemoteError> for TailError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}
