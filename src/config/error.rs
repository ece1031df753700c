//! What is told about a configuration that cannot be used: all of it at once, in the order of the
//! file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::source::{Excerpt, Source};
use crate::secret::Masker;

/// Problems told in full. A file of another kind has thousands, and the first ones say so.
const MOST_TOLD: usize = 50;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file.
    #[error(
        "there is no configuration at {0}; copy config.example.toml there, or name another file \
         with --config FILE or $KOMOJU_SYNC_CONFIG"
    )]
    Missing(PathBuf),
    /// The file is there and cannot be read.
    #[error(
        "the configuration {path} cannot be read; check that it is a file and that the user of \
         this process may read it"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is far too long for a configuration.
    #[error("{path} is longer than {limit} bytes, so it is no configuration; name the right file")]
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
    /// The file was read, and this is wrong in it.
    #[error("{}", Report { path, problems, more: *more })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
        /// How many others there are, where it would take pages to tell them all.
        more: usize,
    },
}

/// One thing that is wrong in the file. Its texts are safe to print and hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `api.per_page`, a table, such as `[api]`, or what else it is about.
    pub subject: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub what: String,
    /// What to do, where that is more than to do what is allowed.
    pub help: Option<String>,
    excerpt: Excerpt,
}

impl Problem {
    fn new(source: &Source<'_>, complaint: Complaint) -> Self {
        // Keys and cron fields are repeated from the file, where a string may hold any character, and a key of a table may be
        // the secret key.
        let masker = Masker::default();
        let clean = |text: &str| masker.text(text);
        let Complaint { subject, wrong, span } = complaint;
        let span = wrong.span.unwrap_or(span);
        let place = source.place(span.start);
        Self {
            subject: clean(&subject),
            line: place.line,
            column: place.column,
            what: clean(&wrong.what),
            help: wrong.help.as_deref().map(clean),
            excerpt: source.excerpt(&span),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, line, column, what, help, excerpt } = self;
        let gutter = " ".repeat(line.to_string().len());
        let before = " ".repeat(excerpt.before);
        let carets = "^".repeat(excerpt.carets);
        writeln!(f, "{gutter} {subject} (line {line}, column {column})")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {}", excerpt.line)?;
        write!(f, "{gutter} | {before}{carets} {what}")?;
        match help {
            Some(help) => write!(f, "\n{gutter} = {help}"),
            None => Ok(()),
        }
    }
}

/// All problems of a file, one below the other.
struct Report<'a> {
    path: &'a Path,
    problems: &'a [Problem],
    more: usize,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len() + self.more;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{}: {count} problem{plural}", self.path.display())?;
        for (place, problem) in self.problems.iter().enumerate() {
            let gap = if place == 0 { "" } else { "\n" };
            write!(f, "{gap}\n{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n\n… and {more} more"),
        }
    }
}

/// A problem before it is drawn, which is work worth doing only for those that are told.
#[derive(Debug)]
pub(super) struct Complaint {
    /// The key or table it is about.
    pub(super) subject: String,
    /// What is wrong.
    pub(super) wrong: Wrong,
    /// Where the value or key stands.
    pub(super) span: Range<usize>,
}

/// The error for these complaints, if there are any.
pub(super) fn invalid(
    path: &Path,
    source: &Source<'_>,
    mut complaints: Vec<Complaint>,
) -> Result<(), ConfigError> {
    if complaints.is_empty() {
        return Ok(());
    }
    complaints.sort_by_key(|complaint| (complaint.span.start, complaint.span.end));
    let more = complaints.len().saturating_sub(MOST_TOLD);
    let told = complaints.into_iter().take(MOST_TOLD);
    Err(ConfigError::Invalid {
        path: path.to_owned(),
        problems: told.map(|complaint| Problem::new(source, complaint)).collect(),
        more,
    })
}

/// What a check says about a value, before it is known where the value stands.
#[derive(Debug)]
pub(super) struct Wrong {
    what: String,
    help: Option<String>,
    span: Option<Range<usize>>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None, span: None }
    }

    /// Says what to do.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Points at a part of the value.
    pub(super) fn at(self, span: Range<usize>) -> Self {
        Self { span: Some(span), ..self }
    }
}
