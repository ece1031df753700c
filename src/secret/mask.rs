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
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

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
mod tests;
