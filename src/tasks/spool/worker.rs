//! The thread that waits for disks.
//!
//! One thread for all files, and not whichever is free: the allocator keeps what each thread once
//! needed, and a file of 16 MiB would cost its size again for every thread that ever read one.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::store::StoreError;

type Job = Box<dyn FnOnce() + Send>;

/// Runs closures one after the other; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread. Where the system grants none, every job is an error.
    pub(super) fn start() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let _ = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job()));
        Self { jobs }
    }

    /// Runs this on the thread.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, done) = oneshot::channel();
        let job = Box::new(move || drop(answer.send(work())));
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)
    }
}
