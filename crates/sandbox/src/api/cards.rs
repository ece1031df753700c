//! Payment details: a token or a card object becomes a card.
//!
//! Any text that begins with `tok_` is a token, and its card is derived from the text. The tokens
//! `tok_card_declined`, `tok_card_expired`, `tok_exceeds_limit` and `tok_bad_verification_value`,
//! with any suffix, are refused with 502, as KOMOJU refuses cards. A refused token can be used
//! again.

use std::collections::HashSet;

use hyper::StatusCode;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value};

use super::answer::ApiAnswer;
use crate::population::Card;
use crate::random;

/// The codes of refused cards, each with its message. A token that begins with a code is refused.
const REFUSALS: &[(&str, &str)] = &[
    ("card_declined", "The card was declined."),
    ("card_expired", "The card has expired."),
    ("exceeds_limit", "The card's limit is exceeded."),
    ("bad_verification_value", "The verification value is wrong."),
];
/// The types of cards that can be saved, as the SDKs list them.
const TYPES: &[&str] = &["credit_card", "credit_card_korea", "credit_card_terminal", "credit_card_brazil"];
/// How many digits a card number has, as the SDKs state it.
const NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 8..=19;

/// Returns the card of `payment_details`, and records its token as used.
pub(crate) fn card(details: &Value, used: &mut HashSet<String>, now: Timestamp) -> Result<Card, ApiAnswer> {
    match details {
        Value::String(token) => from_token(token, used),
        Value::Object(fields) => from_fields(fields, now),
        _ => Err(ApiAnswer::invalid("payment_details", "it is neither a token nor an object")),
    }
}

/// Returns the card of a token.
fn from_token(token: &str, used: &mut HashSet<String>) -> Result<Card, ApiAnswer> {
    let Some(name) = token.strip_prefix("tok_") else {
        return Err(ApiAnswer::invalid("payment_details", "there is no such token"));
    };
    if let Some(&(code, message)) = REFUSALS.iter().find(|(code, _)| name.starts_with(code)) {
        return Err(refusal(code, message));
    }
    if !used.insert(token.to_owned()) {
        return Err(ApiAnswer::invalid("payment_details", "the token has been used already"));
    }
    Ok(Card::drawn(&mut random::of_text(token)))
}

/// Returns the card of a card object.
fn from_fields(fields: &Map<String, Value>, now: Timestamp) -> Result<Card, ApiAnswer> {
    let Some(kind) = fields.get("type").and_then(Value::as_str) else {
        return Err(ApiAnswer::missing("payment_details[type]"));
    };
    let Some(&kind) = TYPES.iter().find(|&&known| known == kind) else {
        return Err(ApiAnswer::invalid("payment_details[type]", "only credit cards can be saved"));
    };
    let digits: String = match fields.get("number") {
        Some(Value::String(number)) => number.chars().filter(|c| !matches!(c, ' ' | '-')).collect(),
        _ => return Err(ApiAnswer::missing("payment_details[number]")),
    };
    let is_number = NUMBER_DIGITS.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let brand = brand(&digits).filter(|_| is_number);
    let Some(brand) = brand else {
        return Err(ApiAnswer::invalid("payment_details[number]", "no card has this number"));
    };
    let month = whole_number(fields, "month", 1..=12)?;
    let year = match whole_number(fields, "year", 0..=2100)? {
        short @ 0..100 => 2000 + short,
        year => year,
    };
    let today = now.to_zoned_datetime(TimeZone::UTC);
    if (year as i16, month as i8) < (today.year(), today.month()) {
        return Err(refusal("card_expired", "The card has expired."));
    }
    Ok(Card::new(brand, digits[digits.len() - 4..].to_owned(), month, year).of_type(kind))
}

/// Reads a whole number. A form sends numbers as text.
fn whole_number(
    fields: &Map<String, Value>,
    name: &str,
    within: std::ops::RangeInclusive<u64>,
) -> Result<u64, ApiAnswer> {
    let param = format!("payment_details[{name}]");
    let number = match fields.get(name) {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => return Err(ApiAnswer::missing(&param)),
    };
    number
        .filter(|number| within.contains(number))
        .ok_or_else(|| ApiAnswer::invalid(&param, "it is out of range"))
}

/// Returns the brand of a card number.
fn brand(digits: &str) -> Option<&'static str> {
    let start: u32 = digits.get(..2)?.parse().ok()?;
    Some(match start {
        40..=49 => "visa",
        51..=55 | 22..=27 => "master",
        35 => "jcb",
        34 | 37 => "american_express",
        30 | 36 | 38 | 39 => "diners_club",
        _ => return None,
    })
}

/// Returns the answer to a refused card, which has the status 502 at KOMOJU.
fn refusal(code: &str, message: &str) -> ApiAnswer {
    ApiAnswer::error(StatusCode::BAD_GATEWAY, code, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(details: Value, used: &mut HashSet<String>) -> Result<Card, (u16, String)> {
        card(&details, used, "2026-06-15T00:00:00Z".parse().unwrap())
            .map_err(|answer| (answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap()))
    }

    #[test]
    fn token_gives_the_same_card_and_only_once() {
        let mut used = HashSet::new();
        let first = ask(json!("tok_abc"), &mut used).unwrap();
        let (status, body) = ask(json!("tok_abc"), &mut used).unwrap_err();
        assert_eq!(status, 422);
        assert!(body.contains("used already"), "{body}");
        assert_eq!(ask(json!("tok_abc"), &mut HashSet::new()).unwrap(), first);
    }

    #[test]
    fn refused_token_is_answered_502_each_time() {
        let mut used = HashSet::new();
        for token in
            ["tok_card_declined", "tok_card_expired_7", "tok_exceeds_limit", "tok_bad_verification_value"]
        {
            for _ in 0..2 {
                let (status, body) = ask(json!(token), &mut used).unwrap_err();
                assert_eq!(status, 502);
                assert!(token.contains(body.split('"').nth(5).unwrap()), "{token}: {body}");
            }
        }
    }

    #[test]
    fn card_object_gives_brand_and_last_four_digits() {
        let details =
            json!({"type": "credit_card", "number": "4111 1111 1111 1111", "month": "3", "year": 30});
        let card = ask(details, &mut HashSet::new()).unwrap();
        assert_eq!(card, Card::new("visa", "1111".to_owned(), 3, 2030));
    }

    #[test]
    fn invalid_card_object_is_refused_with_its_parameter() {
        for (change, status, named) in [
            (json!({"type": "konbini"}), 422, "payment_details[type]"),
            (json!({"number": "4111"}), 422, "payment_details[number]"),
            (json!({"number": "9999999999999999"}), 422, "payment_details[number]"),
            (json!({"month": 13}), 422, "payment_details[month]"),
            (json!({"year": null}), 422, "payment_details[year]"),
            (json!({"year": 2026, "month": 5}), 502, "card_expired"),
        ] {
            let mut details =
                json!({"type": "credit_card", "number": "4111111111111111", "month": 3, "year": 2030});
            for (key, value) in change.as_object().unwrap() {
                details[key] = value.clone();
            }
            let (got, body) = ask(details, &mut HashSet::new()).unwrap_err();
            assert_eq!(got, status, "{body}");
            assert!(body.contains(named), "{body}");
        }
    }
}
