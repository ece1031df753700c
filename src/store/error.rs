//! Errors of the database, with messages for the operator.

use std::io;
use std::path::PathBuf;

/// Why the database cannot be used, or why a command on it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file does not exist yet.
    #[error("there is no database at {} yet; `komoju-sync sync` or `komoju-sync run` makes it", .0.display())]
    Missing(PathBuf),
    /// The file is not a database of this program.
    #[error("{} is not a komoju-sync database ({why}); it was left as it is. Set database.path to another place", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the file is instead.
        why: String,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "{} was written by a newer komoju-sync (schema {found}, this one knows {known}); it was left as it is. \
         Install the newer version again", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version that this program writes.
        known: i64,
    },
    /// SQLite or our own checks found damage. To SQLite a read that the disk fails looks the same,
    /// so the message must not lead the operator to discard a good database.
    #[error(
        "{} is damaged ({why}), or its disk failed to read it: check the kernel's log for disk errors, and start again. If this \
         message appears again, restore a backup, or move it away with its -wal and -shm and import again", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The file is missing, but a `-wal` or `-journal` with content is left of it.
    #[error(
        "there is no database at {}, but {} holds commits of a database; it was left as it is. Put that database back, or \
         move this file away to start with an empty database", .path.display(), .left_over.display()
    )]
    LeftOver {
        /// The path of the database.
        path: PathBuf,
        /// The file that is left.
        left_over: PathBuf,
    },
    /// The file is missing, but a copy exists that was saved when the file was removed.
    #[error(
        "there is no database at {}, but {} is a copy that was saved when it was moved or removed. To continue with that: {put_back}. \
         To start with an empty database, move the copy away", .path.display(), .saved.display()
    )]
    Removed {
        /// The path of the database.
        path: PathBuf,
        /// The copy.
        saved: PathBuf,
        /// The commands that put the copy back.
        put_back: String,
    },
    /// Another instance uses the database.
    #[error(
        "{} is in use by {holder}. Only one process can work on a database at a time: stop that process first, or let it \
         finish", .path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
        /// Which process, and since when.
        holder: String,
    },
    /// `restore` or a dry run reads the database under a shared lock.
    #[error(
        "{} is being read by `komoju-sync restore` or `komoju-sync sync --dry-run`, which ends by itself", .0.display()
    )]
    BeingRead(PathBuf),
    /// An operation of the file system failed.
    #[error("{} {what}{}", .path.display(), way_out(.source))]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What failed, as the end of a sentence that begins with the path.
        what: &'static str,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The program is linked to a version of SQLite that can damage files.
    #[error(
        "this program is linked to SQLite {0}, which can damage a database under load; 3.51.3 is the oldest that is safe"
    )]
    OldSqlite(String),
    /// There is no room to write.
    #[error(
        "there is no room to write {}: the disk is full. Make room; the service then continues by itself. Run a failed command again. \
         Nothing that was recorded is lost", .0.display()
    )]
    Full(PathBuf),
    /// There is no room to write, or none for temporary files.
    #[error(
        "there is no room to write {}, or in SQLite's directory for temporary files ($SQLITE_TMPDIR, else $TMPDIR, /var/tmp or /tmp): the \
         disk is full. Make room; the service then continues by itself. Run a failed command again. Nothing that was recorded is lost",
        .0.display()
    )]
    FullTemporaryFiles(PathBuf),
    /// The process or the machine has run out of a resource that it may get back.
    #[error(
        "{} cannot be used for now: {what} exhausted. The service then continues by itself. Run a failed command again. See what uses \
         them (`ls /proc/PID/fd`, `ulimit -n`, `sysctl fs.file-nr`, `free`), or raise the limit", .path.display()
    )]
    Exhausted {
        /// The file.
        path: PathBuf,
        /// The exhausted resource, with its verb.
        what: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The disk failed to read or write.
    #[error(
        "{} cannot be read or written for now: check whether its disk or quota is full, its file system is not mounted writable, or \
         its disk is broken (see the kernel's log). The service retries by itself. Run a failed command again. Nothing that was \
         recorded is lost", .path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Another program holds a lock on the database.
    #[error(
        "{} is locked by another program, which writes or keeps a transaction open; `komoju-sync doctor` names the program",
        .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The database can be read but not written.
    #[error(
        "{} is read-only: its file system is not mounted writable, or it belongs to another user. Members of its group drop files into \
         outbound.spool_dir; only its owner and root write to it", .0.display()
    )]
    ReadOnly(PathBuf),
    /// SQLite cannot open the file or one next to it, for a lasting reason.
    #[error(
        "{}, or its -wal or -shm, cannot be opened: its directory must exist, and this user must be allowed to write there", .path.display()
    )]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A statement failed, and other programs added objects to the schema.
    #[error(
        "{} refused what komoju-sync writes, and its schema holds objects that komoju-sync did not make: {added}. Drop the one that is in \
         the way (an index or trigger with `DROP INDEX` or `DROP TRIGGER`; a table whose foreign key refers to ours with `DROP TABLE`), \
         then start again", .path.display()
    )]
    Obstructed {
        /// The file.
        path: PathBuf,
        /// The added objects.
        added: String,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A statement failed, and none of the other causes applies.
    #[error(
        "the database at {} refused a statement of komoju-sync; run `komoju-sync verify`, and report this with the log",
        .path.display()
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The file at the path is an older state of the log that was used before.
    #[error(
        "{} is not the database that was used here last: its change log ends at change {found} or differs before it, and the log {log_id} \
         had reached change {known}. It was put in place by hand, and was left as it is. {way_back}", .path.display()
    )]
    OlderLog {
        /// The file.
        path: PathBuf,
        /// The log's id.
        log_id: String,
        /// The last change in this file.
        found: i64,
        /// The last change that the log is known to have had.
        known: i64,
        /// The commands to continue with.
        way_back: String,
    },
    /// The path leads to another file, or to none, while this process has the database open.
    #[error("{} was {what} while komoju-sync used it. {way_back}", .path.display())]
    Displaced {
        /// The path.
        path: PathBuf,
        /// What happened to it.
        what: &'static str,
        /// What was saved, and the commands to continue with.
        way_back: String,
    },
    /// A statement failed. [`StoreError::with_path`] adds the file.
    #[error(transparent)]
    Statement(#[from] rusqlite::Error),
    /// The schema could not be brought up to date.
    #[error("the schema of {} could not be brought up to date", .path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// The error of the migration.
        source: rusqlite_migration::Error,
    },
    /// A row contains a value that this program never writes.
    #[error("the database holds something that this program never wrote: {0}; run `komoju-sync verify`")]
    Impossible(String),
    /// The request does not fit the state of the database. The text is the whole message.
    #[error("{0}")]
    Refused(String),
    /// The file is a backup. `restore` makes a database of it.
    #[error(
        "{} is a backup: intents that are open in it may have been carried out since. To make a database of it, use \
         `komoju-sync restore`", .0.display()
    )]
    IsBackup(PathBuf),
    /// The file that was given to `restore` cannot be restored.
    #[error("{} cannot be restored: {why}. Nothing was changed", .path.display())]
    NotRestorable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The work was stopped before it was done.
    #[error("stopped before the end; nothing was changed")]
    Stopped,
    /// The writer's thread has ended.
    #[error("the database was closed")]
    Closed,
}

