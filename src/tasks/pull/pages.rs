//! Reading the list: several pages under way at once, believed and applied one after the other.
//!
//! ```text
//!   numbers ─▶ up to `max_concurrent_requests` in flight ─▶ sound pages in their order ─▶ believed ─▶ applied
//!                    each asked again until sound            (a short queue)           one after the other
//! ```
//!
//! Everything waits for what comes after it: a slow database stops the requests, not the memory. What is applied is always the
//! list's beginning without a gap, so that a later process can go on from there. A page that is sound and not believed is asked
//! for again alone, with nothing newer applied.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::apply::{Insight, may_be_read_at_once};
use super::marks::Marks;
use super::{Failure, Pass, Phase, Progress, Pull, Setback};
use crate::model::{Customer, Page, PageQuery, PassKind, time};
use crate::reconcile::paging::{self, PageFault, Paging, Turn};
use crate::reconcile::parts::{Part, Parts};
use crate::reconcile::retry::TRIES;
use crate::reconcile::rows::RowSet;
use crate::remote::Remote;
use crate::store::passes::Position;
use crate::store::{holds, mirror};
use crate::tasks::echoes::Asked;

/// The API's own page size, for a server that refuses a larger one instead of answering with less.
const OWN_PER_PAGE: u32 = 10;

/// After so many pages in a row that show nobody new, the list has no end: even one that grows by a page a request does not
/// push the same customers on so often.
const MOST_BARREN_PAGES: u32 = 20;

/// How far before the newest known customer a probe begins: customers made in the same minute may become visible out of order.
const PROBE_OVERLAP: Duration = Duration::from_secs(60);

/// How many pages wait for the database when it is slower than the API.
const QUEUE: usize = 2;

/// A sound page, and the how-manieth answer of this pass it was.
pub(super) struct Answer {
    pub(super) page: Page,
    number: u64,
    /// Where on the list its positions are.
    pub(super) place: Place,
    /// Whether it is a page, or one of its parts.
    pub(super) is_page: bool,
    /// When it was asked for.
    pub(super) asked: Arc<Asked>,
    /// Its customers, where they were read in advance because most are news.
    pub(super) read: Option<Vec<Customer>>,
}

impl Answer {
    /// The answer to a request for a part of a page.
    pub(super) fn of_part(page: Page, asked: Arc<Asked>, place: Place) -> Self {
        Self { page, number: 0, place, is_page: false, asked, read: None }
    }
}

/// Where the customers of an answer stand in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    page: u64,
    /// How many customers of that page stand before them.
    before: u64,
}

impl Place {
    /// Of a part of a page.
    pub(super) fn of_part(parts: &Parts, part: Part) -> Self {
        let (page, first) = parts.place(part, 1);
        Self { page, before: first - 1 }
    }

    /// Page and position of the customer at this position of the answer.
    pub(super) fn of(&self, position: u64) -> (u64, u64) {
        (self.page, self.before + position)
    }
}

/// What all requests of a pass share.
#[derive(Default)]
pub(super) struct Horizon {
    /// How many sound pages came.
    pub(super) answers: AtomicU64,
    /// The list's last page, by the newest of them: no further one is asked for.
    pub(super) last_page: AtomicU64,
    /// Whether the page that was applied last was mostly news: then pages are read whole while others are applied.
    news: AtomicBool,
}

impl Horizon {
    /// Takes note of a sound page.
    fn answered(&self, page: Page, asked: Arc<Asked>) -> Answer {
        self.last_page.store(page.last_page, Ordering::Relaxed);
        let number = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        // What cannot be read is told when it is its turn.
        let read = || page.customers.iter().map(|listed| listed.read().ok()).collect();
        let ahead = self.news.load(Ordering::Relaxed) && may_be_read_at_once(&page.customers);
        let read = if ahead { read() } else { None };
        let place = Place { page: page.page, before: 0 };
        Answer { page, number, place, is_page: true, asked, read }
    }
}

/// Where a pass stands in what it believes and applies.
pub(super) struct Reading {
    pub(super) per_page: u32,
    pub(super) created_from: Option<Timestamp>,
    pub(super) paging: Paging,
    pub(super) insight: Insight,
    barren: u32,
}

impl Reading {
    /// Fails when too many pages in a row have shown no new customer.
    fn note_barren(&mut self, page: u64, any_new: bool) -> Result<(), Failure> {
        self.barren = if any_new { 0 } else { self.barren + 1 };
        match self.barren == MOST_BARREN_PAGES {
            true => Err(Failure::Endless { page }),
            false => Ok(()),
        }
    }

    fn query(&self, page: u64) -> PageQuery {
        PageQuery { page, per_page: self.per_page, created_from: self.created_from }
    }
}

impl<R: Remote> Pull<R> {
    /// Reads every page, from where the pass stands on, and applies it.
    pub(super) async fn read_pages(&self, pass: &mut Pass, marks: &mut Marks) -> Result<(), Failure> {
        let created_from = match pass.kind {
            PassKind::Sweep => None,
            PassKind::Probe => self.probe_from().await?,
        };
        let per_page = match pass.position.per_page {
            0 => self.settings.per_page,
            // A sweep that goes on counts its pages as they were counted before.
            resumed => u32::try_from(resumed).unwrap_or(self.settings.per_page),
        };
        let paging = Paging::default();
        let unsettled = self.store.read(|conn| {
            let mut rows = RowSet::default();
            holds::each_unsettled_row(conn, |row| {
                rows.insert(row);
            })?;
            Ok(rows)
        });
        let insight = Insight::new(unsettled.await?);
        let mut reading = Reading { per_page, created_from, paging, insight, barren: 0 };
        let horizon = Horizon::default();
        let mut turn = Turn::Read(pass.tally.pages + 1);
        while let Turn::Read(next) = turn {
            turn = self.read_on(pass, marks, &mut reading, &horizon, next).await?;
        }
        Ok(())
    }

