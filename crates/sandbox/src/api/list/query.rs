//! The parameters of a list, the page that they select, and the envelope of the answer.

use std::ops::Range;

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::answer::ApiAnswer;
use crate::population::rfc3339;
use crate::readings::{Edge, ListTimes, PastEnd, PerPageOver, Readings};

/// The size of a page without `per_page`.
const PER_PAGE: u64 = 10;

/// The parameters of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) page: u64,
    pub(crate) per_page: u64,
    /// The seconds since 1970 of `created_at`; none without bounds.
    pub(crate) seconds: Option<Range<i64>>,
    /// The month and year in which a card expires.
    pub(crate) expiration: Option<(u64, u64)>,
    start_time: Option<String>,
    end_time: Option<String>,
}

impl Query {
    /// Reads the query string of a list of customers.
    pub(crate) fn parse(query: &str, readings: &Readings) -> Result<Self, ApiAnswer> {
        Self::parse_within(query, readings, readings.start_time, readings.end_time)
    }

    /// Reads the query string of a list of events.
    pub(crate) fn parse_events(query: &str, readings: &Readings) -> Result<Self, ApiAnswer> {
        Self::parse_within(query, readings, readings.event_start_time, readings.event_end_time)
    }

    /// Reads a query string whose bounds of time are inclusive or exclusive.
    fn parse_within(
        query: &str,
        readings: &Readings,
        start_edge: Edge,
        end_edge: Edge,
    ) -> Result<Self, ApiAnswer> {
        let mut parsed = Self {
            page: 1,
            per_page: PER_PAGE,
            seconds: None,
            expiration: None,
            start_time: None,
            end_time: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "page" => parsed.page = positive("page", &value)?,
                "per_page" => parsed.per_page = positive("per_page", &value)?,
                "start_time" if !value.is_empty() => parsed.start_time = Some(value.into_owned()),
                "end_time" if !value.is_empty() => parsed.end_time = Some(value.into_owned()),
                "expiration" if !value.is_empty() => parsed.expiration = Some(expiration(&value)?),
                _ => {}
            }
        }
        if parsed.per_page > readings.per_page_max {
            match readings.per_page_over {
                PerPageOver::Clamped => parsed.per_page = readings.per_page_max,
                PerPageOver::Refused => return Err(ApiAnswer::invalid("per_page", "it is too large")),
            }
        }
        let start = parsed.start_time.as_deref().map(|text| time("start_time", text)).transpose()?;
        let end = parsed.end_time.as_deref().map(|text| time("end_time", text)).transpose()?;
        if start.is_some() || end.is_some() {
            // Customers and events are created at a whole second. `from` is the first second that
            // is listed, and `to` the first one that is not.
            let from = start.map_or(i64::MIN, |start| match start_edge {
                Edge::Inclusive => round_up(start),
                Edge::Exclusive => round_down(start) + 1,
            });
            let to = end.map_or(i64::MAX, |end| match end_edge {
                Edge::Inclusive => round_down(end) + 1,
                Edge::Exclusive => round_up(end),
            });
            parsed.seconds = Some(from..to);
        }
        Ok(parsed)
    }

    /// Returns the page of a query string, without checking the rest.
    pub(crate) fn page_of(query: &str) -> Option<u64> {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "page")
            .and_then(|(_, value)| value.parse().ok())
    }

    /// Returns the page that this query selects of `total` items.
    pub(crate) fn window(&self, total: usize, readings: &Readings) -> Result<PageWindow, ApiAnswer> {
        let last_page = (total as u64).div_ceil(self.per_page);
        let mut page = self.page;
        if page > last_page.max(1) {
            match readings.past_end {
                PastEnd::Empty => {}
                PastEnd::NotFound => return Err(ApiAnswer::not_found("There is no such page.")),
                PastEnd::LastPage => page = last_page.max(1),
            }
        }
        let start = (page - 1).saturating_mul(self.per_page);
        let within = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(total);
        Ok(PageWindow {
            positions: within(start)..within(start.saturating_add(self.per_page)),
            page,
            per_page: self.per_page,
            last_page,
            total,
        })
    }
}

/// The positions of one page, and the numbers of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageWindow {
    pub(crate) positions: Range<usize>,
    pub(crate) page: u64,
    pub(crate) per_page: u64,
    pub(crate) last_page: u64,
    pub(crate) total: usize,
}

/// The answer to a list before it is serialised. Faults change it.
#[derive(Debug, Serialize)]
pub(crate) struct ListPage {
    #[serde(flatten)]
    pub(crate) envelope: Map<String, Value>,
    pub(crate) data: Vec<Box<RawValue>>,
}

impl ListPage {
    /// Returns a page with an exact envelope.
    pub(crate) fn new(
        resource: &str,
        query: &Query,
        window: &PageWindow,
        data: Vec<Box<RawValue>>,
        times: (ListTimes, Timestamp),
    ) -> Self {
        let mut envelope = Map::from_iter([
            ("resource".to_owned(), resource.into()),
            ("total".to_owned(), window.total.into()),
            ("page".to_owned(), window.page.into()),
            ("per_page".to_owned(), window.per_page.into()),
            ("last_page".to_owned(), window.last_page.into()),
        ]);
        let (reading, now) = times;
        for (field, asked, usual) in [
            ("start_time", &query.start_time, Timestamp::UNIX_EPOCH.as_second()),
            ("end_time", &query.end_time, now.as_second()),
        ] {
            let said = match reading {
                ListTimes::Absent => continue,
                ListTimes::Null => None,
                ListTimes::Echoed => asked.clone(),
                ListTimes::Filled => asked.clone().or_else(|| Some(rfc3339(usual))),
            };
            envelope.insert(field.to_owned(), said.into());
        }
        Self { envelope, data }
    }

