//! A backup or restore in progress: how far it is, and how it is stopped.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::store::{Conn, StoreError};

/// A step of the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyStep {
    /// The job has not started.
    #[default]
    Waiting,
    /// Bytes are copied.
    Copying,
    /// Changes are checked.
    Checking,
}

/// How far the job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// The current step.
    pub step: CopyStep,
    /// How much of the step is done, in bytes or changes.
    pub done: u64,
    /// The size of the step, in the same unit.
    pub of: u64,
}

/// STEPS controls after how many steps of SQLite's virtual machine a statement checks whether it
/// must stop: some milliseconds of work.
const STEPS: i32 = 10_000;

/// A backup or restore, shared by the thread that does it and the one that waits for it.
#[derive(Default)]
pub struct CopyJob {
    stop: CancellationToken,
    at: Mutex<(CopyProgress, Option<PathBuf>)>,
}

impl CopyJob {
    /// Returns a job that ends soon after `stop` is cancelled.
    pub fn until(stop: &CancellationToken) -> Self {
        Self { stop: stop.clone(), ..Self::default() }
    }

    /// Returns how far the job is.
    pub fn progress(&self) -> CopyProgress {
        let (progress, growing) = &*locked(&self.at);
        match growing.as_ref().and_then(|path| std::fs::metadata(path).ok()) {
            Some(file) => CopyProgress { done: file.len().min(progress.of), ..*progress },
            None => *progress,
        }
    }

    /// Makes statements on this connection end when the job is stopped.
    pub(in crate::store) fn interrupt_on_stop(&self, conn: &Conn) -> Result<(), StoreError> {
        let stop = self.stop.clone();
        conn.progress_handler(STEPS, Some(move || stop.is_cancelled()))?;
        self.check_stop()
    }

    /// Fails if the job is stopped.
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

    /// Begins to copy bytes into this file; its size is the progress.
    pub(in crate::store) fn begin_growing(&self, file: PathBuf, of: u64) {
        *locked(&self.at) = (CopyProgress { step: CopyStep::Copying, done: 0, of }, Some(file));
    }

    /// Sets how much of the step is done.
    pub(in crate::store) fn set_done(&self, done: u64) {
        locked(&self.at).0.done = done;
    }

    /// Turns the error of a stopped job into [`StoreError::Stopped`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_of_a_stopped_job_is_interrupted_and_reported_as_stopped() {
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let (stop, conn) = (CancellationToken::new(), Conn::open_in_memory().unwrap());
        let job = CopyJob::until(&stop);
        job.interrupt_on_stop(&conn).unwrap();
        let failed = conn.execute_batch("SELECT * FROM missing").map_err(StoreError::from);
        assert!(matches!(job.or_stopped(failed), Err(StoreError::Statement(_))), "it is not stopped yet");
        stop.cancel();
        let stopped = conn.query_row(endless, [], |row| row.get::<_, i64>(0)).map_err(StoreError::from);
        assert!(matches!(job.or_stopped(stopped), Err(StoreError::Stopped)));
    }

    #[test]
    fn next_step_begins_at_zero_of_its_own_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "copied").unwrap();
        let job = CopyJob::default();
        job.begin_growing(file.path().to_owned(), 10);
        assert_eq!(job.progress(), CopyProgress { step: CopyStep::Copying, done: 6, of: 10 });
        job.begin(CopyStep::Checking, 3);
        assert_eq!(job.progress(), CopyProgress { step: CopyStep::Checking, done: 0, of: 3 });
        job.set_done(2);
        assert_eq!(job.progress(), CopyProgress { step: CopyStep::Checking, done: 2, of: 3 });
    }
}
