//! A list that moves while it is read.

use std::collections::BTreeSet;

use komoju_sync::sandbox::{Call, Drift, Effect, Fault, Region};

use crate::case::Case;
use crate::matrix::Ends::{Complete, Fails};
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

faults![
    (
        inserts_between_pages,
        "inserts between pages",
        "after each page two customers come, and push the rest back",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.moves(Drift { insert: 2, ..Drift::default() });
            assert_eq!(case.asked_alone(404), 1, "who went");
            assert_eq!(case.asked_alone(200), 1, "who proves it");
        },
    ),
    (
        deletes_between_pages,
        "deletes between pages",
        "after each page a customer goes, and another is skipped",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            let list = case.house.sandbox.world().ids();
            case.moves(Drift { delete: 1, ..Drift::default() });
            assert_eq!(
                case.asked_alone(200),
                5,
                "four who were skipped, and one that proves the others' end"
            );
            // With each page that was left one customer fewer stands before the next one.
            for skipped in [10, 21, 32, 43].map(|place| &list[place]) {
                assert!(case.is_shown_alive(skipped), "{skipped} was on no page, and nobody asked for it");
            }
        },
    ),
    (
        many_deletes_between_pages,
        "deletes between pages",
        "after each page two customers go, and more are missing than a pass may delete",
        Fails("the list was cut short: it left out"),
        Done,
        |case| {
            case.reconfigure("[inbound]\n", "[inbound]\nmax_delete_count = 5\n");
            case.moves(Drift { delete: 2, ..Drift::default() });
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
            assert_eq!(case.asked_alone(404), 1, "who went");
            assert_eq!(case.asked_alone(200), 5, "four who were skipped, and one that proves it");
        },
    ),
];

impl Case {
    /// The list moves after each of the first four pages, which are read one after the other.
    fn moves(&mut self, drift: Drift) {
        self.reconfigure("[api]\n", "[api]\nmax_concurrent_requests = 1\n");
        self.list_moves();
        self.inject(Fault::new(Effect::Drift(drift)).call(Call::List).times(4));
        self.endure();
    }

    /// How many customers were asked for each by itself and answered so.
    fn asked_alone(&self, status: u16) -> usize {
        let world = self.house.sandbox.world();
        let alone = world.requests().iter().filter(|seen| seen.method == "GET" && seen.page.is_none());
        let answered = alone.filter(|seen| seen.status == Some(status));
        answered.map(|seen| &seen.path).collect::<BTreeSet<_>>().len()
    }

    /// Whether this customer was asked for and answered for.
    fn is_shown_alive(&self, id: &str) -> bool {
        let path = format!("/customers/{id}");
        let world = self.house.sandbox.world();
        world
            .requests()
            .iter()
            .any(|seen| seen.method == "GET" && seen.path.ends_with(&path) && seen.status == Some(200))
    }
}
