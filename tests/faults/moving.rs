//! A list that moves while it is read.

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
        Complete("live"),
        Done,
        |case| case.moves(Drift { insert: 2, ..Drift::default() }),
    ),
    (
        deletes_between_pages,
        "deletes between pages",
        "after each page a customer goes, and another is skipped",
        Complete("deleted"),
        Done,
        |case| case.moves(Drift { delete: 1, ..Drift::default() }),
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
        Complete("live"),
        Done,
        |case| case.moves(Drift { reorder: 1, place: Region::Coming, ..Drift::default() }),
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
}
