//! A long piece of work on a database: how far it is, and how it is stopped.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::store::{Conn, StoreError};

/// A step of the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyStep {
    /// Nothing yet.
    #[default]
    Waiting,
    /// Bytes are copied.
    Copying,
    /// Changes are checked.
    Checking,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// What is being done.
    pub step: CopyStep,
    /// How much of it: bytes or changes.
    pub done: u64,
    /// Of how much.
    pub of: u64,
}

/// STEPS controls after how many steps of SQLite's machine a statement looks whether it is to end: some milliseconds of work.
const STEPS: i32 = 10_000;

/// A long piece of work, shared by the thread that does it and the one that waits for it.
#[derive(Default)]
pub struct CopyJob {
    stop: CancellationToken,
    at: Mutex<(CopyProgress, Option<PathBuf>)>,
}

impl CopyJob {
    /// Returns work that ends soon after `stop` is cancelled.
    pub fn until(stop: &CancellationToken) -> Self {
        Self { stop: stop.clone(), ..Self::default() }
    }

    /// Returns how far the work is.
    pub fn progress(&self) -> CopyProgress {
        let (progress, growing) = &*locked(&self.at);
        match growing.as_ref().and_then(|path| std::fs::metadata(path).ok()) {
            Some(file) => CopyProgress { done: file.len().min(progress.of), ..*progress },
            None => *progress,
        }
    }

    /// Lets statements on this connection end when the work is stopped.
    pub(in crate::store) fn interrupt_on_stop(&self, conn: &Conn) -> Result<(), StoreError> {
        let stop = self.stop.clone();
        conn.progress_handler(STEPS, Some(move || stop.is_cancelled()))?;
        self.check_stop()
    }

    /// Fails if the work is stopped.
    pub(in crate::store) fn check_stop(&self) -> Result<(), StoreError> {
        match self.stop.is_cancelled() {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }

    /// Begins the next step.
    pub(in crate::store) fn begin(&self, step: CopyStep, of: u64) {
        *locked(&self.at) = (CopyProgress { step, done: 0, of }, None);
    }

    /// Begins to copy bytes into this file, whose size is the progress.
    pub(in crate::store) fn begin_growing(&self, file: PathBuf, of: u64) {
        *locked(&self.at) = (CopyProgress { step: CopyStep::Copying, done: 0, of }, Some(file));
    }

    /// Sets how much of the step is done.
    pub(in crate::store) fn set_done(&self, done: u64) {
        locked(&self.at).0.done = done;
    }

    /// Turns the error of stopped work into [`StoreError::Stopped`].
    pub(in crate::store) fn or_stopped<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(_) if self.stop.is_cancelled() => Err(StoreError::Stopped),
            other => other,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
