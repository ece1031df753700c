//! Answers whose body is not what it should be.
//!
//! Promises: invariant 10

use std::fs;

use komoju_sandbox::{Ending, Fault, FaultEffect, FaultedCall, Payload};
use komoju_testkit::eventually;
use serde_json::json;

use crate::case::Case;
use crate::matrix::Ends::{Complete, Fails, Outlasts, Unreadable};
use crate::matrix::Outbox::{CreateRetried, DeleteDone, Done, Retried};
use crate::matrix::faults;

/// What the process may hold at most, in kB, whatever it is sent.
const MOST_MEMORY_KB: u64 = 64 << 10;

fn body(payload: Payload) -> FaultEffect {
    FaultEffect::Body { body: payload }
}

fn text(text: &str) -> FaultEffect {
    body(Payload::Text(text.to_owned()))
}

faults![
    (
        an_end_before_content_length,
        "early end against Content-Length",
        "each answer ends after 100 bytes of the many that it announced",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| case.everything(FaultEffect::Cut { after: 100, ending: Ending::Close }),
    ),
    (
        truncated_json,
        "truncated JSON",
        "the JSON ends in its middle, and the answer with it",
        Fails("GET /customers page 1: the answer is not JSON"),
        DeleteDone,
        |case| case.everything(text(r#"{"data": [{"id": "a""#)),
    ),
    (
        trailing_garbage,
        "trailing garbage",
        "something follows the JSON",
        Fails("GET /customers page 1: the answer is not JSON (trailing characters"),
        DeleteDone,
        |case| case.everything(text(r#"{"total":0,"page":1,"per_page":10,"last_page":0,"data":[]} x"#)),
    ),
    (
        invalid_utf8,
        "invalid UTF-8",
        "a text of one customer is not UTF-8",
        Unreadable("customer odd (page 1, position 1) is unreadable"),
        Done,
        |case| case.is_shown_as(Payload::Bytes(b"{\"id\":\"odd\",\"email\":\"\xff\"}".to_vec())),
    ),
    (
        numbers_of_any_size,
        "huge and tiny numbers",
        "a customer holds 1e+400, -1e-400 and forty digits",
        Complete("58 live"),
        Done,
        |case| {
            let numbers = r#""a":1e+400,"b":-1e-400,"c":1234567890123456789012345678901234567890.10"#;
            let odd = format!(r#"{{"id":"odd","resource":"customer",{numbers}}}"#);
            case.harness.sandbox.world().put_raw(serde_json::from_str(&odd).unwrap());
            case.fired_when(move |harness| {
                let body = harness.one("SELECT body FROM customers WHERE id = 'odd'");
                u64::from(numbers.split(',').all(|number| body.contains(number)))
            });
            case.endure();
        },
    ),
    (
        one_byte_a_second,
        "one byte a second",
        "a page and the answer to a create drip, seven bytes a second: never still for long, and for minutes not whole",
        Outlasts("GET /customers page 2: no answer"),
        CreateRetried,
        |case| {
            case.reconfigure("[api]\n", "[api]\nrequest_timeout_s = 1\n");
            // Whoever waits only for the next piece gets one in good time, and waits for the last one longer than this test does.
            let drip = || FaultEffect::Drip { every_ms: 150, bytes: 1 };
            case.inject(Fault::new(drip()).call(FaultedCall::Create));
            case.inject(Fault::new(drip()).call(FaultedCall::List).page(2).times(2));
            let mut sync = case.harness.spawn(&["sync"]);
            eventually("it gives up what does not become whole", || sync.try_wait().unwrap().is_some());
            let output = sync.wait_with_output().unwrap();
            case.conclude(output.status.code().unwrap(), &String::from_utf8(output.stderr).unwrap());
        },
    ),
    (
        a_gzip_bomb,
        "gzip bomb",
        "a page inflates to 10 GB",
        Outlasts("GET /customers page 2: the answer is larger than 3072 KiB"),
        Done,
        |case| case.swallows(FaultEffect::GzipBomb { bytes: 10 << 30 }),
    ),
    (
        ten_gigabytes,
        "10 GB",
        "a page has 10 GB",
        Outlasts("GET /customers page 2: the answer is larger than 3072 KiB"),
        Done,
        |case| case.swallows(FaultEffect::HugeBody { bytes: 10 << 30 }),
    ),
    (
        a_header_of_ten_megabytes,
        "a 10 MB header",
        "a header has 10 MB",
        Outlasts("GET /customers page 2: no answer"),
        Done,
        |case| case.swallows(FaultEffect::HugeHeader { bytes: 10_000_000 }),
    ),
    (
        a_web_page_with_200,
        "200 with an HTML page",
        "a firewall answers 200 with a web page",
        Fails("GET /customers page 1: the answer is a web page, not JSON"),
        Retried,
        |case| case.everything(body(Payload::Html)),
    ),
    (
        another_shape_with_200,
        "200 with another shape",
        "\"data\" is an object",
        Fails("GET /customers page 1: the answer's \"data\" is not a list"),
        DeleteDone,
        |case| case.everything(body(Payload::Json(json!({"data": {}})))),
    ),
    (
        something_else_among_customers,
        "200 with another shape",
        "the list shows a text among the customers",
        Unreadable("it is not an object"),
        Done,
        |case| case.is_shown(json!("x")),
    ),
    (
        an_escape_that_stands_for_nothing,
        "200 with another shape",
        "a text of one customer holds half of a surrogate pair",
        Unreadable("customer odd (page 1, position 1) is unreadable"),
        Done,
        |case| case.is_shown_as(Payload::Text(r#"{"id":"odd","email":"\ud800"}"#.to_owned())),
    ),
    (
        another_per_page,
        "200 with another shape",
        "the second page says that it holds another number of customers",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(FaultEffect::Envelope {
            fields: [("per_page".to_owned(), json!(7))].into_iter().collect()
        }),
    ),
    (
        an_empty_object_with_200,
        "200 with `{}`",
        "every answer is `{}`",
        Fails("GET /customers page 1: the answer is not a page of a list: it has no \"data\""),
        DeleteDone,
        |case| case.everything(body(Payload::Json(json!({})))),
    ),
];

impl Case {
    /// An effect on the second page, twice; the process is small when it has read it.
    fn swallows(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List).page(2).times(2));
        // The pass is over and the process lives while its first push waits for an answer.
        let held = self.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
        let sync = self.harness.spawn(&["sync"]);
        self.harness.until(|world| world.fired(held) == 1);
        let status = fs::read_to_string(format!("/proc/{}/status", sync.id())).unwrap();
        self.harness.sandbox.world().remove_fault(held);
        let output = sync.wait_with_output().unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < MOST_MEMORY_KB, "{peak} kB");
        self.conclude(output.status.code().unwrap(), &String::from_utf8(output.stderr).unwrap());
    }
}
