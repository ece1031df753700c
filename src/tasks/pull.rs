//! Pull: from the remote's list to the mirror and the change log.
//!
//! ```text
//!   account guard ─▶ pages ─▶ approved holds ─▶ missing customers ─▶ end of the pass
//!                      each step: fetch ─▶ plan ─▶ apply
//! ```
//!
//! A [`Pull`] owns the steps of a pass. Each step fetches, then plans against the `view` of the mirror,
//! and applies the plan in the same transaction (`mirror`, `apply`). `komoju_core::plan` decides what an
//! answer means. A dry run makes the same requests and the same plans, and applies none. A pass that
//! fails reports one sentence, keeps the pages that it has applied (they are true) and concludes nothing
//! from what it did not read.
//!
//! Invariants: no request is made while a transaction is open; a probe never concludes anything from absence; a delete is
//! recorded only by `absence`, after its canary answered; a dry run writes nothing.

mod absence;
mod account;
mod answer;
mod apply;
mod approvals;
mod ask;
mod conclude;
mod failure;
mod finish;
mod hints;
mod marks;
mod mirror;
mod page;
mod pages;
mod parts;
mod recheck;
mod report;
mod unreadable;
mod view;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use marks::Marks;
use mirror::Mirror;

use crate::clock::Clock;
use crate::metrics;
use crate::remote::Remote;
use crate::secret::{Masker, SecretKey};
use crate::store::log::changes;
use crate::store::log::mirror::live_count;
use crate::store::log::passes::{self, Interrupted, Position};
use crate::store::log::unlisted::{self, Learnt};
use crate::store::{Conn, Store, StoreError};
use crate::tasks::echoes::{Asked, Echoes};
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::lookups::LookupBudget;
use komoju_core::{Origin, Outcome, PassId, PassKind, Tally, time};

pub use failure::{Failure, Setback};
pub use mirror::{DryRun, Planned, PlannedWrite};
pub use report::Report;

/// What a pull is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many customers a page should hold.
    pub per_page: u32,
    /// How many requests may be under way at once.
    pub max_concurrent_requests: usize,
    /// How long KOMOJU's reads may lag behind its writes.
    pub consistency: Consistency,
    /// The time from one sweep to the next; `None` where there is no next one.
    pub period: Option<Duration>,
    /// Up to so many deletions a sweep records by itself …
    pub max_delete_count: u64,
    /// … or up to this share of the live customers, whichever is more.
    pub max_delete_percent: u32,
    /// Where chance starts (jitter, samples, canaries).
    pub seed: u64,
}

/// How far a pass has come; for progress bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Steps done: customers read, or customers asked about.
    pub done: u64,
    /// Steps in all, by the newest answer; 0 while unknown.
    pub of: u64,
}

/// What a pass is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Reading the list.
    Reading,
    /// Asking about customers that the list did not show.
    Asking,
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
    progress: watch::Sender<Progress>,
    dice: Mutex<StdRng>,
    echoes: Arc<Echoes>,
    /// The newest answers about customers that events named.
    recent: hints::Recent,
}

/// A pass under way.
struct Pass {
    id: PassId,
    kind: PassKind,
    is_resumed: bool,
    /// When it began, as far as our own pushes are concerned.
    asked: Arc<Asked>,
    /// The log's end when it began: only a customer that was live by then can become a suspect.
    head_before: i64,
    live_before: u64,
    /// What the remote had counted when this process began with it, and what the pass had counted before.
    requests_before: u64,
    requests_made: u64,
    /// Customers that an earlier process saw of it; this one does not know which.
    seen_before: u64,
    tally: Tally,
    position: Position,
    position_at: Option<Duration>,
    /// Unreadable customers that this process met, and how many an earlier one had met.
    met: unreadable::Met,
    unreadable_before: u64,
    /// The single requests that may still be made.
    budget: LookupBudget,
    /// What the sweeps before it have learnt of the list.
    learnt: Learnt,
    ignores_page: bool,
}

impl<R: Remote> Pull<R> {
    /// A pull; nothing happens yet. `stop` ends a pass at its next safe point.
    pub fn new(
        store: Arc<Store>,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self::on(Mirror::Store(store), remote, key, clock, settings, stop)
    }

    /// A pull that writes nothing: what it plans is sent to the owner of the dry run.
    pub fn dry(
        dry_run: DryRun,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self::on(Mirror::DryRun(Box::new(dry_run)), remote, key, clock, settings, stop)
    }

