//! The text of the file as an error may show it: positions, one line at a time, and no secrets.
//!
//! Invariants:
//! - Secrets are masked before anything is drawn. The masked text has the length of the file, so
//!   every position is valid in both.
//! - The name of its key decides whether a value is a secret. The name is read from the text and
//!   not from the parsed tree, because the line may not parse. A stretch before an `@` (a proxy's
//!   password) and a text that looks like a key or a token are secrets too.
//! - A caret is under the part of the line that it means. A tab is drawn as four columns, and a
//!   wide character counts two. A long line is cut around the caret.

use std::ops::Range;

use unicode_width::UnicodeWidthChar as _;

use crate::secret::mask::harmless;
use crate::secret::{MASK, Masker};

/// Columns a tab is drawn as.
const TAB: &str = "    ";

/// WINDOW controls how many columns of a line are shown.
const WINDOW: usize = 100;

/// BEFORE_CARET controls how many columns may be left of the caret. Half of them remain after a
/// cut.
const BEFORE_CARET: usize = 60;

/// Stands in the masked text for each byte of a secret.
const HIDDEN: char = '\0';

/// Parts of a name that make its value a secret.
const SECRET_WORDS: [&str; 8] =
    ["secret", "key", "password", "passwd", "passphrase", "token", "credential", "auth"];

/// A position as an editor counts it: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourcePosition {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One line, ready to print, and the line of carets below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) carets: String,
}

/// The text of a configuration file, and the same without secrets.
pub(super) struct SourceText<'t> {
    text: &'t str,
    masked: String,
}

impl<'t> SourceText<'t> {
    /// Returns the text of a file, and masks its secrets.
    pub(super) fn new(text: &'t str, masker: &Masker) -> Self {
        // The mark must not be in the text itself. Both are drawn as the same replacement
        // character.
        let mut bytes = text.replace(HIDDEN, "\u{1}").into_bytes();
        for secret in [secret_values(text), before_at_signs(text), masker.spans(text)].concat() {
            bytes[secret].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = HIDDEN as u8);
        }
        Self { text, masked: String::from_utf8(bytes).expect("secrets are whole characters") }
    }

    /// Returns the position of a byte.
    pub(super) fn place(&self, at: usize) -> SourcePosition {
        let line = line_at(self.text, at);
        let before = self.text.get(line.start..at.min(line.end)).unwrap_or_default();
        SourcePosition {
            line: self.text[..line.start].matches('\n').count() + 1,
            // An editor does not count a byte order mark.
            column: before.chars().filter(|c| *c != '\u{feff}').count() + 1,
        }
    }

    /// Returns the line in which a span begins, with carets under the part of the span in this
    /// line.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let line = line_at(self.text, span.start);
        let mut cells = cells(&self.masked[line.clone()], line.start);
        let end = span.end.max(span.start + 1);
        let first = cells.partition_point(|cell| cell.bytes.end <= span.start);
        let behind = cells.partition_point(|cell| cell.bytes.start < end);
        let mut before = width(&cells[..first]);
        let carets = width(&cells[first..behind.max(first)]);
        if before > BEFORE_CARET {
            let mut cut = 0;
            while before > BEFORE_CARET / 2 {
                before -= cells[cut].width();
                cut += 1;
            }
            cells.splice(..cut, [Cell::ellipsis()]);
            before += 1;
        }
        let mut columns = 0;
        let shown = cells.iter().position(|cell| {
            columns += cell.width();
            columns > WINDOW
        });
        if let Some(shown) = shown {
            cells.splice(shown.., [Cell::ellipsis()]);
        }
        let carets = carets.min(width(&cells).saturating_sub(before)).max(1);
        Excerpt {
            line: cells.into_iter().map(|cell| cell.shown).collect(),
            carets: " ".repeat(before) + &"^".repeat(carets),
        }
    }
}

/// Returns the line that contains this byte, without its end. The empty line after the last line
/// end is not shown; the line before it is shown instead.
pub(super) fn line_at(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.trim_end().len());
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    start..start + text[start..end].trim_end_matches('\r').len()
}

/// What is drawn for some bytes of the file.
struct Cell {
    bytes: Range<usize>,
    shown: String,
}

impl Cell {
    /// Returns the mark of a cut.
    fn ellipsis() -> Self {
        Self { bytes: 0..0, shown: "…".to_owned() }
    }

    /// Returns the columns of this cell.
    fn width(&self) -> usize {
        self.shown.chars().map(|c| c.width().unwrap_or(0)).sum()
    }
}

