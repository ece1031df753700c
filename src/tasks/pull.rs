//! Pull: from the remote's customers to the mirror and the change log.
//!
//! ```text
//!   account guard ─▶ pages ─▶ approved holds ─▶ rechecks ─▶ missing customers ─▶ end of the pass
//!   between passes: rechecks, customers that events name
//!                      each step: fetch ─▶ plan ─▶ apply
//! ```
//!
//! A recheck requests a single customer again, because a read of it was not applied. The missing
//! customers are requested by sweeps only.
//!
//! A [`Pull`] owns these steps. Each step fetches first. Then it plans against the `view` of the
//! mirror and applies the plan in the same transaction (`mirror`, `apply`). `komoju_core::plan`
//! decides what an answer means. A dry run makes the same requests and the same plans, and applies
//! none. A pass that fails reports one sentence and keeps the pages that it applied, because they
//! are true. It concludes nothing from what it did not read.
//!
//! Invariants:
//! - No request is made while a transaction is open.
//! - A probe concludes nothing from absence.
//! - Only `absence` and `hints/suspects` record a delete, and only after a canary answered. An
//!   approved delete needs no canary if no live customer is left outside the hold.
//! - A dry run writes nothing.

mod absence;
mod account;
mod answer;
mod apply;
mod approvals;
mod conclude;
mod failure;
mod finish;
mod hints;
mod mirror;
mod page;
mod pages;
mod parts;
mod recheck;
mod report;
mod requests;
mod seen_customers;
mod unreadable;
mod view;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use mirror::Mirror;
use seen_customers::SeenCustomers;

use crate::clock::Clock;
use crate::metrics;
use crate::remote::Remote;
use crate::secret::{Masker, SecretKey};
use crate::store::log::changes;
use crate::store::log::mirror::live_count;
use crate::store::log::passes::{self, InterruptedSweep, ListPosition};
use crate::store::log::unlisted::{self, ListHistory};
use crate::store::{Conn, Store, StoreError};
use crate::tasks::in_flight::{InFlightPushes, RequestMark};
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::lookups::LookupBudget;
use komoju_core::{Origin, PassId, PassKind, PassOutcome, Tally, time};

pub use failure::{Failure, RequestError};
pub use hints::HintWait;
pub use mirror::{DryRun, PlannedEffect, PlannedWrite};
pub use report::Report;

/// The settings of the pull.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of customers to request on each page.
    pub per_page: u32,
    /// The largest number of requests in flight at the same time.
    pub max_concurrent_requests: usize,
    /// How long KOMOJU's reads may lag behind its writes.
    pub consistency: Consistency,
    /// The time from one sweep to the next. `None` if no next sweep is scheduled.
    pub period: Option<Duration>,
    /// The number of missing customers that a sweep may settle without an operator. The limit is
    /// the larger of this and `max_delete_percent`.
    pub max_delete_count: u64,
    /// The same limit as a percentage of the live customers.
    pub max_delete_percent: u32,
    /// The seed of the random numbers for jitter, samples and canaries.
    pub seed: u64,
}

/// The progress of the running pass, for progress bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassProgress {
    /// The current phase.
    pub phase: Phase,
    /// The number of customers that are done in this phase.
    pub done: u64,
    /// The number of customers in this phase, by the newest answer. 0 while it is unknown.
    pub of: u64,
}

/// A phase of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No pass is running.
    #[default]
    Idle,
    /// The pass reads the list.
    Reading,
    /// The pass requests customers that the list did not show.
    Verifying,
}

/// The pull task.
pub struct Pull<R> {
    mirror: Mirror,
    remote: Arc<R>,
    key: Arc<SecretKey>,
    masker: Masker,
    clock: Arc<dyn Clock>,
    settings: Settings,
    stop: CancellationToken,
    progress: watch::Sender<PassProgress>,
    rng: Mutex<StdRng>,
    in_flight: Arc<InFlightPushes>,
    /// How many of the customers that events named lately were not found.
    missing_rate: hints::SharedMissingRate,
}

