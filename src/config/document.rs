//! The parsed file, from which values are read key by key, and its problems so far.
//!
//! A file with syntax errors is read as far as possible, so that one missing quotation mark does
//! not hide five wrong values. What the parser guessed is not checked: a line with a syntax error,
//! and all keys below a broken table header.
//!
//! These designs were rejected:
//! - Deserializing with serde. It stops at the first wrong value.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{LocatedProblem, ValueProblem};
use super::names::{self, Key};
use super::source::line_at;

/// A value and where it is.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A file that is being read.
pub(super) struct Document<'t> {
    root: DeTable<'t>,
    problems: Vec<LocatedProblem>,
    /// Where the parser guessed.
    guessed: Vec<Range<usize>>,
}

impl<'t> Document<'t> {
    /// Parses a file as far as possible.
    pub(super) fn parse(text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self { root: root.into_inner(), problems: Vec::new(), guessed: Vec::new() };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = line_at(text, span.start);
            let is_header = text[line.clone()].trim_start().starts_with('[');
            let end = if is_header { until_next_header(text, line.end) } else { line.end };
            document.guessed.push(line.start..end);
            let problem = syntax(text, &line, &span, error.message());
            document.problems.push(LocatedProblem::new("not valid TOML", problem, span));
        }
        document
    }

    /// Reads one key. `value` is unchanged where the key is absent or wrong; the latter is a
    /// problem.
    pub(super) fn read<T>(
        &mut self,
        key: Key,
        check: impl FnOnce(&Value<'t>) -> Result<T, ValueProblem>,
        value: &mut T,
    ) {
        let Some(found) = self.value(key) else { return };
        let span = found.span();
        match check(found) {
            Ok(checked) => *value = checked,
            Err(problem) => self.report(LocatedProblem::new(key.to_string(), problem, span)),
        }
    }

    /// Reports that two keys contradict each other, at the later one of those that are in the file.
    pub(super) fn report_at_last(&mut self, keys: [Key; 2], problem: ValueProblem) {
        let spans = keys.into_iter().filter_map(|key| Some((self.value(key)?.span(), key)));
        if let Some((span, key)) = spans.max_by_key(|(span, _)| span.start) {
            self.report(LocatedProblem::new(key.to_string(), problem, span));
        }
    }

    /// Returns all problems, unknown tables and keys included.
    pub(super) fn finish(mut self, known: &[Key]) -> Vec<LocatedProblem> {
        for problem in names::unknown(&self.root, known) {
            self.report(problem);
        }
        self.problems
    }

    /// Returns the value of a key.
    fn value(&self, key: Key) -> Option<&Value<'t>> {
        self.root.get(key.table)?.get_ref().as_table()?.get(key.name)
    }

    /// Adds a problem, unless the parser guessed there.
    fn report(&mut self, problem: LocatedProblem) {
        let span = &problem.span;
        let end = span.end.max(span.start + 1);
        if !self.guessed.iter().any(|guess| guess.start < end && span.start <= guess.end) {
            self.problems.push(problem);
        }
    }
}

/// Returns the parser's message, except for the most frequent errors, which the parser takes for
/// others (`level = info` for the number `inf`).
fn syntax(text: &str, line: &Range<usize>, span: &Range<usize>, message: &str) -> ValueProblem {
    let before = text.get(line.start..span.start).unwrap_or_default();
    let behind = text.get(span.start..line.end).unwrap_or_default().trim_start();
    let is_value = before.trim_end().ends_with('=');
    match behind.chars().next() {
        None | Some('#') if is_value => ValueProblem::new("a value is missing"),
        Some(c) if is_value && c.is_alphabetic() => ValueProblem::new("text must be in quotes"),
        Some('“' | '”' | '„' | '‘' | '’' | '「' | '＂') if is_value => {
            ValueProblem::new("text must be in plain quotes, \"…\"")
        }
        _ => ValueProblem::new(message.replace(", expected ", "; expected ")),
    }
}

/// Returns the end of the line before the next table header. The header itself is checked.
fn until_next_header(text: &str, from: usize) -> usize {
    let mut at = from;
    for line in text[from..].split_inclusive('\n') {
        if at > from && line.trim_start().starts_with('[') {
            return at - 1;
        }
        at += line.len();
    }
    text.len()
}
