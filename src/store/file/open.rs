//! Opening the database file, after checks of its application id, its structure and its version.
//!
//! The application id is read from the file's header, byte by byte, before SQLite opens the file.
//! SQLite can write to a foreign database when it opens it, because it rolls back a left-over
//! journal. Only a file with our application id is opened, and only one that passes the checks is
//! migrated. A missing or empty file becomes a new database.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::inspect::{
    APPLICATION_ID, OTHER_PROGRAM, check_before_writing, check_version, is_blank, is_empty, must_be_ours,
    must_be_there, newer_than_us, read_header, refuse_left_over, stands_alone,
};
use super::migrations::MIGRATIONS;
use super::{instance, place, signature};
use crate::store::{Instance, StoreError};

/// BUSY controls how long a writer waits for another one before it fails.
pub(in crate::store) const BUSY: Duration = Duration::from_secs(10);

/// CLOSE_ATTEMPTS controls how often closing a database is tried while another program keeps
/// opening it.
const CLOSE_ATTEMPTS: u32 = 5;

/// Named as the holder where a program that is not komoju-sync has the database open.
const ANOTHER_PROGRAM: &str =
    "another program that has it open (an SQL client, a report): close that, and try again";

/// STATEMENTS controls how many compiled statements a connection keeps. It is above the number of
/// statements of a push or a pass (about 120 in the whole store), so that none is compiled twice.
/// Compiling a statement costs more than its execution, because the triggers of its table are
/// compiled with it.
const STATEMENTS: usize = 256;

/// BUSY_WITHOUT_TRACE controls how long a connection of [`without_trace`] waits for a lock.
const BUSY_WITHOUT_TRACE: Duration = Duration::from_secs(2);

