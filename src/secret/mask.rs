//! What a text from outside must lose before it is stored, logged or shown: secrets, terminal
//! tricks, length.
//!
//! Every message that came from the API, a proxy or a file passes through [`Masker::text`]. Three
//! promises, each with a test over arbitrary input:
//! - the secret key is not in the result: neither plain, nor percent-encoded in whole or in part,
//!   nor in base64 (as Basic authentication sends it, or at another alignment, in either alphabet);
//! - nothing in the result moves a cursor, starts a line or turns the direction of writing;
//! - the result has at most [`LIMIT`] characters.
//!
//! Things *like* a key, a token or a card number go too, whoever they belong to. The patterns ask
//! for no word boundary in front, because escaped text (`\nsk_live_…`, `%3Dtok_…`) has none: to
//! hide too much costs a puzzled look, to hide too little a secret. A mask keeps no prefix and no
//! last digits, and no key holds a `*` ([`SecretKey`] refuses it), so what stands around a mask
//! cannot spell the key again.
//!
//! Rejected: regular expressions (a percent-encoded key has too many spellings to list), and
//! masking only where a text is shown (one place forgotten is one leak).

use std::ops::{Range, RangeInclusive};
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};

use crate::secret::SecretKey;

/// The most characters [`Masker::text`] returns: room for any message worth reading, none for a
/// page of HTML.
pub const LIMIT: usize = 300;

/// What stands where a secret stood.
pub const MASK: &str = "****";

/// How KOMOJU's secret keys, publishable keys and payment tokens begin.
const TOKEN_PREFIXES: [&str; 4] = ["sk_live_", "sk_test_", "pk_", "tok_"];

/// How many digits a card number has (ISO/IEC 7812).
const CARD_DIGITS: RangeInclusive<usize> = 13..=19;

/// A shorter piece of the key in base64 would be found in innocent words.
const SHORTEST_PIECE: usize = 12;

/// Hides secrets in text; make one and share it.
#[derive(Debug, Default)]
pub struct Masker {
    key: Option<Secret>,
}

/// A key, and how it looks in base64.
#[derive(Debug)]
struct Secret {
    key: SecretKey,
    base64: Vec<SecretString>,
}

/// The keys that this process has used before the present one: every masker hides them, too.
static FORMER: RwLock<Vec<Secret>> = RwLock::new(Vec::new());

/// Hides this key in every text from now on, whatever key a masker was made for.
pub fn remember(key: &SecretKey) {
    let mut former = FORMER.write().unwrap_or_else(PoisonError::into_inner);
    if !former.iter().any(|known| known.key.expose() == key.expose()) {
        former.push(Secret::of(key));
    }
}

impl Secret {
    fn of(key: &SecretKey) -> Self {
        Self { key: key.clone(), base64: base64_forms(key) }
    }

    /// The length of the longest form of the key that `rest` begins with.
    fn len_at(&self, rest: &str) -> Option<usize> {
        let base64 = self.base64.iter().filter_map(|form| base64_len(rest, form.expose_secret()));
        key_len(rest, self.key.expose()).into_iter().chain(base64).max()
    }
}

impl Masker {
    /// A masker for this key; without a key it hides only what looks like a secret.
    pub fn new(key: Option<&SecretKey>) -> Self {
        Self { key: key.map(Secret::of) }
    }

