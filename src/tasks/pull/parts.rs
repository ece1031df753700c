//! A page that is too large for one answer is read in parts, one after the other, each applied before the next is
//! requested: so the memory stays bounded, however large the customers are.

use std::sync::Arc;

use super::answer::{Answer, Place};
use super::marks::Marks;
use super::pages::{Horizon, Reading};
use super::{Failure, Pass, Pull};
use crate::remote::{Remote, TruncatedPage};
use crate::tasks::echoes::Asked;
use komoju_core::plan::parts::{PagePart, PageSplit};
use komoju_core::{Hints, Page, PageQuery};

/// What is known of the list when a page was read in parts.
enum Read {
    /// The page ends here: what the list says of itself, and how many rows the page has.
    Whole(Hints, u64),
    /// The server answers with pages of so many customers at most: the page is smaller than it was taken for.
    Capped { per_page: u64 },
}

/// One part's answer.
enum Answered {
    Page(Page, Arc<Asked>),
    TooLarge(TruncatedPage),
    PastEnd,
}

impl<R: Remote> Pull<R> {
    /// Reads and applies page `number`, which was too large as `begun` says; returns what the list says of itself, and the page's rows.
    pub(super) async fn take_in_parts(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        horizon: &Horizon,
        (number, begun): (u64, TruncatedPage),
    ) -> Result<(Hints, u64), Failure> {
        let mut per_page = reading.full_page;
        let (hints, rows) = loop {
            let whole = PagePart { page: number, per_page };
            match self.read_parts(pass, marks, reading, whole, begun.clone()).await? {
                Read::Whole(hints, rows) => break (hints, rows),
                // Strictly smaller, so this ends.
                Read::Capped { per_page: capped } => per_page = capped,
            }
        };
        pass.tally.pages += 1;
        horizon.promise(hints.promised_pages());
        Ok((hints, rows))
    }

    async fn read_parts(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        reading: &mut Reading,
        whole: PagePart,
        begun: TruncatedPage,
    ) -> Result<Read, Failure> {
        let mut parts = PageSplit::new(whole);
        let mut known = Some(begun);
        let (mut hints, mut rows) = (Hints::default(), 0);
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
            match answered {
                Answered::Page(Page { hints: Hints { per_page: Some(capped), .. }, .. }, _)
                    if capped < part.per_page =>
                {
                    return Ok(Read::Capped { per_page: capped });
                }
                Answered::Page(page, asked) => {
                    let said = page.hints;
                    let last_page = said.last_page.map(|last| parts.pages(part, last));
                    hints = Hints { page: None, per_page: Some(whole.per_page), last_page, ..said };
                    rows += page.len();
                    let is_promised = said.promised_pages().is_some_and(|pages| pages > part.page);
                    if page.is_empty() || (page.len() < part.per_page && !is_promised) {
                        parts.end();
                    }
                    let place = Place::of_part(&parts, part);
                    let answer = Answer::of_part(page, asked, place);
                    self.take_answer(pass, marks, &mut reading.insight, answer).await?;
                }
                Answered::TooLarge(_) if parts.split(part) => {}
                Answered::TooLarge(begun) => {
                    if begun.per_page.is_some_and(|per_page| per_page > 1) {
                        let page = whole.page;
                        return Err(Failure::Unsplittable { page, per_page: begun.per_page.unwrap_or(0) });
                    }
                    rows += 1;
                    let last_page = begun.last_page.map(|last| parts.pages(part, last));
                    hints = Hints { last_page: last_page.or(hints.last_page), ..hints };
                    let place = Place::of_part(&parts, part);
                    self.apply_unreadable(pass, marks, begun.first.map(|bad| *bad), place).await?;
                }
                Answered::PastEnd => parts.end(),
            }
        }
        Ok(Read::Whole(hints, rows))
    }

    async fn read_part(&self, query: PageQuery) -> Result<Answered, Failure> {
        match self.list(query).await {
            Ok((page, asked)) => Ok(Answered::Page(page, asked)),
            Err(failure) => match failure.too_large() {
                Some(begun) => Ok(Answered::TooLarge(begun.clone())),
                None if query.page > 1 && failure.is_past_end(false) => Ok(Answered::PastEnd),
                None => Err(failure),
            },
        }
    }
}
