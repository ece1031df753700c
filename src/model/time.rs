//! How a moment is written down: RFC 3339 in UTC with milliseconds, so that text sorts as time and SQLite's date functions
//! take it.

use jiff::Timestamp;

/// The written form, as in `2026-01-31T09:30:00.000Z`. Below a millisecond it is cut, not rounded.
pub fn written(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

/// Reads any RFC 3339 time, whatever its offset and precision.
pub fn read(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_times_sort_as_they_happened() {
        let texts = ["2024-02-29T23:59:59Z", "2024-03-01T08:59:59.999999+09:00", "2024-03-01T00:00:00.5Z"];
        let written: Vec<String> = texts.iter().map(|text| written(read(text).unwrap())).collect();
        assert_eq!(
            written,
            ["2024-02-29T23:59:59.000Z", "2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00.500Z"]
        );
        assert!(written.is_sorted());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "2024-13-01T00:00:00Z", "1700000000"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
