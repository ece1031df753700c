//! Answers that cannot be used: each ends in a message with method, path, page and cause, and changes nothing; once the
//! fault is gone the next pass heals.

use komoju_sync::model::Outcome;
use komoju_sync::sandbox::{Call, Echo, Effect, Ending, Fault, Payload, Whither, Work};
use serde_json::{Map, Value, json};

use crate::house::House;

fn envelope(field: &str, value: Value) -> Effect {
    Effect::Envelope { fields: Map::from_iter([(field.to_owned(), value)]) }
}

fn status(status: u16, body: Payload) -> Effect {
    Effect::Status { status, body, retry_after: None, headers: Default::default(), work: Work::Skipped }
}

/// Every effect on page 2 of a list of 57, and a part of the sentence that it must end in.
fn broken() -> Vec<(&'static str, Effect, &'static str)> {
    vec![
        ("a web page", Effect::Body { body: Payload::Html }, "web page"),
        ("an empty object", Effect::Body { body: Payload::Json(json!({})) }, "no \"data\""),
        ("another shape", Effect::Body { body: Payload::Json(json!({"data": {}})) }, "not a list"),
        (
            "truncated JSON",
            Effect::Body { body: Payload::Text("{\"data\": [{\"id\": \"a\"".into()) },
            "not JSON",
        ),
        ("trailing garbage", Effect::Body { body: Payload::Text("{} x".into()) }, "not JSON"),
        (
            "invalid UTF-8",
            Effect::Body { body: Payload::Bytes(b"{\"data\": [\"\xff\"]}".to_vec()) },
            "not JSON",
        ),
        ("a body cut short", Effect::Cut { after: 100, ending: Ending::Close }, "no answer"),
        ("a reset body", Effect::Cut { after: 100, ending: Ending::Reset }, "no answer"),
        ("a reset", Effect::Reset { work: Work::Skipped }, "no answer"),
        ("no answer at all", Effect::Close { work: Work::Skipped }, "no answer"),
        ("a huge body", Effect::HugeBody { bytes: 64 << 20 }, "larger than 3072 KiB"),
        ("a gzip bomb", Effect::GzipBomb { bytes: 1 << 28 }, "not JSON"),
        (
            "a redirect",
            Effect::Redirect { status: 307, to: Whither::OtherHost, work: Work::Skipped },
            "redirect",
        ),
        ("204", status(204, Payload::Empty), "HTTP 204"),
        ("500", Effect::status(500), "HTTP 500"),
        ("501", Effect::status(501), "HTTP 501"),
        ("502", Effect::status(502), "HTTP 502"),
        ("503 as a web page", status(503, Payload::Html), "HTTP 503"),
        ("504", Effect::status(504), "HTTP 504"),
        ("418", Effect::status(418), "HTTP 418"),
        ("429", Effect::status(429), "HTTP 429"),
        ("a negative total", envelope("total", json!(-5)), "\"total\" is -5"),
        ("a total that is text", envelope("total", json!("57")), "\"total\" is \"57\""),
        ("a lying total", envelope("total", json!(5)), "contradicts itself"),
        ("an enormous last_page", envelope("last_page", json!(1_000_000_000)), "contradicts itself"),
        ("a null last_page", envelope("last_page", Value::Null), "\"last_page\" is null"),
        ("another per_page", envelope("per_page", json!(7)), "per_page"),
        ("the same page for ever", Effect::SamePage { page: 1, echo: Echo::Asked }, "same customers"),
        (
            "page 1 again",
            Effect::SamePage { page: 1, echo: Echo::Answered },
            "page 2 was asked for and page 1 came",
        ),
        (
            "one customer twice",
            Effect::Twice { change: Map::from_iter([("email".into(), json!("x"))]) },
            "page",
        ),
        ("a customer without an id", Effect::Splice { customer: json!({}), at: None }, "no id"),
        (
            "an id of a megabyte",
            Effect::Splice { customer: json!({"id": "x".repeat(1 << 20)}), at: None },
            "the longest that is read",
        ),
        (
            "an id of two kilobytes",
            Effect::Splice { customer: json!({"id": "x".repeat(2000)}), at: None },
            "bytes long",
        ),
        (
            "an escape that stands for nothing",
            Effect::Body {
                body: Payload::Text(
                    r#"{"total":57,"page":2,"per_page":10,"last_page":6,"data":[{"id":"a","email":"\ud800"}]}"#.into(),
                ),
            },
            "cannot be read",
        ),
        ("an id with NUL", Effect::Splice { customer: json!({"id": "a\0"}), at: None }, "NUL"),
        ("something else in the list", Effect::Splice { customer: json!("x"), at: None }, "not an object"),
    ]
}

