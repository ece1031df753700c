//! Reading a list that moves while it is read: which page comes next, and whether an answer can be believed.
//!
//! A page is believed when it says that it is the page that was asked for, when `last_page` is what `total` and `per_page` make
//! it, when it holds exactly as many customers as that leaves for it, when it is not the page before it over again (unless the
//! list grew by a whole page meanwhile, which pushes every customer one page on), and when all pages of the pass have one
//! `per_page`. The list is read whole when every page up to the *newest* `last_page` was believed.
//!
//! This says nothing about customers that were skipped because the list moved: that is for [`super::evidence`].

use std::collections::HashMap;

use crate::model::{Customer, CustomerId, Page};

/// Where a pass stands in the list.
#[derive(Clone, Debug, Default)]
pub struct Paging {
    per_page: Option<u64>,
    previous: Vec<CustomerId>,
    previous_total: u64,
}

/// What comes after a believed page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This page.
    Read(u64),
    /// The list was read whole.
    Done,
}

/// Why a page is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// The answer is about another page.
    #[error("page {asked} was asked for and page {answered} came")]
    OtherPage {
        /// What was asked for.
        asked: u64,
        /// What came.
        answered: u64,
    },
    /// Pages of no customers.
    #[error("the answer says that a page holds no customers (per_page 0)")]
    NoPerPage,
    /// The size of pages changed within the pass.
    #[error("pages held {was} customers at first and {is} now: the list was not read at one per_page")]
    PerPageChanged {
        /// At first.
        was: u64,
        /// Now.
        is: u64,
    },
    /// The envelope contradicts itself.
    #[error(
        "the answer contradicts itself: total {total} at {per_page} a page makes {expected} pages, last_page says {last_page}"
    )]
    LyingTotal {
        /// Its `total`.
        total: u64,
        /// Its `per_page`.
        per_page: u64,
        /// What they make.
        expected: u64,
        /// What it says.
        last_page: u64,
    },
    /// Fewer or more customers than the envelope leaves for this page.
    #[error(
        "the page holds {came} customers where total {total} leaves {expected} for it: the list is cut short or still moving"
    )]
    WrongLength {
        /// Customers on it.
        came: u64,
        /// Customers due.
        expected: u64,
        /// Its `total`.
        total: u64,
    },
    /// The page before it came again.
    #[error("the page holds the same customers as the one before it")]
    SamePage,
    /// One customer in two versions.
    #[error("the page lists customer {id} twice, with different content")]
    TwiceDifferent {
        /// Who.
        id: CustomerId,
    },
}

impl Paging {
    /// Judges the answer to `asked`. A refused answer changes nothing here, so that the page can be asked for again.
    pub fn accept(&mut self, asked: u64, page: &Page) -> Result<Turn, PageFault> {
        self.check(page)?;
        if page.page != asked {
            // Asked past an end that has moved up meanwhile, some servers answer with their last page.
            return match page.page == page.last_page && page.last_page < asked {
                true => Ok(Turn::Done),
                false => Err(PageFault::OtherPage { asked, answered: page.page }),
            };
        }
        let ids: Vec<CustomerId> = page.customers.iter().map(|customer| customer.id().clone()).collect();
        let pushed_on = page.total >= self.previous_total.saturating_add(page.per_page);
        if !ids.is_empty() && ids == self.previous && !pushed_on {
            return Err(PageFault::SamePage);
        }
        self.per_page = Some(page.per_page);
        self.previous = ids;
        self.previous_total = page.total;
        Ok(match asked < page.last_page {
            true => Turn::Read(asked + 1),
            false => Turn::Done,
        })
    }

    /// Judges page 1, asked for again because the server would not answer `beyond`: does the list end before it by now? Servers
    /// differ in what they answer past the end, and only a page of the list itself can tell where that is.
    pub fn ends_before(&self, beyond: u64, first: &Page) -> Result<bool, PageFault> {
        self.check(first)?;
        match first.page {
            1 => Ok(first.last_page < beyond),
            answered => Err(PageFault::OtherPage { asked: 1, answered }),
        }
    }

    /// What every page must satisfy, whichever was asked for.
    fn check(&self, page: &Page) -> Result<(), PageFault> {
        let Page { total, per_page, last_page, .. } = *page;
        if per_page == 0 {
            return Err(PageFault::NoPerPage);
        }
        if let Some(was) = self.per_page.filter(|was| *was != per_page) {
            return Err(PageFault::PerPageChanged { was, is: per_page });
        }
        // An empty list has no page or one empty page; both are seen.
        let expected = total.div_ceil(per_page);
        if last_page != expected && !(total == 0 && last_page <= 1) {
            return Err(PageFault::LyingTotal { total, per_page, expected, last_page });
        }
        let came = page.customers.len() as u64;
        let before = page.page.saturating_sub(1).saturating_mul(per_page);
        let expected = total.saturating_sub(before).min(per_page);
        if came != expected {
            return Err(PageFault::WrongLength { came, expected, total });
        }
        check_twice(&page.customers)
    }
}