/// Returns the columns of some cells.
fn width(cells: &[Cell]) -> usize {
    cells.iter().map(Cell::width).sum()
}

/// Returns one cell for each character of a masked line that begins at `start`, and one for each
/// secret.
fn cells(line: &str, start: usize) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut is_hidden = false;
    for (at, c) in line.char_indices() {
        let bytes = start + at..start + at + c.len_utf8();
        match cells.last_mut() {
            Some(secret) if is_hidden && c == HIDDEN => secret.bytes.end = bytes.end,
            _ => cells.push(Cell { bytes, shown: drawn(c) }),
        }
        is_hidden = c == HIDDEN;
    }
    cells
}

/// Returns what is drawn for a character.
fn drawn(c: char) -> String {
    match c {
        HIDDEN => MASK.to_owned(),
        '\t' => TAB.to_owned(),
        '\u{feff}' => String::new(),
        c => harmless(c).to_string(),
    }
}

/// Whether the value of a key with this name is probably a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Returns the values of all keys that have the name of a secret, or are in a table with such a
/// name.
fn secret_values(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut in_secret_table = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            in_secret_table = line.split(']').next().is_some_and(names_a_secret);
        }
        if let Some(equals) = secret_equals(line, in_secret_table) {
            let value = text[at + equals + 1..].trim_start_matches([' ', '\t']);
            let start = text.len() - value.len();
            let line_end = at + line.trim_end().len();
            secrets.push(start..line_end.max(start + len_over_lines(value)));
        }
        at += line.len();
    }
    secrets
}

/// Returns the position of the first `=` of a line before a value that is a secret. The path of a
/// key's file is none, as long as it looks like a path and not like the key.
fn secret_equals(line: &str, in_secret_table: bool) -> Option<usize> {
    let (mut from, mut is_secret) = (0, false);
    // A name extends back to the last bracket, comma or hash. Each piece is searched once, because
    // a line may be long.
    line.match_indices('=').map(|(equals, _)| equals).find(|equals| {
        let piece = &line[std::mem::replace(&mut from, equals + 1)..*equals];
        let start = piece.rfind(['{', ',', '#']).map(|end| end + 1);
        let name = &piece[start.unwrap_or(0)..];
        is_secret = names_a_secret(name) || (is_secret && start.is_none());
        let value = line[equals + 1..].trim_start();
        let is_path = name.trim().ends_with("_file") && (value.starts_with("\"/") || value.starts_with("'/"));
        (in_secret_table || is_secret) && !is_path
    })
}

/// Returns the length of a value that may extend over several lines, or 0 for any other. A value
/// without its closing mark extends to the end of the text.
fn len_over_lines(value: &str) -> usize {
    let marks = [("\"\"\"", "\"\"\""), ("'''", "'''"), ("[", "]"), ("{", "}")];
    let Some((open, close)) = marks.iter().find(|(open, _)| value.starts_with(open)) else { return 0 };
    let end = value[open.len()..].find(close);
    end.map_or(value.len(), |end| open.len() + end + close.len())
}

