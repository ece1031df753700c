//! Where log lines go: standard error, one a line, in colour on a terminal only; around a progress bar where there is one.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use super::progress;
use crate::config::{Format, Log};

/// Sets the log up as configured. A second call changes nothing.
pub(super) fn start(log: &Log) {
    let level = LevelFilter::from_level(log.level.into());
    // What the libraries have to say is for their authors, unless something is wrong.
    let ours = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("komoju_sync", level);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal && !in_journal,
    };
    let lines = fmt::layer().with_writer(AroundBars).with_target(false).with_ansi(terminal && !in_journal);
    let layer = match (json, in_journal) {
        (true, _) => lines.json().flatten_event(true).boxed(),
        // The journal has its own clock.
        (false, true) => lines.without_time().boxed(),
        (false, false) => lines.boxed(),
    };
    // Only one log can be set up; in tests another may be there already.
    drop(registry().with(layer.with_filter(ours)).try_init());
}

/// Writes a whole line with the progress bar out of the way.
struct AroundBars;

struct Line(Vec<u8>);

impl MakeWriter<'_> for AroundBars {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        progress::suspended(|| {
            let _ = io::stderr().write_all(&self.0);
        });
    }
}