fn check_twice(customers: &[Customer]) -> Result<(), PageFault> {
    let mut seen: HashMap<&CustomerId, &Customer> = HashMap::with_capacity(customers.len());
    for customer in customers {
        if seen.insert(customer.id(), customer).is_some_and(|other| other != customer) {
            return Err(PageFault::TwiceDifferent { id: customer.id().clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(page: u64, per_page: u64, total: u64, ids: &[&str]) -> Page {
        let customers = ids.iter().map(|id| Customer::from_value(json!({"id": id})).unwrap()).collect();
        Page { page, per_page, total, last_page: total.div_ceil(per_page), customers }
    }

    #[test]
    fn a_quiet_list_is_read_to_its_end() {
        let mut paging = Paging::default();
        assert_eq!(paging.accept(1, &page(1, 2, 5, &["a", "b"])), Ok(Turn::Read(2)));
        assert_eq!(paging.accept(2, &page(2, 2, 5, &["c", "d"])), Ok(Turn::Read(3)));
        assert_eq!(paging.accept(3, &page(3, 2, 5, &["e"])), Ok(Turn::Done));
        assert_eq!(Paging::default().accept(1, &page(1, 2, 0, &[])), Ok(Turn::Done));
    }

    #[test]
    fn the_newest_last_page_decides_where_the_end_is() {
        let mut grown = Paging::default();
        assert_eq!(grown.accept(1, &page(1, 2, 2, &["a", "b"])), Ok(Turn::Done));
        assert_eq!(grown.accept(2, &page(2, 2, 6, &["c", "d"])), Ok(Turn::Read(3)));
        let mut shrunk = Paging::default();
        assert_eq!(shrunk.accept(1, &page(1, 2, 3, &["a", "b"])), Ok(Turn::Read(2)));
        assert_eq!(shrunk.accept(2, &page(2, 2, 2, &[])), Ok(Turn::Done), "an empty page past the end");
        let mut clamped = Paging::default();
        assert_eq!(clamped.accept(1, &page(1, 2, 3, &["a", "b"])), Ok(Turn::Read(2)));
        let cut = page(1, 2, 2, &["a"]);
        assert_eq!(clamped.accept(2, &cut), Err(PageFault::WrongLength { came: 1, expected: 2, total: 2 }));
        assert_eq!(clamped.accept(2, &page(1, 2, 2, &["a", "b"])), Ok(Turn::Done), "the last page instead");
    }

    #[test]
    fn the_first_page_tells_whether_a_page_without_an_answer_lay_past_the_end() {
        let mut paging = Paging::default();
        paging.accept(1, &page(1, 2, 8, &["a", "b"])).unwrap();
        assert_eq!(paging.ends_before(3, &page(1, 2, 3, &["a", "b"])), Ok(true));
        assert_eq!(paging.ends_before(3, &page(1, 2, 5, &["a", "b"])), Ok(false));
        let other = PageFault::OtherPage { asked: 1, answered: 2 };
        assert_eq!(paging.ends_before(3, &page(2, 2, 3, &["a"])), Err(other));
        let changed = PageFault::PerPageChanged { was: 2, is: 1 };
        assert_eq!(paging.ends_before(3, &page(1, 1, 1, &["a"])), Err(changed));
    }

    #[test]
    fn a_page_may_come_again_when_the_list_grew_by_a_whole_page_and_not_otherwise() {
        let mut paging = Paging::default();
        paging.accept(1, &page(1, 2, 6, &["a", "b"])).unwrap();
        assert_eq!(paging.accept(2, &page(2, 2, 7, &["a", "b"])), Err(PageFault::SamePage));
        assert_eq!(
            paging.accept(2, &page(2, 2, 8, &["a", "b"])),
            Ok(Turn::Read(3)),
            "pushed on by two new ones"
        );
        assert_eq!(paging.accept(3, &page(3, 2, 8, &["a", "b"])), Err(PageFault::SamePage));
    }

    #[test]
    fn an_answer_that_cannot_be_believed_is_named_and_changes_nothing() {
        let mut paging = Paging::default();
        paging.accept(1, &page(1, 2, 6, &["a", "b"])).unwrap();
        let before = format!("{paging:?}");
        let lying = Page { last_page: 9, ..page(2, 2, 6, &["c", "d"]) };
        let twice = Page {
            customers: vec![
                Customer::from_value(json!({"id": "c", "email": "1"})).unwrap(),
                Customer::from_value(json!({"id": "c", "email": "2"})).unwrap(),
            ],
            ..page(2, 2, 6, &[])
        };
        let cases = [
            (page(1, 2, 6, &["a", "b"]), PageFault::OtherPage { asked: 2, answered: 1 }),
            (Page { per_page: 0, ..page(2, 2, 6, &["c", "d"]) }, PageFault::NoPerPage),
            (page(2, 3, 6, &["c", "d", "e"]), PageFault::PerPageChanged { was: 2, is: 3 }),
            (lying, PageFault::LyingTotal { total: 6, per_page: 2, expected: 3, last_page: 9 }),
            (page(2, 2, 6, &["c"]), PageFault::WrongLength { came: 1, expected: 2, total: 6 }),
            (page(2, 2, 6, &[]), PageFault::WrongLength { came: 0, expected: 2, total: 6 }),
            (page(2, 2, 6, &["a", "b"]), PageFault::SamePage),
            (twice, PageFault::TwiceDifferent { id: CustomerId::new("c").unwrap() }),
        ];
        for (answer, fault) in cases {
            assert_eq!(paging.accept(2, &answer), Err(fault));
            assert_eq!(format!("{paging:?}"), before);
        }
        assert_eq!(paging.accept(2, &page(2, 2, 6, &["c", "d"])), Ok(Turn::Read(3)));
    }

    #[test]
    fn an_endless_list_ends_at_its_first_empty_page() {
        let mut paging = Paging::default();
        let total = u64::MAX;
        let first = Page { last_page: total.div_ceil(2), ..page(1, 2, total, &["a", "b"]) };
        assert_eq!(paging.accept(1, &first), Ok(Turn::Read(2)));
        let second = page(2, 2, total, &[]);
        assert!(matches!(paging.accept(2, &second), Err(PageFault::WrongLength { came: 0, .. })));
    }
}