#[test]
fn broken_answers_are_named_and_change_nothing() {
    for (what, effect, part) in broken() {
        let house = House::with(57);
        assert_eq!(house.sweep().outcome, Outcome::Complete);
        let (head, mirror) = (house.head(), house.mirror());
        let fault = house.inject(Fault::new(effect).call(Call::List).page(2));
        let report = house.sweep();
        let fired = house.fired(fault);
        assert!(fired > 0, "{what} did not fire");
        let sentence = report.sentence();
        assert_eq!(report.outcome, Outcome::Failed, "{what}: {sentence}");
        assert!(
            sentence.contains("GET /customers page 2: ") && sentence.contains(part),
            "{what}: {sentence}"
        );
        assert_eq!((house.head(), house.mirror()), (head, mirror), "{what}");
        let told = house.one("SELECT error FROM passes ORDER BY id DESC LIMIT 1");
        assert!(sentence.ends_with(&told), "{what}: {told}");

        house.sandbox.world().clear_faults();
        assert_eq!(house.sweep().outcome, Outcome::Complete, "{what} is over");
        house.assert_true();
    }
}

#[test]
fn what_passes_is_tried_again_within_the_pass() {
    for effect in
        [Effect::status(503), Effect::Reset { work: Work::Skipped }, Effect::Body { body: Payload::Html }]
    {
        let house = House::with(57);
        let fault = house.inject(Fault::new(effect).call(Call::List).page(3).times(9));
        let report = house.sweep();
        assert_eq!((house.fired(fault), report.outcome), (9, Outcome::Complete), "{}", report.sentence());
        assert_eq!(report.tally.requests, 6 + 9);
        house.assert_true();
    }
}

#[test]
fn a_request_is_tried_ten_times_and_one_that_is_rejected_once() {
    for (code, tries) in [(503, 10), (422, 1)] {
        let house = House::with(5);
        let fault = house.on_lists(Effect::status(code));
        let report = house.sweep();
        assert_eq!((house.fired(fault), report.outcome), (tries, Outcome::Failed), "{}", report.sentence());
    }
}

#[test]
fn retry_after_is_obeyed_within_bounds_and_shown() {
    let cases = [
        ("2", true),
        ("Fri, 31 Dec 9999 23:59:59 GMT", true),
        ("Mon, 01 Jan 2001 00:00:00 GMT", false),
        ("0", false),
    ];
    for (retry_after, shown) in cases {
        let house = House::with(5);
        let effect = Effect::Status {
            status: 429,
            body: Payload::Error,
            retry_after: Some(retry_after.to_owned()),
            headers: Default::default(),
            work: Work::Skipped,
        };
        let fault = house.inject(Fault::new(effect).call(Call::List).once());
        assert_eq!(house.sweep().outcome, Outcome::Complete, "{retry_after}");
        assert_eq!(house.fired(fault), 1);
        let wait = "SELECT throttled_until IS NOT NULL FROM meta";
        assert_eq!(house.one(wait), if shown { "1" } else { "0" }, "{retry_after}");
        let bounded = "SELECT coalesce(throttled_until, '') < '2026-06-01T00:15:01' FROM meta";
        assert_eq!(house.one(bounded), "1", "{retry_after}");
    }
}

#[test]
fn a_key_refused_in_mid_sweep_ends_it_and_records_nothing_more() {
    let house = House::with(57);
    house.sweep();
    let fault = house.inject(Fault::new(Effect::status(401)).call(Call::List).page(3));
    let ran = house.expect(4, &["sync"]);
    assert_eq!(house.fired(fault), 1, "a refusal is not tried again: {}", ran.stderr);
    assert_eq!(house.head(), 57);
}
