//! Reading a list that moves while it is read: which page comes next, and whether an answer can be believed.
//!
//! A page is *sound* ([`check`]) when it says that it is the page that was asked for, when `last_page` is what `total` and
//! `per_page` make it, and when it holds exactly as many customers as that leaves for it. A sound page is *believed*
//! ([`Paging::accept`]) when it is not the page before it over again (unless the list grew by a whole page meanwhile, which pushes
//! every customer one page on), and when all pages of the pass have one `per_page`. Several pages may be asked for at once; they are
//! believed one after the other. The list is read whole when every page up to the *newest* `last_page` was believed, by the order
//! in which the answers came.
//!
//! This says nothing about customers that were skipped because the list moved: that is for [`super::evidence`].

use std::collections::HashMap;

use crate::model::{CustomerId, Listed, Page};

/// The most customers that a page may be said to hold: as many as a configuration may ask for.
pub const MOST_PER_PAGE: u64 = 1000;

/// Where a pass stands in the list.
#[derive(Clone, Debug, Default)]
pub struct Paging {
    per_page: Option<u64>,
    previous: Vec<CustomerId>,
    previous_total: u64,
    /// The newest answer's number and `last_page`.
    newest: (u64, u64),
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
    /// Pages of far more customers than can be asked for.
    #[error(
        "the answer says that a page holds {per_page} customers; more than {MOST_PER_PAGE} are never asked for"
    )]
    HugePerPage {
        /// What it says.
        per_page: u64,
    },
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
        "the answer contradicts itself: total {total} at per_page {per_page} makes {expected} pages, last_page says {last_page}"
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
    /// A customer on it that cannot be read.
    #[error("the page lists customer {id} in a form that cannot be used: {why}")]
    Unreadable {
        /// Who.
        id: CustomerId,
        /// Why.
        why: String,
    },
    /// One customer in two versions.
    #[error("the page lists customer {id} twice, with different content")]
    TwiceDifferent {
        /// Who.
        id: CustomerId,
    },
}

/// Whether the answer to `asked` is sound, whatever other pages say.
pub fn check(asked: u64, page: &Page) -> Result<(), PageFault> {
    let Page { total, per_page, last_page, .. } = *page;
    if per_page == 0 {
        return Err(PageFault::NoPerPage);
    }
    if per_page > MOST_PER_PAGE {
        return Err(PageFault::HugePerPage { per_page });
    }
    // An empty list has no page or one empty page; both are seen.
    let expected = total.div_ceil(per_page);
    if last_page != expected && !(total == 0 && last_page <= 1) {
        return Err(PageFault::LyingTotal { total, per_page, expected, last_page });
    }
    // Asked past an end that has moved up meanwhile, some servers answer with their last page.
    if page.page != asked && !(page.page == last_page && last_page < asked) {
        return Err(PageFault::OtherPage { asked, answered: page.page });
    }
    let came = page.len();
    let before = page.page.saturating_sub(1).saturating_mul(per_page);
    let expected = total.saturating_sub(before).min(per_page);
    if came != expected {
        return Err(PageFault::WrongLength { came, expected, total });
    }
    check_twice(&page.customers)
}

impl Paging {
    /// Believes a sound answer to `asked`, the `answered`-th that came in this pass, or not. An answer that is not believed
    /// changes nothing here, so that the page can be asked for again.
    pub fn accept(&mut self, asked: u64, page: &Page, answered: u64) -> Result<Turn, PageFault> {
        self.check_per_page(page)?;
        let newest = self.newest.max((answered, page.last_page));
        if page.page != asked {
            return match newest.1 < asked {
                true => Ok(Turn::Done),
                false => Err(PageFault::OtherPage { asked, answered: page.page }),
            };
        }
        let ids: Vec<CustomerId> = page.customers.iter().map(|customer| customer.id().clone()).collect();
        let pushed_on = page.total >= self.previous_total.saturating_add(page.per_page);
        if !ids.is_empty() && ids == self.previous && !pushed_on {
            return Err(PageFault::SamePage);
        }
        *self = Self { per_page: Some(page.per_page), previous: ids, previous_total: page.total, newest };
        Ok(match asked < newest.1 {
            true => Turn::Read(asked + 1),
            false => Turn::Done,
        })
    }

    /// The size of a full page, as the believed pages of this pass say.
    pub fn per_page(&self) -> Option<u64> {
        self.per_page
    }

    /// Takes page `asked` as read in parts, which say that the list has so many pages. `None` where nothing is known of
    /// its end.
    pub fn accept_parts(&mut self, asked: u64, last_page: Option<u64>, answered: u64) -> Option<Turn> {
        if let Some(last_page) = last_page {
            self.newest = self.newest.max((answered, last_page));
        }
        self.previous = Vec::new();
        match (asked < self.newest.1, self.newest.0) {
            (true, _) => Some(Turn::Read(asked + 1)),
            (false, 0) => None,
            (false, _) => Some(Turn::Done),
        }
    }

