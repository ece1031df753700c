//! The one writer: a thread that owns the connection and runs one transaction at a time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::displaced::Placement;
use super::indexes::{self, ReaderIndex};
use super::{added, open, wipe};
use crate::heartbeat::{self, Heartbeat};
use crate::store::{Conn, StoreError, Tx};

/// STEPS_A_TICK controls after how many steps of SQLite's virtual machine a statement ticks: some
/// milliseconds of work.
const STEPS_A_TICK: i32 = 10_000;

/// LAST_CHECKPOINT_WAITS controls how long the last checkpoint waits for readers.
const LAST_CHECKPOINT_WAITS: Duration = Duration::from_millis(200);

/// UPKEEP_WAITS controls how long upkeep waits for another writer, and for readers. A stop that
/// begins then still ends within its two seconds.
const UPKEEP_WAITS: Duration = Duration::from_millis(200);

/// WIPE_WAITS controls how long an erasure waits for readers, and for the daemon between two
/// transactions.
const WIPE_WAITS: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database, open for writing. Close it with [`Store::close`]. Dropping it loses nothing, but
/// leaves a longer WAL.
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    heartbeat: Arc<Heartbeat>,
    path: PathBuf,
    placement: Arc<Mutex<Placement>>,
}

impl Store {
    /// Opens `path`. Creates or migrates the database where needed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let heartbeat = Heartbeat::of("writing the database");
        let mut conn = opened(path, &heartbeat)?;
        let placement = Arc::new(Mutex::new(Placement::of(path)?));
        let own = Arc::clone(&heartbeat);
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            loop {
                let idle = own.idle();
                let Ok(job) = queue.recv() else { break };
                drop(idle);
                job(&mut conn);
            }
            // Do not wait for a reader that keeps the WAL: the next process that stops truncates
            // it.
            let _ = conn.busy_timeout(LAST_CHECKPOINT_WAITS);
            let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        });
        let thread = thread.map_err(|source| StoreError::File {
            path: path.to_owned(),
            what: "cannot be written, because no thread can be started",
            source,
        })?;
        let path = path.to_owned();
        Ok(Self { jobs: Some(jobs), thread: Some(thread), heartbeat, path, placement })
    }

    /// Closes the database and opens it again, as after an I/O error: only the file shows then what
    /// was committed.
    ///
    /// # Errors
    /// The database cannot be opened yet. Or the path leads to another file by now; then the old
    /// connection stays open.
    pub async fn reopen(&self) -> Result<(), StoreError> {
        let (path, heartbeat) = (self.path.clone(), Arc::clone(&self.heartbeat));
        let placement = Arc::clone(&self.placement);
        self.run(move |conn| {
            let mut placement = locked(&placement);
            if let Some(displacement) = placement.check() {
                return Err(placement.error(displacement));
            }
            // Open the new connection before the old one is dropped, so that SQLite keeps `-wal`
            // and `-shm`.
            let new = opened(&path, &heartbeat)?;
            // The path may have changed in between.
            *placement = placement.again()?;
            *conn = new;
            Ok(())
        })
        .await
    }

    /// Checks that the path still leads to the files that are open. Call it before something is
    /// removed because the database has recorded it.
    ///
    /// # Errors
    /// [`StoreError::Displaced`]: what is written from now on is lost when the process ends. See
    /// [`Store::save_displaced`].
    pub fn still_in_place(&self) -> Result<(), StoreError> {
        let placement = locked(&self.placement);
        placement.check().map_or(Ok(()), |displacement| Err(placement.error(displacement)))
    }

    /// Saves the content of the open database after [`Store::still_in_place`] has failed. Returns
    /// the error to end with: it names what was saved, and the commands to continue with. `stamp`
    /// becomes part of the copy's name. Afterwards the store is empty.
    pub async fn save_displaced(&self, stamp: String) -> StoreError {
        let placement = locked(&self.placement).clone();
        let saved = self.run(move |conn| {
            Ok(match placement.check() {
                Some(displacement) => placement.save(conn, displacement, &stamp),
                None => placement.is_back(),
            })
        });
        saved.await.unwrap_or_else(|e| e)
    }

    /// Returns the writer's heartbeat.
    pub fn heartbeat(&self) -> &Arc<Heartbeat> {
        &self.heartbeat
    }

    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one transaction and commits it; an error rolls everything back.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(|conn| {
            set_triggers(conn, true)?;
            transact(conn, work)
        })
        .await
    }

    /// Like [`Store::write`], for what a pass records in log, mirror and holds; `work` must not
    /// write intents. Our triggers do not fire: for each row they check which program writes it,
    /// and that takes a tenth of the time of an import. If another program added a trigger, all
    /// triggers fire.
    pub async fn write_pass<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(|conn| {
            let fire = added::has_triggers(conn)?;
            set_triggers(conn, fire)?;
            transact(conn, work)
        })
        .await
    }

    /// Creates an index for readers if it is missing. Returns `None` if `stop` ended it.
    pub async fn make_index_unless(
        &self,
        stop: impl Future<Output = ()>,
        index: ReaderIndex,
    ) -> Result<Option<()>, StoreError> {
        self.run_unless(stop, move |conn| indexes::ensure(conn, index)).await
    }

    /// Wipes copies of settled tokens and erased data. Returns `Some(false)` if a reader keeps old
    /// pages, and `None` if `stop` ended it; it then has no effect.
    pub async fn wipe_unless(&self, stop: impl Future<Output = ()>) -> Result<Option<bool>, StoreError> {
        self.run_unless(stop, |conn| wipe::wipe(conn, UPKEEP_WAITS)).await
    }

    /// Runs long work that can be retried another time. If `stop` ends it, it is rolled back, and
    /// `None` is returned.
    async fn run_unless<T, F>(&self, stop: impl Future<Output = ()>, work: F) -> Result<Option<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, StoreError> + Send + 'static,
    {
        let (begun, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (own_begun, own_stopped) = (Arc::clone(&begun), Arc::clone(&stopped));
        let heartbeat = Arc::clone(&self.heartbeat);
        let mut working = std::pin::pin!(self.run(move |conn| {
            own_begun.store(true, Ordering::SeqCst);
            if own_stopped.load(Ordering::SeqCst) {
                return Ok(None);
            }
            set_triggers(conn, true)?;
            watch(conn, &heartbeat, own_stopped)?;
            let worked = work(conn);
            watch(conn, &heartbeat, Arc::default())?;
            worked.map(Some)
        }));
        tokio::select! {
            biased;
            () = stop => {}
            worked = &mut working => return worked,
        }
        stopped.store(true, Ordering::SeqCst);
        // Work that is still queued will see the flag, because both threads write and read the two
        // flags in the same order.
        if !begun.load(Ordering::SeqCst) {
            return Ok(None);
        }
        match working.await {
            Err(e) if e.is_interrupted() => Ok(None),
            worked => worked,
        }
    }

    /// Runs `work` between transactions, on the committed state. It only reads.
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
        // The writer has its own heartbeat.
        let _idle = heartbeat::idle();
        answered.await.map_err(|_| StoreError::Closed)?.map_err(|e| e.with_path(&self.path))
    }

    /// Ends the thread after the queued work, and empties the WAL into the database.
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a connection whose statements report progress, so that a long statement does not look like
/// a hang.
fn opened(path: &Path, heartbeat: &Arc<Heartbeat>) -> Result<Connection, StoreError> {
    let conn = open::for_writing(path)?;
    watch(&conn, heartbeat, Arc::default())?;
    Ok(conn)
}

