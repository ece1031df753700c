//! A file's identity, one open handle for each database file, and the lock on the file itself.
//!
//! SQLite's locks and its `-wal` belong to a path. A hard link or a bind mount gives the same file
//! a second path, and two writers that use different paths destroy the database. The lock here
//! belongs to the inode, so it is the same under every name.
//!
//! Invariant: a handle is opened once for each inode and is never closed. Closing any handle of a
//! file drops every `fcntl` lock that the process holds on it, also those of SQLite's open
//! connections (<https://www.sqlite.org/howtocorrupt.html>, section 2.2). On Linux, `flock` and
//! `fcntl` locks do not affect each other.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::processes;

/// Device and inode of a file. Another file can have the same identity only after this one is gone:
/// keep a handle open to rule that out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of the file that `path` leads to, through links; `None` where there is
    /// none.
    ///
    /// # Errors
    /// The path cannot be followed for another reason, such as a missing permission.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(Self::of(&found))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the identity of an open file.
    pub(in crate::store) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::of(&found))
    }

    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// What this process holds of an inode's lock. `flock` belongs to the open file, and all users
/// within the process share one open file. So the process counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldLock {
    None,
    Shared(u32),
    Exclusive,
}

struct OpenFile {
    file: Arc<File>,
    held: HeldLock,
}

static FILES: Mutex<BTreeMap<FileIdentity, OpenFile>> = Mutex::new(BTreeMap::new());

fn files() -> MutexGuard<'static, BTreeMap<FileIdentity, OpenFile>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the handle of the file at `path`, for reading.
pub(in crate::store) fn handle(path: &Path) -> io::Result<Arc<File>> {
    open_file(&mut files(), path).map(|(_, file)| file)
}

fn open_file(
    files: &mut BTreeMap<FileIdentity, OpenFile>,
    path: &Path,
) -> io::Result<(FileIdentity, Arc<File>)> {
    let found = FileIdentity::of(&std::fs::metadata(path)?);
    if let Some(open_file) = files.get(&found) {
        return Ok((found, Arc::clone(&open_file.file)));
    }
    let opened = Arc::new(File::open(path)?);
    // The path may lead to another file by now.
    let identity = FileIdentity::of(&opened.metadata()?);
    if let Some(open_file) = files.get(&identity) {
        std::mem::forget(opened);
        return Ok((identity, Arc::clone(&open_file.file)));
    }
    files.insert(identity, OpenFile { file: Arc::clone(&opened), held: HeldLock::None });
    Ok((identity, opened))
}

/// Returns the current path of a handle's file, from the kernel; `None` if the file was removed.
pub(in crate::store) fn current_path(identity: FileIdentity) -> Option<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let file = Arc::clone(&files().get(&identity)?.file);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    // Also excludes the mark that the kernel adds to the name of a removed file.
    (FileIdentity::at(&path).ok().flatten() == Some(identity)).then_some(path)
}

/// Returns the metadata of a handle's file, whatever its path leads to by now.
pub(in crate::store) fn metadata(identity: FileIdentity) -> Option<Metadata> {
    files().get(&identity)?.file.metadata().ok()
}

/// Returns whether this process holds the lock of an inode exclusively.
pub(in crate::store) fn is_held_here(identity: FileIdentity) -> bool {
    files().get(&identity).is_some_and(|open_file| open_file.held == HeldLock::Exclusive)
}

/// Whether a lock is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum LockMode {
    /// No other process may hold it.
    Exclusive,
    /// Other processes may share it.
    Shared,
}

/// The lock on a database's inode; released when dropped.
#[derive(Debug)]
pub(in crate::store) struct InodeLock {
    identity: FileIdentity,
    mode: LockMode,
}

/// Why a lock was refused.
#[derive(Debug)]
pub(in crate::store) enum LockRefusal {
    /// Another process holds it exclusively.
    Exclusive(FileIdentity),
    /// Other holders only share it.
    Shared,
    /// The file cannot be opened or locked.
    Io(io::Error),
}

impl InodeLock {
    /// Takes the lock of the regular file at `path` without waiting. Returns `None` where there is
    /// no such file.
    pub(in crate::store) fn take(path: &Path, mode: LockMode) -> Result<Option<Self>, LockRefusal> {
        let mut files = files();
        let opened = match std::fs::metadata(path) {
            Ok(found) if !found.is_file() => return Ok(None),
            found => found.and_then(|_| open_file(&mut files, path)),
        };
        let (identity, file) = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(LockRefusal::Io)?,
        };
        let Some(open_file) = files.get_mut(&identity) else { return Ok(None) };
        open_file.held = match (mode, open_file.held) {
            (_, HeldLock::Exclusive) => return Err(LockRefusal::Exclusive(identity)),
            (LockMode::Exclusive, HeldLock::Shared(_)) => return Err(LockRefusal::Shared),
            (LockMode::Shared, HeldLock::Shared(n)) => HeldLock::Shared(n + 1),
            (LockMode::Exclusive, HeldLock::None) => lock_exclusive(&file, identity)?,
            (LockMode::Shared, HeldLock::None) => match file.try_lock_shared() {
                Ok(()) => HeldLock::Shared(1),
                Err(TryLockError::WouldBlock) => return Err(LockRefusal::Exclusive(identity)),
                Err(TryLockError::Error(e)) => return Err(LockRefusal::Io(e)),
            },
        };
        Ok(Some(Self { identity, mode }))
    }
}

