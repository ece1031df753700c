//! SIGINT and SIGTERM: the first ends the work at its next safe point, the second ends the process at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::print;

/// What a process that is ended at once must still take away.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A temporary directory that goes when it is dropped or a second signal ends the process; one at a time.
pub(super) struct Scratch(TempDir);

impl Scratch {
    /// Makes it.
    pub(super) fn new(prefix: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
        *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes it away, and says if that failed.
    pub(super) fn close(self) -> io::Result<()> {
        self.0.close()
    }
}

/// Turns signals into `stop` for as long as it is polled.
pub(super) async fn watch(stop: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut told = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if told {
            print::error(
                "stopped at once by a second signal; what was under way is done again at the next start",
            );
            if let Some(scratch) = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = std::fs::remove_dir_all(scratch);
            }
            std::process::exit(1);
        }
        told = true;
        stop.cancel();
    }
}
