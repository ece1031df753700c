//! The answer to a request for a page or a part of one, as the pass applies it.

use std::sync::Arc;

use crate::tasks::echoes::Asked;
use komoju_core::plan::parts::{PagePart, PageSplit};
use komoju_core::{Customer, Page};

/// A page as it came, or one of its parts.
pub(super) struct Answer {
    pub(super) page: Page,
    /// Where on the list its positions are.
    pub(super) place: Place,
    /// Whether it is a page, or one of its parts.
    pub(super) is_page: bool,
    /// When it was requested.
    pub(super) asked: Arc<Asked>,
    /// Its customers, where they were read in advance because most are news.
    pub(super) read: Option<Vec<Customer>>,
}

impl Answer {
    /// The answer to a request for a part of a page.
    pub(super) fn of_part(page: Page, asked: Arc<Asked>, place: Place) -> Self {
        Self { page, place, is_page: false, asked, read: None }
    }
}

/// Where the customers of an answer stand in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) page: u64,
    /// How many customers of that page stand before them.
    before: u64,
}

impl Place {
    /// Of a whole page.
    pub(super) fn of_page(page: u64) -> Self {
        Self { page, before: 0 }
    }

    /// Of a part of a page.
    pub(super) fn of_part(parts: &PageSplit, part: PagePart) -> Self {
        let (page, first) = parts.place(part, 1);
        Self { page, before: first - 1 }
    }

    /// Page and position of the customer at this position of the answer.
    pub(super) fn of(&self, position: u64) -> (u64, u64) {
        (self.page, self.before + position)
    }
}
