//! A page that is too large for one answer is read in parts, one after the other, each applied before the next is
//! requested: so the memory stays bounded, however large the customers are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::marks::Marks;
use super::pages::{Answer, Horizon, Place, Reading};
use super::{Failure, Pass, Pull};
use crate::model::{Page, PageQuery};
use crate::reconcile::paging::{self, Turn};
use crate::reconcile::parts::{Part, Parts};
use crate::reconcile::retry::TRIES;
use crate::remote::{Beginning, Remote};
use crate::store::passes::Position;
use crate::tasks::echoes::Asked;

/// What is known of the list when a page was read in parts.
enum Read {
    /// The page ends here.
    Whole { last_page: Option<u64>, is_end: bool },
    /// The server answers with pages of so many customers at most: the page is smaller than it was taken for.
    Capped { per_page: u64 },
}

/// One part's answer.
enum Answered {
    Page(Page, Arc<Asked>),
    TooLarge(Beginning),
    PastEnd,
}

impl<R: Remote> Pull<R> {
    /// Reads and applies page `number`, which was too large as `begun` says.
    pub(super) async fn take_in_parts(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        (number, begun): (u64, Beginning),
    ) -> Result<Turn, Failure> {
        let mut per_page = reading.paging.per_page().unwrap_or(u64::from(reading.per_page));
        let (last_page, is_end) = loop {
            let whole = Part { page: number, per_page };
            match self.read_parts(pass, marks, reading, whole, begun.clone()).await? {
                Read::Whole { last_page, is_end } => break (last_page, is_end),
                // Strictly smaller, so this ends.
                Read::Capped { per_page: capped } => per_page = capped,
            }
        };
        pass.tally.pages += 1;
        let answered = horizon.answers.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(last_page) = last_page {
            horizon.last_page.store(last_page, Ordering::Relaxed);
            pass.position = Position { last_page, per_page };
        }
        Ok(match reading.paging.accept_parts(number, last_page, answered) {
            // The API has not said where the list ends.
            None if !is_end => Turn::Read(number + 1),
            None => Turn::Done,
            Some(turn) => turn,
        })
    }

    async fn read_parts(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        whole: Part,
        begun: Beginning,
    ) -> Result<Read, Failure> {
        let mut parts = Parts::new(whole);
        let mut known = Some(begun);
        let (mut last_page, mut is_end) = (None, false);
        while let Some(part) = parts.next_part() {
            let query = PageQuery {
                page: part.page,
                per_page: u32::try_from(part.per_page).unwrap_or(u32::MAX),
                created_from: reading.created_from,
            };
            let answered = match known.take() {
                Some(begun) => Answered::TooLarge(begun),
                None => self.read_part(query).await?,
            };
            let said = match answered {
                Answered::Page(page, _) if page.per_page < part.per_page => {
                    return Ok(Read::Capped { per_page: page.per_page });
                }
                Answered::Page(page, asked) => {
                    let said = (page.last_page, page.page < part.page);
                    // Where the server answers with another page, the place is that page's.
                    let answered = Part { page: page.page, ..part };
                    let place = Place::of_part(&parts, answered);
                    let answer = Answer::of_part(page, asked, place);
                    self.apply_page(pass, marks, &mut reading.insight, answer).await?;
                    Some(said)
                }
                Answered::TooLarge(_) if parts.split(part) => continue,
                Answered::TooLarge(begun) => {
                    if begun.per_page.is_some_and(|per_page| per_page > 1) {
                        let page = whole.page;
                        return Err(Failure::Unsplittable { page, per_page: begun.per_page.unwrap_or(0) });
                    }
                    let place = Place::of_part(&parts, part);
                    self.apply_unreadable(pass, marks, begun.first.map(|bad| *bad), place).await?;
                    begun.last_page.map(|last_page| (last_page, false))
                }
                Answered::PastEnd => Some((last_page.unwrap_or(0), true)),
            };
            if let Some((said, is_past_end)) = said {
                if !is_past_end {
                    last_page = Some(parts.pages(part, said));
                }
                if is_past_end || part.page >= said {
                    is_end = true;
                    parts.end();
                }
            }
        }
        Ok(Read::Whole { last_page, is_end })
    }

    async fn read_part(&self, query: PageQuery) -> Result<Answered, Failure> {
        let sound = self.judged_page(query, TRIES, |page, asked| {
            paging::check(query.page, &page)?;
            Ok((page, asked))
        });
        match sound.await {
            Ok((page, asked)) => Ok(Answered::Page(page, asked)),
            Err(failure) => match failure.too_large() {
                Some(begun) => Ok(Answered::TooLarge(begun.clone())),
                None if query.page > 1 && failure.may_be_past_end() => Ok(Answered::PastEnd),
                None => Err(failure),
            },
        }
    }
}
