//! Pull: from the remote's list to the mirror and the change log.
//!
//! ```text
//!   account guard ─▶ decided holds ─▶ pages, each applied in its own transaction ─▶ evidence ─▶ one closing transaction
//! ```
//!
//! A [`Pull`] owns the way a pass goes; what an answer means is decided in `reconcile`. A pass that cannot go on says in one
//! sentence why, keeps the pages it has applied (they are true) and concludes nothing from what it did not see.
//!
//! Invariants: no request is made while a transaction is open; a probe never concludes anything from absence; a delete is
//! recorded only by `inquest`, with its canary.

mod account;
mod approvals;
mod ask;
mod failure;
mod finish;
mod inquest;
mod marks;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use failure::{Failure, Setback};
use marks::Marks;

use crate::clock::Clock;
use crate::config::SecretKey;
use crate::model::{Customer, Origin, Outcome, Page, PageQuery, PassId, PassKind, Tally, time};
use crate::reconcile::paging::{PageFault, Paging, Turn};
use crate::reconcile::{retry, sighting};
use crate::remote::Remote;
use crate::store::changes::{Cause, Recorder};
use crate::store::{Store, StoreError, Tx, changes, mirror, passes};

/// How often a running pass writes how far it has come when it has nothing else to write.
const POSITION_EVERY: Duration = Duration::from_secs(30);

/// The API's own page size, for a server that refuses a larger one instead of answering with less.
const OWN_PER_PAGE: u32 = 10;

/// After so many pages in a row that show nobody new, the list has no end: even one that grows by a page a request does not
/// push the same customers on so often.
const MOST_BARREN_PAGES: u32 = 20;

/// How far before the newest known customer a probe begins: customers made in the same minute may become visible out of order.
const PROBE_OVERLAP: Duration = Duration::from_secs(60);

/// What a pull is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many customers a page should hold.
    pub per_page: u32,
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

/// How a pass ended.
#[derive(Debug)]
pub struct Report {
    /// Its number; none where it ended before it began.
    pub pass: Option<PassId>,
    /// What it read.
    pub kind: PassKind,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did.
    pub tally: Tally,
    /// Deletions that wait for a person now, whichever pass held them.
    pub held: u64,
    /// Why it failed or was interrupted.
    pub failure: Option<Failure>,
}

impl Report {
    /// The report as one sentence.
    pub fn sentence(&self) -> String {
        let Self { kind, outcome, tally, .. } = self;
        let number = self.pass.map(|pass| format!(" {pass}")).unwrap_or_default();
        if let Some(failure) = &self.failure {
            return format!("{kind}{number} {outcome}: {failure}");
        }
        let held = match self.held {
            0 => String::new(),
            1 => "; 1 deletion waits for a person: see `komoju-sync deletions list`".to_owned(),
            n => format!("; {n} deletions wait for a person: see `komoju-sync deletions list`"),
        };
        let count = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        format!(
            "{kind}{number} {outcome}: {} on {} in {}; {} created, {} updated, {} deleted, {} restored{held}",
            count(tally.customers_seen, "customer"),
            count(tally.pages, "page"),
            count(tally.requests, "request"),
            tally.created,
            tally.updated,
            tally.deleted,
            tally.restored
        )
    }
}

/// The pull task.
pub struct Pull<R> {
    store: Arc<Store>,
    remote: Arc<R>,
    key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    stop: CancellationToken,
    progress: watch::Sender<Progress>,
    dice: Mutex<StdRng>,
}

