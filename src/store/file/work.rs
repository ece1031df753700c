//! A long piece of work on a database: how far it has come, and that it is to end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::InterruptHandle;

use crate::store::{Conn, StoreError};

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    #[default]
    Waiting,
    /// Bytes are copied.
    Copying,
    /// Changes are checked.
    Checking,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How much of it: bytes or changes.
    pub done: u64,
    /// Of how much.
    pub of: u64,
}

/// Shared between whoever does it and whoever waits for it.
#[derive(Default)]
pub struct Work {
    is_stopped: AtomicBool,
    interrupt: Mutex<Option<InterruptHandle>>,
    at: Mutex<(Progress, Option<PathBuf>)>,
}

impl Work {
    /// Tells it to end. A statement that begins just now does not hear of it: so it is told again until it has ended.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(interrupt) = &*locked(&self.interrupt) {
            interrupt.interrupt();
        }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let (progress, growing) = &*locked(&self.at);
        match growing.as_ref().and_then(|path| std::fs::metadata(path).ok()) {
            Some(file) => Progress { done: file.len().min(progress.of), ..*progress },
            None => *progress,
        }
    }

    /// From here on this connection's statements end when it is told to.
    pub(in crate::store) fn on(&self, conn: &Conn) -> Result<(), StoreError> {
        *locked(&self.interrupt) = Some(conn.get_interrupt_handle());
        self.go_on()
    }

    /// An error once it was told to end.
    pub(in crate::store) fn go_on(&self) -> Result<(), StoreError> {
        match self.is_stopped.load(Ordering::Relaxed) {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }

    /// The next step begins.
    pub(in crate::store) fn begin(&self, step: Step, of: u64) {
        *locked(&self.at) = (Progress { step, done: 0, of }, None);
    }

    /// Bytes are copied into this file, whose size says how many.
    pub(in crate::store) fn begin_growing(&self, file: PathBuf, of: u64) {
        *locked(&self.at) = (Progress { step: Step::Copying, done: 0, of }, Some(file));
    }

    /// The step has come so far.
    pub(in crate::store) fn has_done(&self, done: u64) {
        locked(&self.at).0.done = done;
    }

    /// What was interrupted because it was told to end says so.
    pub(in crate::store) fn ended<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(_) if self.is_stopped.load(Ordering::Relaxed) => Err(StoreError::Stopped),
            other => other,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
