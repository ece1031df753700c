//! The instance lock: one instance works on a database at a time. It consists of two locks, taken
//! in this order. One is on `DATABASE.lock`, which names the holder. The other is on the database's
//! own inode, which is the same under every name of the file and cannot be removed. The kernel
//! releases both when the process ends, however it ends.
//!
//! A process that works on the database holds both exclusively. `restore`, while it copies another
//! database, and a process that only reads the state of the lock (`status`, for a moment) share
//! them. A shared lock can be taken next to another shared one, but not next to an exclusive one:
//! that distinguishes the two.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::identity::{self, FileIdentity, InodeLock, LockMode, LockRefusal};
use super::lock_file::{LockText, LogMark};
use super::place;
use crate::store::StoreError;
use komoju_core::time;

/// SHARE_RETRIES controls how often, and at which interval, a lock is retried that is only shared.
/// A process that reads the state of the lock releases it within microseconds. A blocking wait
/// would also wait for an exclusive holder.
const SHARE_RETRIES: (u32, Duration) = (20, Duration::from_millis(10));

/// The right to work on a database, until it is dropped.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    // Released in the opposite order of taking them.
    inode: Mutex<Option<InodeLock>>,
    /// The lock of a prepared file, in addition to the database's.
    prepared: Mutex<Option<InodeLock>>,
    lock: Mutex<Option<File>>,
    text: Mutex<LockText>,
    log: Option<LogMark>,
}

/// The process that works on a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its command, its process id, and since when it holds the database, for messages.
    pub name: String,
    /// Its command, such as `run`. `None` if it has the file open under another name.
    pub command: Option<String>,
    /// Its process id, if it is known.
    pub process: Option<u32>,
    /// Why it cannot use the database for now, and since when.
    pub trouble: Option<String>,
}

impl Holder {
    /// Returns the holder that the text of a lock file names.
    fn named_in(lock: &File) -> Self {
        let LockText { holder, command, process, trouble, log: _ } = LockText::read(lock);
        let name = if holder.is_empty() { "another komoju-sync".to_owned() } else { holder };
        Self { name, command, process, trouble }
    }
}

/// Why the lock cannot be shared.
enum ShareError {
    Held(Holder),
    Failed(StoreError),
}

