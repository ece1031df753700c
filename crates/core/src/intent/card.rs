//! Detects card numbers. They never enter this system, in any notation.

/// Whether a text is a card number: 12 to 19 digits, ASCII or full-width, with or without white
/// space and hyphens.
pub(super) fn is_number(text: &str) -> bool {
    let is_separator =
        |c: &char| c.is_whitespace() || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}');
    let mut digits = 0;
    for c in text.chars().filter(|c| !is_separator(c)) {
        match c {
            '0'..='9' | '\u{ff10}'..='\u{ff19}' => digits += 1,
            _ => return false,
        }
    }
    (12..=19).contains(&digits)
}

#[cfg(test)]
mod tests {
    use super::is_number;

    #[test]
    fn card_number_is_detected_in_any_grouping() {
        for text in [
            "411111111111",
            "4111111111111111",
            "4111111111111111111",
            " 4111 1111-1111\u{3000}1111 ",
            "４１１１１１１１１１１１１１１１",
            "4111\u{2010}1111\u{2212}1111\u{ff0d}1111",
        ] {
            assert!(is_number(text), "{text}");
        }
        for text in
            ["", "-", "41111111111", "41111111111111111111", "tok_4111111111111111", "4111111111111111x"]
        {
            assert!(!is_number(text), "{text}");
        }
    }
}
