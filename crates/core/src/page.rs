//! One page of the customers list, as the remote answered it.

use jiff::Timestamp;

use super::{RawCustomer, Unreadable};

/// Which page is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// From 1.
    pub page: u64,
    /// How many customers a page should hold; the answer says how many it does.
    pub per_page: u32,
    /// Only customers created at or after this time.
    pub created_from: Option<Timestamp>,
}

/// What the envelope of a page says about the list. Each number may be wrong: it is a hint. `None` where it is missing or is not a
/// whole number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Which page the answer says it is.
    pub page: Option<u64>,
    /// How many customers a full page holds; never 0.
    pub per_page: Option<u64>,
    /// How many customers the list holds.
    pub total: Option<u64>,
    /// How many pages the list has; 0 or 1 for an empty one.
    pub last_page: Option<u64>,
}

impl Hints {
    /// How many pages `total` and `per_page` make.
    pub fn pages_of_total(&self) -> Option<u64> {
        Some(self.total?.div_ceil(self.per_page?))
    }

    /// The last page that any hint promises; `None` where no hint says how long the list is.
    pub fn promised_pages(&self) -> Option<u64> {
        self.last_page.max(self.pages_of_total())
    }
}

/// One page of the list. It is usable whatever the envelope says.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What the envelope says.
    pub hints: Hints,
    /// The customers that can be read, in the answer's order.
    pub customers: Vec<RawCustomer>,
    /// The customers that cannot be read, each with its position.
    pub unreadable: Vec<Unreadable>,
    /// The customers that are listed with `"deleted": true`: they count as not listed.
    pub deleted: Vec<RawCustomer>,
}

impl Page {
    /// How many rows the page shows, the unreadable and the deleted ones included.
    pub fn len(&self) -> u64 {
        (self.customers.len() + self.unreadable.len() + self.deleted.len()) as u64
    }

    /// Whether the page shows no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_promise_of_the_hints_counts() {
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
}
