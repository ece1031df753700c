//! A list that moves while it is read.
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
        "after each page two customers come, and push the rest back",
        // `total` grows to 65 while 57 are seen: the second round shows the others.
        Complete("65 live, 2 deleted"),
        Done,
        |case| {
            case.moves(Drift { insert: 2, ..Drift::default() });
            assert_eq!(case.asked_alone(404), 1, "the deleted customer");
            assert_eq!(case.asked_alone(200), 1, "its canary");
            assert_eq!(case.pages_requested().iter().filter(|page| **page == 1).count(), 2, "two rounds");
            case.harness.assert_true();
        },
    ),
    (
        deletes_between_pages,
        "deletes between pages",
        "after each of the first two pages a customer goes, and another is skipped",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            let list = case.harness.sandbox.world().ids();
            // Of the three canaries at least one lives.
            case.moves_after(2, Drift { delete: 1, ..Drift::default() });
            assert_eq!(case.asked_alone(200), 2 + 1, "the skipped customers and the canary");
            // With each page that was left one customer fewer stands before the next one.
            for skipped in [10, 21].map(|place| &list[place]) {
                assert!(case.is_shown_alive(skipped), "{skipped} was on no page, and was not requested");
            }
        },
    ),
    (
        many_deletes_between_pages,
        "deletes between pages",
        "after each of the first two pages a customer goes, and more are missing than a pass may delete",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.reconfigure("[inbound]\n", "[inbound]\nmax_delete_count = 2\n");
            // Of the three canaries at least one lives.
            case.moves_after(2, Drift { delete: 1, ..Drift::default() });
            assert_eq!(case.asked_alone(200), 2 + 1, "the skipped customers and the canary");
            assert_eq!(case.deleted_by_passes(), 1);
        },
    ),
    (
        reorders_between_pages,
        "reorders between pages",
        "after each page a customer moves from the pages to come to the first",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.moves(Drift { reorder: 1, place: Region::Coming, ..Drift::default() });
            // `total` says 57 and 53 are seen: the second round shows the four that were skipped.
            assert_eq!(case.asked_alone(404), 1, "the deleted customer");
            assert_eq!(case.asked_alone(200), 1, "its canary");
            assert_eq!(case.pages_requested().iter().filter(|page| **page == 1).count(), 2, "two rounds");
            case.harness.assert_true();
        },
    ),
];

impl Case {
    /// The list moves after each of the first four pages, which are read one after the other.
    fn moves(&mut self, drift: Drift) {
        self.moves_after(4, drift);
    }

    /// The list moves after each of the first pages.
    fn moves_after(&mut self, pages: u64, drift: Drift) {
        self.reconfigure("[api]\n", "[api]\nmax_concurrent_requests = 1\n");
        self.list_moves();
        self.inject(Fault::new(FaultEffect::Drift(drift)).call(FaultedCall::List).times(pages));
        self.endure();
    }

    /// Whether this customer was asked for and answered for.
    fn is_shown_alive(&self, id: &str) -> bool {
        let path = format!("/customers/{id}");
        let world = self.harness.sandbox.world();
        world
            .requests()
            .iter()
            .any(|seen| seen.method == "GET" && seen.path.ends_with(&path) && seen.status == Some(200))
    }
}
