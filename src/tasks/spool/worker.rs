//! The thread for file operations.
//!
//! All files use one thread and no thread pool. The allocator keeps the memory that each thread
//! once used. So a file of 16 MiB would cost its size again for every thread that reads one.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

use crate::store::StoreError;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs closures one at a time. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    /// The spool directory, for messages.
    path: PathBuf,
    /// The queue of the thread, once it is started.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Worker {
    /// Returns a worker for this directory. The first job starts the thread.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, jobs: Mutex::default() }
    }

    /// Runs `work` on the thread. Starts a thread if there is none, or if it has ended.
    ///
    /// # Errors
    /// The system cannot start a thread, which may be temporary; or `work` panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, done) = oneshot::channel();
        self.send(Box::new(move || drop(answer.send(work()))))?;
        done.await.map_err(|_| StoreError::Closed)
    }

    fn send(&self, mut job: Job) -> Result<(), StoreError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*jobs {
            match known.send(job) {
                Ok(()) => return Ok(()),
                Err(unsent) => job = unsent.0,
            }
        }
        let what = "no thread to read it";
        let started = start().map_err(|source| StoreError::File { path: self.path.clone(), what, source })?;
        let sent = started.send(job).map_err(|_| StoreError::Closed);
        *jobs = Some(started);
        sent
    }
}

fn start() -> io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || queue.into_iter().for_each(|job| job()))?;
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn worker_starts_another_thread_after_one_ended() {
        let worker = Worker::new(PathBuf::from("spool"));
        let (ended, end) = mpsc::channel();
        let panicking = worker.run(move || {
            // Dropped when the thread leaves the job.
            let _ended: mpsc::Sender<()> = ended;
            panic!("a job that ends its thread");
        });
        assert!(matches!(panicking.await, Err::<(), _>(StoreError::Closed)));
        assert!(end.recv().is_err());
        for n in 0..1000 {
            // Until the queue of the ended thread is dropped, it may accept a job and lose it.
            if let Ok(answer) = worker.run(move || n).await {
                assert_eq!(answer, n);
                return;
            }
        }
        panic!("no thread takes a job");
    }
}