/// Makes statements tick, and end once `stopped` is set. A checkpoint has no steps, so it cannot be
/// interrupted.
fn watch(conn: &Connection, heartbeat: &Arc<Heartbeat>, stopped: Arc<AtomicBool>) -> Result<(), StoreError> {
    let heartbeat = Arc::clone(heartbeat);
    let step = move || {
        heartbeat.tick();
        stopped.load(Ordering::Relaxed)
    };
    Ok(conn.progress_handler(STEPS_A_TICK, Some(step))?)
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

/// A connection for an operator's command to an existing database. The daemon may run meanwhile.
pub struct OperatorConnection {
    conn: Connection,
    path: PathBuf,
}

impl OperatorConnection {
    /// Opens `path`. The file is checked first and never migrated.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::for_operator(path)?, path: path.to_owned() })
    }

    /// Runs `work` in one transaction and commits it; an error rolls everything back.
    pub fn write<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        transact(&mut self.conn, work).map_err(|e| e.with_path(&self.path))
    }
}

/// Runs one transaction of an operator's command.
pub fn write_as_operator<T>(
    path: &Path,
    work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    OperatorConnection::open(path)?.write(work)
}

/// Whether an erasure is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WipeOutcome {
    /// No byte of what was erased is left in the file and its WAL.
    Clean,
    /// The pages are clean; a reader keeps old ones in the WAL.
    KeptByReader,
    /// It failed, for this reason.
    Failed(String),
}

/// Like [`write_as_operator`], and then wipes what was erased from pages and WAL. A failure after
/// the commit is a [`WipeOutcome`] and not an error. The erasure is then recorded as unfinished,
/// and the daemon or the next `sync` finishes it.
pub fn write_and_wipe<T>(
    path: &Path,
    work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<(T, WipeOutcome), StoreError> {
    let mut conn = OperatorConnection::open(path)?;
    let value = conn.write(work)?;
    let wiped = match wipe::wipe(&mut conn.conn, WIPE_WAITS) {
        Ok(true) => WipeOutcome::Clean,
        Ok(false) => WipeOutcome::KeptByReader,
        Err(e) => WipeOutcome::Failed(e.with_path(path).to_string()),
    };
    Ok((value, wiped))
}

/// Enables or disables the schema's triggers. A change makes SQLite prepare every statement again,
/// so it is made only where needed.
fn set_triggers(conn: &Connection, fire: bool) -> Result<(), StoreError> {
    if conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? != fire {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, fire)?;
    }
    Ok(())
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
mod tests;
