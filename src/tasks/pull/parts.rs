//! Reads a page that is too large for one answer in parts. Each part is applied before the next is
//! requested, so the memory is bounded, whatever the size of the customers.

use std::sync::Arc;

use super::answer::{PageAnswer, PageOffset};
use super::pages::{ListCursor, ReadAhead};
use super::seen_customers::SeenCustomers;
use super::{Failure, Pass, Pull};
use crate::remote::{Remote, TruncatedPage};
use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::parts::{PagePart, PageSplit};
use komoju_core::{Hints, Page, PageQuery};

/// The result of reading a page in parts.
enum PartsResult {
    /// The whole page was read: the hints of the list, and the number of rows on the page.
    Whole(Hints, u64),
    /// The server answers with at most this many customers a page, so the page is smaller than
    /// requested and must be read again.
    Capped { per_page: u64 },
}

/// The answer to the request for one part.
enum PartAnswer {
    Page(Page, Arc<RequestMark>),
    TooLarge(TruncatedPage),
    PastEnd,
}

impl<R: Remote> Pull<R> {
    /// Reads and applies page `number` after its answer was too large. `begun` is what could be
    /// read of that answer. Returns the hints of the list and the number of rows on the page.
    pub(super) async fn apply_in_parts(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cursor: &mut ListCursor,
        read_ahead: &ReadAhead,
        (number, begun): (u64, TruncatedPage),
    ) -> Result<(Hints, u64), Failure> {
        let mut per_page = cursor.full_page;
        let (hints, rows) = loop {
            let whole = PagePart { page: number, per_page };
            match self.read_parts(pass, seen_customers, cursor, whole, begun.clone()).await? {
                PartsResult::Whole(hints, rows) => break (hints, rows),
                // Each cap is smaller than the one before, so this loop ends.
                PartsResult::Capped { per_page: capped } => per_page = capped,
            }
        };
        pass.tally.pages += 1;
        read_ahead.promise(hints.promised_pages());
        Ok((hints, rows))
    }

    async fn read_parts(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cursor: &mut ListCursor,
        whole: PagePart,
        begun: TruncatedPage,
    ) -> Result<PartsResult, Failure> {
        let mut parts = PageSplit::new(whole);
        let mut known = Some(begun);
        let (mut hints, mut rows) = (Hints::default(), 0);
        while let Some(part) = parts.next_part() {
            let query = PageQuery {
                page: part.page,
                per_page: u32::try_from(part.per_page).unwrap_or(u32::MAX),
                created_from: cursor.created_from,
            };
            let answered = match known.take() {
                Some(begun) => PartAnswer::TooLarge(begun),
                None => self.read_part(query).await?,
            };
            match answered {
                PartAnswer::Page(Page { hints: Hints { per_page: Some(capped), .. }, .. }, _)
                    if capped < part.per_page =>
                {
                    return Ok(PartsResult::Capped { per_page: capped });
                }
                PartAnswer::Page(page, request) => {
                    let said = page.hints;
                    let last_page = said.last_page.map(|last| parts.pages(part, last));
                    hints = Hints { page: None, per_page: Some(whole.per_page), last_page, ..said };
                    rows += page.len();
                    // A list may leave out customers, so a short or empty part does not end it.
                    let is_last = said.promised_pages().is_some_and(|pages| pages <= part.page);
                    if page.len() < part.per_page && is_last {
                        parts.end();
                    }
                    let offset = PageOffset::of_part(&parts, part);
                    let answer = PageAnswer::of_part(page, request, offset);
                    self.apply_answer(pass, seen_customers, &mut cursor.cache, answer).await?;
                }
                PartAnswer::TooLarge(_) if parts.split(part) => {}
                PartAnswer::TooLarge(begun) => {
                    if begun.per_page.is_some_and(|per_page| per_page > 1) {
                        let page = whole.page;
                        return Err(Failure::Unsplittable { page, per_page: begun.per_page.unwrap_or(0) });
                    }
                    rows += 1;
                    let last_page = begun.last_page.map(|last| parts.pages(part, last));
                    hints = Hints { last_page: last_page.or(hints.last_page), ..hints };
                    let offset = PageOffset::of_part(&parts, part);
                    self.apply_unreadable(pass, seen_customers, begun.first.map(|bad| *bad), offset).await?;
                }
                PartAnswer::PastEnd => parts.end(),
            }
        }
        Ok(PartsResult::Whole(hints, rows))
    }

    async fn read_part(&self, query: PageQuery) -> Result<PartAnswer, Failure> {
        match self.list(query).await {
            Ok((page, request)) => Ok(PartAnswer::Page(page, request)),
            Err(failure) => match failure.too_large() {
                Some(begun) => Ok(PartAnswer::TooLarge(begun.clone())),
                None if query.page > 1 && failure.is_past_end(false) => Ok(PartAnswer::PastEnd),
                None => Err(failure),
            },
        }
    }
}
