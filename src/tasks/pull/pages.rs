//! Reading the list: several pages under way at once, applied one after the other; and reading it again where it shows fewer
//! customers than it counts.
//!
//! ```text
//!   numbers ─▶ up to `max_concurrent_requests` in flight ─▶ pages in their order ─▶ applied ─▶ walk: the next page, or the end
//!               as far as the list is known to go            (a short queue)
//! ```
//!
//! Everything waits for what comes after it: a slow database stops the requests, not the memory. What the first round has applied is
//! always the list's beginning without a gap, so that a later process can continue from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::answer::{Answer, Place};
use super::marks::Marks;
use super::page::{Insight, may_be_read_at_once};
use super::{Failure, Pass, Phase, Progress, Pull, Setback};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::passes::Position;
use crate::store::log::{holds, mirror};
use crate::tasks::echoes::Asked;
use komoju_core::plan::retry::TRIES;
use komoju_core::plan::rows::RowSet;
use komoju_core::plan::walk::{self, AppliedPage, ListReport, ListWalk, RoundResult, WalkEnd, WalkStep};
use komoju_core::{Hints, Page, PageQuery, PassKind, time};

/// The API's own page size, for a server that refuses a larger one instead of answering with less.
const OWN_PER_PAGE: u32 = 10;

/// How far before the newest known customer a probe begins at least: customers created in the same minute may become visible out of
/// order.
const PROBE_OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// How many pages wait for the database when it is slower than the API.
const QUEUE: usize = 2;

/// How far a round may read ahead.
pub(super) struct Horizon {
    /// The last page that the list is known or expected to have: up to it, pages are requested before the one before them was judged.
    last_page: AtomicU64,
    /// The first page that came without a row: nothing is requested ahead of it.
    first_empty: AtomicU64,
    /// Whether the page that was applied last was mostly news: then pages are read whole while others are applied.
    news: AtomicBool,
}

impl Horizon {
    fn new(expected: u64) -> Self {
        Self {
            last_page: AtomicU64::new(expected),
            first_empty: AtomicU64::new(u64::MAX),
            news: AtomicBool::new(false),
        }
    }

    fn reaches(&self, page: u64) -> bool {
        page <= self.last_page.load(Ordering::Relaxed) && page <= self.first_empty.load(Ordering::Relaxed)
    }

    /// Takes note of what the list promises.
    pub(super) fn promise(&self, pages: Option<u64>) {
        if let Some(pages) = pages {
            self.last_page.store(pages, Ordering::Relaxed);
        }
    }

    /// Takes note of a page.
    fn answered(&self, number: u64, page: Page, asked: Arc<Asked>) -> Answer {
        self.promise(page.hints.promised_pages());
        if page.is_empty() {
            self.first_empty.fetch_min(number, Ordering::Relaxed);
        }
        // What cannot be read is reported when it is its turn.
        let read = || page.customers.iter().map(|listed| listed.read().ok()).collect();
        let ahead = self.news.load(Ordering::Relaxed) && may_be_read_at_once(&page.customers);
        let read = if ahead { read() } else { None };
        Answer { page, place: Place::of_page(number), is_page: true, asked, read }
    }
}

/// What a pass keeps while it reads.
pub(super) struct Reading {
    pub(super) per_page: u32,
    pub(super) created_from: Option<Timestamp>,
    pub(super) walk: ListWalk,
    pub(super) insight: Insight,
    /// How many rows a full page has, as the last answer said.
    pub(super) full_page: u64,
    /// The last page that the list promises, as the last answer said; 0 where it promises none.
    pub(super) promised: u64,
}

/// A page that is applied.
struct Applied {
    number: u64,
    hints: Hints,
    rows: u64,
    /// How many customers the round had listed before it.
    before: u64,
}

impl Reading {
    fn query(&self, page: u64) -> PageQuery {
        PageQuery { page, per_page: self.per_page, created_from: self.created_from }
    }
}

/// What all rounds of a pass have learnt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    /// About the list.
    pub(super) report: ListReport,
    /// Whether there were further rounds, and none of them showed a new customer.
    pub(super) in_vain: Option<bool>,
}

