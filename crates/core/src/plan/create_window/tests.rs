//! Readings of windows, answer by answer.

#![expect(clippy::result_large_err, reason = "the answers of the API, as the client returns them")]

use serde_json::{Value, json};

use super::*;
use crate::intent::IntentBody;
use crate::plan::creates::MatchMode;
use crate::remote::error::{ApiCall, ApiError, TruncatedPage};
use crate::{BadCustomer, Hints, RawCustomer, Unreadable};

fn query(trust: KeyTrust) -> WindowQuery {
    let body = IntentBody::new(json!({"email": "a"})).unwrap();
    let wanted = CreateMatcher { id: "i1".to_owned(), body, tag: None, mode: MatchMode::All };
    WindowQuery { from: "2026-06-01T12:00:00Z".parse().unwrap(), wanted, trust }
}

fn hints(total: u64, last_page: u64) -> Hints {
    Hints { page: None, per_page: Some(2), total: Some(total), last_page: Some(last_page) }
}

/// A page of customers with these ids. Capital letters are customers with the wanted email.
fn page(ids: &str, hints: Hints) -> Page {
    let listed = |id: char| {
        let email = if id.is_uppercase() { "a" } else { "b" };
        RawCustomer::from_value(&json!({"id": id.to_string(), "email": email})).unwrap()
    };
    Page { hints, customers: ids.chars().map(listed).collect(), ..Page::default() }
}

fn error(cause: ErrorCause) -> RemoteError {
    RemoteError { call: ApiCall::List { page: 1 }, cause, retry_after: None }
}

fn rejected(status: u16, param: Option<&str>) -> RemoteError {
    let param = param.map(str::to_owned);
    error(ErrorCause::Rejected(ApiError { status, code: None, message: None, param }))
}

fn too_large() -> RemoteError {
    let begun = TruncatedPage { per_page: None, last_page: None, first: None };
    error(ErrorCause::TooLarge { limit_kib: 1, page: begun })
}

type Answer = Result<Page, RemoteError>;

/// Reads with these answers in rotation. Returns the requested pages as `page/per_page`, and the
/// result.
fn read(trust: KeyTrust, answers: Vec<Answer>) -> (Vec<String>, Result<CreateWindow, WindowError>) {
    let query = query(trust);
    let mut reading = WindowReading::new(&query, 2);
    let mut requested = Vec::new();
    for answer in answers.into_iter().cycle().take(20_000) {
        let PageQuery { page, per_page, created_from } = reading.query();
        assert_eq!(created_from, Some(query.from));
        requested.push(format!("{page}/{per_page}"));
        if let Some(result) = reading.take(answer) {
            return (requested, result);
        }
    }
    panic!("the reading does not end")
}

/// Checks the requested pages, what the window proves, and its candidates.
#[track_caller]
fn assert_read(answers: Vec<Answer>, pages: &str, coverage: WindowCoverage, candidates: &str) {
    let (requested, window) = read(KeyTrust::Expired, answers);
    let window = window.unwrap();
    let found: String = window.candidates.iter().map(|customer| customer.id().as_str()).collect();
    assert_eq!(
        (requested.join(" ").as_str(), window.coverage(), found.as_str()),
        (pages, coverage, candidates)
    );
}

#[test]
fn window_is_read_until_two_readings_agree() {
    let whole = hints(3, 2);
    let steady = vec![Ok(page("Bx", whole)), Ok(page("A", whole))];
    assert_read(steady, "1/2 2/2 1/2 2/2", WindowCoverage::Whole, "AB");
    // A customer that first appears in the second reading makes a third reading necessary.
    let with_a = || Ok(page("xA", hints(2, 1)));
    let end = || Ok(page("", hints(2, 1)));
    let growing = vec![Ok(page("x", hints(1, 1))), with_a(), end(), with_a(), end()];
    assert_read(growing, "1/2 1/2 2/2 1/2 2/2", WindowCoverage::Whole, "A");
    // No two readings in a row agree.
    let unsteady = vec![Ok(page("x", hints(1, 1))), Ok(page("y", hints(1, 1)))];
    let (requested, window) = read(KeyTrust::Expired, unsteady);
    assert_eq!(requested.join(" "), "1/2 1/2 1/2 1/2 1/2");
    assert!(matches!(window, Err(WindowError::Moving(why)) if why.contains("no two readings agreed")));
}

