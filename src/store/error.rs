//! What can go wrong with the database, said for people.

use std::io;
use std::path::PathBuf;

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
    /// SQLite or our own checks found damage. A read that the disk fails looks the same to SQLite, and must cost nobody a good database.
    #[error(
        "{} is damaged ({why}), or its disk failed to read it: see what the kernel's log says of the disk, and start again. If this \
         message appears again, restore a backup, or move it away with its -wal and -shm and import again", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// There is no file, and something beside it that belongs to one.
    #[error(
        "there is no database at {}, but {} holds what one had not taken over yet; it was left as it is. Put the database back \
         beside it, or move it away to start with an empty database", .path.display(), .left_over.display()
    )]
    LeftOver {
        /// The missing file.
        path: PathBuf,
        /// What stands beside it.
        left_over: PathBuf,
    },
    /// There is no file, and a copy that was saved when it was removed.
    #[error(
        "there is no database at {}, but {} holds what was saved when it was moved or removed. To continue with that: {put_back}. To begin \
         with an empty one, move it away", .path.display(), .saved.display()
    )]
    Removed {
        /// The missing file.
        path: PathBuf,
        /// The copy.
        saved: PathBuf,
        /// Commands.
        put_back: String,
    },
    /// Another instance works on it.
    #[error("{} is in use by {holder}. One works on a database at a time: stop that one first, or leave it to its work", .path.display())]
    InUse {
        /// The database.
        path: PathBuf,
        /// Which process, and since when.
        holder: String,
    },
    /// A restore that copies it keeps a shared lock.
    #[error(
        "{} is being read by `komoju-sync restore` or `komoju-sync sync --dry-run`, which ends by itself", .0.display()
    )]
    BeingRead(PathBuf),
    /// The file system said no.
    #[error("{} {what}{}", .path.display(), way_out(.source))]
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
    #[error(
        "there is no room to write {}: the disk is full. Make room; the service then continues by itself. Run a failed command again. \
         Nothing that was recorded is lost", .0.display()
    )]
    Full(PathBuf),
    /// No room to write, or for what is set aside meanwhile.
    #[error(
        "there is no room to write {}, or in SQLite's directory for temporary files ($SQLITE_TMPDIR, else $TMPDIR, /var/tmp or /tmp): the \
         disk is full. Make room; the service then continues by itself. Run a failed command again. Nothing that was recorded is lost",
        .0.display()
    )]
    FullTemporaryFiles(PathBuf),
    /// The process or the machine has run out of something that others may give back.
    #[error(
        "{} cannot be used for now: {what} exhausted. The service then continues by itself. Run a failed command again. See what uses \
         them (`ls /proc/PID/fd`, `ulimit -n`, `sysctl fs.file-nr`, `free`), or raise the limit", .path.display()
    )]
    Exhausted {
        /// The file.
        path: PathBuf,
        /// What is exhausted, with its verb.
        what: &'static str,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// The disk failed to read or write.
    #[error(
        "{} cannot be read or written for now: see whether its disk or quota is full, not mounted writable or broken (the kernel's log \
         tells). The service tries again by itself. Run a failed command again. Nothing that was recorded is lost", .path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// Somebody else holds a lock on it.
    #[error(
        "{} is locked by another program, which writes or keeps a transaction open; `komoju-sync doctor` names who has it open",
        .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// It can be read and no more.
    #[error(
        "{} can only be read: its file system is not mounted writable, or it belongs to another user. Members of its group drop files into \
         outbound.spool_dir; only its owner and root write to it", .0.display()
    )]
    ReadOnly(PathBuf),
    /// SQLite cannot open the file or one beside it, for a reason that does not pass.
    #[error(
        "{}, or its -wal or -shm, cannot be opened: its directory must exist, and this user must be allowed to write there", .path.display()
    )]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A statement failed, in a file to whose schema others have added something.
    #[error(
        "{} refused what komoju-sync writes, and its schema holds objects that komoju-sync did not make: {added}. Drop the one that is in \
         the way (an index or trigger with `DROP INDEX` or `DROP TRIGGER`; a table whose foreign key refers to ours with `DROP TABLE`), \
         then start again", .path.display()
    )]
    Obstructed {
        /// The file.
        path: PathBuf,
        /// What was added.
        added: String,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A statement failed for a reason of its own.
    #[error(
        "the database at {} refused a statement of komoju-sync; run `komoju-sync verify`, and report this with the log",
        .path.display()
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// The file at the path is an older state of the log that was worked on before.
    #[error(
        "{} is not the database that was used here last: its change log ends at change {found} or differs before it, and the log {log_id} \
         had reached change {known}. It was put in place by hand, and was left as it is. {way_back}", .path.display()
    )]
    OlderLog {
        /// The file.
        path: PathBuf,
        /// The log's id.
        log_id: String,
        /// Where it ends.
        found: i64,
        /// Where the log had ended.
        known: i64,
        /// Commands.
        way_back: String,
    },
    /// The path leads to another file, or to none, while this process has the database open.
    #[error("{} was {what} while komoju-sync used it. {way_back}", .path.display())]
    Displaced {
        /// The path.
        path: PathBuf,
        /// What happened to it.
        what: &'static str,
        /// What was saved, and commands.
        way_back: String,
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
    /// It is a backup, to be restored.
    #[error(
        "{} is a backup, in which intents may be open that were carried out since. `komoju-sync restore` makes a database of it", .0.display()
    )]
    IsBackup(PathBuf),
    /// A file that was to be restored cannot be.
    #[error("{} cannot be restored: {why}. Nothing was changed", .path.display())]
    NotRestorable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It was told to end before it was done.
    #[error("stopped before the end; nothing was changed")]
    Stopped,
    /// The writer's thread is gone.
    #[error("the database was closed")]
    Closed,
}

impl StoreError {
    /// Whether there is no database file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::LeftOver { .. } | Self::Removed { .. })
    }

    /// Whether another program kept the database locked for longer than we wait.
    pub fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let (Self::Locked { source, .. } | Self::Statement(source)) = self else { return false };
        matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
    }

    /// Whether it may be over by itself: another program's lock, a restore that copies it, a full disk, exhausted file handles or memory, a disk that
    /// fails for a while. The daemon tries again; a command exits 1.
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

    /// Whether it was ended on request.
    pub fn is_interrupted(&self) -> bool {
        let (Self::Sqlite { source, .. } | Self::Statement(source)) = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
    }

    /// Whether the database itself cannot be used (exit code 5), as against a command that could not be done.
    pub fn is_unusable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Stopped => false,
            // In use by another instance.
            Self::BeingRead(_) => true,
            other => !other.is_transient(),
        }
    }
}

/// Whether what the kernel refused may be granted later.
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

/// What to do about a file system's no, where that does not say it already.
fn way_out(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => " (make room on its disk, then start again)",
        Some(libc::EROFS) => " (mount its file system writable, then start again)",
        Some(libc::EIO) => " (see what the kernel's log says of the disk, then start again)",
        Some(libc::EMFILE | libc::ENFILE) => {
            " (see which program has so many files open, or raise the limit)"
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
        assert!(locked.with_path(&path).is_busy());
        let wrong = StoreError::from(other.execute_batch("SELECT nothing").unwrap_err());
        assert!(!wrong.is_busy() && !StoreError::Closed.is_busy());
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 2").unwrap();
        let full = StoreError::from(conn.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err());
        let told = full.with_path(Path::new("/there/komoju.db")).to_string();
        assert!(
            told.starts_with("there is no room to write /there/komoju.db: the disk is full. Make room;"),
            "{told}"
        );
    }
}
