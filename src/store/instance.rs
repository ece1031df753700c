//! One instance works on a database at a time: a lock on a file beside it, which the kernel lets go when the process ends,
//! however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::StoreError;
use crate::model::time;

/// Whether taking the lock may leave a file behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Makes the lock's file where it is missing.
    Make,
    /// Writes nothing: where there is no lock's file, nobody can hold it.
    LookOnly,
}

/// The right to work on a database; ends when dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: Option<File>,
}

impl Instance {
    /// Takes the database at `path` for `command`, or says who has it and since when.
    pub fn take(path: &Path, command: &str, now: Timestamp, mode: Mode) -> Result<Self, StoreError> {
        let lock_path = lock_path(path)?;
        let file_error = |what, source| StoreError::File { path: lock_path.clone(), what, source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(mode == Mode::Make).truncate(false).mode(0o640);
        let mut lock = match options.open(&lock_path) {
            Err(e) if mode == Mode::LookOnly && e.kind() == ErrorKind::NotFound => {
                return Ok(Self { _lock: None });
            }
            other => other
                .map_err(|e| file_error("cannot be opened; the directory must exist and be writable", e))?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.to_owned(), holder: told_holder(&mut lock) });
            }
            Err(TryLockError::Error(e)) => return Err(file_error("cannot be locked", e)),
        }
        if mode == Mode::Make {
            let told = format!(
                "`komoju-sync {command}` (process {}) since {}",
                std::process::id(),
                time::written(now)
            );
            lock.set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| lock.write_all(told.as_bytes()))
                .map_err(|e| file_error("cannot be written", e))?;
        }
        Ok(Self { _lock: Some(lock) })
    }
}

impl Instance {
    /// Who has the database at `path`, if anybody. Takes nothing and writes nothing.
    pub fn holder(path: &Path) -> Result<Option<String>, StoreError> {
        let Ok(mut lock) = File::open(lock_path(path)?) else { return Ok(None) };
        // Shared: two who only look do not take each other for a holder.
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Ok(Some(told_holder(&mut lock))),
            _ => Ok(None),
        }
    }
}

fn told_holder(lock: &mut File) -> String {
    let mut holder = String::new();
    let _ = lock.read_to_string(&mut holder);
    match holder.trim() {
        "" => "another komoju-sync".to_owned(),
        told => told.chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}

/// `DATABASE.lock`, beside the real file: two names of one database share one lock.
fn lock_path(path: &Path) -> Result<PathBuf, StoreError> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(_) => {
            let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let real = directory.canonicalize().map_err(|source| StoreError::File {
                path: directory.to_owned(),
                what: "is the directory that database.path names; it cannot be used",
                source,
            })?;
            real.join(path.file_name().unwrap_or_default())
        }
    };
    let mut name = real.into_os_string();
    name.push(".lock");
    Ok(name.into())
}