fn lock_exclusive(file: &File, identity: FileIdentity) -> Result<HeldLock, LockRefusal> {
    match file.try_lock() {
        Ok(()) => return Ok(HeldLock::Exclusive),
        Err(TryLockError::Error(e)) => return Err(LockRefusal::Io(e)),
        Err(TryLockError::WouldBlock) => {}
    }
    // A second shared lock is granted only where no process holds the exclusive one.
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map_err(LockRefusal::Io).and(Err(LockRefusal::Shared)),
        Err(_) => Err(LockRefusal::Exclusive(identity)),
    }
}

impl Drop for InodeLock {
    fn drop(&mut self) {
        let mut files = files();
        let Some(open_file) = files.get_mut(&self.identity) else { return };
        open_file.held = match (self.mode, open_file.held) {
            (LockMode::Shared, HeldLock::Shared(n)) if n > 1 => HeldLock::Shared(n - 1),
            _ => {
                let _ = open_file.file.unlock();
                HeldLock::None
            }
        };
    }
}

/// Returns the process that holds the lock of an inode.
pub(in crate::store) fn holder(identity: FileIdentity) -> Option<u32> {
    processes::flock_holder(identity.inode)
}

/// Returns the name of the process that holds the lock of an inode, and since when it runs.
pub(in crate::store) fn name_of_holder(identity: FileIdentity) -> String {
    let Some(process) = holder(identity) else { return "another process".to_owned() };
    let since = processes::started_at(process).map(|at| format!(" since {}", komoju_core::time::written(at)));
    let name = processes::name(process).unwrap_or_default();
    format!("`{name}` (process {process}){}", since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_the_same_under_every_name_and_counts_sharers() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("one"), "x").unwrap();
        std::fs::hard_link(at("one"), at("two")).unwrap();
        assert!(InodeLock::take(&at("none"), LockMode::Exclusive).unwrap().is_none());
        // Not known to be absent, because the path cannot be followed.
        assert!(matches!(InodeLock::take(&at("one/below"), LockMode::Exclusive), Err(LockRefusal::Io(_))));
        let shared = InodeLock::take(&at("one"), LockMode::Shared).unwrap().unwrap();
        let other = InodeLock::take(&at("two"), LockMode::Shared).unwrap().unwrap();
        assert!(matches!(InodeLock::take(&at("two"), LockMode::Exclusive), Err(LockRefusal::Shared)));
        drop(shared);
        assert!(matches!(InodeLock::take(&at("two"), LockMode::Exclusive), Err(LockRefusal::Shared)));
        drop(other);
        let lock = InodeLock::take(&at("two"), LockMode::Exclusive).unwrap().unwrap();
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            assert!(matches!(InodeLock::take(&at("one"), mode), Err(LockRefusal::Exclusive(_))));
        }
        // Another open file of the same inode, as another process has it.
        let foreign = File::open(at("one")).unwrap();
        assert!(matches!(foreign.try_lock_shared(), Err(TryLockError::WouldBlock)));
        let name = name_of_holder(lock.identity);
        assert!(name.contains(&format!("(process {}) since 20", std::process::id())), "{name}");
        drop(lock);
        foreign.try_lock().unwrap();
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            assert!(matches!(InodeLock::take(&at("one"), mode), Err(LockRefusal::Exclusive(_))));
        }
    }

    #[test]
    fn path_of_a_moved_file_is_found_and_of_a_removed_one_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().canonicalize().unwrap().join(name);
        std::fs::write(at("one"), "x").unwrap();
        handle(&at("one")).unwrap();
        let identity = FileIdentity::at(&at("one")).unwrap().unwrap();
        std::fs::rename(at("one"), at("two")).unwrap();
        assert_eq!(FileIdentity::at(&at("one")).unwrap(), None);
        assert_eq!(current_path(identity), Some(at("two")));
        std::fs::remove_file(at("two")).unwrap();
        assert_eq!(current_path(identity), None);
        // The handle keeps the inode number from being given to another file.
        std::fs::write(at("two"), "y").unwrap();
        assert_ne!(FileIdentity::at(&at("two")).unwrap(), Some(identity));
    }
}
