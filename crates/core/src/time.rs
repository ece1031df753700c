//! The text format of times: RFC 3339 in UTC with milliseconds. It sorts as text, and SQLite's date
//! functions accept it.

use std::time::Duration;

use jiff::Timestamp;

/// LONGEST_PAUSE limits the wait that the remote can ask for: a wait until the year 9999 is a
/// mistake.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Formats a time as `2026-01-31T09:30:00.000Z`. Digits below a millisecond are cut, not rounded.
pub fn written(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

/// Parses any RFC 3339 time, whatever its offset and precision.
pub fn read(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Parses the stored time until which the remote asked to wait, if it is still in the future. A
/// time further ahead than [`LONGEST_PAUSE`] was stored by a clock that was set back since, and is
/// ignored.
pub fn pause_until(text: &str, now: Timestamp) -> Option<Timestamp> {
    read(text).filter(|until| *until > now && until.duration_since(now).unsigned_abs() <= LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_times_sort_in_order() {
        let texts = ["2024-02-29T23:59:59Z", "2024-03-01T08:59:59.999999+09:00", "2024-03-01T00:00:00.5Z"];
        let written: Vec<String> = texts.iter().map(|text| written(read(text).unwrap())).collect();
        assert_eq!(
            written,
            ["2024-02-29T23:59:59.000Z", "2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00.500Z"]
        );
        assert!(written.is_sorted());
    }

    #[test]
    fn wait_longer_than_the_limit_is_ignored() {
        let now = read("2026-01-01T00:00:00Z").unwrap();
        for (until, holds) in [
            ("2026-01-01T00:00:00Z", false),
            ("2026-01-01T00:00:00.001Z", true),
            ("2026-01-01T00:15:00Z", true),
            ("2026-01-01T00:15:00.001Z", false),
            ("2027-01-01T00:00:00Z", false),
            ("soon", false),
        ] {
            assert_eq!(pause_until(until, now), read(until).filter(|_| holds), "{until}");
        }
    }

    #[test]
    fn text_that_is_not_a_time_is_refused() {
        for text in ["", "yesterday", "2024-13-01T00:00:00Z", "1700000000"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