impl Instance {
    /// Takes the database at `path` for `command`.
    ///
    /// # Errors
    /// [`StoreError::InUse`] names the process that has it, and since when.
    pub fn take(path: &Path, command: &str, now: Timestamp) -> Result<Self, StoreError> {
        let lock_path = lock_path(path)?;
        let file_error = |what, source| StoreError::File { path: lock_path.clone(), what, source };
        let lock = opened(&lock_path)
            .map_err(|e| file_error("cannot be opened; the directory must exist and be writable", e))?;
        place::must_be_plain(&lock).map_err(|e| file_error("cannot be the lock of the database", e))?;
        let in_use = |holder| StoreError::InUse { path: path.to_owned(), holder };
        let mut retries = LockRetries::new(path);
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(file_error("cannot be locked", e)),
                Err(TryLockError::WouldBlock) => {}
            }
            match lock.try_lock_shared() {
                Ok(()) => lock.unlock().map_err(|e| file_error("cannot be unlocked", e))?,
                Err(_) => return Err(in_use(Holder::named_in(&lock).name)),
            }
            retries.again()?;
        }
        let inode = lock_inode(path, &mut retries)?;
        let log = LockText::read(&lock).log;
        let process = std::process::id();
        let text = LockText {
            holder: format!("`komoju-sync {command}` (process {process}) since {}", time::written(now)),
            command: Some(command.to_owned()),
            process: Some(process),
            log: log.clone(),
            trouble: None,
        };
        text.write(&lock).map_err(|e| file_error("cannot be written", e))?;
        let path = path.to_owned();
        let (inode, lock, text) = (Mutex::new(inode), Mutex::new(Some(lock)), Mutex::new(text));
        Ok(Self { path, inode, prepared: Mutex::default(), lock, text, log })
    }

    /// Locks the database's own file, if it was created after [`Instance::take`].
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has locked it.
    pub fn lock_database_file(&self) -> Result<(), StoreError> {
        let mut inode = locked(&self.inode);
        if inode.is_none() {
            *inode = lock_inode(&self.path, &mut LockRetries::new(&self.path))?;
        }
        Ok(())
    }

    /// Locks a file that is about to become the database, until this is dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has locked it.
    pub fn lock_prepared_file(&self, prepared: &Path) -> Result<(), StoreError> {
        *locked(&self.prepared) = lock_inode(prepared, &mut LockRetries::new(prepared))?;
        Ok(())
    }

    /// Returns the head of the change log that an instance last wrote to the lock file.
    pub fn log_mark(&self) -> Option<&LogMark> {
        self.log.as_ref()
    }

    /// Writes the head of the change log to the lock file.
    pub fn note_log(&self, mark: LogMark) {
        self.note(|text| text.log = Some(mark));
    }

    /// Writes to the lock file why the database cannot be used for now; `None` if it can.
    pub fn note_trouble(&self, trouble: Option<String>) {
        self.note(|text| text.trouble = trouble);
    }

    fn note(&self, change: impl FnOnce(&mut LockText)) {
        let (lock, mut text) = (locked(&self.lock), locked(&self.text));
        let before = text.clone();
        change(&mut text);
        // A failed write costs a check or a line of `status`, and must not end the work.
        if *text != before
            && let Some(Err(e)) = lock.as_ref().map(|lock| text.write(lock))
        {
            tracing::debug!("the lock file of {} cannot be written: {e}", self.path.display());
        }
    }

    /// Creates the lock file again if it was removed or replaced: without it other processes cannot
    /// find out under which name the database is used. Meanwhile the lock on the database's inode
    /// keeps them out.
    pub fn keep_lock_file(&self) {
        let Ok(lock_path) = lock_path(&self.path) else { return };
        let mut lock = locked(&self.lock);
        let identity = |file: &File| FileIdentity::of_file(file).ok();
        let Some(held) = lock.as_ref().and_then(identity) else { return };
        if FileIdentity::at(&lock_path).is_ok_and(|found| found == Some(held)) {
            return;
        }
        let made = opened(&lock_path).and_then(|file| place::must_be_plain(&file).map(|_| file));
        if let Ok(made) = made
            && made.try_lock().is_ok()
            && locked(&self.text).write(&made).is_ok()
        {
            tracing::warn!("{} was removed; it was made again", lock_path.display());
            *lock = Some(made);
        }
    }

    /// Keeps every other process from working on the database at `path`. Writes nothing: without a
    /// lock file no process works on it.
    pub fn share(path: &Path) -> Result<Self, StoreError> {
        Self::try_share(path).map_err(|unshared| match unshared {
            ShareError::Held(Holder { name, .. }) => {
                StoreError::InUse { path: path.to_owned(), holder: name }
            }
            ShareError::Failed(e) => e,
        })
    }

    fn try_share(path: &Path) -> Result<Self, ShareError> {
        let lock_path = lock_path(path).map_err(ShareError::Failed)?;
        let failed =
            |what, source| ShareError::Failed(StoreError::File { path: lock_path.clone(), what, source });
        let lock = match OpenOptions::new().read(true).custom_flags(place::NO_LINKS).open(&lock_path) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            other => Some(other.map_err(|e| failed("cannot be opened", place::explain_link(e)))?),
        };
        if let Some(lock) = &lock {
            place::must_be_plain(lock).map_err(|e| failed("cannot be the lock of the database", e))?;
            match lock.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(ShareError::Held(Holder::named_in(lock)));
                }
                Err(TryLockError::Error(e)) => return Err(failed("cannot be locked", e)),
            }
        }
        // A file that cannot be opened says nothing about a process. Whatever opens it for use
        // reports the error.
        let inode = match InodeLock::take(path, LockMode::Shared) {
            Err(LockRefusal::Exclusive(identity)) => {
                return Err(ShareError::Held(Holder {
                    name: under_another_name(identity),
                    command: None,
                    process: identity::holder(identity),
                    trouble: None,
                }));
            }
            other => other.ok().flatten(),
        };
        Ok(Self {
            path: path.to_owned(),
            inode: Mutex::new(inode),
            prepared: Mutex::default(),
            lock: Mutex::new(lock),
            text: Mutex::default(),
            log: None,
        })
    }

    /// Returns the process that works on the database at `path`, if there is one. Writes nothing.
    pub fn holder(path: &Path) -> Result<Option<Holder>, StoreError> {
        match Self::try_share(path) {
            Err(ShareError::Held(holder)) => Ok(Some(holder)),
            // A lock file that cannot be read says nothing about a process.
            Err(ShareError::Failed(StoreError::File { .. })) | Ok(_) => Ok(None),
            Err(ShareError::Failed(e)) => Err(e),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Release the inode first. Unlock explicitly, because a child that is being started shares
        // the open file until it runs its program. If the file were only closed, the child would
        // have the lock for that moment.
        drop(locked(&self.inode).take());
        drop(locked(&self.prepared).take());
        if let Some(lock) = locked(&self.lock).take() {
            let _ = lock.unlock();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses a name of the database that is not the one under which an instance works on it. SQLite
/// would use another `-wal` there: a reader would see an old state, and a writer would destroy the
/// file.
pub(in crate::store) fn refuse_second_name(path: &Path) -> Result<(), StoreError> {
    let holder = || match InodeLock::take(path, LockMode::Shared) {
        Err(LockRefusal::Exclusive(identity)) if !identity::is_held_here(identity) => Some(identity),
        _ => None,
    };
    if holder().is_none() {
        return Ok(());
    }
    let lock = OpenOptions::new().read(true).custom_flags(place::NO_LINKS).open(lock_path(path)?);
    let is_free = match lock {
        Ok(lock) => lock.try_lock_shared().is_ok(),
        Err(e) => e.kind() == ErrorKind::NotFound,
    };
    // The instance may have ended meanwhile: it releases the inode first.
    match holder().filter(|_| is_free) {
        Some(identity) => {
            Err(StoreError::InUse { path: path.to_owned(), holder: under_another_name(identity) })
        }
        None => Ok(()),
    }
}

fn under_another_name(identity: FileIdentity) -> String {
    let holder = identity::name_of_holder(identity);
    format!("{holder}, which has the same file open under another name, or whose lock file was removed")
}

fn lock_path(path: &Path) -> Result<PathBuf, StoreError> {
    Ok(place::sibling(&place::real(path)?, ".lock"))
}

/// The retries that are left for a lock that is only shared.
struct LockRetries<'a> {
    path: &'a Path,
    left: u32,
}

impl<'a> LockRetries<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, left: SHARE_RETRIES.0 }
    }

    fn again(&mut self) -> Result<(), StoreError> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(StoreError::BeingRead(self.path.to_owned()));
        }
        std::thread::sleep(SHARE_RETRIES.1);
        Ok(())
    }
}