    fn on(
        mirror: Mirror,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(settings.seed));
        let progress = watch::Sender::new(Progress::default());
        let masker = Masker::new(Some(&key));
        let (echoes, recent) = (Arc::default(), hints::Recent::default());
        Self { mirror, remote, key, masker, clock, settings, stop, progress, dice, echoes, recent }
    }

    /// Shares what is known of our own pushes with the pusher.
    pub fn with_echoes(mut self, echoes: Arc<Echoes>) -> Self {
        self.echoes = echoes;
        self
    }

    /// How far the pass that runs has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Reads the whole list. Where the last sweep was interrupted, the rest of it is read first: its pages are applied early, but
    /// only the fresh sweep that follows can say who is missing. A dry run reads the whole list at once. An error is the database's;
    /// whatever else happens is in the report.
    pub async fn sweep(&self) -> Result<Report, StoreError> {
        self.recheck().await?;
        match (self.look(|view| passes::interrupted(view.conn())).await?, &self.mirror) {
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

    /// Reads the newest customers. Before one sweep is complete there is nothing to be newer than: `None`.
    pub async fn probe(&self) -> Result<Option<Report>, StoreError> {
        match self.look(|view| passes::has_whole_sweep(view.conn())).await? {
            true => self.pass(PassKind::Probe, None).await.map(Some),
            false => Ok(None),
        }
    }

    async fn pass(&self, kind: PassKind, resumed: Option<Interrupted>) -> Result<Report, StoreError> {
        let began = self.clock.elapsed();
        let report = match self.check_account().await {
            Ok(()) => {
                let mut pass = self.start(kind, resumed).await?;
                match self.carry_out(&mut pass).await {
                    Err(Failure::Store(e)) => Err(e),
                    ended => self.finish(pass, ended).await,
                }
            }
            Err(failure) => self.without_pass(kind, failure).await,
        };
        if let Ok(report) = &report {
            metrics::pass(kind, report.outcome, self.clock.elapsed().saturating_sub(began));
        }
        self.progress.send_replace(Progress::default());
        report
    }

    /// The steps of a pass between its start and its end.
    async fn carry_out(&self, pass: &mut Pass) -> Result<Outcome, Failure> {
        let mut marks = Marks::default();
        let rounds = self.read_pages(pass, &mut marks).await?;
        self.settle_approved(pass).await?;
        // Where reads never lag, what the pass left out is due at once.
        self.recheck().await?;
        match pass.kind {
            // Which customers the earlier process saw is not known: nothing follows from those that were not seen.
            _ if pass.is_resumed => Ok(Outcome::Interrupted),
            PassKind::Sweep => self.conclude(pass, marks, rounds).await,
            PassKind::Probe => Ok(Outcome::Complete),
        }
    }

    async fn start(&self, kind: PassKind, resumed: Option<Interrupted>) -> Result<Pass, StoreError> {
        let asked = self.asking();
        let (id, opened) = match &self.mirror {
            Mirror::DryRun(dry) => (PassId::default(), dry.read(Opened::read)?),
            Mirror::Store(store) => {
                let at = time::written(self.clock.now());
                let opened = store.write(move |tx| {
                    // One that the database kept from being closed.
                    passes::close_orphans(tx, &at)?;
                    let id = match resumed {
                        Some(Interrupted { id, .. }) => passes::resume(tx, id, &at).map(|()| id)?,
                        None => passes::start(tx, kind, &at)?,
                    };
                    Ok((id, Opened::read(tx)?))
                });
                opened.await?
            }
        };
        tracing::debug!(pass = id, %kind, resumed = resumed.is_some(), "started");
        let Opened { head: head_before, live: live_before, learnt } = opened;
        let (tally, position) =
            resumed.map_or_else(Default::default, |resumed| (resumed.tally, resumed.position));
        Ok(Pass {
            id,
            kind,
            is_resumed: resumed.is_some(),
            asked,
            head_before,
            live_before,
            requests_before: self.remote.requests(),
            requests_made: tally.requests,
            seen_before: tally.customers_seen,
            met: unreadable::Met::default(),
            unreadable_before: tally.unreadable,
            tally,
            position,
            // So that the first page is told at once: until then nobody can say how far there is to go.
            position_at: None,
            budget: LookupBudget::unlimited(kind),
            learnt,
            ignores_page: false,
        })
    }

    /// Notes that something is requested now.
    fn asking(&self) -> Arc<Asked> {
        self.echoes.asking(self.clock.now())
    }

    /// The time by our clock, and by the server's.
    fn times(&self) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        (now, self.remote.server_time().unwrap_or(now))
    }

    fn with_dice<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn roll(&self) -> u64 {
        self.with_dice(rand::Rng::random)
    }
}

/// The mirror when a pass begins.
struct Opened {
    head: i64,
    live: u64,
    learnt: Learnt,
}

impl Opened {
    fn read(conn: &Conn) -> Result<Self, StoreError> {
        let head = changes::head(conn)?.seq;
        Ok(Self { head, live: live_count(conn)?, learnt: unlisted::learnt(conn)? })
    }
}

impl Pass {
    /// The number that this sweep has if it reads the list to its end.
    fn sweep(&self) -> i64 {
        self.learnt.sweeps + 1
    }

    fn kind_origin(&self) -> Origin {
        match self.kind {
            PassKind::Sweep => Origin::Sweep,
            PassKind::Probe => Origin::Probe,
        }
    }
}
