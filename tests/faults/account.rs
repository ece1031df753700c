//! Refused keys and swapped ones.
//!
//! Promises: invariant 8; exit code 4

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Payload};

use crate::case::Case;
use crate::matrix::Ends::{Fails, Refused, Waits};
use crate::matrix::Outbox::{Done, Kept};
use crate::matrix::faults;
use crate::statuses::status;

faults![
    (
        a_401_within_a_sweep,
        "401 in the middle of a sweep",
        "from the third page on the API answers 401 in JSON",
        Refused("Check that the key is the whole secret key"),
        Kept,
        |case| case.refused_from_page_3(401),
    ),
    (
        a_403_within_a_sweep,
        "403 in the middle of a sweep",
        "from the third page on the API answers 403 in JSON",
        Refused("Check that the key is the whole secret key"),
        Kept,
        |case| case.refused_from_page_3(403),
    ),
    (
        a_firewalls_401,
        "401 in the middle of a sweep",
        "a firewall answers the third page 401 with a web page",
        Fails("GET /customers page 3: answered HTTP 401 (a web page, so not from the API itself)"),
        Done,
        |case| case.blocked_on_page_3(401),
    ),
    (
        a_firewalls_403,
        "403 in the middle of a sweep",
        "a firewall answers the third page 403 with a web page",
        Fails("GET /customers page 3: answered HTTP 403 (a web page, so not from the API itself)"),
        Done,
        |case| case.blocked_on_page_3(403),
    ),
    (
        another_accounts_key,
        "another account's key",
        "the key reads another account",
        Waits("this key reads another account"),
        Kept,
        |case| {
            case.harness.sandbox.world().add_account("sk_test_other", 9, 12);
            case.use_key("sk_test_other");
            case.fired_when(|harness| {
                u64::from(
                    harness.run(&["status", "--json"]).stdout.contains("\"account_stopped_since\":\"20"),
                )
            });
            case.endure_by_binary();
            assert_eq!(case.harness.head(), 57, "nothing is recorded");
        },
    ),
];

impl Case {
    fn refused_from_page_3(&mut self, code: u16) {
        self.inject(Fault::new(FaultEffect::status(code)).call(FaultedCall::List).page(3));
        self.endure_by_binary();
        let (list, pushes) = {
            let world = self.harness.sandbox.world();
            let count = |method: &str| world.requests().iter().filter(|seen| seen.method == method).count();
            (
                world.requests().iter().filter(|seen| seen.query.contains("page=3&")).count(),
                count("POST") + count("PATCH") + count("DELETE"),
            )
        };
        assert_eq!((list, pushes), (1, 0), "a refusal is not tried again");
        self.harness.expect(4, &["status"]);
    }

    fn blocked_on_page_3(&mut self, code: u16) {
        self.inject(Fault::new(status(code, Payload::Html, None)).call(FaultedCall::List).page(3));
        self.endure();
    }
}