#[test]
fn readings_that_differ_in_unreadable_customers_do_not_agree() {
    let bad = Unreadable::new(b"[]", Some(1), BadCustomer::NotAnObject);
    let hints = Hints { per_page: Some(10), ..hints(1, 1) };
    let with_bad = Page { unreadable: vec![bad], ..page("x", hints) };
    let plain = || Ok(page("x", hints));
    assert_read(vec![Ok(with_bad), plain(), plain()], "1/2 1/2 1/2", WindowCoverage::Whole, "");
}

#[test]
fn total_that_changes_between_two_equal_readings_proves_no_absence() {
    let answers = vec![Ok(page("x", hints(2, 1))), Ok(page("", hints(2, 1))), Ok(page("x", hints(1, 1)))];
    assert_read(answers, "1/2 2/2 1/2", WindowCoverage::Partial, "");
}

#[test]
fn total_that_is_missing_wrong_or_changing_proves_no_absence() {
    let nameless = Hints { per_page: Some(2), ..Hints::default() };
    let cases = [
        (vec![Ok(page("x", nameless)), Ok(page("", nameless))], "it shows 1 customer, and it gives no total"),
        (vec![Ok(page("x", hints(0, 1)))], "it shows 1 customer, and its total is 0"),
        (
            vec![Ok(page("xy", hints(3, 2))), Ok(page("z", hints(4, 2))), Ok(page("", hints(4, 2)))],
            "it shows 3 customers, and its total changes from answer to answer",
        ),
    ];
    for (answers, size) in cases {
        let (_, window) = read(KeyTrust::Expired, answers);
        let window = window.unwrap();
        assert_eq!((window.coverage(), window.size().as_str()), (WindowCoverage::Partial, size));
    }
}

#[test]
fn unreadable_and_deleted_customers_that_could_be_the_creates_prove_no_absence() {
    let bad = Unreadable::new(b"[]", Some(1), BadCustomer::NotAnObject);
    let deleted = |email: &str| {
        let value: Value = json!({"id": "d", "email": email, "deleted": true});
        Page { deleted: vec![RawCustomer::from_value(&value).unwrap()], ..page("", hints(1, 1)) }
    };
    let unreadable = Page { unreadable: vec![bad], ..page("", hints(0, 1)) };
    let size = "it shows 0 customers and 1 unreadable one, and its total is";
    for (page, coverage, size) in [
        (deleted("b"), WindowCoverage::Whole, "it shows 1 customer, and its total is 1"),
        (deleted("a"), WindowCoverage::Partial, size),
        (unreadable, WindowCoverage::Partial, size),
    ] {
        let (_, window) = read(KeyTrust::Expired, vec![Ok(page.clone())]);
        let window = window.unwrap();
        assert_eq!(window.coverage(), coverage);
        assert!(window.size().starts_with(size), "{}", window.size());
    }
}

#[test]
fn older_customers_that_a_server_lists_anyway_are_not_candidates() {
    let old = json!({"id": "o", "email": "a", "created_at": "2026-06-01T11:59:59Z"});
    let new = json!({"id": "n", "email": "a", "created_at": "2026-06-01T12:00:00Z"});
    let customers = [old, new].map(|value| RawCustomer::from_value(&value).unwrap()).into();
    let page = Page { customers, ..page("", Hints { per_page: Some(10), ..hints(2, 1) }) };
    assert_read(vec![Ok(page)], "1/2 1/2", WindowCoverage::Whole, "n");
}