impl<R: Remote> Pull<R> {
    /// Reads every page, from where the pass stands, and applies it; a sweep reads the list again where that may show more.
    pub(super) async fn read_pages(&self, pass: &mut Pass, marks: &mut Marks) -> Result<Rounds, Failure> {
        let mut reading = self.start_reading(pass).await?;
        let (began, mut rounds) = (self.clock.elapsed(), Rounds::default());
        for round in 1..=walk::ROUNDS {
            let (round_began, seen_before) = (self.clock.elapsed(), marks.seen.len());
            marks.begin_round();
            let first = if round == 1 { pass.tally.pages + 1 } else { 1 };
            self.read_round(pass, marks, &mut reading, first).await?;
            rounds.report = reading.walk.report();
            let (seen, new) = (marks.seen.len() + marks.others(), marks.seen.len() - seen_before);
            if !pass.is_resumed {
                // All rounds together.
                rounds.report.seen = seen;
            }
            if round > 1 {
                rounds.in_vain = Some(rounds.in_vain.unwrap_or(true) && new == 0);
            }
            let ended = self.clock.elapsed();
            let needed = ended.saturating_sub(began) + ended.saturating_sub(round_began);
            let over = self.round_over(pass, &rounds, round, new, needed);
            // The earlier process of a resumed sweep saw customers that this one does not know.
            if pass.kind == PassKind::Probe || pass.is_resumed || !walk::read_again(over) {
                break;
            }
            let total = over.total.unwrap_or(0);
            tracing::info!(
                seen,
                total,
                "the list shows {seen} customers and counts {total}: it is read again"
            );
        }
        pass.ignores_page = rounds.report.ignores_page && pass.kind == PassKind::Sweep;
        Ok(rounds)
    }

    /// What decides about a further round; `needed` is the time from the first round to the end of another one.
    fn round_over(
        &self,
        pass: &Pass,
        rounds: &Rounds,
        round: u32,
        new: u64,
        needed: Duration,
    ) -> RoundResult {
        RoundResult {
            round,
            seen: rounds.report.seen,
            new,
            total: rounds.report.total,
            grows: rounds.report.grows,
            fits: self.settings.period.is_none_or(|period| needed <= period),
            vain_sweeps: pass.learnt.vain_sweeps.unsigned_abs(),
            sweep: pass.sweep().unsigned_abs(),
        }
    }

    async fn start_reading(&self, pass: &Pass) -> Result<Reading, Failure> {
        let created_from = match pass.kind {
            PassKind::Sweep => None,
            PassKind::Probe => self.probe_from().await?,
        };
        let per_page = match pass.position.per_page {
            0 => self.settings.per_page,
            // A resumed sweep counts its pages as they were counted before.
            resumed => u32::try_from(resumed).unwrap_or(self.settings.per_page),
        };
        let unsettled = self.look(|view| {
            let mut rows = RowSet::default();
            holds::each_unsettled_row(view.conn(), |row| {
                rows.insert(row);
            })?;
            Ok(rows)
        });
        let insight = Insight::new(unsettled.await?);
        let (walk, full_page) = (ListWalk::default(), per_page.into());
        Ok(Reading { per_page, created_from, walk, insight, full_page, promised: 0 })
    }

    async fn read_round(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        first: u64,
    ) -> Result<(), Failure> {
        let live = match pass.kind {
            PassKind::Sweep => pass.live_before,
            PassKind::Probe => 0,
        };
        reading.walk = ListWalk::new(live, reading.full_page);
        // Where the list does not say how long it is, it is expected to be as long as before.
        let horizon = Horizon::new(live.div_ceil(reading.full_page.max(1)));
        let mut turn = WalkStep::Read(first);
        while let WalkStep::Read(next) = turn {
            turn = self.read_on(pass, marks, reading, &horizon, next).await?;
        }
        if turn == WalkStep::End(WalkEnd::Growing) {
            tracing::warn!("the list has far more pages than it promised, and was not read to its end");
        }
        Ok(())
    }

    /// Reads from this page on, as far as the list is known to go. The first page of a round is read alone: it tells how far.
    async fn read_on(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        first: u64,
    ) -> Result<WalkStep, Failure> {
        let from = reading.query(first);
        let alone = pass.tally.pages == 0;
        let (send, mut queue) = mpsc::channel(QUEUE);
        let fetch = async move {
            let known = |page: &u64| {
                let is_known = *page == first || (!alone && horizon.reaches(*page));
                std::future::ready(is_known)
            };
            let ask = |page| async move { (page, self.read_page(PageQuery { page, ..from }, horizon).await) };
            let pages = stream::iter(first..).take_while(known).map(ask);
            let mut pages = std::pin::pin!(pages.buffered(self.settings.max_concurrent_requests));
            while let Some(answered) = pages.next().await {
                if send.send(answered).await.is_err() {
                    break;
                }
            }
        };
        let apply = async {
            let mut turn = WalkStep::Read(first);
            while let Some((page, answered)) = queue.recv().await {
                turn = self.take_page(pass, marks, reading, horizon, page, answered).await?;
                if turn != WalkStep::Read(page + 1) {
                    break;
                }
            }
            Ok(turn)
        };
        tokio::select! {
            turn = apply => turn,
            // The end of what is known is not the end of what is to be applied. And what is still under way when everything is
            // applied was requested in vain.
            turn = async { fetch.await; std::future::pending().await } => turn,
        }
    }

