//! Printing: data to standard output, words to standard error, nothing that could write to somebody's terminal.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::terminal;
use crate::secret::mask::harmless;
use crate::store::StoreError;

pub(super) use komoju_core::format::{count, grouped};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
#[group(multiple = false)]
pub(super) struct Style {
    /// One JSON object a line, its keys the SQL columns.
    #[arg(long)]
    json: bool,
    /// The same by name.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Style {
    /// Whether JSON was asked for.
    pub(super) fn is_json(self) -> bool {
        self.json || self.format == Some(Format::Json)
    }
}

/// Standard output, buffered. A reader that goes away is an error like any other, told apart at the top.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    /// The terminal's width; `None` where another program reads.
    columns: Option<usize>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { columns: terminal::width(), writer: BufWriter::new(io::stdout().lock()) }
    }

    /// One line of words.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// The names of a list's columns, on a terminal only: other programs take each line for an entry.
    pub(super) fn header(&mut self, text: &str) -> io::Result<()> {
        match self.columns {
            Some(_) => self.row(text),
            None => Ok(()),
        }
    }

    /// One entry of a list, on one line of the terminal.
    pub(super) fn row(&mut self, text: &str) -> io::Result<()> {
        match self.columns {
            Some(columns) => self.line(&terminal::fitted(text, columns)),
            None => self.line(text),
        }
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    /// Everything as it is.
    pub(super) fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    /// Hands over what is buffered. Must be called: an error at the end would be lost otherwise.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Hands over what is buffered, for output that goes on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Carries an output error through a store's visitor.
pub(super) fn through_store(result: io::Result<()>, kept: &mut Option<io::Error>) -> Result<(), StoreError> {
    result.map_err(|e| {
        *kept = Some(e);
        StoreError::Refused("output".into())
    })
}

/// Runs a query whose visitor prints; an output error comes back as itself.
pub(super) fn printing(
    query: impl FnOnce(&mut dyn FnMut(io::Result<()>) -> Result<(), StoreError>) -> Result<(), StoreError>,
) -> anyhow::Result<()> {
    let mut failed = None;
    let result = query(&mut |written| through_store(written, &mut failed));
    match failed {
        Some(e) => Err(e.into()),
        None => Ok(result?),
    }
}

/// Text from outside, harmless on a terminal.
pub(super) fn safe(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// A value for a person: text without quotes, nothing for null.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    }
}

/// `error: …` on standard error, in red on a terminal.
pub(super) fn error(text: &str) {
    let (on, off) = if terminal::may_draw() { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    let _ = writeln!(io::stderr(), "{on}error:{off} {text}");
}

/// A line for a person on standard error. That nobody reads there is no reason to stop.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// An error with its causes; what a cause says again is said once.
pub(super) fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            return cause;
        }
        let last = told.rsplit(": ").next().unwrap_or_default();
        if told.contains(&cause) || cause.ends_with(last) { told } else { format!("{told}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}1m\r\nb";
        assert!(!safe(hostile).chars().any(char::is_control), "{}", safe(hostile));
    }
}
