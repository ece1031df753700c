//! One instance works on a database at a time: a lock on a file beside it, which the kernel lets go when the process ends,
//! however it ends.
//!
//! Who works holds it alone and writes its name into the file. Who only must not be disturbed (a dry run, which writes nothing
//! anywhere) and who only looks (`status`, for a moment) share it; they are told from a holder by that a second one can share too.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{StoreError, place};
use crate::model::time;

/// How often, and after how long each, a lock that is only shared is tried again: whoever only looks lets go within microseconds,
/// and the kernel gives no signal that would not also wait for somebody who works.
const LOOKERS: (u32, Duration) = (20, Duration::from_millis(10));

/// The right to work on a database; ends when dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: Option<File>,
}

impl Instance {
    /// Takes the database at `path` for `command`, or says who has it and since when.
    pub fn take(path: &Path, command: &str, now: Timestamp) -> Result<Self, StoreError> {
        let lock_path = place::beside(&place::real(path)?, ".lock");
        let file_error = |what, source| StoreError::File { path: lock_path.clone(), what, source };
        let mut lock = opened(&lock_path)
            .map_err(|e| file_error("cannot be opened; the directory must exist and be writable", e))?;
        place::must_be_plain(&lock).map_err(|e| file_error("cannot be the lock of the database", e))?;
        let in_use = |holder| StoreError::InUse { path: path.to_owned(), holder };
        let (mut tries, wait) = LOOKERS;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(file_error("cannot be locked", e)),
                Err(TryLockError::WouldBlock) => {}
            }
            match lock.try_lock_shared() {
                Ok(()) => lock.unlock().map_err(|e| file_error("cannot be unlocked", e))?,
                Err(_) => return Err(in_use(told_holder(&mut lock))),
            }
            tries -= 1;
            if tries == 0 {
                return Err(StoreError::DryRun(path.to_owned()));
            }
            std::thread::sleep(wait);
        }
        let told =
            format!("`komoju-sync {command}` (process {}) since {}", std::process::id(), time::written(now));
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(told.as_bytes()))
            .map_err(|e| file_error("cannot be written", e))?;
        Ok(Self { _lock: Some(lock) })
    }

    /// Keeps everybody else from working on the database at `path`, and writes nothing: where there is no lock's file, nobody
    /// works on it.
    pub fn share(path: &Path) -> Result<Self, StoreError> {
        let lock_path = place::beside(&place::real(path)?, ".lock");
        let file_error = |what, source| StoreError::File { path: lock_path.clone(), what, source };
        let mut lock = match OpenOptions::new().read(true).custom_flags(place::NO_LINKS).open(&lock_path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self { _lock: None }),
            other => other.map_err(|e| file_error("cannot be opened", place::in_words(e)))?,
        };
        place::must_be_plain(&lock).map_err(|e| file_error("cannot be the lock of the database", e))?;
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self { _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::InUse { path: path.to_owned(), holder: told_holder(&mut lock) })
            }
            Err(TryLockError::Error(e)) => Err(file_error("cannot be locked", e)),
        }
    }

    /// Who works on the database at `path`, if anybody. Writes nothing.
    pub fn holder(path: &Path) -> Result<Option<String>, StoreError> {
        match Self::share(path) {
            Err(StoreError::InUse { holder, .. }) => Ok(Some(holder)),
            // A lock's file that cannot be read says nothing about anybody.
            Err(StoreError::File { .. }) | Ok(_) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The lock's file, made where there is none. Root may be working in a directory that belongs to the service: what is made there is the
/// service's, or it could not start after a command of root's that failed.
fn opened(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640).custom_flags(place::NO_LINKS);
    // Whoever removes it in between is met again; nobody does so for ever.
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
            other => return other.map_err(place::in_words),
        }
    }
    Err(std::io::Error::other("it comes and goes"))
}

fn told_holder(lock: &mut File) -> String {
    let mut holder = String::new();
    let _ = lock.rewind().and_then(|()| lock.read_to_string(&mut holder));
    match holder.trim() {
        "" => "another komoju-sync".to_owned(),
        told => told.chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_is_neither_read_nor_written() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("precious"), "precious").unwrap();
        let lock = at("komoju.db.lock");
        let refused = |part: &str| {
            for told in [
                Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap_err(),
                Instance::share(&at("komoju.db")).unwrap_err(),
            ] {
                let source = std::error::Error::source(&told).map(ToString::to_string).unwrap_or_default();
                assert!(format!("{told}: {source}").contains(part), "{told}: {source}");
            }
            assert_eq!(std::fs::read(at("precious")).unwrap(), b"precious");
        };
        std::os::unix::fs::symlink(at("precious"), &lock).unwrap();
        refused("a symbolic link");
        std::fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), &lock).unwrap();
        refused("a symbolic link");
        assert!(!at("nowhere").exists());
        std::fs::remove_file(&lock).unwrap();
        std::fs::hard_link(at("precious"), &lock).unwrap();
        refused("a second name");
        std::fs::remove_file(&lock).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
        refused("no regular file");
        std::fs::remove_file(&lock).unwrap();
        drop(Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap());
    }

    #[test]
    fn a_lock_that_root_makes_is_the_services() {
        use std::os::unix::fs::{MetadataExt, chown};
        let directory = tempfile::TempDir::new().unwrap();
        if chown(directory.path(), Some(12_345), Some(12_346)).is_err() {
            // Not root: nothing to give away.
            return;
        }
        let path = directory.path().join("komoju.db");
        drop(Instance::take(&path, "restore", Timestamp::UNIX_EPOCH).unwrap());
        let lock = std::fs::metadata(place::beside(&path, ".lock")).unwrap();
        assert_eq!((lock.uid(), lock.gid()), (12_345, 12_346));
    }

    #[test]
    fn a_look_keeps_nobody_out_and_a_dry_run_is_named() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        drop(Instance::share(&path).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "who only looks leaves nothing");

        let now = Timestamp::UNIX_EPOCH;
        drop(Instance::take(&path, "run", now).unwrap());
        let sharing = Instance::share(&path).unwrap();
        assert_eq!(Instance::holder(&path).unwrap(), None, "nobody works on it");
        let refused = Instance::take(&path, "run", now).unwrap_err().to_string();
        assert!(refused.contains("sync --dry-run"), "{refused}");

        let starter = std::thread::spawn({
            let path = path.clone();
            move || Instance::take(&path, "run", now)
        });
        drop(sharing);
        let instance = starter.join().unwrap().unwrap();
        let holder = Instance::holder(&path).unwrap().unwrap();
        assert!(holder.starts_with("`komoju-sync run` (process "), "{holder}");
        assert!(Instance::share(&path).unwrap_err().to_string().contains(&holder));
        drop(instance);
    }
}
