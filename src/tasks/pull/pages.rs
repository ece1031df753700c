//! Reads the list: several pages in flight, applied in their order. Reads it again if it shows
//! fewer customers than its `total`.
//!
//! ```text
//!   numbers ─▶ up to `max_concurrent_requests` in flight ─▶ pages in their order ─▶ applied ─▶ walk: the next page, or the end
//!               as far as the list is known to go            (a short queue)
//! ```
//!
//! The queue is bounded, so a slow database delays the requests and does not fill the memory. The
//! pages that the first round applied are always the first ones without a gap, so a later process
//! can resume after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::answer::{PageAnswer, PageOffset};
use super::page::{ListCache, may_be_read_at_once};
use super::seen_customers::SeenCustomers;
use super::{Failure, Pass, PassProgress, Phase, Pull, RequestError};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::passes::ListPosition;
use crate::store::log::{holds, mirror};
use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::retry::TRIES;
use komoju_core::plan::rows::RowSet;
use komoju_core::plan::walk::{self, AppliedPage, ListReport, ListWalk, RoundResult, WalkEnd, WalkStep};
use komoju_core::{Hints, Page, PageQuery, PassKind, time};

/// OWN_PER_PAGE is the default page size of the API. It is used if the server refuses a larger one
/// instead of answering with fewer customers.
const OWN_PER_PAGE: u32 = 10;

/// PROBE_OVERLAP controls how far before the newest known customer a probe starts at least.
/// Customers created in the same minute may become visible out of order.
const PROBE_OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// QUEUE controls how many pages wait for the database while it is slower than the API.
const QUEUE: usize = 2;

/// How far a round may request pages before the pages before them are applied.
pub(super) struct ReadAhead {
    /// The last page that the list is known or expected to have.
    last_page: AtomicU64,
    /// The first page that was empty. No later page is requested ahead.
    first_empty: AtomicU64,
    /// Whether most customers of the last applied page were new or changed. Then the customers of a
    /// page are parsed when it arrives, while other pages are applied.
    mostly_new: AtomicBool,
}

impl ReadAhead {
    fn new(expected: u64) -> Self {
        Self {
            last_page: AtomicU64::new(expected),
            first_empty: AtomicU64::new(u64::MAX),
            mostly_new: AtomicBool::new(false),
        }
    }

    fn reaches(&self, page: u64) -> bool {
        page <= self.last_page.load(Ordering::Relaxed) && page <= self.first_empty.load(Ordering::Relaxed)
    }

    /// Notes how many pages the list promises.
    pub(super) fn promise(&self, pages: Option<u64>) {
        if let Some(pages) = pages {
            self.last_page.store(pages, Ordering::Relaxed);
        }
    }

    /// Notes a page that arrived, and parses its customers in advance if most may be new.
    fn note_page(&self, number: u64, page: Page, request: Arc<RequestMark>) -> PageAnswer {
        self.promise(page.hints.promised_pages());
        if page.is_empty() {
            self.first_empty.fetch_min(number, Ordering::Relaxed);
        }
        // An error here is reported when the page is applied, which parses it again.
        let read = || page.customers.iter().map(|listed| listed.read().ok()).collect();
        let ahead = self.mostly_new.load(Ordering::Relaxed) && may_be_read_at_once(&page.customers);
        let read = if ahead { read() } else { None };
        PageAnswer { page, offset: PageOffset::of_page(number), is_page: true, request, read }
    }
}

/// The state of reading the list.
pub(super) struct ListCursor {
    pub(super) per_page: u32,
    pub(super) created_from: Option<Timestamp>,
    pub(super) walk: ListWalk,
    pub(super) cache: ListCache,
    /// The number of rows of a full page, as the last answer says.
    pub(super) full_page: u64,
    /// The last page that the list promises, as the last answer says. 0 if it promises none.
    pub(super) promised: u64,
}

/// An applied page and its counts.
struct PageCounts {
    number: u64,
    hints: Hints,
    rows: u64,
    /// The number of customers that the round listed before this page.
    before: u64,
}

impl ListCursor {
    fn query(&self, page: u64) -> PageQuery {
        PageQuery { page, per_page: self.per_page, created_from: self.created_from }
    }
}

/// What the rounds of a pass found out about the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundsSummary {
    /// The report of the last round. Its `seen` counts all rounds, unless the sweep is resumed.
    pub(super) report: ListReport,
    /// Whether no further round showed a new customer. `None` without further rounds.
    pub(super) in_vain: Option<bool>,
}