    /// Judges page 1, asked for again because the server would not answer `beyond`: does the list end before it by now? Servers
    /// differ in what they answer past the end, and only a page of the list itself can tell where that is.
    pub fn ends_before(&self, beyond: u64, first: &Page) -> Result<bool, PageFault> {
        self.check_per_page(first)?;
        Ok(first.last_page < beyond)
    }

    fn check_per_page(&self, page: &Page) -> Result<(), PageFault> {
        match self.per_page.filter(|was| *was != page.per_page) {
            Some(was) => Err(PageFault::PerPageChanged { was, is: page.per_page }),
            None => Ok(()),
        }
    }
}

fn check_twice(customers: &[Listed]) -> Result<(), PageFault> {
    let mut seen: HashMap<&CustomerId, &Listed> = HashMap::with_capacity(customers.len());
    for customer in customers {
        if seen.insert(customer.id(), customer).is_some_and(|other| !other.says_the_same_as(customer)) {
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
        let customers = ids.iter().map(|id| Listed::from_value(&json!({"id": id})).unwrap()).collect();
        Page { page, per_page, total, last_page: total.div_ceil(per_page), customers, unreadable: Vec::new() }
    }

    /// Soundness and belief, each answer newer than the one before it.
    fn judge(paging: &mut Paging, asked: u64, page: &Page) -> Result<Turn, PageFault> {
        check(asked, page)?;
        let answered = paging.newest.0 + 1;
        paging.accept(asked, page, answered)
    }

    #[test]
    fn a_quiet_list_is_read_to_its_end() {
        let mut paging = Paging::default();
        assert_eq!(judge(&mut paging, 1, &page(1, 2, 5, &["a", "b"])), Ok(Turn::Read(2)));
        assert_eq!(judge(&mut paging, 2, &page(2, 2, 5, &["c", "d"])), Ok(Turn::Read(3)));
        assert_eq!(judge(&mut paging, 3, &page(3, 2, 5, &["e"])), Ok(Turn::Done));
        assert_eq!(judge(&mut Paging::default(), 1, &page(1, 2, 0, &[])), Ok(Turn::Done));
    }

    #[test]
    fn an_empty_list_has_no_page_or_one_and_no_other_list_has_another_number_than_its_total_makes() {
        let says = |last_page: u64, page: Page| check(1, &Page { last_page, ..page });
        let lies = |total, expected, last_page| {
            Err(PageFault::LyingTotal { total, per_page: 2, expected, last_page })
        };
        assert_eq!(says(0, page(1, 2, 0, &[])), Ok(()));
        assert_eq!(says(1, page(1, 2, 0, &[])), Ok(()));
        assert_eq!(says(2, page(1, 2, 0, &[])), lies(0, 0, 2));
        assert_eq!(says(1, page(1, 2, 6, &["a", "b"])), lies(6, 3, 1));
    }

    #[test]
    fn the_largest_page_that_can_be_asked_for_is_sound() {
        assert_eq!(check(1, &page(1, MOST_PER_PAGE, 1, &["a"])), Ok(()));
    }

    #[test]
    fn only_the_last_page_may_come_in_place_of_one_and_only_of_one_behind_it() {
        let other = |asked, answered| Err(PageFault::OtherPage { asked, answered });
        assert_eq!(check(4, &page(3, 2, 6, &["e", "f"])), Ok(()));
        assert_eq!(check(2, &page(3, 2, 6, &["e", "f"])), other(2, 3));
        assert_eq!(check(4, &page(1, 2, 6, &["a", "b"])), other(4, 1));
        // Nor where a newer answer says that the page is there.
        let mut paging = Paging::default();
        assert_eq!(paging.accept(1, &page(1, 2, 3, &["a", "b"]), 2), Ok(Turn::Read(2)));
        assert_eq!(paging.accept(2, &page(1, 2, 2, &["a", "b"]), 1), other(2, 1).map(|()| Turn::Done));
    }

    #[test]
    fn the_newest_last_page_decides_where_the_end_is() {
        let mut grown = Paging::default();
        assert_eq!(judge(&mut grown, 1, &page(1, 2, 2, &["a", "b"])), Ok(Turn::Done));
        assert_eq!(judge(&mut grown, 2, &page(2, 2, 6, &["c", "d"])), Ok(Turn::Read(3)));
        let mut shrunk = Paging::default();
        assert_eq!(judge(&mut shrunk, 1, &page(1, 2, 3, &["a", "b"])), Ok(Turn::Read(2)));
        assert_eq!(judge(&mut shrunk, 2, &page(2, 2, 2, &[])), Ok(Turn::Done), "an empty page past the end");
        let mut clamped = Paging::default();
        assert_eq!(judge(&mut clamped, 1, &page(1, 2, 3, &["a", "b"])), Ok(Turn::Read(2)));
        let cut = page(1, 2, 2, &["a"]);
        assert_eq!(
            judge(&mut clamped, 2, &cut),
            Err(PageFault::WrongLength { came: 1, expected: 2, total: 2 })
        );
        assert_eq!(
            judge(&mut clamped, 2, &page(1, 2, 2, &["a", "b"])),
            Ok(Turn::Done),
            "the last page instead"
        );
    }

    #[test]
    fn the_first_page_tells_whether_a_page_without_an_answer_lay_past_the_end() {
        let mut paging = Paging::default();
        judge(&mut paging, 1, &page(1, 2, 8, &["a", "b"])).unwrap();
        assert_eq!(paging.ends_before(3, &page(1, 2, 3, &["a", "b"])), Ok(true));
        assert_eq!(paging.ends_before(3, &page(1, 2, 5, &["a", "b"])), Ok(false));
        let changed = PageFault::PerPageChanged { was: 2, is: 1 };
        assert_eq!(paging.ends_before(3, &page(1, 1, 1, &["a"])), Err(changed));
    }

    #[test]
    fn a_page_may_come_again_when_the_list_grew_by_a_whole_page_and_not_otherwise() {
        let mut paging = Paging::default();
        judge(&mut paging, 1, &page(1, 2, 6, &["a", "b"])).unwrap();
        assert_eq!(judge(&mut paging, 2, &page(2, 2, 7, &["a", "b"])), Err(PageFault::SamePage));
        assert_eq!(
            judge(&mut paging, 2, &page(2, 2, 8, &["a", "b"])),
            Ok(Turn::Read(3)),
            "pushed on by two new ones"
        );
        assert_eq!(judge(&mut paging, 3, &page(3, 2, 8, &["a", "b"])), Err(PageFault::SamePage));
    }

    #[test]
    fn an_answer_that_cannot_be_believed_is_named_and_changes_nothing() {
        let mut paging = Paging::default();
        judge(&mut paging, 1, &page(1, 2, 6, &["a", "b"])).unwrap();
        let before = format!("{paging:?}");
        let lying = Page { last_page: 9, ..page(2, 2, 6, &["c", "d"]) };
        let twice = Page {
            customers: vec![
                Listed::from_value(&json!({"id": "c", "email": "1"})).unwrap(),
                Listed::from_value(&json!({"id": "c", "email": "2"})).unwrap(),
            ],
            ..page(2, 2, 6, &[])
        };
        let cases = [
            (page(1, 2, 6, &["a", "b"]), PageFault::OtherPage { asked: 2, answered: 1 }),
            (Page { per_page: 0, ..page(2, 2, 6, &["c", "d"]) }, PageFault::NoPerPage),
            (
                Page { per_page: 1001, ..page(2, 2, 6, &["c", "d"]) },
                PageFault::HugePerPage { per_page: 1001 },
            ),
            (page(2, 3, 6, &["c", "d", "e"]), PageFault::PerPageChanged { was: 2, is: 3 }),
            (lying, PageFault::LyingTotal { total: 6, per_page: 2, expected: 3, last_page: 9 }),
            (page(2, 2, 6, &["c"]), PageFault::WrongLength { came: 1, expected: 2, total: 6 }),
            (page(2, 2, 6, &[]), PageFault::WrongLength { came: 0, expected: 2, total: 6 }),
            (page(2, 2, 6, &["a", "b"]), PageFault::SamePage),
            (twice, PageFault::TwiceDifferent { id: CustomerId::new("c").unwrap() }),
        ];
        for (answer, fault) in cases {
            assert_eq!(judge(&mut paging, 2, &answer), Err(fault));
            assert_eq!(format!("{paging:?}"), before);
        }
        assert_eq!(judge(&mut paging, 2, &page(2, 2, 6, &["c", "d"])), Ok(Turn::Read(3)));
    }

    #[test]
    fn the_newest_answer_tells_where_the_end_is_whichever_page_it_was() {
        let mut paging = Paging::default();
        assert_eq!(paging.accept(1, &page(1, 2, 3, &["a", "b"]), 1), Ok(Turn::Read(2)));
        // Page 3 of a grown list was answered before page 2 of a list that had shrunk again.
        assert_eq!(paging.accept(2, &page(2, 2, 3, &["c"]), 3), Ok(Turn::Done));
        let mut paging = Paging::default();
        assert_eq!(paging.accept(1, &page(1, 2, 5, &["a", "b"]), 2), Ok(Turn::Read(2)));
        assert_eq!(paging.accept(2, &page(2, 2, 3, &["c"]), 1), Ok(Turn::Read(3)), "an older answer");
    }

    #[test]
    fn an_endless_list_ends_at_its_first_empty_page() {
        let mut paging = Paging::default();
        let total = u64::MAX;
        let first = Page { last_page: total.div_ceil(2), ..page(1, 2, total, &["a", "b"]) };
        assert_eq!(judge(&mut paging, 1, &first), Ok(Turn::Read(2)));
        let second = page(2, 2, total, &[]);
        assert!(matches!(judge(&mut paging, 2, &second), Err(PageFault::WrongLength { came: 0, .. })));
    }
}