    /// Applies a page, or finds out what came instead; says what is read next.
    async fn take_page(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        number: u64,
        answered: Result<Answer, Failure>,
    ) -> Result<WalkStep, Failure> {
        let query = reading.query(number);
        let before = marks.in_round();
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => match failure.too_large() {
                Some(begun) => {
                    tracing::warn!("{failure}: reading page {number} in parts");
                    let page = (number, begun.clone());
                    let (hints, rows) = self.take_in_parts(pass, marks, reading, horizon, page).await?;
                    return self.judge(pass, marks, reading, Applied { number, hints, rows, before }).await;
                }
                None if number == 1 && query.per_page > OWN_PER_PAGE && failure.is_about("per_page") => {
                    tracing::warn!("{failure}; reading {OWN_PER_PAGE} a page instead: lower api.per_page");
                    (reading.per_page, reading.full_page) = (OWN_PER_PAGE, OWN_PER_PAGE.into());
                    return Ok(WalkStep::Read(1));
                }
                None if number > 1 && failure.is_past_end(reading.promised >= number) => {
                    return Ok(WalkStep::End(WalkEnd::NoSuchPage));
                }
                None => return Err(failure),
            },
        };
        let (hints, rows) = (answer.page.hints, answer.page.len());
        reading.full_page = hints.per_page.unwrap_or(reading.full_page);
        let mostly_news = self.take_answer(pass, marks, &mut reading.insight, answer).await?;
        horizon.news.store(mostly_news, Ordering::Relaxed);
        self.judge(pass, marks, reading, Applied { number, hints, rows, before }).await
    }

    /// Judges an applied page: what comes next, and how far the pass has come.
    async fn judge(
        &self,
        pass: &mut Pass,
        marks: &Marks,
        reading: &mut Reading,
        applied: Applied,
    ) -> Result<WalkStep, Failure> {
        let Applied { number, hints, rows, before } = applied;
        let seen = pass.seen_before + marks.in_round();
        let new = marks.in_round() - before;
        let all_live_seen = match pass.kind {
            PassKind::Sweep if new == 0 => {
                let seen = pass.seen_before + marks.mirrored_in_round();
                self.look(|view| view.live_count()).await? <= seen
            }
            PassKind::Sweep => false,
            PassKind::Probe => true,
        };
        let turn = reading.walk.add_page(AppliedPage { number, hints, rows, new, seen, all_live_seen });
        tracing::trace!(pass = pass.id, page = number, "{turn}");
        let promised = hints.promised_pages().unwrap_or(0);
        reading.promised = promised;
        let last_page = match turn {
            // Without a promise the list may have further pages.
            WalkStep::Read(_) if promised == 0 => 0,
            WalkStep::Read(next) => promised.max(next),
            WalkStep::End(_) => number,
        };
        pass.position = Position { last_page, per_page: reading.per_page.into() };
        let done = pass.tally.customers_seen;
        let of = hints.total.unwrap_or(pass.live_before).max(done);
        self.progress.send_replace(Progress { phase: Phase::Reading, done, of });
        Ok(turn)
    }

    async fn probe_from(&self) -> Result<Option<Timestamp>, StoreError> {
        // One creation time in the future must not make the probe blind to everything before it.
        let now = time::written(self.clock.now());
        let newest = self.look(move |view| mirror::newest_created_at(view.conn(), &now)).await?;
        let overlap = PROBE_OVERLAP.max(self.settings.consistency.0);
        Ok(newest.and_then(|newest| newest.checked_sub(overlap).ok()))
    }

    /// Requests a page until one comes.
    async fn read_page(&self, query: PageQuery, horizon: &Horizon) -> Result<Answer, Failure> {
        let (page, asked) = self.list(query).await?;
        Ok(horizon.answered(query.page, page, asked))
    }

    /// Requests a page, or a part of one, until one comes.
    pub(super) async fn list(&self, query: PageQuery) -> Result<(Page, Arc<Asked>), Failure> {
        self.persist(TRIES, || async {
            let asked = self.asking();
            let page = self.remote.list(query).await.map_err(Setback::Remote)?;
            Ok((page, asked))
        })
        .await
    }
}
