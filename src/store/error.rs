//! What can go wrong with the database, said for people.

use std::path::{Path, PathBuf};

/// Why the database could not be used, or a command on it not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no file yet.
    #[error("there is no database at {} yet; `komoju-sync sync` or `komoju-sync run` makes it", .0.display())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("{} is not a komoju-sync database ({why}); it was left as it is. Set database.path to another place", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The file was written by a later version of this program.
    #[error(
        "{} was written by a newer komoju-sync (schema {found}, this one knows {known}); it was left as it is. \
         Install the newer version again", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite or our own checks found damage.
    #[error("{} is damaged ({why}). Restore a backup, or move it away with its -wal and -shm and import anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// There is no file, and something beside it that belongs to one.
    #[error(
        "there is no database at {}, but {} holds what one had not taken over yet; it was left as it is. Put the database back \
         beside it, or move it away to begin anew", .path.display(), .left_over.display()
    )]
    LeftOver {
        /// The missing file.
        path: PathBuf,
        /// What stands beside it.
        left_over: PathBuf,
    },
    /// Another instance works on it.
    #[error("{} is in use by {holder}", .path.display())]
    InUse {
        /// The database.
        path: PathBuf,
        /// Which process, and since when.
        holder: String,
    },
    /// The file system said no.
    #[error("{} {what}", .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// The program was built against an SQLite that may damage files.
    #[error(
        "this program is linked to SQLite {0}, which can damage a database under load; 3.51.3 is the oldest that is safe"
    )]
    OldSqlite(String),
    /// No room to write.
    #[error("there is no room to write {}: the disk is full. Make room and start again; nothing that was recorded is lost", .0.display())]
    Full(PathBuf),
    /// A statement failed.
    #[error("the database at {} failed", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A statement failed; the file is added by whoever knows it.
    #[error(transparent)]
    Statement(#[from] rusqlite::Error),
    /// The schema could not be brought up to date.
    #[error("the schema of {} could not be brought up to date", .path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// The migration's words.
        source: rusqlite_migration::Error,
    },
    /// A row says what no row of ours says.
    #[error("the database holds something that this program never wrote: {0}; run `komoju-sync verify`")]
    Impossible(String),
    /// The request makes no sense for what the database holds.
    #[error("{0}")]
    Refused(String),
    /// The writer's thread is gone.
    #[error("the database was closed")]
    Closed,
}

impl StoreError {
    /// Adds the file to a bare statement's error, and tells damage from other failures.
    pub fn about(self, path: &Path) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        match self {
            Self::Statement(source) => match source.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => {
                    Self::Damaged { path: path.to_owned(), why: source.to_string() }
                }
                Some(DiskFull) => Self::Full(path.to_owned()),
                _ => Self::Sqlite { path: path.to_owned(), source },
            },
            other => other,
        }
    }

    /// Whether somebody else kept the database locked for longer than we wait: that passes.
    pub fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let (Self::Sqlite { source, .. } | Self::Statement(source)) = self else { return false };
        matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
    }

    /// Whether it was ended on request.
    pub fn is_interrupted(&self) -> bool {
        let (Self::Sqlite { source, .. } | Self::Statement(source)) = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
    }

    /// Whether the database itself cannot be used (exit code 5), as against a command that could not be done.
    pub fn is_unusable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<crate::model::change::ImpossibleChange> for StoreError {
    fn from(change: crate::model::change::ImpossibleChange) -> Self {
        Self::Impossible(change.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_passes_and_other_failures_do_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("db");
        let open = || {
            let conn = rusqlite::Connection::open(&path).unwrap();
            conn.busy_timeout(std::time::Duration::ZERO).unwrap();
            conn
        };
        let (holder, other) = (open(), open());
        holder.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE").unwrap();
        let locked = StoreError::from(other.execute_batch("BEGIN IMMEDIATE").unwrap_err());
        assert!(locked.is_busy());
        assert!(locked.about(&path).is_busy());
        let wrong = StoreError::from(other.execute_batch("SELECT nothing").unwrap_err());
        assert!(!wrong.is_busy() && !StoreError::Closed.is_busy());
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 2").unwrap();
        let full = StoreError::from(conn.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err());
        let told = full.about(Path::new("/there/komoju.db")).to_string();
        assert!(
            told.starts_with("there is no room to write /there/komoju.db: the disk is full. Make room"),
            "{told}"
        );
    }
}
