//! The one writer: a thread that owns the connection and runs one transaction at a time.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Conn, StoreError, Tx, open};

/// How often work that is to end is told so.
const INTERRUPT_EVERY: Duration = Duration::from_millis(20);

/// How long the last checkpoint waits for readers to let go.
const LAST_CHECKPOINT_WAITS: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database, open for writing. Close it with [`Store::close`]; dropped, it loses nothing but leaves a longer WAL.
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    interrupt: InterruptHandle,
    path: PathBuf,
}

impl Store {
    /// Opens `path`, making or migrating it where needed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut conn = open::for_writing(path)?;
        let interrupt = conn.get_interrupt_handle();
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            while let Ok(job) = queue.recv() {
                job(&mut conn);
            }
            // Readers may still hold the WAL; then it is truncated by whoever stops next, and not waited for.
            let _ = conn.busy_timeout(LAST_CHECKPOINT_WAITS);
            let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        });
        let thread = thread.map_err(|source| StoreError::File {
            path: path.to_owned(),
            what: "no thread to write it",
            source,
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), interrupt, path: path.to_owned() })
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

    /// The same for work that takes long and can be done another time: `stop` ends it and rolls it back, and gives `None`.
    pub async fn write_unless<T, F>(
        &self,
        stop: impl Future<Output = ()>,
        work: F,
    ) -> Result<Option<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let mut working = std::pin::pin!(self.write(work));
        tokio::select! {
            biased;
            worked = &mut working => return worked.map(Some),
            () = stop => {}
        }
        // It may not have begun, and then this has no effect: so it is said again until it has ended.
        loop {
            self.interrupt.interrupt();
            tokio::select! {
                biased;
                worked = &mut working => return match worked {
                    Err(e) if e.is_interrupted() => Ok(None),
                    worked => worked.map(Some),
                },
                () = tokio::time::sleep(INTERRUPT_EVERY) => {}
            }
        }
    }

    /// Runs `work` between transactions, on what is committed; it only reads.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(|conn| work(conn)).await
    }

    /// Empties the WAL into the database; `false` where a reader keeps it from that.
    pub async fn empty_wal(&self) -> Result<bool, StoreError> {
        self.run(|conn| {
            conn.busy_timeout(Duration::ZERO)?;
            let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
            conn.busy_timeout(open::BUSY)?;
            Ok(!busy?)
        })
        .await
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

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    #[tokio::test]
    async fn long_work_ends_when_told_and_leaves_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let store = Store::open(&directory.path().join("komoju.db")).unwrap();
        let (began, begun) = oneshot::channel();
        let work = |tx: &Tx<'_>| {
            tx.execute("UPDATE meta SET throttled_until = 'x'", [])?;
            let _ = began.send(());
            Ok(tx.query_row(FOR_EVER, [], |row| row.get::<_, i64>(0))?)
        };
        let stop = async {
            let _ = begun.await;
        };
        assert_eq!(store.write_unless(stop, work).await.unwrap(), None);
        let read = |conn: &Conn| {
            Ok(conn
                .query_row("SELECT throttled_until FROM meta", [], |row| row.get::<_, Option<String>>(0))?)
        };
        assert_eq!(store.read(read).await.unwrap(), None, "it was rolled back");
        assert_eq!(store.write_unless(std::future::pending(), |_| Ok(7)).await.unwrap(), Some(7));
    }
}