fn lock_inode(path: &Path, retries: &mut LockRetries<'_>) -> Result<Option<InodeLock>, StoreError> {
    loop {
        match InodeLock::take(path, LockMode::Exclusive) {
            Ok(lock) => return Ok(lock),
            Err(LockRefusal::Exclusive(identity)) => {
                let holder = under_another_name(identity);
                return Err(StoreError::InUse { path: path.to_owned(), holder });
            }
            Err(LockRefusal::Shared) => retries.again()?,
            Err(LockRefusal::Io(source)) => {
                return Err(StoreError::File { path: path.to_owned(), what: "cannot be opened", source });
            }
        }
    }
}

/// Opens the lock file, or creates it. Root may run a command in the service's directory: a file
/// that root creates there gets the owner of the directory. Otherwise the service could not start
/// after a failed command of root.
fn opened(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640).custom_flags(place::NO_LINKS);
    // Another process may remove the file in between; retry then.
    for _ in 0..100 {
        match options.clone().create_new(true).open(path) {
            Ok(made) => {
                if rustix::process::geteuid().is_root() {
                    let directory = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
                    place::give(&made, &directory)?;
                }
                return Ok(made);
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        match options.open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other.map_err(place::explain_link),
        }
    }
    Err(std::io::Error::other("it is created and removed again and again"))
}

#[cfg(test)]
mod tests;