/// Opens `path` for writing. Creates and migrates the database where needed.
pub fn for_writing(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    let found = read_header(path)?;
    if found.is_none() {
        refuse_left_over(path)?;
        create_empty(path)?;
    }
    let mut conn = writable(path)?;
    if let Some(bytes) = found {
        check_before_writing(&conn, path, bytes)?;
    }
    let result = (|| {
        if conn.pragma_query_value(None, "application_id", |row| row.get::<_, u32>(0))? != APPLICATION_ID {
            // Set the id before WAL mode, so that the header has it from the first page on. Without
            // a journal on disk it is one write. A process that ends here leaves a new file or one
            // of ours, but none to be rolled back.
            conn.pragma_update(None, "journal_mode", "memory")?;
            conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        configure_writer(&conn)?;
        migrate(&mut conn, path)?;
        Ok(conn)
    })();
    result.map_err(|e: StoreError| e.with_path(path))
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    MIGRATIONS.to_latest(conn).map_err(|e| match e {
        // Report SQLite's own error, such as a full disk.
        rusqlite_migration::Error::RusqliteError { err, .. } => StoreError::Statement(err),
        source => StoreError::Migration { path: path.to_owned(), source },
    })
}

/// Opens an existing `path` for an operator's command, which may write while the daemon runs. Never
/// migrates.
pub fn for_operator(path: &Path) -> Result<Connection, StoreError> {
    let bytes = must_be_ours(path)?;
    instance::refuse_second_name(path)?;
    let conn = writable(path)?;
    check_before_writing(&conn, path, bytes)?;
    // Check before the journal mode is set, because setting it would change a file with another
    // schema.
    check_version(&conn, path).and_then(|()| configure_writer(&conn)).map_err(|e| e.with_path(path))?;
    Ok(conn)
}

/// Opens a copy that no other process uses, to make a database of it. Includes the commits of its
/// `-wal` or `-journal` in the file, and migrates the schema.
pub(in crate::store) fn for_restore(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    must_be_ours(path)?;
    let mut conn = writable(path)?;
    newer_than_us(&conn, path)?;
    if is_empty(&conn)? {
        return Err(StoreError::Missing(path.to_owned()));
    }
    configure_writer(&conn)?;
    conn.pragma_update(None, "journal_mode", "delete")?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// The file at the path where a database is to be put.
#[derive(Debug)]
pub(in crate::store) enum TargetFile {
    /// No file, or an empty one.
    Absent,
    /// A database of ours, closed, with all commits in its file. No other process can use it while
    /// this connection is open.
    Closed(Connection),
    /// A file that cannot be opened as a database.
    Damaged,
}

/// Moves all commits of the database at `path` into its file and locks it against all other
/// processes, so that it can be moved away. A damaged database is left unchanged.
///
/// # Errors
/// Another program has it open, or it is another program's database.
pub(in crate::store) fn for_replacement(path: &Path) -> Result<TargetFile, StoreError> {
    match read_header(path) {
        Ok(None) => return Ok(TargetFile::Absent),
        Ok(Some(_)) => {}
        Err(StoreError::Foreign { why, .. }) if why != OTHER_PROGRAM => return Ok(TargetFile::Damaged),
        Err(StoreError::Damaged { .. }) => return Ok(TargetFile::Damaged),
        Err(other) => return Err(other),
    }
    let closed = || -> Result<Connection, StoreError> {
        let conn = writable(path)?;
        for _ in 0..CLOSE_ATTEMPTS {
            // Only the last connection can leave WAL mode. SQLite then copies `-wal` into the
            // database and removes `-wal` and `-shm`.
            let mode: String = conn.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
            conn.execute_batch("BEGIN EXCLUSIVE")?;
            // Another process may have opened it in between and set WAL mode again.
            let still: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            if (mode.as_str(), still.as_str()) == ("delete", "delete") {
                return Ok(conn);
            }
            conn.execute_batch("ROLLBACK")?;
        }
        Err(StoreError::InUse { path: path.to_owned(), holder: ANOTHER_PROGRAM.to_owned() })
    };
    match closed().map_err(|e| e.with_path(path)) {
        Ok(conn) => Ok(TargetFile::Closed(conn)),
        Err(StoreError::Damaged { .. }) => Ok(TargetFile::Damaged),
        Err(e) if e.is_busy() => {
            Err(StoreError::InUse { path: path.to_owned(), holder: ANOTHER_PROGRAM.to_owned() })
        }
        Err(other) => Err(other),
    }
}

/// Opens an existing `path` for reading; the connection cannot write.
pub fn for_reading(path: &Path) -> Result<Connection, StoreError> {
    let conn = of_any_version(path)?;
    check_version(&conn, path).map_err(|e| e.with_path(path))?;
    Ok(conn)
}

/// Like [`for_reading`], also for an older schema.
pub(in crate::store) fn of_any_version(path: &Path) -> Result<Connection, StoreError> {
    must_be_there(path)?;
    instance::refuse_second_name(path)?;
    let opened = || {
        let conn = read_only(path, OpenFlags::empty(), BUSY)?;
        newer_than_us(&conn, path).map(|_| conn)
    };
    opened().map_err(|e: StoreError| e.with_path(path))
}

fn read_only(name: &Path, flags: OpenFlags, wait: Duration) -> Result<Connection, StoreError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(name, flags)?;
    conn.busy_timeout(wait)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    Ok(conn)
}

/// Opens an existing `path`, of this schema or an older one, for reading. Creates and changes no
/// file.
///
/// An ordinary reader creates a missing `-wal` and `-shm` where it may, and writes its read mark
/// into the `-shm`. This connection uses the read marks of other processes. Where one of the files
/// is missing, it reads the database file alone, as if no process could write to it.
///
/// # Errors
/// [`StoreError::Refused`] where that would be wrong, because a process uses the database or its
/// `-wal` has content.
pub fn without_trace(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    must_be_there(path)?;
    instance::refuse_second_name(path)?;
    let real = place::real(path)?;
    let is_whole = ["-wal", "-shm"].into_iter().all(|suffix| place::sibling(&real, suffix).exists());
    if !is_whole {
        let wal = std::fs::metadata(place::sibling(&real, "-wal")).map_or(0, |wal| wal.len());
        if wal > 0 || Instance::holder(path)?.is_some() {
            return Err(StoreError::Refused(format!(
                "{} cannot be read without making its missing -wal or -shm, and its last changes may be in them",
                path.display()
            )));
        }
    }
    let how = if is_whole { "readonly_shm=1" } else { "immutable=1" };
    let opened = || {
        let name = place::uri(&real, &format!("mode=ro&{how}"));
        let conn = read_only(name.as_ref(), OpenFlags::SQLITE_OPEN_URI, BUSY_WITHOUT_TRACE)?;
        match newer_than_us(&conn, path)? {
            0 => Err(StoreError::Missing(path.to_owned())),
            _ => Ok(conn),
        }
    };
    opened().map_err(|e: StoreError| e.with_path(path))
}

/// Opens an existing `path` for reading, after the checks of a connection that writes.
pub fn checked_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let bytes = must_be_ours(path)?;
    let conn = for_reading(path)?;
    check_before_writing(&conn, path, bytes)?;
    Ok(conn)
}

