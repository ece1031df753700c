//! SIGINT and SIGTERM: the first ends the work at its next safe point, a second one more than a second later ends the process
//! at once.

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

/// What a process that is ended at once must still take away.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A temporary directory that goes when it is dropped or a second signal ends the process; one at a time.
pub(super) struct Scratch {
    directory: TempDir,
    /// Tells it from one that a process left behind.
    _in_use: Option<File>,
}

impl Scratch {
    /// Makes it among the temporary files of this machine.
    pub(super) fn new(prefix: &str) -> io::Result<Self> {
        let directory = private_directory(prefix).tempdir()?;
        *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.path().to_owned());
        Ok(Self { directory, _in_use: None })
    }

    /// Makes it in this directory, for what is to be renamed from there; and takes away those of this prefix that were left behind by
    /// processes that could not do it themselves.
    pub(super) fn within(parent: &Path, prefix: &str) -> io::Result<Self> {
        remove_abandoned(parent, prefix)?;
        let directory = private_directory(prefix).tempdir_in(parent)?;
        *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.path().to_owned());
        let lock = File::open(directory.path())?;
        lock.try_lock()?;
        Ok(Self { directory, _in_use: Some(lock) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes it away, and says if that failed.
    pub(super) fn close(self) -> io::Result<()> {
        self.directory.close()
    }
}

/// Copies of a database lie in it, which hold what not everybody may read.
fn private_directory(prefix: &str) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(fs::Permissions::from_mode(0o700));
    builder
}

/// Takes away the directories of this prefix that nobody works in any more. Returns those that are still there.
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

/// How long a stop may take. What cannot end by then (somebody else's lock on the database, a name server that does not answer) is
/// left: everything that was recorded is committed, and the next start goes on.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

/// SAME_SIGNAL controls for how long after the first signal others belong to it. `timeout` sends two at once: to its child, and to
/// the group of processes that the child is in.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Runs `work` until it ends. The first SIGINT or SIGTERM is its `stop`; a second one more than a second later ends the process at
/// once, and so does, with `forced`, a stop that takes too long.
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
    // On a thread of the runtime: a signal is heard whatever `work` waits for.
    runtime.spawn(watch(interrupt, terminate, stop.clone(), forced));
    let ended = runtime.block_on(work(stop));
    // A look-up of a name that is still under way is not waited for.
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

const BY_SIGNAL: &str =
    "stopped at once by a second signal; what was under way is done again at the next start";

const BY_TIME: &str =
    "stopped without waiting any longer; nothing that was recorded is lost, and the next start goes on";
