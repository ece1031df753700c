//! The thread that waits for disks.
//!
//! One thread for all files, and not whichever is free: the allocator keeps what each thread once
//! needed, and a file of 16 MiB would cost its size again for every thread that ever read one.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

use crate::store::StoreError;

type Job = Box<dyn FnOnce() + Send>;

/// Runs closures one after the other; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    /// The spool directory, for messages.
    path: PathBuf,
    /// To the thread, once there is one.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Worker {
    /// A worker for this directory. The first job starts the thread.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, jobs: Mutex::default() }
    }

    /// Runs this on the thread, and starts one where there is none or where it has ended.
    ///
    /// # Errors
    /// The system grants no thread, which can pass; or the thread ended within `work`.
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
    async fn worker_whose_thread_has_ended_starts_another() {
        let worker = Worker::new(PathBuf::from("spool"));
        let (ended, end) = mpsc::channel();
        let panicking = worker.run(move || {
            // Dropped when the thread has left the job, and the queue with it.
            let _ended: mpsc::Sender<()> = ended;
            panic!("a job that ends its thread");
        });
        assert!(matches!(panicking.await, Err::<(), _>(StoreError::Closed)));
        assert!(end.recv().is_err());
        for n in 0..1000 {
            // Until the queue is gone, a job may still enter it, and is lost with it.
            if let Ok(answer) = worker.run(move || n).await {
                assert_eq!(answer, n);
                return;
            }
        }
        panic!("no thread takes a job");
    }
}
