//! Answers by their status.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload, RedirectTarget};

use crate::case::Case;
use crate::matrix::Ends::{Complete, Fails};
use crate::matrix::Outbox::{CreateRejected, CreateRetried, Done, Retried};
use crate::matrix::faults;

pub fn status(status: u16, body: Payload, retry_after: Option<&str>) -> FaultEffect {
    let retry_after = retry_after.map(str::to_owned);
    FaultEffect::Status { status, body, retry_after, headers: Default::default(), work: FaultedWork::Skipped }
}

faults![
    (
        http_500,
        "500 to 504",
        "everything is answered 500",
        Fails("GET /customers page 1: answered HTTP 500"),
        Retried,
        |case| case.everything(FaultEffect::status(500)),
    ),
    (
        http_502,
        "500 to 504",
        "everything is answered 502",
        Fails("GET /customers page 1: answered HTTP 502"),
        Retried,
        |case| case.everything(FaultEffect::status(502)),
    ),
    (
        http_503,
        "500 to 504",
        "everything is answered 503",
        Fails("GET /customers page 1: answered HTTP 503"),
        Retried,
        |case| case.everything(FaultEffect::status(503)),
    ),
    (
        http_504,
        "500 to 504",
        "everything is answered 504",
        Fails("GET /customers page 1: answered HTTP 504"),
        Retried,
        |case| case.everything(FaultEffect::status(504)),
    ),
    (
        http_500_after_the_work,
        "500 to 504",
        "each push takes effect, and is answered 500",
        Complete("answered HTTP 500"),
        Retried,
        |case| {
            let effect = || FaultEffect::Status {
                status: 500,
                body: Payload::Error,
                retry_after: None,
                headers: Default::default(),
                work: FaultedWork::Done,
            };
            for push in [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete] {
                case.inject(Fault::new(effect()).call(push));
            }
            case.endure();
            assert_eq!(case.harness.sandbox.world().creates(), 1, "it took effect");
        },
    ),
    (
        a_503_as_a_web_page,
        "503 as HTML",
        "everything is answered 503 with a web page",
        Fails("GET /customers page 1: answered HTTP 503 (a web page, so not from the API itself)"),
        Retried,
        |case| case.everything(status(503, Payload::Html, None)),
    ),
    (
        a_502_with_a_card_code,
        "502 with a card code",
        "a create is answered 502 with `card_declined`",
        Complete("card_declined"),
        CreateRejected,
        |case| {
            let declined = status(502, Payload::Code("card_declined".into()), None);
            case.inject(Fault::new(declined).call(FaultedCall::Create));
            case.endure();
        },
    ),
    (
        http_501,
        "501",
        "everything is answered 501",
        Fails("GET /customers page 1: answered HTTP 501"),
        Retried,
        |case| case.everything(FaultEffect::status(501)),
    ),
    (
        http_418,
        "418",
        "everything is answered 418 with a web page",
        Fails("GET /customers page 1: answered HTTP 418"),
        Retried,
        |case| case.everything(status(418, Payload::Html, None)),
    ),
    (
        a_204_for_a_page,
        "a 204 where 200 is due",
        "each list is answered 204 without a body",
        Fails("GET /customers page 1: answered HTTP 204 where 200 is due"),
        Done,
        |case| case.lists(status(204, Payload::Empty, None)),
    ),
    (
        a_204_for_a_create,
        "a 204 where 200 is due",
        "a create takes effect and is answered 204 without a body",
        Complete("POST /customers: answered HTTP 204 without a customer that can be read"),
        CreateRetried,
        |case| {
            let effect = FaultEffect::Status {
                status: 204,
                body: Payload::Empty,
                retry_after: None,
                headers: Default::default(),
                work: FaultedWork::Done,
            };
            case.inject(Fault::new(effect).call(FaultedCall::Create).once());
            case.endure();
        },
    ),
    (
        a_redirect_to_the_same_host,
        "a redirect to the same host",
        "everything is answered 307 to the same path",
        Fails("GET /customers page 1: answered HTTP 307, a redirect to"),
        Retried,
        |case| case.is_led(RedirectTarget::SameHost),
    ),
    (
        a_redirect_to_another_host,
        "a redirect to another host",
        "everything is answered 307 to another host",
        Fails("GET /customers page 1: answered HTTP 307, a redirect to"),
        Retried,
        |case| case.is_led(RedirectTarget::OtherHost),
    ),
    (
        a_redirect_to_plain_http,
        "a redirect to plain http",
        "everything is answered 307 to the same host by plain http",
        Fails("GET /customers page 1: answered HTTP 307, a redirect to http://"),
        Retried,
        |case| case.is_led(RedirectTarget::PlainHttp),
    ),
];

impl Case {
    /// Everything is redirected there, and nothing follows: one try at a page, and one at each push, is all that arrives.
    fn is_led(&mut self, to: RedirectTarget) {
        self.everything(FaultEffect::Redirect { status: 307, to, work: FaultedWork::Skipped });
        let world = self.harness.sandbox.world();
        let own = format!("127.0.0.1:{}", self.harness.sandbox.address().port());
        assert!(
            world.requests().iter().all(|seen| seen.header("host") == Some(&own)),
            "another host was asked"
        );
        let asked = |method: &str, of: &str| {
            let fits =
                |seen: &&komoju_sandbox::LoggedRequest| seen.method == method && seen.path.contains(of);
            world.requests().iter().filter(fits).count()
        };
        let pushes = ["POST", "PATCH", "DELETE"].map(|method| asked(method, ""));
        assert_eq!(pushes, [1; 3], "no body is sent again");
        assert_eq!(asked("GET", "/customers"), 1, "it is not retried");
    }
}