impl<R: Remote> Pull<R> {
    /// Reads and applies every page, starting at the position of the pass. A sweep reads the list
    /// again if that may show more customers.
    pub(super) async fn read_pages(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
    ) -> Result<RoundsSummary, Failure> {
        let mut cursor = self.start_reading(pass).await?;
        let (began, mut rounds) = (self.clock.elapsed(), RoundsSummary::default());
        for round in 1..=walk::ROUNDS {
            let (round_began, seen_before) = (self.clock.elapsed(), seen_customers.rows.len());
            seen_customers.begin_round();
            let first = if round == 1 { pass.tally.pages + 1 } else { 1 };
            self.read_round(pass, seen_customers, &mut cursor, first).await?;
            rounds.report = cursor.walk.report();
            let (seen, new) = (
                seen_customers.rows.len() + seen_customers.others(),
                seen_customers.rows.len() - seen_before,
            );
            if !pass.is_resumed {
                rounds.report.seen = seen;
            }
            if round > 1 {
                rounds.in_vain = Some(rounds.in_vain.unwrap_or(true) && new == 0);
            }
            let ended = self.clock.elapsed();
            let needed = ended.saturating_sub(began) + ended.saturating_sub(round_began);
            let over = self.round_over(pass, &rounds, round, new, needed);
            // A resumed sweep cannot compare with `total`: which customers the earlier process saw
            // is not known.
            if pass.kind == PassKind::Probe || pass.is_resumed || !walk::read_again(over) {
                break;
            }
            let total = over.total.unwrap_or(0);
            tracing::info!(
                seen,
                total,
                "the list shows {seen} customers and its total is {total}: reading it again"
            );
        }
        pass.ignores_page = rounds.report.ignores_page && pass.kind == PassKind::Sweep;
        Ok(rounds)
    }

