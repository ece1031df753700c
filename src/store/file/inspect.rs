//! Checks a database file before it is used: application id, integrity, schema version. Writes
//! nothing.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::migrations::known_version;
use crate::store::StoreError;
use crate::store::file::identity::handle;
use crate::store::file::{displaced, place};

/// APPLICATION_ID is "KMJS". In the header of a file it says that the file is ours (`PRAGMA
/// application_id`).
pub const APPLICATION_ID: u32 = 0x4B4D_4A53;

/// CHECKED_AT_OPEN controls up to which size, in bytes, a file is checked whole each time it is
/// opened for writing. That takes well under a second. `verify` checks larger files, so that a
/// start on a million customers stays fast.
pub const CHECKED_AT_OPEN: u64 = 32 << 20;

/// The size of the first write to a new file, in bytes: one page. A power failure may leave a file
/// of this size without content.
pub(super) const FIRST_WRITE: u64 = 4096;

/// What a foreign database is, in [`StoreError::Foreign`].
pub(super) const OTHER_PROGRAM: &str = "it is another program's SQLite database";

/// The offset of the header's byte for the journal mode: 1 for a journal, 2 for a WAL.
pub(super) const WRITE_VERSION: u64 = 18;

/// Returns the size of the database file.
///
/// # Errors
/// The file is missing or is not ours.
pub(super) fn must_be_ours(path: &Path) -> Result<u64, StoreError> {
    read_header(path)?.ok_or_else(|| StoreError::Missing(path.to_owned()))
}

/// Fails unless the path leads to a database of ours. The error of a missing one names a saved
/// copy, or a `-wal` that was left in its place.
pub(super) fn must_be_there(path: &Path) -> Result<(), StoreError> {
    match must_be_ours(path) {
        Err(StoreError::Missing(missing)) => {
            refuse_left_over(path)?;
            Err(StoreError::Missing(missing))
        }
        other => other.map(drop),
    }
}

/// Returns whether the file needs no `-wal` and `-shm`. That holds for a backup, and for a restored
/// database until its first start.
pub fn stands_alone(path: &Path) -> bool {
    let mut mode = [0];
    handle(path).is_ok_and(|file| file.read_exact_at(&mut mode, WRITE_VERSION).is_ok()) && mode == [1]
}

/// Reads the file's first hundred bytes (<https://www.sqlite.org/fileformat.html>, section 1.3),
/// and returns the size of a file that is ours. `None` for a missing or empty file, and for a first
/// page of zeros that a power failure left.
pub(super) fn read_header(path: &Path) -> Result<Option<u64>, StoreError> {
    let file = |what, source| StoreError::File { path: path.to_owned(), what, source };
    let opened = match handle(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| file("cannot be opened", e))?,
    };
    let bytes = opened.metadata().map_err(|e| file("cannot be read", e))?.len();
    let mut header = vec![0; 100];
    let read = opened.read_at(&mut header, 0).map_err(|e| file("cannot be read", e))?;
    header.truncate(read);
    let foreign = |why: &str| Err(StoreError::Foreign { path: path.to_owned(), why: why.to_owned() });
    if is_blank(&opened).map_err(|e| file("cannot be read", e))? {
        return Ok(None);
    }
    let number =
        |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    if number(68) != APPLICATION_ID {
        return foreign(match header.starts_with(b"SQLite format 3\0") {
            true => OTHER_PROGRAM,
            false => "it is not an SQLite database",
        });
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            why: "its first bytes are not those of a database".into(),
        });
    }
    Ok(Some(bytes))
}

