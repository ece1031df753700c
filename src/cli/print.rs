//! Prints data to standard output and messages to standard error. Text from outside cannot control
//! the terminal.

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
    /// Print one JSON object a line, with the SQL columns as keys.
    #[arg(long)]
    json: bool,
    /// The output format by name.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<OutputFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Readable text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Style {
    /// Whether JSON is requested.
    pub(super) fn is_json(self) -> bool {
        self.json || self.format == Some(OutputFormat::Json)
    }
}

/// Buffered standard output. A closed pipe is an error like any other; [`super::main`] recognizes
/// it.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    /// The terminal's width; `None` if another program reads the output.
    columns: Option<usize>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { columns: terminal::width(), writer: BufWriter::new(io::stdout().lock()) }
    }

    /// Prints one line of text.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// Prints the column names of a list, on a terminal only, because other programs read each line
    /// as an entry.
    pub(super) fn header(&mut self, text: &str) -> io::Result<()> {
        match self.columns {
            Some(_) => self.row(text),
            None => Ok(()),
        }
    }

    /// Prints one entry of a list, cut to the width of the terminal.
    pub(super) fn row(&mut self, text: &str) -> io::Result<()> {
        match self.columns {
            Some(columns) => self.line(&terminal::fitted(text, columns)),
            None => self.line(text),
        }
    }

    /// Prints one line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    /// Returns the writer, for output that is not in lines.
    pub(super) fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    /// Writes what is buffered. Must be called, because an error at the end would be lost
    /// otherwise.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Writes what is buffered, before more output follows.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Keeps an output error in `kept`, and returns an error that ends the store's query.
pub(super) fn through_store(result: io::Result<()>, kept: &mut Option<io::Error>) -> Result<(), StoreError> {
    result.map_err(|e| {
        *kept = Some(e);
        StoreError::Refused("output".into())
    })
}

/// Runs a query that prints in its visitor. Returns an output error unchanged.
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

/// Returns text from outside with its control characters replaced.
pub(super) fn safe(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// Returns a value as readable text: strings without quotes, nothing for null.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    }
}

/// Prints `error: …` to standard error, in red on a terminal.
pub(super) fn error(text: &str) {
    let (on, off) = if terminal::may_draw() { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    let _ = writeln!(io::stderr(), "{on}error:{off} {text}");
}

/// Prints a line for the operator to standard error. A closed pipe there is ignored.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Returns an error with its causes. A text that a cause repeats is left out.
pub(super) fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            return cause;
        }
        let last = text.rsplit(": ").next().unwrap_or_default();
        if text.contains(&cause) || cause.ends_with(last) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_control_a_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}1m\r\nb";
        assert!(!safe(hostile).chars().any(char::is_control), "{}", safe(hostile));
    }
}
