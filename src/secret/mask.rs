//! The mask for texts from outside: it removes secrets, terminal escapes and excess length before a
//! text is stored, logged or shown.
//!
//! Every message from the API, a proxy or a file passes through [`Masker::text`]. Each of three
//! promises has a test with arbitrary input:
//! - The result does not contain the secret key: not plain, not percent-encoded, not in base64.
//!   Percent-encoding may be partial. Base64 may have any alignment and either alphabet.
//! - No character of the result moves a cursor, starts a line or changes the direction of writing.
//! - The result has at most [`LIMIT`] characters.
//!
//! Texts that look like any key, token or card number are hidden too. Their patterns require no
//! word boundary in front, because escaped text (`\nsk_live_…`, `%3Dtok_…`) has none. Hiding too
//! much is a nuisance, hiding too little is a leak. A mask keeps no prefix and no last digits. No
//! key contains a `*`, because [`SecretKey`] refuses it. So a mask and the text around it never
//! form the key.
//!
//! These designs were rejected:
//! - Regular expressions. A percent-encoded key has too many spellings.
//! - Masking only where a text is shown. One forgotten place is one leak.

use std::ops::{Range, RangeInclusive};
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::secret::SecretKey;

/// LIMIT controls how many characters [`Masker::text`] returns: enough for any useful message, too
/// few for a page of HTML.
pub const LIMIT: usize = 300;

/// The text in place of a secret.
pub const MASK: &str = "****";

/// How KOMOJU's secret keys, publishable keys and payment tokens begin.
const TOKEN_PREFIXES: [&str; 4] = ["sk_live_", "sk_test_", "pk_", "tok_"];

/// How many digits a card number has (ISO/IEC 7812).
const CARD_DIGITS: RangeInclusive<usize> = 13..=19;

/// SHORTEST_PIECE controls how long a piece of the key in base64 must be. A shorter one occurs in
/// ordinary words.
const SHORTEST_PIECE: usize = 12;

/// SHORTEST_SECRET controls how many characters a webhook's secret must have to be hidden. A
/// shorter one would hide parts of ordinary words.
const SHORTEST_SECRET: usize = 8;

/// Hides secrets in texts. One masker serves a whole process.
#[derive(Debug, Default)]
pub struct Masker {
    key: Option<Secret>,
}

/// A secret and its base64 forms.
#[derive(Debug)]
struct Secret {
    text: SecretString,
    base64: Vec<SecretString>,
}

/// The keys that this process used before the present one, and the secrets of webhooks. Every
/// masker hides them, too.
static REMEMBERED: RwLock<Vec<Secret>> = RwLock::new(Vec::new());

/// Hides this key in every text from now on, in every masker.
pub fn remember(key: &SecretKey) {
    remember_text(key.expose());
}

/// Hides a webhook's secret in the same way, unless it is too short.
pub fn remember_webhook(secret: &str) {
    if secret.chars().count() >= SHORTEST_SECRET {
        remember_text(secret);
    }
}

fn remember_text(text: &str) {
    let mut remembered = REMEMBERED.write().unwrap_or_else(PoisonError::into_inner);
    if !remembered.iter().any(|known| known.text.expose_secret() == text) {
        remembered.push(Secret::of(text));
    }
}

impl Secret {
    /// Computes the forms of a secret.
    fn of(text: &str) -> Self {
        Self { text: SecretString::from(text), base64: base64_forms(text) }
    }

    /// Returns the length of the longest form of the secret with which `rest` begins.
    fn len_at(&self, rest: &str) -> Option<usize> {
        let base64 = self.base64.iter().filter_map(|form| base64_len(rest, form.expose_secret()));
        key_len(rest, self.text.expose_secret()).into_iter().chain(base64).max()
    }
}

impl Masker {
    /// Returns a masker for this key. Without a key it hides remembered secrets and what looks like
    /// a secret.
    pub fn new(key: Option<&SecretKey>) -> Self {
        Self { key: key.map(|key| Secret::of(key.expose())) }
    }

    /// Returns the text, safe to store, log and show: secrets as `****`, one line, at most
    /// [`LIMIT`] characters, the last one `…` where it was cut.
    pub fn text(&self, text: &str) -> String {
        self.shown(text, Numbers::Masked)
    }

    /// Returns the name of a file, or an id, in the same form, but with its numbers. Names and ids
    /// contain dates and counters, and every tenth long number looks like a card number. A name
    /// that is masked cannot be found.
    pub fn name(&self, name: &str) -> String {
        self.shown(name, Numbers::Kept)
    }

