//! The text of the file as an error may show it: positions, one line at a time, and no secrets.
//!
//! Invariants:
//! - A caret stands under what it means on a terminal: tabs are drawn as four columns, wide
//!   characters count two, and a long line is cut around the caret.
//! - A shown line holds no secret. Whether a value is one is told by the name of its key, in the
//!   text and not in the parsed tree, because the line may be one that does not parse. What stands
//!   before an `@` (a proxy's password) and what looks like a key or a token goes too.

use std::ops::Range;

use unicode_width::UnicodeWidthChar as _;

use crate::secret::mask::harmless;
use crate::secret::{MASK, Masker};

/// Columns a tab is drawn as.
const TAB: usize = 4;

/// Columns of a line that are shown, and how many of them may stand before the caret.
const WINDOW: usize = 100;
const BEFORE_CARET: usize = 60;

/// Parts of a name that make its value a secret.
const SECRET_WORDS: [&str; 8] =
    ["secret", "key", "password", "passwd", "passphrase", "token", "credential", "auth"];

/// A position as an editor counts it: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One line, ready to print, and the columns to underline in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) before: usize,
    pub(super) carets: usize,
}

/// The text of a configuration file.
pub(super) struct Source<'t> {
    text: &'t str,
    /// In order and apart.
    hidden: Vec<Range<usize>>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut hidden = secret_values(text);
        hidden.extend(before_at_signs(text));
        hidden.extend(Masker::default().spans(text));
        Self { text, hidden: joined(hidden) }
    }

    pub(super) fn place(&self, at: usize) -> Place {
        let line = self.line_at(at);
        let before = self.text.get(line.start..at.min(line.end)).unwrap_or_default();
        Place {
            line: self.text[..line.start].matches('\n').count() + 1,
            // A byte order mark is no character to an editor.
            column: before.chars().filter(|c| *c != '\u{feff}').count() + 1,
        }
    }

    /// The line a span begins in, with carets under the part of the span that is in it.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let mut cells = self.cells(self.line_at(span.start));
        let end = span.end.max(span.start + 1);
        let is_before = |cell: &&Cell| cell.bytes.end <= span.start;
        let is_within = |cell: &&Cell| cell.bytes.end > span.start && cell.bytes.start < end;
        let mut before: usize = cells.iter().take_while(is_before).map(|cell| cell.width).sum();
        let carets: usize = cells.iter().filter(is_within).map(|cell| cell.width).sum();

        if before > BEFORE_CARET {
            let mut cut = 0;
            while before > BEFORE_CARET / 2 {
                before -= cells[cut].width;
                cut += 1;
            }
            cells.splice(..cut, [Cell::ellipsis()]);
            before += 1;
        }
        let mut columns = 0;
        if let Some(cut) = cells.iter().position(|cell| {
            columns += cell.width;
            columns > WINDOW
        }) {
            cells.splice(cut.., [Cell::ellipsis()]);
        }
        let shown: usize = cells.iter().map(|cell| cell.width).sum();
        Excerpt {
            line: cells.into_iter().map(|cell| cell.shown).collect(),
            before,
            carets: carets.min(shown.saturating_sub(before)).max(1),
        }
    }

    /// The line that holds this byte, without its end. The empty one after the last line end
    /// counts as the last line: there is nothing in it to look at.
    pub(super) fn line_at(&self, at: usize) -> Range<usize> {
        let at = at.min(self.text.trim_end().len());
        let start = self.text[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |end| at + end);
        start..start + self.text[start..end].trim_end_matches('\r').len()
    }

    /// What is drawn for each character of a line; a hidden stretch is one cell.
    fn cells(&self, line: Range<usize>) -> Vec<Cell> {
        let mut cells = Vec::new();
        let mut at = line.start;
        while at < line.end {
            let next = self.hidden.partition_point(|range| range.end <= at);
            if let Some(range) = self.hidden.get(next).filter(|range| range.contains(&at)) {
                let end = range.end.min(line.end);
                cells.push(Cell::secret(at..end));
                at = end;
            } else if let Some(c) = self.text[at..].chars().next() {
                cells.push(Cell::character(at, c));
                at += c.len_utf8();
            }
        }
        cells
    }
}

/// Something drawn, and the bytes it stands for.
struct Cell {
    bytes: Range<usize>,
    shown: String,
    width: usize,
}

impl Cell {
    fn character(at: usize, c: char) -> Self {
        let shown = match c {
            '\t' => " ".repeat(TAB),
            '\u{feff}' => String::new(),
            c => harmless(c).to_string(),
        };
        let width = shown.chars().map(|c| c.width().unwrap_or(0)).sum();
        Self { bytes: at..at + c.len_utf8(), shown, width }
    }

    fn secret(bytes: Range<usize>) -> Self {
        Self { bytes, shown: MASK.to_owned(), width: MASK.len() }
    }

    fn ellipsis() -> Self {
        Self { bytes: 0..0, shown: "…".to_owned(), width: 1 }
    }
}

