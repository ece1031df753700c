//! Explains a failed statement by SQLite's result code and the state of the file.

use std::path::Path;

use super::{added, exhausted};
use crate::store::StoreError;

impl StoreError {
    /// Adds the file to the error of a statement, and distinguishes transient causes from lasting
    /// ones.
    pub fn with_path(self, path: &Path) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, ConstraintViolation, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull,
            NotADatabase, OutOfMemory, ReadOnly, SystemIoFailure, Unknown,
        };
        let source = match self {
            Self::Statement(source) => source,
            other => return other,
        };
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) if exhausted::is_unreadable(&path) => {
                Self::Io { path, source }
            }
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, why: source.to_string() },
            Some(DiskFull) => Self::Full(path),
            Some(DatabaseBusy | DatabaseLocked) => Self::Locked { path, source },
            Some(ReadOnly) => Self::ReadOnly(path),
            Some(OutOfMemory) => Self::Exhausted { path, what: "memory is", source },
            Some(CannotOpen) if exhausted::file_handles() => {
                Self::Exhausted { path, what: "file handles are", source }
            }
            Some(CannotOpen) if exhausted::may_be_opened(&path) => Self::Io { path, source },
            Some(CannotOpen) => Self::CannotOpen { path, source },
            Some(SystemIoFailure) if exhausted::is_mounted_read_only(&path) => Self::ReadOnly(path),
            Some(SystemIoFailure) => Self::Io { path, source },
            Some(ConstraintViolation | Unknown) => match added::named(&path) {
                Some(added) => Self::Obstructed { path, added, source },
                None => Self::Sqlite { path, source },
            },
            _ => Self::Sqlite { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rusqlite::{Connection, Error, ffi};
    use rustix::fs::{Access, access};
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn database_in_a_missing_directory_cannot_be_opened_and_the_error_says_what_must_exist() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("missing/komoju.db");
        let failed = StoreError::Statement(Connection::open(&path).unwrap_err());
        let message = failed.with_path(&path).to_string();
        assert!(message.contains("missing/komoju.db, or its -wal or -shm, cannot be opened"), "{message}");
        assert!(message.contains("its directory must exist"), "{message}");
    }

    #[test]
    fn statement_without_memory_fails_transiently_and_the_error_names_memory() {
        let failed = Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOMEM), None);
        let failed = StoreError::Statement(failed).with_path(Path::new("komoju.db"));
        assert!(failed.is_transient(), "{failed}");
        assert!(failed.to_string().contains("memory is exhausted"), "{failed}");
    }

    #[test]
    fn failed_write_on_a_read_only_file_system_is_not_transient() {
        let failed_at = |directory: &Path| {
            let failed = Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_WRITE), None);
            StoreError::Statement(failed).with_path(&directory.join("komoju.db"))
        };
        let writable = tempfile::TempDir::new().unwrap();
        assert!(failed_at(writable.path()).is_transient());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut paths = mounts.lines().filter_map(|mount| mount.split(' ').nth(1)).map(Path::new);
        // Another one may be mounted over it, so the list alone does not tell.
        let is_read_only =
            |path: &&Path| access(*path, Access::WRITE_OK) == Err(Errno::ROFS) && path.is_dir();
        let Some(mounted) = paths.find(is_read_only) else {
            let skipped = "#### NOT TESTED: no file system is mounted read-only ####\n";
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return;
        };
        let failed = failed_at(mounted);
        assert!(!failed.is_transient(), "{failed}");
        assert!(failed.to_string().contains("its file system is not mounted writable"), "{failed}");
    }
}
