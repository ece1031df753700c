//! The errors about a configuration that cannot be used. All problems of a file are reported at
//! once, in the order of the file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use toml::de::DeValue;

use super::source::{Excerpt, SourceText};
use crate::secret::Masker;

/// MOST_SHOWN controls how many problems are reported in full. A file of another kind has
/// thousands, and the first ones are enough to see that.
const MOST_SHOWN: usize = 50;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file.
    #[error(
        "there is no configuration at {0}; copy config.example.toml there, or name another file \
         with --config FILE or $KOMOJU_SYNC_CONFIG"
    )]
    Missing(PathBuf),
    /// The file exists and cannot be read.
    #[error(
        "the configuration {path} cannot be read; check that it is a file and that the user of \
         this process may read it"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is too long for a configuration.
    #[error(
        "{path} is longer than {limit} bytes, so it is no configuration; name another file with --config FILE"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{path}, line {line}: this is not UTF-8 text; save the file in that encoding")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the first wrong byte, from 1.
        line: usize,
    },
    /// The file was read and has problems.
    #[error("{}", report(path, problems, *more))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
        /// The number of further problems, which are not reported in full.
        more: usize,
    },
}

/// All problems of a file, one below the other.
fn report(path: &Path, problems: &[Problem], more: usize) -> String {
    let count = problems.len() + more;
    let plural = if count == 1 { "" } else { "s" };
    let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let rest = if more == 0 { String::new() } else { format!("\n\n… and {more} more") };
    format!("{}: {count} problem{plural}\n{}{rest}", path.display(), shown.join("\n\n"))
}

/// One problem of a file. Its texts are safe to print and contain no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `api.per_page`, the table, such as `[api]`, or another subject.
    pub subject: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub what: String,
    /// What to do, where this is more than to use an allowed value.
    pub help: Option<String>,
    excerpt: Excerpt,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, line, column, what, help, excerpt } = self;
        let gutter = " ".repeat(line.to_string().len());
        writeln!(f, "{gutter} {subject} (line {line}, column {column})")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {}", excerpt.line)?;
        write!(f, "{gutter} | {} {what}", excerpt.carets)?;
        help.iter().try_for_each(|help| write!(f, "\n{gutter} = {help}"))
    }
}

/// A problem of a value or key with its place in the file. Its line is drawn only if it is
/// reported.
#[derive(Debug)]
pub(super) struct LocatedProblem {
    subject: String,
    problem: ValueProblem,
    /// Where the value or the key is.
    pub(super) span: Range<usize>,
}

impl LocatedProblem {
    /// Returns a problem of the key or table `subject`.
    pub(super) fn new(subject: impl Into<String>, problem: ValueProblem, span: Range<usize>) -> Self {
        Self { subject: subject.into(), problem, span }
    }

    /// Draws the line of the problem.
    fn draw(self, source: &SourceText<'_>, masker: &Masker) -> Problem {
        let span = self.problem.span.unwrap_or(self.span);
        let place = source.place(span.start);
        // These texts repeat keys and cron fields, which may contain any character. A key of a
        // table may be the secret key.
        Problem {
            subject: masker.text(&self.subject),
            line: place.line,
            column: place.column,
            what: masker.text(&self.problem.what),
            help: self.problem.help.map(|help| masker.text(&help)),
            excerpt: source.excerpt(&span),
        }
    }
}

/// Returns the error for these problems about the file `path` with the content `text`.
pub(super) fn invalid(path: &Path, text: &str, mut problems: Vec<LocatedProblem>) -> ConfigError {
    problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
    let more = problems.len().saturating_sub(MOST_SHOWN);
    let masker = Masker::default();
    let source = SourceText::new(text, &masker);
    let shown = problems.into_iter().take(MOST_SHOWN);
    let problems = shown.map(|problem| problem.draw(&source, &masker)).collect();
    ConfigError::Invalid { path: path.to_owned(), problems, more }
}

/// The problem that a check finds in a value. It does not know where the value is in the file.
#[derive(Debug)]
pub(super) struct ValueProblem {
    what: String,
    help: Option<String>,
    span: Option<Range<usize>>,
}

impl ValueProblem {
    /// Returns a fault without help.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None, span: None }
    }

    /// A value of another kind than expected.
    pub(super) fn kind(expected: &str, found: &DeValue<'_>) -> Self {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Self::new(format!("{expected}, found {found}"))
    }

    /// Adds what to do.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Points at a part of the value.
    pub(super) fn at(self, span: Range<usize>) -> Self {
        Self { span: Some(span), ..self }
    }
}
