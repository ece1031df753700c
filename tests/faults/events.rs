//! An event list that cannot be read: sweeps and pushes continue, and the reason is noted.

use komoju_sandbox::{Ending, Fault, FaultEffect, FaultedCall, FaultedWork, Payload, RedirectTarget};
use komoju_testkit::{eventually, signal};

use crate::case::Case;
use crate::matrix::Ends::WithoutEvents;
use crate::matrix::Outbox::Done;
use crate::matrix::faults;
use crate::statuses::status;

faults![
    (
        answered_404,
        "no event list",
        "each page of the event list is answered 404",
        WithoutEvents("GET /events page 1: the API rejected the request: HTTP 404"),
        Done,
        |case| case.no_events(FaultEffect::status(404)),
    ),
    (
        answered_403,
        "no event list",
        "each page of the event list is answered 403 with JSON",
        WithoutEvents("GET /events page 1: the API rejected the request: HTTP 403"),
        Done,
        |case| case.no_events(FaultEffect::status(403)),
    ),
    (
        answered_500,
        "no event list",
        "each page of the event list is answered 500",
        WithoutEvents("GET /events page 1: answered HTTP 500"),
        Done,
        |case| case.no_events(FaultEffect::status(500)),
    ),
    (
        a_web_page,
        "no event list",
        "each page of the event list is a web page",
        WithoutEvents("GET /events page 1: the answer is a web page, not JSON"),
        Done,
        |case| case.no_events(status(200, Payload::Html, None)),
    ),
    (
        no_answer,
        "no event list",
        "a request for the event list is never answered",
        WithoutEvents("GET /events page 1: no answer"),
        Done,
        |case| case.no_events(FaultEffect::Hold),
    ),
    (
        a_redirect,
        "no event list",
        "each page of the event list is answered 307 to another host",
        WithoutEvents("GET /events page 1: answered HTTP 307, a redirect to"),
        Done,
        |case| {
            let to = RedirectTarget::OtherHost;
            case.no_events(FaultEffect::Redirect { status: 307, to, work: FaultedWork::Skipped });
            let world = case.harness.sandbox.world();
            let own = format!("127.0.0.1:{}", case.harness.sandbox.address().port());
            assert!(world.requests().iter().all(|seen| seen.header("host") == Some(&own)));
        },
    ),
    (
        an_oversized_page,
        "no event list",
        "a page of the event list has 10 GB",
        WithoutEvents("GET /events page 1: the answer is larger than"),
        Done,
        |case| case.no_events(FaultEffect::HugeBody { bytes: 10 << 30 }),
    ),
    (
        a_page_cut_off,
        "no event list",
        "each page of the event list ends after 20 bytes of the many that it announced",
        WithoutEvents("GET /events page 1: no answer"),
        Done,
        |case| case.no_events(FaultEffect::Cut { after: 20, ending: Ending::Close }),
    ),
];

impl Case {
    /// Runs the daemon under an effect on the event list, until its first sweep is complete and the
    /// reason is noted.
    fn no_events(&mut self, effect: FaultEffect) {
        self.configure("enabled = false\nfastest_s = 1\n", "enabled = true\nfastest_s = 1\nslowest_s = 1\n");
        self.reconfigure("per_page = 10\n", "per_page = 10\nrequest_timeout_s = 3\n");
        self.inject(Fault::new(effect).call(FaultedCall::Events));
        let mut daemon = self.harness.spawn(&["run"]);
        eventually("the sweep is complete and the pushes are done", || {
            self.states() == ["done"; 3]
                && self.harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") == "2"
        });
        self.harness.assert_true();
        eventually("the reason is noted", || {
            self.harness.one("SELECT off_since IS NOT NULL FROM event_state") == "1"
        });
        signal("TERM", daemon.id());
        let code = daemon.wait().unwrap().code().unwrap();
        let reason = self.harness.one("SELECT off_reason FROM event_state");
        self.conclude(code, &reason);
        assert_eq!(self.harness.one("SELECT count(*) FROM hint"), "0");
    }
}