/// Whether the value of a key with this name is likely a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The values of all keys, and of all keys in tables, whose names tell of a secret. The path of a
/// key's file is shown, as long as it looks like a path and not like the key.
fn secret_values(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut in_secret_table = false;
    let mut ends = Ends::of(text);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            in_secret_table = line.split(']').next().is_some_and(names_a_secret);
        }
        // A name goes back to the last bracket, comma or hash; it is looked at piece by piece, for a line may be long.
        let (mut piece, mut is_secret) = (0, false);
        let secret = line.match_indices('=').map(|(equals, _)| equals).find(|equals| {
            let name = &line[std::mem::replace(&mut piece, equals + 1)..*equals];
            let start = name.rfind(['{', ',', '#']).map(|end| end + 1);
            let name = &name[start.unwrap_or(0)..];
            is_secret = names_a_secret(name) || (is_secret && start.is_none());
            let value = line[equals + 1..].trim_start();
            let is_path =
                name.trim().ends_with("_file") && (value.starts_with("\"/") || value.starts_with("'/"));
            (in_secret_table || is_secret) && !is_path
        });
        if let Some(equals) = secret {
            let behind = &text[at + equals + 1..];
            let start = text.len() - behind.trim_start_matches([' ', '\t']).len();
            let line_end = at + line.trim_end().len();
            ranges.push(start..ends.after(start).max(line_end));
        }
        at += line.len();
    }
    ranges
}

/// How a value that may span lines begins and ends.
const PAIRS: [(&str, &str); 4] = [("\"\"\"", "\"\"\""), ("'''", "'''"), ("[", "]"), ("{", "}")];

/// Where such values end, asked from the text's beginning to its end: each closing mark is looked for once.
struct Ends<'t> {
    text: &'t str,
    found: [usize; PAIRS.len()],
}

impl<'t> Ends<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, found: [0; PAIRS.len()] }
    }

    /// Where the value at `start` ends: at its closing mark, or where the text does.
    fn after(&mut self, start: usize) -> usize {
        let value = &self.text[start..];
        let Some(pair) = PAIRS.iter().position(|(open, _)| value.starts_with(open)) else { return start };
        let (open, close) = PAIRS[pair];
        let inner = start + open.len();
        if self.found[pair] < inner {
            self.found[pair] = self.text[inner..].find(close).map_or(usize::MAX, |end| inner + end);
        }
        self.found[pair].saturating_add(close.len()).min(self.text.len())
    }
}

/// The user names and passwords of URLs, or what may be one: each stretch before an `@`.
fn before_at_signs(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        // A password may hold what should have been encoded, a slash or a space, so all of it goes.
        let address = line.find("://").map(|scheme| scheme + 3);
        let mut word = 0;
        for (at, c) in line.char_indices() {
            match c {
                '"' | '\'' | ' ' => word = at + 1,
                '@' => ranges.push(start + address.filter(|from| *from <= at).unwrap_or(word)..start + at),
                _ => {}
            }
        }
        start += line.len();
    }
    ranges
}

/// The same stretches in order and apart.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line and the carets below it, for the first place where `what` stands.
    fn drawn(text: &str, what: &str) -> (String, String) {
        let at = text.find(what).unwrap();
        let excerpt = Source::new(text).excerpt(&(at..at + what.len()));
        (excerpt.line, " ".repeat(excerpt.before) + &"^".repeat(excerpt.carets))
    }

    #[test]
    fn carets_stand_under_what_they_mean() {
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
    fn a_place_is_counted_in_lines_and_characters() {
        let table = [
            ("a = 1", 0, (1, 1)),
            ("顧 = 1", "顧 = ".len(), (1, 5)),
            ("\u{feff}a = 1", 3, (1, 1)),
            ("a = 1\r\nb = 2", 11, (2, 5)),
            ("a = [1,\n", 8, (1, 8)),
            ("", 0, (1, 1)),
        ];
        for (text, at, (line, column)) in table {
            assert_eq!(Source::new(text).place(at), Place { line, column }, "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_its_caret() {
        let text = format!("a = [{}7{}]", "0, ".repeat(200), ", 0".repeat(200));
        let (line, carets) = drawn(&text, "7");
        assert!(line.starts_with('…') && line.ends_with('…'), "{line}");
        assert!(line.chars().count() <= WINDOW + 1, "{line}");
        assert_eq!(line.chars().nth(carets.len() - 1), Some('7'), "{line}\n{carets}");
    }

    #[test]
    fn a_secret_is_not_shown_with_its_line() {
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
            assert_eq!(Source::new(text).excerpt(&(0..1)).line, shown, "{text}");
        }
    }

    #[test]
    fn a_secret_over_several_lines_is_hidden_in_each() {
        for text in [
            "secret_key = '''\nQ1Q\n'''\n",
            "secret_key = \"\"\"\nQ1Q",
            "secret_keys = [\n  'Q1Q',\n]\n",
            "[secrets]\nkomoju = 'Q1Q'\n",
        ] {
            let at = text.find("Q1Q").unwrap();
            let line = Source::new(text).excerpt(&(at..at + 3)).line;
            assert!(!line.contains("Q1Q") && line.contains(MASK), "{text:?}: {line}");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for line in [
            "secret_key_file = \"/etc/komoju-sync/key\"",
            "sweep_cron = \"@hourly\"",
            "path = \"/var/lib/komoju-sync/komoju.db\"",
            "per_page = 5 # not the secret",
        ] {
            assert_eq!(Source::new(line).excerpt(&(0..1)).line, line);
        }
    }

    #[test]
    fn a_comment_behind_a_header_hides_nothing_below_it() {
        let text = "[api] # see secret_key_file\nper_page = 5";
        assert_eq!(drawn(text, "5").0, "per_page = 5");
    }

    #[test]
    fn the_caret_of_a_secret_stands_under_its_mask() {
        let (line, carets) = drawn("secret_key = \"sk_live_Q1Q\"", "\"sk_live_Q1Q\"");
        assert_eq!((&*line, &*carets), ("secret_key = ****", "             ^^^^"));
    }
}