/// Detects a newer version and damage before anything is written.
pub(super) fn check_before_writing(conn: &Connection, path: &Path, bytes: u64) -> Result<(), StoreError> {
    let check = || -> Result<(), StoreError> {
        if newer_than_us(conn, path)? == 0 && is_empty(conn)? {
            // A process ended before its first migration, so the file holds nothing yet.
            return Ok(());
        }
        let log_id: String = conn.query_row("SELECT log_id FROM meta", [], |row| row.get(0))?;
        if log_id.is_empty() {
            return Err(StoreError::Impossible("an empty log_id".into()));
        }
        if conn.query_row("SELECT is_backup FROM meta", [], |row| row.get(0))? {
            return Err(StoreError::IsBackup(path.to_owned()));
        }
        match damage(conn, bytes)? {
            Some(found) => Err(StoreError::Damaged { path: path.to_owned(), why: found.replace('\n', " ") }),
            None => Ok(()),
        }
    };
    check().map_err(|e| match e {
        // The file has our application id, but one of our tables is missing.
        StoreError::Statement(e) if is_missing(&e) => {
            StoreError::Damaged { path: path.to_owned(), why: e.to_string() }
        }
        e => e.with_path(path),
    })
}

/// Returns the first defect in the structure of a file of this size; `None` for a large file, which
/// is not checked.
pub fn damage(conn: &Connection, bytes: u64) -> Result<Option<String>, StoreError> {
    if bytes > CHECKED_AT_OPEN {
        return Ok(None);
    }
    match conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(found) => Ok((found != "ok").then_some(found)),
        // An index of the operator uses a collation that only the operator's program has, so SQLite
        // cannot check the file.
        Err(e) if lacks_collation(&e) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Returns whether a statement names a missing table or column. SQLite has no result code for that.
pub(super) fn is_missing(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
        && (text.starts_with("no such table") || text.starts_with("no such column"))
}

/// Returns whether an index uses a collation that only another program has, so that SQLite cannot
/// check the file.
pub(in crate::store) fn lacks_collation(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR_MISSING_COLLSEQ)
}

pub(super) fn is_empty(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// Refuses to create a database where one was moved or removed by mistake. Its `-wal` or `-journal`
/// still has content, which SQLite would delete, or a copy of it was saved.
pub(super) fn refuse_left_over(path: &Path) -> Result<(), StoreError> {
    let real = place::real(path)?;
    for suffix in ["-wal", "-journal"] {
        let left_over = place::sibling(&real, suffix);
        if std::fs::metadata(&left_over).is_ok_and(|file| file.len() > 0) {
            return Err(StoreError::LeftOver { path: path.to_owned(), left_over });
        }
    }
    // A copy that an instance saved when the database was removed.
    if let Some(saved) = displaced::copies(path).into_iter().next() {
        let put_back = displaced::put_back(&saved, path);
        return Err(StoreError::Removed { path: path.to_owned(), saved, put_back });
    }
    // An interrupted restore had moved this file away. Where the restore was complete, the old
    // database is next to it.
    for left_over in place::files_in(place::directory(&real), &place::prefix(&real, ".before-restore-")) {
        let name = left_over.to_string_lossy();
        let of = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-journal"));
        if of.is_some_and(|of| !Path::new(of).exists())
            && std::fs::metadata(&left_over).is_ok_and(|file| file.len() > 0)
        {
            return Err(StoreError::LeftOver { path: path.to_owned(), left_over });
        }
    }
    Ok(())
}

pub(super) fn newer_than_us(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found > known_version() {
        true => Err(StoreError::Newer { path: path.to_owned(), found, known: known_version() }),
        false => Ok(found),
    }
}

pub(super) fn check_version(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    match newer_than_us(conn, path)? {
        0 => Err(StoreError::Missing(path.to_owned())),
        found if found < known_version() => Err(StoreError::Refused(format!(
            "{} still has schema {found}; `komoju-sync run` or `komoju-sync sync` brings it to {}",
            path.display(),
            known_version()
        ))),
        _ => Ok(()),
    }
}

/// Returns whether a file holds nothing: no byte, or a first page of zeros.
pub(super) fn is_blank(file: &File) -> std::io::Result<bool> {
    if file.metadata()?.len() > FIRST_WRITE {
        return Ok(false);
    }
    let mut page = [0; FIRST_WRITE as usize];
    file.read_at(&mut page, 0)?;
    Ok(page.iter().all(|byte| *byte == 0))
}