    /// The text, safe to store, log and show: secrets as `****`, one line, at most [`LIMIT`]
    /// characters, the last one `…` where it was cut.
    pub fn text(&self, text: &str) -> String {
        // Looked at as it is shown: what becomes a space separates the digits of a card like one.
        let text: &str = &text.chars().map(harmless).collect::<String>();
        let (mut shown, mut count) = (String::new(), 0);
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next()
            && count <= LIMIT
        {
            if let Some(len) = self.secret_at(&text[from..], at - from) {
                shown.push_str(MASK);
                count += MASK.len();
                at += len;
                from = at;
            } else {
                shown.push(c);
                count += 1;
                at += c.len_utf8();
            }
        }
        if count > LIMIT
            && let Some((end, _)) = shown.char_indices().nth(LIMIT - 1)
        {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    /// Where the secrets are, as byte ranges in order and apart: for a caller that must keep the
    /// rest of the text as it is.
    pub fn spans(&self, text: &str) -> Vec<Range<usize>> {
        self.each_span(text).collect()
    }

    /// The same one by one, for a text that may hold millions of them.
    pub fn each_span<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let (mut from, mut at) = (0, 0);
        std::iter::from_fn(move || {
            while let Some(c) = text[at..].chars().next() {
                if let Some(len) = self.secret_at(&text[from..], at - from) {
                    let span = at..at + len;
                    (from, at) = (span.end, span.end);
                    return Some(span);
                }
                at += c.len_utf8();
            }
            None
        })
    }

    /// The length of the longest secret that begins exactly here, in a text that begins where the last secret ended.
    fn secret_at(&self, text: &str, at: usize) -> Option<usize> {
        let rest = &text[at..];
        let former = FORMER.read().unwrap_or_else(PoisonError::into_inner);
        let keys = self.key.iter().chain(former.iter()).filter_map(|secret| secret.len_at(rest));
        [token_len(rest), card_len(text, at)].into_iter().flatten().chain(keys).max()
    }
}

/// The character, or what is shown in its place where it could move a cursor, start a line or turn
/// the direction of writing. One for one, so that columns stay.
pub fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        // Zero-width, line-separating and bidirectional characters: invisible, but not without
        // effect.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// How the key looks in base64: as Basic authentication sends it (`key:`), bare, and the piece of
/// it that shows whatever stands before (three alignments) and behind.
fn base64_forms(key: &SecretKey) -> Vec<SecretString> {
    let key = key.expose().as_bytes();
    let with_colon = Zeroizing::new([key, b":"].concat());
    let encode = |bytes: &[u8]| SecretString::from(STANDARD_NO_PAD.encode(bytes));
    let mut forms = vec![encode(&with_colon), encode(key)];
    for cut_off in 0..3.min(key.len()) {
        // Whole groups of three bytes are four characters that depend on nothing around them.
        let whole = &key[cut_off..key.len() - (key.len() - cut_off) % 3];
        if whole.len() / 3 * 4 >= SHORTEST_PIECE {
            forms.push(encode(whole));
        }
    }
    forms
}

/// The length of `key` at the start of `text`, as it is or with any of its bytes written `%41` or
/// `%4a`.
fn key_len(text: &str, key: &str) -> Option<usize> {
    // First as it is, because a key may itself hold what looks like an encoded byte.
    if text.starts_with(key) {
        return Some(key.len());
    }
    let text = text.as_bytes();
    let mut at = 0;
    for &wanted in key.as_bytes() {
        at += match text.get(at..)? {
            [b'%', high, low, ..] if hex(*high, *low) == Some(wanted) => 3,
            [found, ..] if *found == wanted => 1,
            _ => return None,
        };
    }
    Some(at)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The length of `form` and of all base64 that follows it: the rest of the same secret.
fn base64_len(text: &str, form: &str) -> Option<usize> {
    // The URL-safe alphabet differs in two characters.
    let standard = |c: u8| match c {
        b'-' => b'+',
        b'_' => b'/',
        c => c,
    };
    let found = text.as_bytes().get(..form.len())?;
    let same = found.iter().map(|&c| standard(c)).eq(form.bytes());
    let behind = |c: &u8| c.is_ascii_alphanumeric() || b"+/-_=".contains(c);
    same.then(|| form.len() + text[form.len()..].bytes().take_while(behind).count())
}

/// The length of a key or token: a known beginning and at least one more letter or digit.
fn token_len(text: &str) -> Option<usize> {
    let prefix = TOKEN_PREFIXES.iter().find(|prefix| text.starts_with(**prefix))?;
    let more = text[prefix.len()..].bytes().take_while(|c| c.is_ascii_alphanumeric() || *c == b'_');
    Some(more.count()).filter(|more| *more > 0).map(|more| prefix.len() + more)
}

/// The length of a card number: 13 to 19 digits, single spaces or dashes among them, with a valid
/// check digit. It begins and ends where a group of digits does, so that a longer number is none.
fn card_len(text: &str, at: usize) -> Option<usize> {
    if text[..at].chars().next_back().and_then(digit).is_some() {
        return None;
    }
    let mut digits = Vec::new();
    let mut found = None;
    let mut chars = text[at..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        let next = chars.peek().and_then(|(_, next)| digit(*next));
        if let Some(value) = digit(c) {
            digits.push(value);
        } else if digits.is_empty() || !is_separator(c) || next.is_none() {
            break;
        }
        if digits.len() > *CARD_DIGITS.end() {
            break;
        }
        let ends = digit(c).is_some() && next.is_none();
        if ends && CARD_DIGITS.contains(&digits.len()) && luhn(&digits) {
            found = Some(offset + c.len_utf8());
        }
    }
    found
}

/// The value of a digit, full-width ones (as Japanese keyboards type them) included.
fn digit(c: char) -> Option<u32> {
    match c {
        '０'..='９' => Some(u32::from(c) - u32::from('０')),
        c => c.to_digit(10),
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '\u{a0}' | '\u{3000}' | '－')
}

fn luhn(digits: &[u32]) -> bool {
    let weigh = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, doubled) => doubled / 10 + doubled % 10,
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk_test_9aQ+x/Zr7";

    fn key(text: &str) -> SecretKey {
        SecretKey::parse(text).unwrap()
    }

    fn masked(text: &str) -> String {
        Masker::new(Some(&key(KEY))).text(text)
    }

    #[test]
    fn former_key_is_hidden_by_every_masker() {
        // A key without a known prefix: only a masker that knows it hides it.
        let former = key("formerkey7Qx9");
        let maskers = [Masker::new(None), Masker::new(Some(&key(KEY)))];
        let texts = [former.expose().to_owned(), STANDARD.encode(format!("{}:", former.expose()))];
        assert!(texts.iter().all(|text| maskers[0].text(text) == *text));
        remember(&former);
        remember(&former);
        for masker in &maskers {
            assert!(texts.iter().all(|text| masker.text(text) == MASK));
        }
    }

    #[test]
    fn the_key_is_hidden_however_it_is_written() {
        let table = [
            ("plain", KEY.to_owned()),
            ("percent-encoded", "sk_test_9aQ%2Bx%2fZr7".to_owned()),
            ("every byte percent-encoded", KEY.bytes().map(|b| format!("%{b:02x}")).collect()),
            ("as Basic sends it", STANDARD.encode(format!("{KEY}:"))),
            ("base64", STANDARD.encode(KEY)),
            ("base64 with a password", STANDARD.encode(format!("{KEY}:pass"))),
            ("URL-safe base64", URL_SAFE_NO_PAD.encode(format!("{KEY}:"))),
        ];
        for (how, written) in table {
            assert_eq!(masked(&format!("before <{written}> after")), "before <****> after", "{how}");
        }
    }

    #[test]
    fn a_card_number_behind_the_key_is_hidden_too() {
        assert_eq!(masked(&format!("{KEY}4111111111111111 {KEY}1")), "******** ****1");
    }

    #[test]
    fn a_key_that_itself_looks_encoded_is_hidden_too() {
        let masker = Masker::new(Some(&key("sk%25b")));
        assert_eq!(masker.text("sk%25b sk%2525b sk%b"), "**** **** sk%b");
    }

    #[test]
    fn both_alphabets_of_base64_are_known() {
        let masker = Masker::new(Some(&key("~~~???~~~???")));
        assert_eq!(masker.text("fn5+Pz8/fn5+Pz8/Og=="), MASK);
        assert_eq!(masker.text("fn5-Pz8_fn5-Pz8_Og"), MASK);
    }

    #[test]
    fn the_key_in_base64_behind_other_text_loses_all_but_two_bytes() {
        for before in ["", "u", "ur", "user"] {
            let written = STANDARD.encode(format!("{before}{KEY}:"));
            let shown = masked(&written);
            assert!(shown.ends_with(MASK) && shown.len() < MASK.len() + 12, "{before}: {shown}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_without_knowing_the_key() {
        let table = [
            ("key sk_live_abc123 refused", "key **** refused"),
            ("(sk_test_abc)", "(****)"),
            ("pk_live_abc", "****"),
            (r#"{"payment_details":"tok_8f3a_B"}"#, r#"{"payment_details":"****"}"#),
            (r"first\nsk_live_abc", r"first\n****"),
            ("a%3Dtok_1", "a%3D****"),
            ("4111111111111111", "****"),
            ("card 4111 1111 1111 1111 declined", "card **** declined"),
            ("card 4111\n1111\t1111\r1111 declined", "card **** declined"),
            ("3782-822463-10005.", "****."),
            ("４１１１　１１１１　１１１１　１１１１", "****"),
            ("in 2030 4111 1111 1111 1111", "in 2030 ****"),
        ];
        for (text, shown) in table {
            assert_eq!(Masker::default().text(text), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "tok_ is how a token begins",
            "sk_live_",
            "sk_other_abc",
            "card 4111 1111 1111 1112 has a wrong check digit",
            "411111111111",
            "41111111111111111111111111",
            "4111  1111  1111  1111",
            "mail a@example.jp at 2026-01-02T03:04:05Z",
            "顧客の検証に失敗しました",
        ] {
            assert_eq!(Masker::default().text(text), text);
        }
    }

    #[test]
    fn control_characters_become_harmless() {
        let table = [
            ("a\r\nlevel=ERROR forged", "a  level=ERROR forged"),
            ("\u{1b}[2Jgone", "\u{fffd}[2Jgone"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("user\u{202e}gpj.exe", "user\u{fffd}gpj.exe"),
            ("a\u{0}b\u{7f}\u{2028}", "a\u{fffd}b\u{fffd}\u{fffd}"),
        ];
        for (text, shown) in table {
            assert_eq!(Masker::default().text(text), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(Masker::default().text(&"顧".repeat(LIMIT)), "顧".repeat(LIMIT));
        let cut = format!("{}…", "顧".repeat(LIMIT - 1));
        assert_eq!(Masker::default().text(&"顧".repeat(LIMIT + 1)), cut);
        assert_eq!(Masker::default().text(&"顧".repeat(1_000_000)), cut);
    }

    #[test]
    fn a_key_across_the_cut_is_hidden_before_the_cut() {
        let text = format!("{}{KEY}{}", "-".repeat(LIMIT - 6), "-".repeat(LIMIT));
        assert_eq!(masked(&text), format!("{}****-…", "-".repeat(LIMIT - 6)));
    }

    #[test]
    fn a_masker_does_not_show_its_key_when_debugged() {
        let debug = format!("{:?}", Masker::new(Some(&key(KEY))));
        assert!(!debug.contains("9aQ"), "{debug}");
        assert!(!debug.contains(&STANDARD.encode(KEY)[..8]), "{debug}");
    }

    /// Keys of any length and any character that [`SecretKey`] takes.
    fn any_key() -> impl Strategy<Value = SecretKey> {
        "[!-)+-9;-~]{1,40}".prop_filter_map("refused", |text| SecretKey::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_long(text in any::<String>()) {
            let shown = Masker::default().text(&text);
            prop_assert!(shown.chars().count() <= LIMIT);
            prop_assert!(shown.chars().all(|c| harmless(c) == c));
        }

        #[test]
        fn what_is_shown_hides_nothing_more(text in "([0-9]{2,6}|[ \\-\n\t]|tok_|sk_live_|é|a){0,12}") {
            let shown = Masker::default().text(&text);
            prop_assert_eq!(Masker::default().text(&shown), shown);
        }

        #[test]
        fn the_key_is_never_left(
            key in any_key(),
            around in proptest::collection::vec(".{0,9}", 4),
        ) {
            let plain = key.expose();
            let percent = utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string();
            let basic = STANDARD.encode(format!("{plain}:"));
            let [a, b, c, d] = &around[..] else { unreachable!() };
            let text = format!("{a}{plain}{b}{percent}{c}{basic}{d}");
            let shown = Masker::new(Some(&key)).text(&text);
            prop_assert!(!shown.contains(plain), "{shown}");
            prop_assert!(!shown.contains(&percent), "{shown}");
            prop_assert!(!shown.contains(&basic), "{shown}");
        }

        #[test]
        fn the_spans_are_what_the_text_hides(text in ".{0,40}(tok_[a-z]{1,9}.{0,9}){0,3}") {
            let masker = Masker::default();
            let mut rest = text.clone();
            for span in masker.spans(&text).into_iter().rev() {
                rest.replace_range(span, MASK);
            }
            let rest: String = rest.chars().map(harmless).collect();
            prop_assert_eq!(masker.text(&text), rest);
        }
    }
}
