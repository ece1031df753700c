//! The answer to a request for a page, or for a part of one, as the pass applies it.

use std::sync::Arc;

use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::parts::{PagePart, PageSplit};
use komoju_core::{Customer, Page};

/// A received page, or a part of one.
pub(super) struct PageAnswer {
    pub(super) page: Page,
    /// The place of its customers in the list.
    pub(super) offset: PageOffset,
    /// Whether it is a whole page, and not a part of one.
    pub(super) is_page: bool,
    /// When it was requested.
    pub(super) request: Arc<RequestMark>,
    /// Its customers, if they were parsed in advance because most are new.
    pub(super) read: Option<Vec<Customer>>,
}

impl PageAnswer {
    /// Returns the answer to a request for a part of a page.
    pub(super) fn of_part(page: Page, request: Arc<RequestMark>, offset: PageOffset) -> Self {
        Self { page, offset, is_page: false, request, read: None }
    }
}

/// The place of an answer's customers in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PageOffset {
    pub(super) page: u64,
    /// The number of customers on that page before them.
    before: u64,
}

impl PageOffset {
    /// Returns the offset of a whole page.
    pub(super) fn of_page(page: u64) -> Self {
        Self { page, before: 0 }
    }

    /// Returns the offset of a part of a page.
    pub(super) fn of_part(parts: &PageSplit, part: PagePart) -> Self {
        let (page, first) = parts.place(part, 1);
        Self { page, before: first - 1 }
    }

    /// Returns the page and the position on it of the customer at `position` of the answer, from 1.
    pub(super) fn position(&self, position: u64) -> (u64, u64) {
        (self.page, self.before + position)
    }
}
