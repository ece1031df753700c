//! SIGINT and SIGTERM. The first signal ends the work at its next safe point. A second one more
//! than a second later ends the process at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, print};
use crate::clock::{Clock as _, SystemClock};

/// The directory to remove when the process ends at once.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A temporary directory. It is removed when it is dropped, or when a second signal ends the
/// process. A process has at most one at a time.
pub(super) struct Scratch {
    directory: TempDir,
    /// The lock that distinguishes it from an abandoned directory.
    _in_use: Option<File>,
}

impl Scratch {
    /// Creates it in this machine's directory for temporary files.
    pub(super) fn new(prefix: &str) -> io::Result<Self> {
        let directory = private_directory(prefix).tempdir()?;
        *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.path().to_owned());
        Ok(Self { directory, _in_use: None })
    }

    /// Creates it in `parent`, so that its files can be renamed to there. First removes the
    /// directories with this prefix that ended processes left.
    pub(super) fn within(parent: &Path, prefix: &str) -> io::Result<Self> {
        remove_abandoned(parent, prefix)?;
        let directory = private_directory(prefix).tempdir_in(parent)?;
        *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.path().to_owned());
        let lock = File::open(directory.path())?;
        lock.try_lock()?;
        Ok(Self { directory, _in_use: Some(lock) })
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it, and returns an error if that fails.
    pub(super) fn close(self) -> io::Result<()> {
        self.directory.close()
    }
}

/// Returns a builder of directories that only this user can read, because they hold copies of a
/// database.
fn private_directory(prefix: &str) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(fs::Permissions::from_mode(0o700));
    builder
}

/// Removes the directories with this prefix that no process uses any more. Returns those that
/// remain.
pub(super) fn remove_abandoned(parent: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut still = Vec::new();
    for entry in fs::read_dir(parent)?.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix);
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let lock = File::open(entry.path());
        let is_free = lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok());
        if !is_free || fs::remove_dir_all(entry.path()).is_err() {
            still.push(entry.path());
        }
    }
    Ok(still)
}

/// STOP_WITHIN controls how long a stop may take. Work that cannot end by then (because of another
/// program's lock on the database, or a name server that does not answer) is abandoned. Everything
/// recorded is committed, and the next start continues.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

/// SAME_SIGNAL controls for how long after the first signal others count as the same one. `timeout`
/// sends two at once: to its child, and to the process group of the child.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Runs `work` to its end. The first SIGINT or SIGTERM cancels its token. A second one more than a
/// second later ends the process at once. A stop that takes too long ends the process with the code
/// `forced`.
pub(super) fn until_stopped<T, W>(
    forced: Exit,
    work: impl FnOnce(CancellationToken) -> W,
) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<T>>,
{
    let runtime = Runtime::new()?;
    let stop = CancellationToken::new();
    let (interrupt, terminate) = {
        let _within = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // On a thread of the runtime, so that a signal is handled while `work` blocks this one.
    runtime.spawn(watch(interrupt, terminate, stop.clone(), forced));
    let ended = runtime.block_on(work(stop));
    // Do not wait for a running name lookup.
    runtime.shutdown_background();
    ended
}

async fn watch(mut interrupt: Signal, mut terminate: Signal, stop: CancellationToken, forced: Exit) {
    let clock = SystemClock::new();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    let began = clock.elapsed();
    let mut late = std::pin::pin!(tokio::time::sleep(STOP_WITHIN));
    let (said, exit) = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = &mut late => break (BY_TIME, forced),
        }
        if clock.elapsed().saturating_sub(began) > SAME_SIGNAL {
            break (BY_SIGNAL, Exit::Failed);
        }
    };
    print::note(said);
    if let Some(scratch) = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = std::fs::remove_dir_all(scratch);
    }
    std::process::exit(exit.code().into());
}

const BY_SIGNAL: &str = "stopped at once by a second signal; interrupted work is repeated at the next start";

const BY_TIME: &str =
    "stopped without waiting any longer; nothing that was recorded is lost, and the next start continues";
