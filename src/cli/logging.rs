//! The log. Events go to the journal, with priorities and fields, if systemd connected standard
//! error to it. Otherwise they go to standard error, one a line, in color on a terminal only, and
//! around progress bars.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use super::progress;
use crate::config::{Format, Log};

/// The prefix of our field names in the journal.
const FIELDS: &str = "KOMOJU_SYNC";

/// Sets up the log as configured. A second call changes nothing.
pub(super) fn start(log: &Log) {
    let level = LevelFilter::from_level(log.level);
    // Libraries log for their own authors. If an error of a library matters, a message of ours
    // contains it.
    let ours = Targets::new().with_default(LevelFilter::OFF).with_target("komoju_sync", level);
    let in_journal = is_journal();
    let terminal = io::stderr().is_terminal();
    let lines = || {
        fmt::layer()
            .with_writer(LogWriter)
            .with_target(false)
            .with_ansi(super::terminal::may_draw() && !in_journal)
    };
    let in_text = || match in_journal {
        // The journal has its own clock.
        true => lines().without_time().boxed(),
        false => lines().boxed(),
    };
    let layer = match log.format {
        Format::Text => in_text(),
        Format::Auto if in_journal => match tracing_journald::layer() {
            Ok(journal) => journal
                .with_field_prefix(Some(FIELDS.to_owned()))
                .with_priority_mappings(priorities())
                .boxed(),
            Err(_) => in_text(),
        },
        Format::Auto if terminal => in_text(),
        Format::Json | Format::Auto => lines().json().flatten_event(true).boxed(),
    };
    // This fails if a log is set up already, as in tests.
    drop(registry().with(layer.with_filter(ours)).try_init());
}

/// Returns the syslog priorities of our levels. The library's default for `info` is "notice", which
/// is for events that need attention.
fn priorities() -> PriorityMappings {
    PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() }
}

/// Whether standard error goes to the journal. `$JOURNAL_STREAM` names the stream that systemd
/// connected; a redirection within the service leads to another one.
fn is_journal() -> bool {
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Writes whole lines while the progress bars are hidden.
struct LogWriter;

struct LogLine(Vec<u8>);

impl MakeWriter<'_> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine(Vec::new())
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        progress::suspended(|| {
            let _ = io::stderr().write_all(&self.0);
        });
    }
}
