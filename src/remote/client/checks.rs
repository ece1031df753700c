//! Properties of all answers that were read, for property tests and fuzzers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};

use super::{Answer, Http, wire};
use crate::clock::ManualClock;
use crate::config::Config;
use crate::remote::wire::Answered;
use crate::remote::{ApiCall, ErrorClass, RemoteError};
use crate::secret::{Masker, SecretKey};
use komoju_core::json::checks::canonical;
use komoju_core::time::LONGEST_PAUSE;
use komoju_core::{Customer, CustomerId, Hints, json};

/// The key of the checked client. An answer that repeats it is shown without it.
const KEY: &str = "sk_test_9aQ+x/Zr7";

/// The time at which answers arrive.
const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

thread_local! {
    static CLIENT: (Http, Masker) = client();
}

fn client() -> (Http, Masker) {
    let key = SecretKey::parse(KEY).expect("a key");
    // Plain HTTP needs no certificates.
    let mut config = Config::default();
    config.api.base_url = "http://127.0.0.1:1/".parse().expect("an address");
    let http = Http::new(&config, &key, Arc::new(ManualClock::at(NOW))).expect("a client");
    (http, Masker::new(Some(&key)))
}

/// Checks a page of the list: an accepted page has customers that can be mirrored, unchanged.
///
/// # Panics
/// The page does not have this property.
pub(crate) fn page(bytes: &[u8]) {
    let page = match wire::page(bytes) {
        Ok(page) => page,
        Err(why) => return explanation(&why),
    };
    let mut bodies = Vec::new();
    for listed in &page.customers {
        let customer = listed.read().expect("a customer of an accepted page can be read");
        assert_eq!(customer.id(), listed.id());
        let id = customer.id().as_str();
        assert!((1..=CustomerId::MAX_BYTES).contains(&id.len()) && !id.contains('\0'), "{id:?}");
        assert_eq!(Customer::from_body(customer.body()).as_ref(), Ok(&customer), "a body reads back");
        if let Some(created_at) = customer.created_at() {
            assert!(created_at.ends_with('Z') && created_at.parse::<Timestamp>().is_ok(), "{created_at}");
        }
        bodies.push(customer.body().to_owned());
    }
    for (bad, next) in page.unreadable.iter().zip(page.unreadable.iter().skip(1)) {
        assert!(bad.position < next.position);
    }
    page.unreadable.iter().for_each(|bad| explanation(&bad.reason.to_string()));
    if !page.unreadable.is_empty() || json::parse(bytes).is_err() {
        // An unreadable customer may be any bytes.
        return;
    }
    let written = canonical(bytes);
    if page.deleted.is_empty() {
        let data = format!("\"data\":[{}]", bodies.join(","));
        assert!(written.contains(&data), "{data} is not what was written: {written}");
    }
    let Hints { page, per_page, total, last_page } = page.hints;
    let hints = [("page", page), ("per_page", per_page), ("total", total), ("last_page", last_page)];
    for (name, hint) in hints {
        let Some(hint) = hint else { continue };
        // A hint is a number or a string. Leading zeros and a plus sign are ignored.
        let is_written = written.contains(&format!("\"{name}\":{hint}"))
            || written.contains(&format!("\"{name}\":\"")) && written.contains(&format!("{hint}\""));
        assert!(is_written, "{name} {hint} is not what was written: {written}");
    }
}

/// Checks the answer to a show or to a push: an accepted customer is unchanged.
///
/// # Panics
/// The answer does not have this property.
pub(crate) fn customer(bytes: &[u8]) {
    match wire::one_customer(bytes, true) {
        Answered::Customer(customer) => assert_eq!(customer.body(), canonical(bytes)),
        Answered::Unreadable(bad) => explanation(&bad.reason.to_string()),
        Answered::Other(why) => explanation(&why),
    }
    // The start of a longer answer never contains a customer that is accepted.
    assert!(!matches!(wire::one_customer(bytes, false), Answered::Customer(_)));
    let _ = wire::beginning(bytes);
}

/// Checks an error answer: it keeps its status, and shows no secret.
///
/// # Panics
/// The answer does not have this property.
pub(crate) fn error(status: u16, bytes: &[u8]) {
    let error = answered(status, HeaderMap::new(), bytes);
    CLIENT.with(|(_, masker)| {
        let (told, _) = wire::error(status, bytes);
        assert_eq!(told.status, status);
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(KEY), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
        if let Some(told) = error.status() {
            assert_eq!(told, status);
        }
        assert_eq!(error.retry_after, None);
        let is_refusal = matches!(error.class(), ErrorClass::Auth | ErrorClass::Rejected);
        assert!(!is_refusal || (300..500).contains(&status) || status == 502, "{error}");
        for text in [told.code, told.message, told.param].into_iter().flatten() {
            let shown = masker.text(&text);
            // A number that was cut may look like a card number.
            assert!(shown.ends_with('…') || masker.spans(&shown).is_empty(), "{shown}");
        }
    });
}

/// Checks `Retry-After`: the wait is what the header asks for, within bounds.
///
/// # Panics
/// The wait does not have this property.
pub(crate) fn retry_after(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let mut headers = HeaderMap::new();
    for name in [RETRY_AFTER, DATE] {
        if let Some(Ok(value)) = lines.next() {
            headers.insert(name, value);
        }
    }
    let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let has_date = headers.contains_key(DATE);
    // A number from a thousand million on is a Unix time.
    let seconds =
        asked.parse::<u64>().ok().filter(|seconds| *seconds < 1_000_000_000 && !asked.starts_with('+'));
    let wait = answered(429, headers.clone(), b"").retry_after;
    assert!(wait.is_none_or(|wait| !wait.is_zero() && wait <= LONGEST_PAUSE), "{wait:?}");
    if let Some(seconds) = seconds {
        let expected = Duration::from_secs(seconds).min(LONGEST_PAUSE);
        assert_eq!(wait.unwrap_or_default(), expected, "{asked}");
    }
    // Without a `Date` header, an HTTP date is a moment of our clock.
    if let (Ok(date), false) = (httpdate::parse_http_date(asked), has_date) {
        let until = NOW.checked_add(wait.unwrap_or_default()).expect("the wait is bounded");
        let date = Timestamp::try_from(date).unwrap_or(Timestamp::MAX).clamp(NOW, NOW + LONGEST_PAUSE);
        assert_eq!(until, date, "{asked}");
    }
}

fn answered(status: u16, headers: HeaderMap, bytes: &[u8]) -> RemoteError {
    let answer = Answer { status, headers, body: bytes.to_vec(), is_whole: true };
    CLIENT.with(|(http, _)| http.error_of(&ApiCall::List { page: 1 }, &answer))
}

/// Checks an explanation: it is not empty, and shows no key.
fn explanation(why: &str) {
    assert!(!why.is_empty());
    CLIENT.with(|(_, masker)| assert!(!masker.text(why).contains(KEY), "{why}"));
}
