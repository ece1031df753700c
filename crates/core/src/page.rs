//! One page of the customers list, as the remote answered it.

use jiff::Timestamp;

use super::{RawCustomer, Unreadable};

/// A request for one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// The page number, from 1.
    pub page: u64,
    /// The requested number of customers on a page. The answer says how many a page really holds.
    pub per_page: u32,
    /// Requests only customers created at or after this time.
    pub created_from: Option<Timestamp>,
}

/// The numbers in the envelope of a page. Each is a hint and may be wrong. `None` if it is missing
/// or not a whole number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The number of this page.
    pub page: Option<u64>,
    /// The number of customers on a full page; never 0.
    pub per_page: Option<u64>,
    /// The number of customers in the list.
    pub total: Option<u64>,
    /// The number of pages; 0 or 1 for an empty list.
    pub last_page: Option<u64>,
}

impl Hints {
    /// Returns the number of pages that follows from `total` and `per_page`.
    pub fn pages_of_total(&self) -> Option<u64> {
        Some(self.total?.div_ceil(self.per_page?))
    }

    /// Returns the largest number of pages that a hint promises; `None` if no hint gives a number.
    pub fn promised_pages(&self) -> Option<u64> {
        self.last_page.max(self.pages_of_total())
    }
}

/// One page of the list. It is usable whatever its envelope says.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The numbers of the envelope.
    pub hints: Hints,
    /// The readable customers, in the order of the answer.
    pub customers: Vec<RawCustomer>,
    /// The unreadable customers, each with its position.
    pub unreadable: Vec<Unreadable>,
    /// The customers that are listed with `"deleted": true`. They count as not listed.
    pub deleted: Vec<RawCustomer>,
}

impl Page {
    /// Returns the number of rows, including unreadable and deleted customers.
    pub fn len(&self) -> u64 {
        (self.customers.len() + self.unreadable.len() + self.deleted.len()) as u64
    }

    /// Whether the page has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_promise_of_the_hints_counts() {
        let hints = |total, per_page, last_page| Hints { page: None, per_page, total, last_page };
        let cases = [
            (hints(Some(250), Some(100), Some(3)), Some(3)),
            (hints(Some(250), Some(100), Some(9)), Some(9)),
            (hints(Some(950), Some(100), Some(3)), Some(10)),
            (hints(Some(250), None, None), None),
            (hints(None, Some(100), Some(3)), Some(3)),
            (hints(Some(0), Some(100), Some(0)), Some(0)),
            (hints(None, None, None), None),
        ];
        for (hints, promised) in cases {
            assert_eq!(hints.promised_pages(), promised, "{hints:?}");
        }
    }

    #[test]
    fn page_with_only_an_unreadable_or_a_deleted_customer_is_not_empty() {
        assert!(Page::default().is_empty());
        let unreadable = Unreadable::new(b"7", Some(1), crate::BadCustomer::NotAnObject);
        let page = Page { unreadable: vec![unreadable], ..Page::default() };
        assert_eq!((page.len(), page.is_empty()), (1, false));
        let deleted = RawCustomer::from_value(&serde_json::json!({"id": "a", "deleted": true})).unwrap();
        let page = Page { deleted: vec![deleted], ..Page::default() };
        assert_eq!((page.len(), page.is_empty()), (1, false));
    }
}
