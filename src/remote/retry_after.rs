//! `Retry-After`: how long an answer asks the client to wait.
//!
//! RFC 9110 allows whole seconds and HTTP dates. Servers and proxies also send fractions, numbers
//! with a unit, Unix times and dates in the spellings of RFC 2822 and RFC 3339.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

/// UNIX_SECONDS controls from which number on a header is a Unix time. As a Unix time this number
/// is in 2001; as a wait it would be 31 years.
const UNIX_SECONDS: f64 = 1e9;

/// UNIX_MILLISECONDS controls from which number on a Unix time is in milliseconds. In milliseconds
/// this number is in 2001; in seconds it would be in the year 33658.
const UNIX_MILLISECONDS: f64 = 1e12;

/// Returns the wait that a header of this text asks for. `now` is the server's time. Returns none
/// for a moment in the past, for a wait of zero, and for an unknown spelling. The wait has no upper
/// bound; the limiter sets one.
pub(super) fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim().trim_matches('"').trim();
    let wait = match number(text) {
        Some(unix) if unix >= UNIX_SECONDS => {
            let unix = if unix >= UNIX_MILLISECONDS { unix / 1000.0 } else { unix };
            let now = now.as_duration().as_secs_f64();
            // A moment in the past is negative here, which is no wait.
            saturating(unix - now)
        }
        Some(seconds) => saturating(seconds),
        None => with_unit(text).or_else(|| until(text, now))?,
    };
    (!wait.is_zero()).then_some(wait)
}

/// Reads a number without a sign or an exponent.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

/// Returns a duration of this many seconds, within the bounds of the type.
fn saturating(seconds: f64) -> Duration {
    match seconds > 0.0 {
        true => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        false => Duration::ZERO,
    }
}

/// Reads `2s`, `500ms`, `1 min`, `1h 30m` or `PT2S`. A day has 24 hours.
fn with_unit(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

/// Returns the time until a date in one of the three spellings of HTTP, or in the spelling of RFC
/// 2822 or RFC 3339.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(date) = httpdate::parse_http_date(text) {
        // `Timestamp` ends before the last days of 9999, so compare in the system's type.
        return date.duration_since(now.try_into().ok()?).ok();
    }
    let mail = jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    mail.or_else(|| text.parse().ok())?.duration_since(now).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_that_servers_use_is_read() {
        let now: Timestamp = "2026-01-31T09:30:00Z".parse().unwrap();
        let cases = [
            ("120", Some(120_000)),
            (" 3 ", Some(3_000)),
            ("007", Some(7_000)),
            ("\"5\"", Some(5_000)),
            ("2.0", Some(2_000)),
            ("0.25", Some(250)),
            ("2s", Some(2_000)),
            ("2 seconds", Some(2_000)),
            ("1.5s", Some(1_500)),
            ("500ms", Some(500)),
            ("1 min", Some(60_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1h 30m", Some(5_400_000)),
            ("1 day", Some(86_400_000)),
            ("PT2S", Some(2_000)),
            // Unix times, in seconds and milliseconds: 1769851800 is now.
            ("1769851830", Some(30_000)),
            ("1769851830.5", Some(30_500)),
            ("1769851830000", Some(30_000)),
            ("1769851770", None),
            ("1000000000", None),
            ("999999999", Some(999_999_999_000)),
            // HTTP's three spellings.
            ("Sat, 31 Jan 2026 09:31:00 GMT", Some(60_000)),
            ("Saturday, 31-Jan-26 09:31:00 GMT", Some(60_000)),
            ("Sat Jan 31 09:31:00 2026", Some(60_000)),
            // RFC 2822.
            ("Sat, 31 Jan 2026 09:31:00 +0000", Some(60_000)),
            ("Sat, 31 Jan 2026 18:31:00 +0900", Some(60_000)),
            ("31 Jan 2026 09:31:00 +0000", Some(60_000)),
            // RFC 3339.
            ("2026-01-31T09:31:00Z", Some(60_000)),
            ("2026-01-31T18:31:00.500+09:00", Some(60_500)),
            ("2026-01-31 09:31:00Z", Some(60_000)),
            // Nothing to wait for.
            ("0", None),
            ("0.0", None),
            ("0s", None),
            ("-1", None),
            ("-2s", None),
            ("2s ago", None),
            ("Sat, 31 Jan 2026 09:29:00 GMT", None),
            ("2026-01-31T09:30:00Z", None),
            // No wait.
            ("", None),
            ("\"", None),
            (".", None),
            ("1.2.3", None),
            ("soon", None),
            ("1e3", None),
            ("inf", None),
            ("NaN", None),
            ("1 year", None),
            ("2026-01-31", None),
        ];
        for (text, millis) in cases {
            assert_eq!(wait(text, now), millis.map(Duration::from_millis), "{text:?}");
        }
        for text in ["99999999999999999999", &"9".repeat(400), "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert!(wait(text, now).unwrap() > Duration::from_secs(1 << 37), "{text}");
        }
    }
}