/// Returns each stretch before an `@`: the user name and password of a URL, or what may be one.
fn before_at_signs(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        // A password may contain what should have been encoded, a slash or a space, so all of it is
        // hidden.
        let address = line.find("://").map_or(line.len(), |scheme| scheme + 3);
        let mut from = 0;
        for (sign, _) in line.match_indices('@') {
            let word = line[from..sign].rfind(['"', '\'', ' ']).map_or(from, |quote| from + quote + 1);
            let begin = if address <= sign { address.max(from) } else { word };
            secrets.push(start + begin..start + sign);
            from = sign;
        }
        start += line.len();
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> SourceText<'_> {
        SourceText::new(text, &Masker::default())
    }

    /// The line and the carets below it, for the first occurrence of `what`.
    fn drawn(text: &str, what: &str) -> (String, String) {
        let at = text.find(what).unwrap();
        let excerpt = source(text).excerpt(&(at..at + what.len()));
        (excerpt.line, excerpt.carets)
    }

    #[test]
    fn carets_are_under_the_part_they_mean() {
        let table = [
            ("a = 1\nb = two\nc = 3", "two", "b = two", "    ^^^"),
            ("b = two\r\nc = 3\r\n", "two", "b = two", "    ^^^"),
            ("\tb =\ttwo", "two", "    b =    two", "           ^^^"),
            ("b = \"顧客\"", "\"顧客\"", "b = \"顧客\"", "    ^^^^^^"),
            ("b = [\"顧客\", 1]", "1", "b = [\"顧客\", 1]", "             ^"),
            ("e\u{301} = 1", "1", "e\u{301} = 1", "    ^"),
            ("\u{feff}b = 1", "1", "b = 1", "    ^"),
            ("b = \u{1b}[31m", "\u{1b}[31m", "b = \u{fffd}[31m", "    ^^^^^"),
            ("b = [\n1,\n", "[\n1,", "b = [", "    ^"),
        ];
        for (text, what, line, carets) in table {
            assert_eq!(drawn(text, what), (line.to_owned(), carets.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn place_is_counted_in_lines_and_characters() {
        let table = [
            ("a = 1", 0, (1, 1)),
            ("顧 = 1", "顧 = ".len(), (1, 5)),
            ("\u{feff}a = 1", 3, (1, 1)),
            ("a = 1\r\nb = 2", 11, (2, 5)),
            ("a = [1,\n", 8, (1, 8)),
            ("", 0, (1, 1)),
        ];
        for (text, at, (line, column)) in table {
            assert_eq!(source(text).place(at), SourcePosition { line, column }, "{text:?}");
        }
    }

    #[test]
    fn long_line_is_cut_around_its_caret() {
        let text = format!("a = [{}7{}]", "0, ".repeat(200), ", 0".repeat(200));
        let (line, carets) = drawn(&text, "7");
        assert!(line.starts_with('…') && line.ends_with('…'), "{line}");
        assert!(line.chars().count() <= WINDOW + 1, "{line}");
        assert_eq!(line.chars().nth(carets.len() - 1), Some('7'), "{line}\n{carets}");
    }

    #[test]
    fn secret_in_a_line_is_drawn_as_a_mask() {
        let table = [
            ("secret_key = \"Q1Q\"  # mine", "secret_key = ****"),
            ("secret_key = Q1Q", "secret_key = ****"),
            ("secret_key=\"\"\"\nQ1Q", "secret_key=****"),
            ("\"secret key\" = 'Q1Q'", "\"secret key\" = ****"),
            ("api.password = 'Q1Q'", "api.password = ****"),
            ("a = { secret_key = \"Q1Q\", b = 1 }", "a = { secret_key = ****"),
            ("a = 1 # secret_key = Q1Q", "a = 1 # secret_key = ****"),
            ("secret_key_file = \"Q1Q\"", "secret_key_file = ****"),
            ("proxy = \"http://me:Q1Q@proxy:3128\"", "proxy = \"http://****@proxy:3128\""),
            ("proxy = 'http://me:Q \"Q1Q@proxy'", "proxy = 'http://****@proxy'"),
            ("proxy = \"http://me:Q/Q1Q@proxy\"", "proxy = \"http://****@proxy\""),
            ("proxy = \"me:Q1Q@proxy\"", "proxy = \"****@proxy\""),
            ("path = \"sk_live_Q1Q\"", "path = \"****\""),
        ];
        for (text, shown) in table {
            assert_eq!(source(text).excerpt(&(0..1)).line, shown, "{text}");
        }
    }

    #[test]
    fn secret_over_several_lines_is_hidden_in_each() {
        for text in [
            "secret_key = '''\nQ1Q\n'''\n",
            "secret_key = \"\"\"\nQ1Q",
            "secret_keys = [\n  'Q1Q',\n]\n",
            "[secrets]\nkomoju = 'Q1Q'\n",
        ] {
            let at = text.find("Q1Q").unwrap();
            let line = source(text).excerpt(&(at..at + 3)).line;
            assert!(!line.contains("Q1Q") && line.contains(MASK), "{text:?}: {line}");
        }
    }

    #[test]
    fn value_that_is_no_secret_is_shown() {
        for line in [
            "secret_key_file = \"/etc/komoju-sync/key\"",
            "sweep_cron = \"@hourly\"",
            "path = \"/var/lib/komoju-sync/komoju.db\"",
            "per_page = 5 # not the secret",
        ] {
            assert_eq!(source(line).excerpt(&(0..1)).line, line);
        }
    }

    #[test]
    fn comment_behind_a_header_hides_nothing_below_it() {
        let text = "[api] # see secret_key_file\nper_page = 5";
        assert_eq!(drawn(text, "5").0, "per_page = 5");
    }

    #[test]
    fn caret_of_a_secret_is_under_its_mask() {
        let (line, carets) = drawn("secret_key = \"sk_live_Q1Q\"", "\"sk_live_Q1Q\"");
        assert_eq!((&*line, &*carets), ("secret_key = ****", "             ^^^^"));
    }
}
