//! Answers with a wrong body.
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

/// The most memory that the process may use, in kB, whatever the answer.
const MOST_MEMORY_KB: u64 = 64 << 10;

fn body(payload: Payload) -> FaultEffect {
    FaultEffect::Body { body: payload }
}

fn text(text: &str) -> FaultEffect {
    body(Payload::Text(text.to_owned()))
}

faults![
    (
        end_before_content_length,
        "early end against Content-Length",
        "each answer ends after 100 bytes, and its Content-Length is larger",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| case.everything(FaultEffect::Cut { after: 100, ending: Ending::Close }),
    ),
    (
        truncated_json,
        "truncated JSON",
        "the answer ends in the middle of its JSON",
        Fails("GET /customers page 1: the answer is not JSON"),
        DeleteDone,
        |case| case.everything(text(r#"{"data": [{"id": "a""#)),
    ),
    (
        trailing_garbage,
        "trailing garbage",
        "there are more characters after the JSON",
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
        "a customer has the numbers 1e+400, -1e-400 and one of forty digits",
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
        "a page and the answer to a create arrive at seven bytes a second, which takes minutes without a long pause",
        Outlasts("GET /customers page 2: no answer"),
        CreateRetried,
        |case| {
            case.reconfigure("[api]\n", "[api]\nrequest_timeout_s = 1\n");
            // A client with a timeout for each piece would never time out, and would wait for the
            // last piece longer than this test does.
            let drip = || FaultEffect::Drip { every_ms: 150, bytes: 1 };
            case.inject(Fault::new(drip()).call(FaultedCall::Create));
            case.inject(Fault::new(drip()).call(FaultedCall::List).page(2).times(2));
            let mut sync = case.harness.spawn(&["sync"]);
            eventually("the slow answers time out", || sync.try_wait().unwrap().is_some());
            let output = sync.wait_with_output().unwrap();
            case.conclude(output.status.code().unwrap(), &String::from_utf8(output.stderr).unwrap());
        },
    ),
    (
        gzip_bomb,
        "gzip bomb",
        "a page inflates to 10 GB",
        Outlasts("GET /customers page 2: the answer is larger than 3072 KiB"),
        Done,
        |case| case.bounds_memory_under(FaultEffect::GzipBomb { bytes: 10 << 30 }),
    ),
    (
        ten_gigabytes,
        "10 GB",
        "a page has 10 GB",
        Outlasts("GET /customers page 2: the answer is larger than 3072 KiB"),
        Done,
        |case| case.bounds_memory_under(FaultEffect::HugeBody { bytes: 10 << 30 }),
    ),
    (
        header_of_ten_megabytes,
        "a 10 MB header",
        "a header has 10 MB",
        Outlasts("GET /customers page 2: no answer"),
        Done,
        |case| case.bounds_memory_under(FaultEffect::HugeHeader { bytes: 10_000_000 }),
    ),
    (
        web_page_with_200,
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
        text_among_customers,
        "200 with another shape",
        "the list shows a text among the customers",
        Unreadable("it is not an object"),
        Done,
        |case| case.is_shown(json!("x")),
    ),
    (
        half_a_surrogate_pair,
        "200 with another shape",
        "a text of one customer contains half of a surrogate pair",
        Unreadable("customer odd (page 1, position 1) is unreadable"),
        Done,
        |case| case.is_shown_as(Payload::Text(r#"{"id":"odd","email":"\ud800"}"#.to_owned())),
    ),
    (
        another_per_page,
        "200 with another shape",
        "the second page reports another `per_page`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(FaultEffect::Envelope {
            fields: [("per_page".to_owned(), json!(7))].into_iter().collect()
        }),
    ),
    (
        empty_object_with_200,
        "200 with `{}`",
        "every answer is `{}`",
        Fails("GET /customers page 1: the answer is not a page of a list: it has no \"data\""),
        DeleteDone,
        |case| case.everything(body(Payload::Json(json!({})))),
    ),
];

impl Case {
    /// Plays an effect on the second page, twice. Asserts that the process has used little memory
    /// after it read the page.
    fn bounds_memory_under(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List).page(2).times(2));
        // While the first push waits for an answer, the pass is over and the process still runs.
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