/// A running pass.
struct Pass {
    id: PassId,
    kind: PassKind,
    is_resumed: bool,
    /// The start of the pass. Pushes that settle later are newer than what the pass reads.
    started: Arc<RequestMark>,
    /// The last `seq` of the log at the start. Only a customer that was live then can become a
    /// suspect.
    head_before: i64,
    live_before: u64,
    /// The remote's request counter when this process started or resumed the pass.
    requests_before: u64,
    /// The requests that an earlier process made for this pass.
    requests_made: u64,
    /// The number of customers that an earlier process saw. Which customers these are is not known.
    seen_before: u64,
    tally: Tally,
    position: ListPosition,
    /// When the position was last written, by the steady clock.
    position_at: Option<Duration>,
    /// The unreadable customers that this process found.
    unreadable: unreadable::UnreadableSet,
    /// The number of unreadable customers that an earlier process found.
    unreadable_before: u64,
    /// The single requests that the pass may still make.
    budget: LookupBudget,
    /// What earlier sweeps found out about the list.
    list_history: ListHistory,
    ignores_page: bool,
}

impl<R: Remote> Pull<R> {
    /// Returns a pull that does nothing until one of its methods is called. `stop` ends a running
    /// pass at its next safe point.
    pub fn new(
        store: Arc<Store>,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self::with_mirror(Mirror::Store(store), remote, key, clock, settings, stop)
    }

    /// Returns a pull that writes nothing. What it plans is sent to the channel of the dry run.
    pub fn dry(
        dry_run: DryRun,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self::with_mirror(Mirror::DryRun(Box::new(dry_run)), remote, key, clock, settings, stop)
    }

    fn with_mirror(
        mirror: Mirror,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        let rng = Mutex::new(StdRng::seed_from_u64(settings.seed));
        let progress = watch::Sender::new(PassProgress::default());
        let masker = Masker::new(Some(&key));
        let (in_flight, missing_rate) = (Arc::default(), hints::SharedMissingRate::default());
        Self { mirror, remote, key, masker, clock, settings, stop, progress, rng, in_flight, missing_rate }
    }

    /// Shares the registry of our own pushes with the pusher.
    pub fn with_in_flight(mut self, in_flight: Arc<InFlightPushes>) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// Returns a receiver of the progress of the running pass.
    pub fn progress(&self) -> watch::Receiver<PassProgress> {
        self.progress.subscribe()
    }

    /// Reads the whole list.
    ///
    /// If the last sweep was interrupted, its remaining pages are read and applied first. They
    /// prove no absence, so a fresh sweep follows. A dry run resumes no sweep.
    ///
    /// # Errors
    /// The database failed. Every other failure is in the report.
    pub async fn sweep(&self) -> Result<Report, StoreError> {
        self.recheck().await?;
        match (self.read_mirror(|view| passes::interrupted(view.conn())).await?, &self.mirror) {
            (None, _) => {}
            (Some(_), Mirror::DryRun(dry)) if dry.is_shared() => {}
            (Some(_), Mirror::DryRun(_)) => {
                tracing::info!(
                    "the last sweep was interrupted; the dry run does not resume it and reads the whole list"
                );
            }
            (Some(interrupted), Mirror::Store(_)) => {
                let report = self.pass(PassKind::Sweep, Some(interrupted)).await?;
                if report.failure.is_some() {
                    return Ok(report);
                }
                tracing::info!("{}; starting a fresh sweep", report.sentence());
            }
        }
        self.pass(PassKind::Sweep, None).await
    }

    /// Reads the newest customers. Returns `None` before the first complete sweep, because the
    /// mirror does not know yet which customers are new.
    ///
    /// # Errors
    /// The database failed. Every other failure is in the report.
    pub async fn probe(&self) -> Result<Option<Report>, StoreError> {
        match self.read_mirror(|view| passes::has_whole_sweep(view.conn())).await? {
            true => self.pass(PassKind::Probe, None).await.map(Some),
            false => Ok(None),
        }
    }

