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