    /// Reads from this page on, as far as the list is known to go. The first page of a pass is read alone: it tells how far.
    async fn read_on(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        first: u64,
    ) -> Result<Turn, Failure> {
        horizon.last_page.fetch_max(first, Ordering::Relaxed);
        let from = reading.query(first);
        let (send, mut queue) = mpsc::channel(QUEUE);
        let fetch = async move {
            let known = |page: &u64| std::future::ready(*page <= horizon.last_page.load(Ordering::Relaxed));
            let ask =
                |page| async move { (page, self.sound_page(PageQuery { page, ..from }, horizon).await) };
            let pages = stream::iter(first..).take_while(known).map(ask);
            let mut pages = std::pin::pin!(pages.buffered(self.settings.max_concurrent_requests));
            while let Some(answered) = pages.next().await {
                if send.send(answered).await.is_err() {
                    break;
                }
            }
        };
        let apply = async {
            let mut turn = Turn::Read(first);
            while let Some((page, answered)) = queue.recv().await {
                turn = self.take_page(pass, marks, reading, horizon, page, answered).await?;
                if turn != Turn::Read(page + 1) {
                    break;
                }
            }
            Ok(turn)
        };
        tokio::select! {
            turn = apply => turn,
            // The end of what is known is not the end of what is to be applied. And what is still under way when everything is
            // applied was asked for in vain.
            turn = async { fetch.await; std::future::pending().await } => turn,
        }
    }

    /// Believes a page and applies it, or finds out what came instead.
    async fn take_page(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        number: u64,
        answered: Result<Answer, Failure>,
    ) -> Result<Turn, Failure> {
        let query = reading.query(number);
        let met_before = pass.met_customers();
        if let Err(failure) = &answered
            && let Some(begun) = failure.too_large()
        {
            tracing::warn!("{failure}: reading page {number} in parts");
            let page = (number, begun.clone());
            let turn = self.take_in_parts(pass, marks, reading, horizon, page).await?;
            reading.note_barren(number, pass.met_customers() > met_before)?;
            return Ok(turn);
        }
        let (answer, turn) = match answered {
            Ok(answer) => match reading.paging.accept(number, &answer.page, answer.number) {
                Ok(turn) => (answer, turn),
                Err(_) => self.believed_page(query, &mut reading.paging, horizon).await?,
            },
            Err(failure) if number == 1 && query.per_page > OWN_PER_PAGE && failure.is_about("per_page") => {
                tracing::warn!("{failure}; reading {OWN_PER_PAGE} a page instead: lower api.per_page");
                reading.per_page = OWN_PER_PAGE;
                return Ok(Turn::Read(1));
            }
            Err(failure) if number > 1 && failure.may_be_past_end() => {
                // Servers differ in what they answer past the end; the first page tells where that is.
                let first = self.sound_page(PageQuery { page: 1, ..query }, horizon).await?;
                match reading.paging.ends_before(number, &first.page) {
                    Ok(true) => (first, Turn::Done),
                    Ok(false) | Err(_) => return Err(failure),
                }
            }
            Err(failure) => return Err(failure),
        };
        let Page { total, last_page, per_page, .. } = answer.page;
        pass.position = Position { last_page, per_page };
        let mostly_news = self.apply_page(pass, marks, &mut reading.insight, answer).await?;
        horizon.news.store(mostly_news, Ordering::Relaxed);
        // An answer that came later may have told of more pages.
        let turn = match turn {
            Turn::Done if horizon.last_page.load(Ordering::Relaxed) > number => Turn::Read(number + 1),
            turn => turn,
        };
        reading.note_barren(number, pass.met_customers() > met_before)?;
        let done = pass.tally.customers_seen;
        self.progress.send_replace(Progress { phase: Phase::Reading, done, of: total.max(done) });
        Ok(turn)
    }

    async fn probe_from(&self) -> Result<Option<Timestamp>, Failure> {
        // One creation time in the future must not make the probe blind to everything before it.
        let now = time::written(self.clock.now());
        let newest = self.store.read(move |conn| mirror::newest_created_at(conn, &now)).await?;
        Ok(newest.and_then(|newest| newest.checked_sub(PROBE_OVERLAP).ok()))
    }

    /// Asks for a page until one comes that is sound.
    async fn sound_page(&self, query: PageQuery, horizon: &Horizon) -> Result<Answer, Failure> {
        self.judged_page(query, TRIES, |page, asked| {
            paging::check(query.page, &page)?;
            Ok(horizon.answered(page, asked))
        })
        .await
    }

    /// Asks again for a page that was sound and not believed, until one comes that is both.
    async fn believed_page(
        &self,
        query: PageQuery,
        paging: &mut Paging,
        horizon: &Horizon,
    ) -> Result<(Answer, Turn), Failure> {
        let paging = Mutex::new(paging);
        self.judged_page(query, TRIES - 1, |page, asked| {
            paging::check(query.page, &page)?;
            let answer = horizon.answered(page, asked);
            let mut paging = paging.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = paging.accept(query.page, &answer.page, answer.number)?;
            Ok((answer, turn))
        })
        .await
    }

    pub(super) async fn judged_page<T: Send>(
        &self,
        query: PageQuery,
        tries: usize,
        judge: impl Fn(Page, Arc<Asked>) -> Result<T, PageFault> + Sync,
    ) -> Result<T, Failure> {
        self.persist(tries, || async {
            let asked = self.echoes.asking();
            let page = self.remote.list(query).await.map_err(Setback::Remote)?;
            judge(page, asked).map_err(|fault| self.page_setback(query.page, &fault))
        })
        .await
    }
}