#[test]
fn page_over_the_limit_is_read_in_smaller_pages_down_to_one_customer() {
    let one = Hints { per_page: Some(1), ..hints(2, 2) };
    let answers = vec![Err(too_large()), Ok(page("A", one)), Err(too_large()), Ok(page("", one))];
    let (requested, window) = read(KeyTrust::Expired, answers);
    assert_eq!(requested[..4], ["1/2", "1/1", "2/1", "3/1"]);
    assert_eq!(window.unwrap().coverage(), WindowCoverage::Partial);
    // The total counts only the customer that is shown.
    let one = Hints { per_page: Some(1), ..hints(1, 2) };
    let answers = vec![Err(too_large()), Ok(page("A", one)), Err(too_large()), Ok(page("", one))];
    let window = read(KeyTrust::Expired, answers).1.unwrap();
    assert_eq!(window.coverage(), WindowCoverage::Partial, "a customer that is too large proves no absence");
    let (requested, window) = read(KeyTrust::Expired, vec![Err(too_large())]);
    assert_eq!(requested.len(), 102, "the first page, then a hundred customers and one more");
    assert!(matches!(window, Err(WindowError::Remote(RemoteError { cause: ErrorCause::Unusable(_), .. }))));
}

#[test]
fn page_after_the_last_may_be_a_404_and_any_other_failure_ends_the_reading() {
    let full = Ok(page("xy", Hints { per_page: Some(2), ..Hints::default() }));
    let (requested, window) = read(KeyTrust::Expired, vec![full.clone(), Err(rejected(404, None))]);
    assert_eq!((requested.join(" ").as_str(), window.is_ok()), ("1/2 2/2 1/2 2/2", true));
    for failed in [rejected(404, None), rejected(422, None), error(ErrorCause::Unusable("why".to_owned()))] {
        let (_, window) = read(KeyTrust::Expired, vec![Err(failed.clone())]);
        assert_eq!(window.err(), Some(WindowError::Remote(failed)));
    }
    let (_, window) = read(KeyTrust::Expired, vec![full, Err(rejected(422, None))]);
    assert_eq!(window.err(), Some(WindowError::Remote(rejected(422, None))));
}

#[test]
fn server_that_refuses_a_large_page_gets_the_default_size() {
    let query = query(KeyTrust::Expired);
    let mut reading = WindowReading::new(&query, 100);
    assert!(reading.take(Err(rejected(422, Some("per_page")))).is_none());
    assert_eq!((reading.query().page, reading.query().per_page), (1, 10));
    assert!(matches!(reading.take(Err(rejected(422, Some("per_page")))), Some(Err(WindowError::Remote(_)))));
}

#[test]
fn moving_list_is_read_five_times_and_only_once_under_a_trusted_key() {
    // The second page repeats a customer and shows a new one, and the total changed.
    let moving = || vec![Ok(page("xy", hints(4, 2))), Ok(page("yz", hints(5, 3)))];
    for (trust, pages) in [(KeyTrust::Full, 2), (KeyTrust::Doubtful, 10), (KeyTrust::Expired, 10)] {
        let (requested, window) = read(trust, moving());
        assert_eq!(requested.len(), pages, "{trust:?}");
        assert!(matches!(window, Err(WindowError::Moving(why)) if why.contains("the list keeps moving")));
    }
}

#[test]
fn endless_window_is_given_up() {
    let query = query(KeyTrust::Expired);
    let mut reading = WindowReading::new(&query, 2);
    let result = (0_u64..=MOST_PAGES).find_map(|n| {
        let listed = RawCustomer::from_value(&json!({"id": format!("c{n}"), "email": "b"})).unwrap();
        let hints = Hints { per_page: Some(1), ..hints(1_000_000, 1_000_000) };
        reading.take(Ok(Page { hints, customers: vec![listed], ..Page::default() }))
    });
    assert!(matches!(result, Some(Err(WindowError::Moving(why))) if why.contains("grows faster")));
}
