//! Formats numbers and durations for people.

/// Formats a count and its noun: `1 customer`, `1,234 customers`.
pub fn count(n: impl TryInto<u64>, one: &str) -> String {
    let n = n.try_into().unwrap_or(0);
    format!("{} {one}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Formats a number with digit groups: `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
pub fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_get_a_plural() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(grouped).each_ref().map(|t| &t[..])
        );
        assert_eq!((count(1_u64, "page"), count(0_u64, "page")), ("1 page".into(), "0 pages".into()));
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let text = [0, 119, 120, 7200, 172_800, -5].map(duration);
        assert_eq!(text, ["0 s", "119 s", "2 min", "2 h 0 min", "2 d 0 h", "0 s"]);
    }
}