    async fn pass(&self, kind: PassKind, resumed: Option<InterruptedSweep>) -> Result<Report, StoreError> {
        let began = self.clock.elapsed();
        let report = match self.check_account().await {
            Ok(()) => {
                let mut pass = self.start(kind, resumed).await?;
                match self.run_steps(&mut pass).await {
                    Err(Failure::Store(e)) => Err(e),
                    ended => self.finish(pass, ended).await,
                }
            }
            Err(failure) => self.report_without_pass(kind, failure).await,
        };
        if let Ok(report) = &report {
            metrics::pass(kind, report.outcome, self.clock.elapsed().saturating_sub(began));
        }
        self.progress.send_replace(PassProgress::default());
        report
    }

    /// Runs the steps of a pass between its start and its end.
    async fn run_steps(&self, pass: &mut Pass) -> Result<PassOutcome, Failure> {
        let mut seen_customers = SeenCustomers::default();
        let rounds = self.read_pages(pass, &mut seen_customers).await?;
        self.settle_approved(pass).await?;
        // If reads never lag, the customers that the pass left out are due at once.
        self.recheck().await?;
        match pass.kind {
            // The customers that the earlier process saw are not known, so a resumed pass proves no
            // absence.
            _ if pass.is_resumed => Ok(PassOutcome::Interrupted),
            PassKind::Sweep => self.conclude(pass, seen_customers, rounds).await,
            PassKind::Probe => Ok(PassOutcome::Complete),
        }
    }

    async fn start(&self, kind: PassKind, resumed: Option<InterruptedSweep>) -> Result<Pass, StoreError> {
        let started = self.mark_request();
        let (id, opened) = match &self.mirror {
            Mirror::DryRun(dry) => (PassId::default(), dry.read(MirrorAtStart::read)?),
            Mirror::Store(store) => {
                let at = time::written(self.clock.now());
                let opened = store.write(move |tx| {
                    // An earlier pass may still be open, because the database failed when it ended.
                    passes::close_orphans(tx, &at)?;
                    let id = match resumed {
                        Some(InterruptedSweep { id, .. }) => passes::resume(tx, id, &at).map(|()| id)?,
                        None => passes::start(tx, kind, &at)?,
                    };
                    Ok((id, MirrorAtStart::read(tx)?))
                });
                opened.await?
            }
        };
        tracing::debug!(pass = id, %kind, resumed = resumed.is_some(), "started");
        let MirrorAtStart { head: head_before, live: live_before, list_history } = opened;
        let (tally, position) =
            resumed.map_or_else(Default::default, |resumed| (resumed.tally, resumed.position));
        Ok(Pass {
            id,
            kind,
            is_resumed: resumed.is_some(),
            started,
            head_before,
            live_before,
            requests_before: self.remote.requests(),
            requests_made: tally.requests,
            seen_before: tally.customers_seen,
            unreadable: unreadable::UnreadableSet::default(),
            unreadable_before: tally.unreadable,
            tally,
            position,
            // The first page writes the position at once, so that `status` shows the length of the
            // list.
            position_at: None,
            budget: LookupBudget::unlimited(kind),
            list_history,
            ignores_page: false,
        })
    }

    /// Marks that a request is made now.
    fn mark_request(&self) -> Arc<RequestMark> {
        self.in_flight.mark_request(self.clock.now())
    }

    /// Returns the time by our clock and by the server's clock. The second is ours while the
    /// server's is unknown.
    fn times(&self) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        (now, self.remote.server_time().unwrap_or(now))
    }

    fn with_rng<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn roll(&self) -> u64 {
        self.with_rng(rand::Rng::random)
    }
}

/// The state of the mirror when a pass starts.
struct MirrorAtStart {
    head: i64,
    live: u64,
    list_history: ListHistory,
}

impl MirrorAtStart {
    fn read(conn: &Conn) -> Result<Self, StoreError> {
        let head = changes::head(conn)?.seq;
        Ok(Self { head, live: live_count(conn)?, list_history: unlisted::list_history(conn)? })
    }
}

impl Pass {
    /// Returns the number that this sweep gets if it reads the list to its end.
    fn sweep(&self) -> i64 {
        self.list_history.sweeps + 1
    }

    fn kind_origin(&self) -> Origin {
        match self.kind {
            PassKind::Sweep => Origin::Sweep,
            PassKind::Probe => Origin::Probe,
        }
    }
}
