//! A list that changes while it is read.
//!
//! Promises: invariant 4

use komoju_sandbox::{Drift, Fault, FaultEffect, FaultedCall, Region};

use crate::case::Case;
use crate::matrix::Ends::Complete;
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

faults![
    (
        inserts_between_pages,
        "inserts between pages",
        "after each page two customers are created, which shift the others to later pages",
        // `total` grows to 65 while 57 are seen: the second round shows the others.
        Complete("65 live, 2 deleted"),
        Done,
        |case| {
            case.moves(Drift { insert: 2, ..Drift::default() });
            assert_eq!(case.requested_alone(404), 1, "the deleted customer");
            assert_eq!(case.requested_alone(200), 1, "its canary");
            assert_eq!(case.pages_requested().iter().filter(|page| **page == 1).count(), 2, "two rounds");
            case.harness.assert_true();
        },
    ),
    (
        deletes_between_pages,
        "deletes between pages",
        "after each of the first two pages a customer is deleted, and another one is skipped",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            let list = case.harness.sandbox.world().ids();
            // At least one of the three canaries is live.
            case.moves_after(2, Drift { delete: 1, ..Drift::default() });
            assert_eq!(case.requested_alone(200), 2 + 1, "the skipped customers and the canary");
            // After each deletion one customer fewer is before the next page.
            for skipped in [10, 21].map(|place| &list[place]) {
                assert!(case.is_shown_alive(skipped), "{skipped} was on no page and was not requested");
            }
        },
    ),
    (
        many_deletes_between_pages,
        "deletes between pages",
        "after each of the first two pages a customer is deleted, and more are missing than a pass may delete",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.reconfigure("[inbound]\n", "[inbound]\nmax_delete_count = 2\n");
            // At least one of the three canaries is live.
            case.moves_after(2, Drift { delete: 1, ..Drift::default() });
            assert_eq!(case.requested_alone(200), 2 + 1, "the skipped customers and the canary");
            assert_eq!(case.deleted_by_passes(), 1);
        },
    ),
    (
        reorders_between_pages,
        "reorders between pages",
        "after each page a customer moves from a later page to the first one",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.moves(Drift { reorder: 1, place: Region::Coming, ..Drift::default() });
            // `total` says 57 and 53 are seen: the second round shows the four that were skipped.
            assert_eq!(case.requested_alone(404), 1, "the deleted customer");
            assert_eq!(case.requested_alone(200), 1, "its canary");
            assert_eq!(case.pages_requested().iter().filter(|page| **page == 1).count(), 2, "two rounds");
            case.harness.assert_true();
        },
    ),
];

impl Case {
    /// Changes the list after each of the first four pages, which are read one after the other.
    fn moves(&mut self, drift: Drift) {
        self.moves_after(4, drift);
    }

    /// Changes the list after each of the first pages.
    fn moves_after(&mut self, pages: u64, drift: Drift) {
        self.reconfigure("[api]\n", "[api]\nmax_concurrent_requests = 1\n");
        self.list_moves();
        self.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).times(pages));
        self.endure();
    }

    /// Whether this customer was requested by itself and answered 200.
    fn is_shown_alive(&self, id: &str) -> bool {
        let path = format!("/customers/{id}");
        let world = self.harness.sandbox.world();
        world
            .requests()
            .iter()
            .any(|seen| seen.method == "GET" && seen.path.ends_with(&path) && seen.status == Some(200))
    }
}
