//! The one writer: a thread that owns the connection and runs one transaction at a time.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Conn, StoreError, Tx, open};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database, open for writing. Close it with [`Store::close`]; dropped, it loses nothing but leaves a longer WAL.
#[derive(Debug)]
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Store {
    /// Opens `path`, making or migrating it where needed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut conn = open::for_writing(path)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            while let Ok(job) = queue.recv() {
                job(&mut conn);
            }
            // Readers may still hold the WAL; then it is truncated by whoever stops next.
            let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        });
        let thread = thread.map_err(|source| StoreError::File {
            path: path.to_owned(),
            what: "no thread to write it",
            source,
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), path: path.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one transaction and commits it; an error rolls everything back.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(|conn| transact(conn, work)).await
    }

    /// Runs `work` between transactions, on what is committed; it only reads.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(|conn| work(conn)).await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            let _ = answer.send(work(conn));
        });
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?.map_err(|e| e.about(&self.path))
    }

    /// Ends the thread after what is queued, and empties the WAL into the database.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

/// One transaction of a person's command on an existing database, beside whoever else works on it.
pub fn write_beside<T>(
    path: &Path,
    work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut conn = open::beside(path)?;
    transact(&mut conn, work).map_err(|e| e.about(path))
}

fn transact<T>(
    conn: &mut Connection,
    work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&tx)?;
    tx.commit()?;
    Ok(value)
}
