//! Splits a page that is too large for one answer. The page is requested again with smaller and
//! smaller pages, down to one customer.
//!
//! Only a part that is too large is split. A part's size divides the page's size, so no part spans
//! two pages. The list may move between two parts as it may between two pages: absence from it
//! proves nothing.

/// A part: a page of the list with a smaller page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePart {
    /// The page number for this page size, from 1.
    pub page: u64,
    /// The page size: the maximum number of customers.
    pub per_page: u64,
}

/// The parts of one page that are not read yet.
#[derive(Clone, Debug)]
pub struct PageSplit {
    whole: PagePart,
    /// The remaining parts, in reverse order.
    open: Vec<PagePart>,
}

impl PageSplit {
    /// A split that has the whole page as its only part.
    pub fn new(whole: PagePart) -> Self {
        Self { whole, open: vec![whole] }
    }

    /// Returns the next part to read.
    pub fn next_part(&mut self) -> Option<PagePart> {
        self.open.pop()
    }

    /// Splits a part that is too large. Returns `false` if the part is one customer.
    pub fn split(&mut self, part: PagePart) -> bool {
        let Some(factor) = smallest_factor(part.per_page) else { return false };
        let per_page = part.per_page / factor;
        let first = part.page.saturating_sub(1).saturating_mul(factor);
        self.open.extend((1..=factor).rev().map(|n| PagePart { page: first.saturating_add(n), per_page }));
        true
    }

    /// Notes that the list has ended: no more parts are read.
    pub fn end(&mut self) {
        self.open.clear();
    }

    /// Returns the page and the position on the whole page of the customer at `position` (from 1)
    /// of a part.
    pub fn place(&self, part: PagePart, position: u64) -> (u64, u64) {
        let before = part.page.saturating_sub(1).saturating_mul(part.per_page);
        let before = before.saturating_add(position.saturating_sub(1));
        (before / self.whole.per_page + 1, before % self.whole.per_page + 1)
    }

    /// Returns the number of whole pages in a list that has `last_page` pages of the part's size.
    pub fn pages(&self, part: PagePart, last_page: u64) -> u64 {
        last_page.div_ceil((self.whole.per_page / part.per_page).max(1))
    }
}

/// Returns the smallest factor greater than 1; `None` for 1 and less.
fn smallest_factor(n: u64) -> Option<u64> {
    (2..=n).find(|factor| n.is_multiple_of(*factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a page of customers with these sizes, if an answer may be as large as `room`. Returns
    /// the customers in reading order, the customers that are too large alone, and the number of
    /// requests.
    fn read(whole: PagePart, sizes: &[u64], room: u64) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut parts, mut read, mut too_large, mut requests) = (PageSplit::new(whole), vec![], vec![], 0);
        while let Some(part) = parts.next_part() {
            requests += 1;
            let from = ((part.page - 1) * part.per_page) as usize;
            let customers = from.min(sizes.len())..(from + part.per_page as usize).min(sizes.len());
            match sizes[customers.clone()].iter().sum::<u64>() {
                size if size <= room => read.extend(customers),
                _ if parts.split(part) => {}
                _ => too_large.extend(customers),
            }
        }
        (read, too_large, requests)
    }

    #[test]
    fn one_large_customer_among_a_hundred_costs_fourteen_more_requests() {
        let mut sizes = vec![1; 250];
        sizes[137] = 1000;
        let (read, too_large, requests) = read(PagePart { page: 2, per_page: 100 }, &sizes, 500);
        assert_eq!((read.len(), too_large, requests), (99, vec![137], 15));
    }

    #[test]
    fn positions_and_page_counts_refer_to_the_whole_page() {
        let parts = PageSplit::new(PagePart { page: 3, per_page: 10 });
        assert_eq!(parts.place(PagePart { page: 5, per_page: 5 }, 2), (3, 2));
        assert_eq!(parts.place(PagePart { page: 25, per_page: 1 }, 1), (3, 5));
        assert_eq!(parts.pages(PagePart { page: 5, per_page: 5 }, 11), 6);
        assert_eq!(parts.pages(PagePart { page: 25, per_page: 1 }, 57), 6);
        assert!(!PageSplit::new(PagePart { page: 1, per_page: 1 }).split(PagePart { page: 1, per_page: 1 }));
    }

    #[test]
    fn nothing_is_read_after_the_end_of_the_list() {
        let mut parts = PageSplit::new(PagePart { page: 1, per_page: 4 });
        let whole = parts.next_part().unwrap();
        assert!(parts.split(whole));
        assert_eq!(parts.next_part(), Some(PagePart { page: 1, per_page: 2 }));
        parts.end();
        assert_eq!(parts.next_part(), None);
    }

    proptest! {
        #[test]
        fn each_customer_of_the_page_is_read_once_in_order(
            sizes in prop::collection::vec(1_u64..30, 0..60), per_page in 1_u64..25, page in 1_u64..4, room in 5_u64..60,
        ) {
            let (read, too_large, _) = read(PagePart { page, per_page }, &sizes, room);
            let from = ((page - 1) * per_page) as usize;
            let to = (from + per_page as usize).min(sizes.len());
            prop_assert!(read.is_sorted() && too_large.iter().all(|customer| sizes[*customer] > room));
            let mut all = [read, too_large].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (from.min(to)..to).collect::<Vec<_>>());
        }
    }
}
