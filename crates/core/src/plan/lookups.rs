//! Controls how many single customers a pass requests, and how often each request is tried.

use super::retry::TRIES;
use crate::PassKind;

/// LEAST_LOOKUPS controls how many single requests a sweep may send at least.
const LEAST_LOOKUPS: u64 = 100;

/// MOST_UNCLEAR controls after how many customers without a usable answer a sweep requests no more
/// suspects.
const MOST_UNCLEAR: usize = 20;

/// FULL_TRIES_FOR controls how many customers without a usable answer get all their tries. After
/// that each customer of the pass gets one try. Otherwise an API that fails for every missing
/// customer would take half a minute for each.
const FULL_TRIES_FOR: usize = 3;

/// Returns how many single requests a sweep may send after it read this number of pages.
pub fn budget(pages: u64) -> u64 {
    pages.max(LEAST_LOOKUPS)
}

/// The single requests that a pass may still send.
#[derive(Clone, Debug)]
pub struct LookupBudget {
    kind: PassKind,
    left: u64,
    unclear: usize,
    most_unclear: usize,
}

impl LookupBudget {
    /// A budget without limits.
    pub fn unlimited(kind: PassKind) -> Self {
        Self { kind, left: u64::MAX, unclear: 0, most_unclear: usize::MAX }
    }

    /// Limits the requests for the pass's own suspects: to the number of pages that it read, or to
    /// 100 if that is larger.
    pub fn limit(&mut self, pages: u64) {
        self.left = budget(pages);
        self.most_unclear = self.unclear + MOST_UNCLEAR;
    }

    /// Whether another customer may be requested.
    pub fn may_request(&self) -> bool {
        self.left > 0 && self.unclear < self.most_unclear
    }

    /// Returns how many more customers may be requested.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Returns how many customers had no usable answer.
    pub fn unclear(&self) -> usize {
        self.unclear
    }

    /// Returns how often the next request may be tried.
    pub fn tries(&self) -> usize {
        // A probe does not retry, because the next probe follows soon.
        let has_full_tries = self.unclear < FULL_TRIES_FOR && self.kind == PassKind::Sweep;
        if has_full_tries { TRIES } else { 1 }
    }

    /// Counts a request, and whether its answer was usable.
    pub fn spend(&mut self, is_clear: bool) {
        self.left = self.left.saturating_sub(1);
        self.unclear += usize::from(!is_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_may_request_as_many_customers_as_it_read_pages_and_at_least_a_hundred() {
        assert_eq!([0, 99, 100, 5000].map(budget), [100, 100, 100, 5000]);
    }

    #[test]
    fn budget_ends_with_its_requests_or_with_unclear_answers_since_it_was_limited() {
        let mut budget = LookupBudget::unlimited(PassKind::Sweep);
        (0..MOST_UNCLEAR * 2).for_each(|_| budget.spend(false));
        assert!(budget.may_request(), "an approval has no limit");
        budget.limit(0);
        (1..MOST_UNCLEAR).for_each(|_| budget.spend(false));
        assert!(budget.may_request());
        budget.spend(false);
        assert!(!budget.may_request());

        let mut budget = LookupBudget::unlimited(PassKind::Sweep);
        budget.limit(0);
        (0..99).for_each(|_| budget.spend(true));
        assert!(budget.may_request());
        budget.spend(true);
        assert!(!budget.may_request());
    }

    #[test]
    fn requests_get_one_try_after_three_unclear_answers_and_in_a_probe() {
        let mut budget = LookupBudget::unlimited(PassKind::Sweep);
        let tries: Vec<usize> = (0..4)
            .map(|_| {
                let tries = budget.tries();
                budget.spend(false);
                tries
            })
            .collect();
        assert_eq!(tries, [TRIES, TRIES, TRIES, 1]);
        assert_eq!(LookupBudget::unlimited(PassKind::Probe).tries(), 1);
    }

    #[test]
    fn budget_counts_what_is_left_and_what_was_unclear() {
        let mut budget = LookupBudget::unlimited(PassKind::Sweep);
        budget.limit(250);
        [false, true, false].into_iter().for_each(|is_clear| budget.spend(is_clear));
        assert_eq!((budget.left(), budget.unclear()), (247, 2));
    }
}