    /// Returns the facts that decide about a further round. `needed` is the time from the start of
    /// the first round to the expected end of a further one.
    fn round_over(
        &self,
        pass: &Pass,
        rounds: &RoundsSummary,
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
            vain_sweeps: pass.list_history.vain_sweeps.unsigned_abs(),
            sweep: pass.sweep().unsigned_abs(),
        }
    }

    async fn start_reading(&self, pass: &Pass) -> Result<ListCursor, Failure> {
        let created_from = match pass.kind {
            PassKind::Sweep => None,
            PassKind::Probe => self.probe_from().await?,
        };
        let per_page = match pass.position.per_page {
            0 => self.settings.per_page,
            // A resumed sweep keeps its page size, because its position is a number of pages.
            resumed => u32::try_from(resumed).unwrap_or(self.settings.per_page),
        };
        let unsettled = self.read_mirror(|view| {
            let mut rows = RowSet::default();
            holds::each_unsettled_row(view.conn(), |row| {
                rows.insert(row);
            })?;
            Ok(rows)
        });
        let cache = ListCache::new(unsettled.await?);
        let (walk, full_page) = (ListWalk::default(), per_page.into());
        Ok(ListCursor { per_page, created_from, walk, cache, full_page, promised: 0 })
    }

    async fn read_round(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cursor: &mut ListCursor,
        first: u64,
    ) -> Result<(), Failure> {
        let live = match pass.kind {
            PassKind::Sweep => pass.live_before,
            PassKind::Probe => 0,
        };
        cursor.walk = ListWalk::new(live, cursor.full_page);
        // A list without hints is expected to be as long as the mirror.
        let read_ahead = ReadAhead::new(live.div_ceil(cursor.full_page.max(1)));
        let mut turn = WalkStep::Read(first);
        while let WalkStep::Read(next) = turn {
            turn = self.read_from(pass, seen_customers, cursor, &read_ahead, next).await?;
        }
        if turn == WalkStep::End(WalkEnd::Growing) {
            tracing::warn!("the list has far more pages than it promised, and was not read to its end");
        }
        Ok(())
    }

    /// Reads from page `first` up to the last page that the list is known to have. The first page
    /// of a pass is read alone, because it tells how many pages there are.
    async fn read_from(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cursor: &mut ListCursor,
        read_ahead: &ReadAhead,
        first: u64,
    ) -> Result<WalkStep, Failure> {
        let from = cursor.query(first);
        let alone = pass.tally.pages == 0;
        let (send, mut queue) = mpsc::channel(QUEUE);
        let fetch = async move {
            let known = |page: &u64| {
                let is_known = *page == first || (!alone && read_ahead.reaches(*page));
                std::future::ready(is_known)
            };
            let request =
                |page| async move { (page, self.read_page(PageQuery { page, ..from }, read_ahead).await) };
            let pages = stream::iter(first..).take_while(known).map(request);
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
                turn = self.apply_page(pass, seen_customers, cursor, read_ahead, page, answered).await?;
                if turn != WalkStep::Read(page + 1) {
                    break;
                }
            }
            Ok(turn)
        };
        tokio::select! {
            turn = apply => turn,
            // The last request is not the last page to apply, so only `apply` ends this. Requests
            // that are in flight at that time are dropped, because no page after the end is needed.
            turn = async { fetch.await; std::future::pending().await } => turn,
        }
    }

    /// Applies a page, or handles the failure to get it. Returns what to read next.
    async fn apply_page(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cursor: &mut ListCursor,
        read_ahead: &ReadAhead,
        number: u64,
        answered: Result<PageAnswer, Failure>,
    ) -> Result<WalkStep, Failure> {
        let query = cursor.query(number);
        let before = seen_customers.in_round();
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => match failure.too_large() {
                Some(begun) => {
                    tracing::warn!("{failure}: reading page {number} in parts");
                    let page = (number, begun.clone());
                    let (hints, rows) =
                        self.apply_in_parts(pass, seen_customers, cursor, read_ahead, page).await?;
                    return self
                        .decide_next(pass, seen_customers, cursor, PageCounts { number, hints, rows, before })
                        .await;
                }
                None if number == 1 && query.per_page > OWN_PER_PAGE && failure.is_about("per_page") => {
                    tracing::warn!(
                        "{failure}; reading {OWN_PER_PAGE} customers a page instead: lower api.per_page"
                    );
                    (cursor.per_page, cursor.full_page) = (OWN_PER_PAGE, OWN_PER_PAGE.into());
                    return Ok(WalkStep::Read(1));
                }
                None if number > 1 && failure.is_past_end(cursor.promised >= number) => {
                    return Ok(WalkStep::End(WalkEnd::NoSuchPage));
                }
                None => return Err(failure),
            },
        };
        let (hints, rows) = (answer.page.hints, answer.page.len());
        cursor.full_page = hints.per_page.unwrap_or(cursor.full_page);
        let mostly_new = self.apply_answer(pass, seen_customers, &mut cursor.cache, answer).await?;
        read_ahead.mostly_new.store(mostly_new, Ordering::Relaxed);
        self.decide_next(pass, seen_customers, cursor, PageCounts { number, hints, rows, before }).await
    }

    /// Updates the position and the progress after a page was applied. Returns what to read next.
    async fn decide_next(
        &self,
        pass: &mut Pass,
        seen_customers: &SeenCustomers,
        cursor: &mut ListCursor,
        applied: PageCounts,
    ) -> Result<WalkStep, Failure> {
        let PageCounts { number, hints, rows, before } = applied;
        let seen = pass.seen_before + seen_customers.in_round();
        let new = seen_customers.in_round() - before;
        let all_live_seen = match pass.kind {
            PassKind::Sweep if new == 0 => {
                let seen = pass.seen_before + seen_customers.mirrored_in_round();
                self.read_mirror(|view| view.live_count()).await? <= seen
            }
            PassKind::Sweep => false,
            PassKind::Probe => true,
        };
        let turn = cursor.walk.add_page(AppliedPage { number, hints, rows, new, seen, all_live_seen });
        tracing::trace!(pass = pass.id, page = number, "{turn}");
        let promised = hints.promised_pages().unwrap_or(0);
        cursor.promised = promised;
        let last_page = match turn {
            // Without a promise the length of the list is unknown.
            WalkStep::Read(_) if promised == 0 => 0,
            WalkStep::Read(next) => promised.max(next),
            WalkStep::End(_) => number,
        };
        pass.position = ListPosition { last_page, per_page: cursor.per_page.into() };
        let done = pass.tally.customers_seen;
        let of = hints.total.unwrap_or(pass.live_before).max(done);
        self.progress.send_replace(PassProgress { phase: Phase::Reading, done, of });
        Ok(turn)
    }

    async fn probe_from(&self) -> Result<Option<Timestamp>, StoreError> {
        // A creation time in the future would hide every customer created before it.
        let now = time::written(self.clock.now());
        let newest = self.read_mirror(move |view| mirror::newest_created_at(view.conn(), &now)).await?;
        let overlap = PROBE_OVERLAP.max(self.settings.consistency.0);
        Ok(newest.and_then(|newest| newest.checked_sub(overlap).ok()))
    }

    /// Requests a page, with retries.
    async fn read_page(&self, query: PageQuery, read_ahead: &ReadAhead) -> Result<PageAnswer, Failure> {
        let (page, request) = self.list(query).await?;
        Ok(read_ahead.note_page(query.page, page, request))
    }

    /// Requests a page or a part of one, with retries. The mark is of the try that succeeded.
    pub(super) async fn list(&self, query: PageQuery) -> Result<(Page, Arc<RequestMark>), Failure> {
        self.with_retries(TRIES, || async {
            let request = self.mark_request();
            let page = self.remote.list(query).await.map_err(RequestError::Remote)?;
            Ok((page, request))
        })
        .await
    }
}