/// Opens `path` for a dry run, after the checks of a connection that writes. A missing database
/// becomes an empty one in memory. The only file that may be created is a `-shm` next to a `-wal`,
/// where the last commits cannot be read otherwise.
///
/// A database without `-wal` and `-shm` is read as one that no process writes to. For that it is
/// locked, and the lock is returned.
pub fn for_dry_run(path: &Path) -> Result<(Connection, Option<Instance>), StoreError> {
    match must_be_there(path) {
        Err(StoreError::Missing(_)) => return Ok((empty(path)?, None)),
        other => other?,
    }
    let real = place::real(path)?;
    let is_whole = ["-wal", "-shm"].into_iter().all(|suffix| place::sibling(&real, suffix).exists());
    let (conn, lock) = match is_whole || stands_alone(path) {
        true => (of_any_version(path)?, None),
        // An ordinary reader would create the missing files.
        false => match (without_trace(path), Instance::share(path)) {
            (Ok(conn), Ok(lock)) => (conn, Some(lock)),
            (Err(StoreError::Refused(_)), _) | (Ok(_), Err(StoreError::InUse { .. })) => {
                (of_any_version(path)?, None)
            }
            (Err(e), _) | (_, Err(e)) => return Err(e),
        },
    };
    let check = || {
        check_before_writing(&conn, path, must_be_ours(path)?)?;
        check_version(&conn, path)
    };
    check().map_err(|e| e.with_path(path))?;
    Ok((conn, lock))
}

/// Returns a new database in memory. `path` is named in errors.
fn empty(path: &Path) -> Result<Connection, StoreError> {
    let mut conn = Connection::open_in_memory()?;
    signature::sign(&conn)?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// Returns a new database in memory.
#[cfg(test)]
pub fn in_memory() -> Connection {
    empty(Path::new(":memory:")).expect("memory opens")
}

fn configure_writer(conn: &Connection) -> Result<(), StoreError> {
    conn.pragma_update(None, "journal_mode", "wal")?;
    // In pages. An import writes many pages repeatedly, so fewer checkpoints write fewer of them to
    // the database.
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    // A weaker setting may lose a commit at a power failure.
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // Overwrite what is deleted or redacted.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// Runs work that sorts or copies more than fits into memory, and handles no payment token as plain
/// text. Its temporary files have no name and are removed when they are closed.
pub(in crate::store) fn with_temporary_files<T>(
    conn: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    conn.pragma_update(None, "temp_store", "file")?;
    let worked = work(conn);
    // Too short to be interrupted.
    conn.pragma_update(None, "temp_store", "memory")?;
    worked.map_err(|e| match (e, conn.path()) {
        (StoreError::Statement(e), Some(path)) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            StoreError::FullTemporaryFiles(path.into())
        }
        (e, _) => e,
    })
}

/// Returns a connection that can write but has not written. If it is closed now, the database is
/// unchanged.
fn writable(path: &Path) -> Result<Connection, StoreError> {
    let open = || -> Result<Connection, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        // A clean stop must leave `-wal` and `-shm`: without them a reader that may not write
        // cannot open the database.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // A large sort must not leave payment tokens in a temporary file. Set this before anything
        // is read, because a change makes SQLite read the schema again.
        conn.pragma_update(None, "temp_store", "memory")?;
        signature::sign(&conn)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(conn)
    };
    open().map_err(|e| e.with_path(path))
}

/// Creates the file, readable only by its owner and group. SQLite gives `-wal` and `-shm` the same
/// mode.
fn create_empty(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        // SQLite takes a page of zeros for another program's file.
        .and_then(|file| if is_blank(&file)? { file.set_len(0) } else { Ok(()) })
        .map_err(|source| StoreError::File { path: path.to_owned(), what: "cannot be made", source })
}

/// Versions before 3.51.3 can damage a database when a checkpoint races a commit.
fn assert_safe_sqlite() -> Result<(), StoreError> {
    match rusqlite::version_number() {
        n if n >= 3_051_003 => Ok(()),
        _ => Err(StoreError::OldSqlite(rusqlite::version().to_owned())),
    }
}

#[cfg(test)]
mod tests;