impl StoreError {
    /// Returns whether there is no database file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::LeftOver { .. } | Self::Removed { .. })
    }

    /// Returns whether another program kept the database locked for longer than we wait.
    pub fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let (Self::Locked { source, .. } | Self::Statement(source)) = self else { return false };
        matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
    }

    /// Returns whether the condition may end by itself. Such conditions are another program's lock,
    /// a restore that copies the database, and a full disk. Others are exhausted file handles or
    /// memory, and a disk that fails for a while. The daemon retries; a command exits 1.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full(_)
            | Self::FullTemporaryFiles(_)
            | Self::Exhausted { .. }
            | Self::Io { .. }
            | Self::BeingRead(_) => true,
            Self::File { source, .. } => is_transient_io(source),
            other => other.is_busy(),
        }
    }

    /// Returns whether the statement was interrupted on request.
    pub fn is_interrupted(&self) -> bool {
        let (Self::Sqlite { source, .. } | Self::Statement(source)) = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
    }

    /// Returns whether the database itself cannot be used (exit code 5). Otherwise only this
    /// command failed.
    pub fn is_unusable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Stopped => false,
            // Another instance uses it.
            Self::BeingRead(_) => true,
            other => !other.is_transient(),
        }
    }
}

/// Returns whether the kernel may grant later what it refused now.
pub fn is_transient_io(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOSPC
                | libc::EDQUOT
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::EIO
                | libc::EAGAIN
                | libc::EINTR
        )
    )
}

/// Returns what to do about an error of the file system, where the message does not say it already.
fn way_out(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => " (make room on its disk, then start again)",
        Some(libc::EROFS) => " (mount its file system writable, then start again)",
        Some(libc::EIO) => " (check the kernel's log for disk errors, then start again)",
        Some(libc::EMFILE | libc::ENFILE) => {
            " (find the program that has so many files open, or raise the limit)"
        }
        _ => "",
    }
}

impl From<komoju_core::change::ImpossibleChange> for StoreError {
    fn from(change: komoju_core::change::ImpossibleChange) -> Self {
        Self::Impossible(change.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_a_lock_is_busy() {
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
        assert!(locked.with_path(&path).is_busy());
        let wrong = StoreError::from(other.execute_batch("SELECT nothing").unwrap_err());
        assert!(!wrong.is_busy() && !StoreError::Closed.is_busy());
    }

    #[test]
    fn full_disk_error_says_what_to_do() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 2").unwrap();
        let full = StoreError::from(conn.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err());
        let message = full.with_path(Path::new("/there/komoju.db")).to_string();
        assert!(
            message.starts_with("there is no room to write /there/komoju.db: the disk is full. Make room;"),
            "{message}"
        );
    }
}