    fn shown(&self, text: &str, numbers: Numbers) -> String {
        // Masked as it is shown: a line break that becomes a space separates the digits of a card
        // like one.
        let text: String = text.chars().map(harmless).collect();
        let pieces = self.pieces(&text, numbers).map(|piece| match piece {
            Piece::Secret(_) => MASK,
            Piece::Plain(range) => &text[range],
        });
        let mut shown: Vec<char> = pieces.flat_map(str::chars).take(LIMIT + 1).collect();
        if shown.len() > LIMIT {
            shown.truncate(LIMIT - 1);
            shown.push('…');
        }
        shown.into_iter().collect()
    }

    /// Returns the byte ranges of the secrets, in order and apart, for a caller that keeps the rest
    /// of the text as it is.
    pub fn spans(&self, text: &str) -> Vec<Range<usize>> {
        self.each_span(text).collect()
    }

    /// The same one by one, for a text that may contain millions of them.
    pub fn each_span<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.pieces(text, Numbers::Masked).filter_map(|piece| match piece {
            Piece::Secret(range) => Some(range),
            Piece::Plain(_) => None,
        })
    }

    /// Splits a text into secrets and other characters.
    fn pieces<'a>(&'a self, text: &'a str, numbers: Numbers) -> impl Iterator<Item = Piece> + 'a {
        let (mut from, mut at) = (0, 0);
        std::iter::from_fn(move || {
            let c = text[at..].chars().next()?;
            let start = at;
            if let Some(len) = self.secret_at(&text[from..], at - from, numbers) {
                at += len;
                from = at;
                return Some(Piece::Secret(start..at));
            }
            at += c.len_utf8();
            Some(Piece::Plain(start..at))
        })
    }

    /// Returns the length of the longest secret that begins exactly at `at`. `text` begins where
    /// the last secret ended.
    fn secret_at(&self, text: &str, at: usize, numbers: Numbers) -> Option<usize> {
        let rest = &text[at..];
        let remembered = REMEMBERED.read().unwrap_or_else(PoisonError::into_inner);
        let keys = self.key.iter().chain(remembered.iter()).filter_map(|secret| secret.len_at(rest));
        let card = (numbers == Numbers::Masked).then(|| card_len(text, at)).flatten();
        [token_len(rest), card].into_iter().flatten().chain(keys).max()
    }
}

/// The bytes of a secret, or of one other character.
enum Piece {
    Secret(Range<usize>),
    Plain(Range<usize>),
}

/// Whether a number that looks like a card number is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Masked,
    Kept,
}

/// Returns the character, or a replacement where it could move a cursor, start a line or change the
/// direction of writing. Each character becomes one character, so that columns are unchanged.
pub fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        // Zero-width, line-separating and bidirectional characters have an effect and no shape.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Returns a key in base64: as Basic authentication sends it (`key:`), and alone. For each of the
/// three alignments it also returns the piece that does not depend on the text around it.
fn base64_forms(key: &str) -> Vec<SecretString> {
    let key = key.as_bytes();
    let with_colon = Zeroizing::new([key, b":"].concat());
    let encode = |bytes: &[u8]| SecretString::from(STANDARD_NO_PAD.encode(bytes));
    let mut forms = vec![encode(&with_colon), encode(key)];
    for cut_off in 0..3.min(key.len()) {
        // A whole group of three bytes is four characters that depend on no other byte.
        let whole = &key[cut_off..key.len() - (key.len() - cut_off) % 3];
        if whole.len() / 3 * 4 >= SHORTEST_PIECE {
            forms.push(encode(whole));
        }
    }
    forms
}

/// Returns the length of `key` at the start of `text`, plain or with any of its bytes written as
/// `%41` or `%4a`.
fn key_len(text: &str, key: &str) -> Option<usize> {
    // Compare the plain key first, because a key may contain what looks like an encoded byte.
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

/// Reads two hexadecimal digits.
fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Returns the length of `form` and of all base64 after it, which is the rest of the same secret.
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

/// Returns the length of a key or token: a known prefix and at least one more letter or digit.
fn token_len(text: &str) -> Option<usize> {
    let prefix = TOKEN_PREFIXES.iter().find(|prefix| text.starts_with(**prefix))?;
    let more = text[prefix.len()..].bytes().take_while(|c| c.is_ascii_alphanumeric() || *c == b'_');
    Some(more.count()).filter(|more| *more > 0).map(|more| prefix.len() + more)
}

/// Returns the length of a card number: 13 to 19 digits with a valid check digit, and single spaces
/// or dashes between them. It begins and ends with a group of digits, so a longer number is none.
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

/// Returns the value of a digit. Japanese keyboards type full-width ones.
fn digit(c: char) -> Option<u32> {
    match c {
        '０'..='９' => Some(u32::from(c) - u32::from('０')),
        c => c.to_digit(10),
    }
}

/// Whether a character may separate the digits of a card number.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '\u{a0}' | '\u{3000}' | '－')
}

/// Whether the check digit is valid (the Luhn algorithm).
fn luhn(digits: &[u32]) -> bool {
    let weigh = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, doubled) => doubled / 10 + doubled % 10,
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests;