/// A pass under way.
struct Pass {
    id: PassId,
    kind: PassKind,
    /// The log's end when it began: only who was live by then can become a suspect.
    head_before: i64,
    live_before: u64,
    requests_before: u64,
    tally: Tally,
    last_page: u64,
    position_at: Duration,
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
        let dice = Mutex::new(StdRng::seed_from_u64(settings.seed));
        let progress = watch::Sender::new(Progress::default());
        Self { store, remote, key, clock, settings, stop, progress, dice }
    }

    /// How far the pass that runs has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Reads the whole list. An error is the database's; whatever else happens is in the report.
    pub async fn sweep(&self) -> Result<Report, StoreError> {
        self.pass(PassKind::Sweep).await
    }

    /// Reads the newest customers. Before one sweep is complete there is nothing to be newer than: `None`.
    pub async fn probe(&self) -> Result<Option<Report>, StoreError> {
        match self.store.write(|tx| passes::has_whole_sweep(tx)).await? {
            true => self.pass(PassKind::Probe).await.map(Some),
            false => Ok(None),
        }
    }

    async fn pass(&self, kind: PassKind) -> Result<Report, StoreError> {
        let report = match self.check_account().await {
            Ok(()) => self.counted_pass(kind).await,
            Err(failure) => self.without_pass(kind, failure).await,
        };
        self.progress.send_replace(Progress::default());
        report
    }

    async fn counted_pass(&self, kind: PassKind) -> Result<Report, StoreError> {
        let mut pass = self.start(kind).await?;
        let mut marks = Marks::default();
        let ended = match self.carry_out(&mut pass, &mut marks).await {
            Ok(held) => Ok(held),
            Err(Failure::Store(e)) => return Err(e),
            Err(failure) => Err(failure),
        };
        self.finish(pass, ended).await
    }

    async fn carry_out(&self, pass: &mut Pass, marks: &mut Marks) -> Result<u64, Failure> {
        self.settle_approved(pass).await?;
        self.read_pages(pass, marks).await?;
        match pass.kind {
            PassKind::Sweep => self.conclude(pass, std::mem::take(marks)).await,
            PassKind::Probe => Ok(0),
        }
    }

    async fn start(&self, kind: PassKind) -> Result<Pass, StoreError> {
        let at = time::written(self.clock.now());
        let requests_before = self.remote.requests();
        let position_at = self.clock.elapsed();
        let opened = self.store.write(move |tx| {
            Ok((passes::start(tx, kind, &at)?, changes::head(tx)?.seq, mirror::live_count(tx)?))
        });
        let (id, head_before, live_before) = opened.await?;
        tracing::debug!(pass = id, %kind, "started");
        let tally = Tally::default();
        Ok(Pass { id, kind, head_before, live_before, requests_before, tally, last_page: 0, position_at })
    }

    /// Reads every page and applies it.
    async fn read_pages(&self, pass: &mut Pass, marks: &mut Marks) -> Result<(), Failure> {
        let created_from = match pass.kind {
            PassKind::Sweep => None,
            PassKind::Probe => self.probe_from().await?,
        };
        let mut paging = Paging::default();
        let mut turn = Turn::Read(1);
        let mut per_page = self.settings.per_page;
        let mut barren = 0;
        while let Turn::Read(number) = turn {
            let query = PageQuery { page: number, per_page, created_from };
            let (page, next) = match self.believed_page(query, &mut paging).await {
                Err(failure) if number == 1 && per_page > OWN_PER_PAGE && failure.is_about("per_page") => {
                    tracing::warn!("{failure}; reading {OWN_PER_PAGE} a page instead: lower api.per_page");
                    per_page = OWN_PER_PAGE;
                    continue;
                }
                Err(failure) if number > 1 && failure.may_be_past_end() => {
                    match self.first_page_if_past_end(query, &paging).await? {
                        Some(first) => (first, Turn::Done),
                        None => return Err(failure),
                    }
                }
                other => other?,
            };
            pass.last_page = page.last_page;
            let (total, seen_before) = (page.total, pass.tally.customers_seen);
            self.apply_page(pass, marks, page).await?;
            barren = if pass.tally.customers_seen > seen_before { 0 } else { barren + 1 };
            if barren == MOST_BARREN_PAGES {
                return Err(Failure::Endless { page: number });
            }
            self.progress.send_replace(Progress {
                phase: Phase::Reading,
                done: pass.tally.customers_seen,
                of: total.max(pass.tally.customers_seen),
            });
            turn = next;
        }
        Ok(())
    }

    async fn probe_from(&self) -> Result<Option<Timestamp>, Failure> {
        // One creation time in the future must not make the probe blind to everything before it.
        let now = time::written(self.clock.now());
        let newest = self.store.write(move |tx| mirror::newest_created_at(tx, &now)).await?;
        Ok(newest.and_then(|newest| newest.checked_sub(PROBE_OVERLAP).ok()))
    }

    /// Asks for a page until one comes that can be believed.
    async fn believed_page(&self, query: PageQuery, paging: &mut Paging) -> Result<(Page, Turn), Failure> {
        let paging = Mutex::new(paging);
        self.judged_page(query, |page| {
            paging.lock().unwrap_or_else(PoisonError::into_inner).accept(query.page, page)
        })
        .await
    }

    /// The first page, where it says that the list ends before the page of `query` by now.
    async fn first_page_if_past_end(
        &self,
        query: PageQuery,
        paging: &Paging,
    ) -> Result<Option<Page>, Failure> {
        let first = PageQuery { page: 1, ..query };
        let (page, past_end) = self.judged_page(first, |page| paging.ends_before(query.page, page)).await?;
        Ok(past_end.then_some(page))
    }

    async fn judged_page<T: Send>(
        &self,
        query: PageQuery,
        judge: impl Fn(&Page) -> Result<T, PageFault> + Sync,
    ) -> Result<(Page, T), Failure> {
        self.persist(retry::TRIES, || async {
            let page = self.remote.list(query).await.map_err(Setback::Remote)?;
            match judge(&page) {
                Ok(judged) => Ok((page, judged)),
                Err(fault) => Err(Setback::Page { page: query.page, fault }),
            }
        })
        .await
    }

    /// Applies a page in one transaction and marks whom it shows.
    async fn apply_page(&self, pass: &mut Pass, marks: &mut Marks, page: Page) -> Result<(), Failure> {
        let mut moved = std::mem::take(marks);
        let canary_roll = self.roll();
        let origin = pass.kind_origin();
        let applied = self.apply(pass, origin, move |tx, recorder, tally| {
            apply_customers(tx, recorder, &page, &mut moved, canary_roll)?;
            tally.pages += 1;
            tally.customers_seen = moved.seen.len();
            Ok(moved)
        });
        *marks = applied.await?;
        Ok(())
    }

    /// Runs `work` in one transaction, and writes the pass's row in it where something was recorded or the position is due: so a
    /// change and the pass that says it commit together.
    async fn apply<T, F>(&self, pass: &mut Pass, origin: Origin, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>, &mut Recorder<'_, '_>, &mut Tally) -> Result<T, StoreError> + Send + 'static,
    {
        let cause = Cause { observed_at: time::written(self.clock.now()), origin, pass_id: Some(pass.id) };
        let position_due = self.clock.elapsed().saturating_sub(pass.position_at) >= POSITION_EVERY;
        let (id, last_page, mut tally) = (pass.id, pass.last_page, pass.tally);
        tally.requests = self.remote.requests() - pass.requests_before;
        let applied = self.store.write(move |tx| {
            let mut recorder = Recorder::new(tx, cause)?;
            let value = work(tx, &mut recorder, &mut tally)?;
            let recorded = recorder.tally();
            tally.add_changes(&recorded);
            let wrote = position_due || recorded.changes() > 0;
            if wrote {
                passes::progress(tx, id, &tally, last_page)?;
            }
            Ok((value, tally, wrote))
        });
        let (value, tally, wrote) = applied.await?;
        pass.tally = tally;
        if wrote {
            pass.position_at = self.clock.elapsed();
        }
        Ok(value)
    }

    fn roll(&self) -> u64 {
        rand::Rng::random(&mut *self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pass {
    fn kind_origin(&self) -> Origin {
        match self.kind {
            PassKind::Sweep => Origin::Sweep,
            PassKind::Probe => Origin::Probe,
        }
    }
}

/// Compares each listed customer with the mirror and records what differs.
fn apply_customers(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    page: &Page,
    marks: &mut Marks,
    roll: u64,
) -> Result<(), StoreError> {
    for customer in &page.customers {
        let stored = mirror::find(tx, customer.id())?;
        let sighting = sighting::judge(customer.clone(), stored.as_ref().map(|stored| &stored.standing));
        let row = match (&sighting.change, stored) {
            (Some((kind, after)), _) => recorder.record(*kind, after)?,
            (None, Some(stored)) => stored.row,
            (None, None) => continue,
        };
        marks.see(row, sighting.source);
    }
    marks.keep_canaries(&page.customers, roll);
    Ok(())
}

/// Records what a customer's own GET shows of it.
fn apply_lookup(tx: &Tx<'_>, recorder: &mut Recorder<'_, '_>, customer: Customer) -> Result<(), StoreError> {
    let stored = mirror::find(tx, customer.id())?;
    let sighting = sighting::judge(customer, stored.as_ref().map(|stored| &stored.standing));
    if let Some((kind, after)) = sighting.change {
        recorder.record(kind, &after)?;
    }
    Ok(())
}