    /// Returns the page as an answer.
    pub(crate) fn answer(&self) -> ApiAnswer {
        ApiAnswer::json(StatusCode::OK, self)
    }
}

/// Reads a positive number.
fn positive(name: &str, value: &str) -> Result<u64, ApiAnswer> {
    match value.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(ApiAnswer::invalid(name, "it is not a positive whole number")),
    }
}

/// Reads `MMYY` into month and year.
fn expiration(text: &str) -> Result<(u64, u64), ApiAnswer> {
    let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse::<u64>().ok() } else { None };
    match number.map(|number| (number / 100, 2000 + number % 100)) {
        Some((month @ 1..=12, year)) => Ok((month, year)),
        _ => Err(ApiAnswer::invalid("expiration", "it is not a month and a year such as 0130")),
    }
}

/// Reads a time: RFC 3339, a date alone, or the form of the Ruby SDK (`2026-01-02 03:04:05 UTC` or
/// `… +0900`).
fn time(name: &str, text: &str) -> Result<Timestamp, ApiAnswer> {
    let date = || format!("{text}T00:00:00Z");
    let ruby = || {
        let (local, zone) = text.rsplit_once(' ')?;
        let zone = if zone == "UTC" { "Z" } else { zone };
        Some(format!("{local}{zone}"))
    };
    text.parse()
        .ok()
        .or_else(|| ruby()?.parse().ok())
        .or_else(|| date().parse().ok())
        .ok_or_else(|| ApiAnswer::invalid(name, "it is not a time such as 2026-01-02T03:04:05Z"))
}

/// Returns the whole second at or before a time.
fn round_down(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

/// Returns the whole second at or after a time.
fn round_up(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Query {
        Query::parse(query, &Readings::default()).unwrap()
    }

    #[test]
    fn default_page_is_the_first_with_ten_customers() {
        let window = parse("").window(25, &Readings::default()).unwrap();
        assert_eq!((window.positions, window.last_page), (0..10, 3));
        let window = parse("page=3").window(25, &Readings::default()).unwrap();
        assert_eq!(window.positions, 20..25);
    }

    #[test]
    fn empty_list_has_no_last_page() {
        let window = parse("").window(0, &Readings::default()).unwrap();
        assert_eq!((window.positions, window.last_page, window.page), (0..0, 0, 1));
        for past_end in [PastEnd::NotFound, PastEnd::LastPage] {
            let readings = Readings { past_end, ..Readings::default() };
            assert!(parse("page=1").window(0, &readings).is_ok(), "page 1 always exists");
        }
    }

    #[test]
    fn largest_numbers_cause_no_overflow() {
        let query = parse("page=18446744073709551615&per_page=18446744073709551615");
        assert_eq!(query.per_page, 100);
        assert_eq!(query.window(5, &Readings::default()).unwrap().positions, 5..5);
    }

    #[test]
    fn invalid_parameter_is_refused_by_name() {
        for (query, named) in [
            ("page=0", "page"),
            ("page=-1", "page"),
            ("per_page=ten", "per_page"),
            ("start_time=yesterday", "start_time"),
            ("end_time=2026-13-01", "end_time"),
            ("expiration=1330", "expiration"),
            ("expiration=0030", "expiration"),
            ("expiration=130", "expiration"),
            ("expiration=%2B130", "expiration"),
        ] {
            let answer = Query::parse(query, &Readings::default()).unwrap_err();
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert!(body.contains(&format!(r#""param":"{named}""#)), "{query}: {body}");
        }
    }

    #[test]
    fn each_form_of_a_time_means_the_same() {
        let start = "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap().as_second();
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T03%3A04%3A05.000Z",
            "2026-01-02T12:04:05%2B09:00",
            "2026-01-02+03%3A04%3A05+UTC",
            "2026-01-02+12%3A04%3A05+%2B0900",
        ] {
            let query = parse(&format!("start_time={text}"));
            assert_eq!(query.seconds.map(|seconds| seconds.start), Some(start), "{text}");
        }
        let day = parse("end_time=2026-01-02").seconds.unwrap().end;
        assert_eq!(day, start - (3 * 60 + 4) * 60 - 5 + 1);
    }

    #[test]
    fn bounds_include_or_exclude_their_own_second() {
        let second = |edge, bound: &str| {
            let readings = Readings { start_time: edge, end_time: edge, ..Readings::default() };
            let query = format!("start_time={bound}&end_time={bound}");
            let seconds = Query::parse(&query, &readings).unwrap().seconds.unwrap();
            (seconds.start, seconds.end)
        };
        assert_eq!(second(Edge::Inclusive, "1970-01-01T00:00:10Z"), (10, 11));
        assert_eq!(second(Edge::Exclusive, "1970-01-01T00:00:10Z"), (11, 10));
        assert_eq!(second(Edge::Inclusive, "1970-01-01T00:00:10.5Z"), (11, 11));
        assert_eq!(second(Edge::Exclusive, "1970-01-01T00:00:10.5Z"), (11, 11));
    }
}
