//! Opening the file: whose is it, is it whole, is it ours to write to?
//!
//! Ownership is read from the file's own header, byte by byte, before SQLite sees it: opening a foreign database with SQLite can
//! already write to it (a left-over journal would be rolled back). Only a file that carries our application id is opened, and
//! only one that passes is migrated. A missing or empty file becomes a new database.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::Migrations;

use super::identity::handle;
use super::{displaced, instance, own, place};
use crate::store::{Instance, StoreError};

/// "KMJS": says in the file's header that it is ours (`PRAGMA application_id`).
pub const APPLICATION_ID: u32 = 0x4B4D_4A53;

/// A file up to this size is checked whole each time it is opened for writing: that takes well under a second. A larger one
/// is checked by `verify`, so that a start on a million customers stays quick.
pub const CHECKED_AT_OPEN: u64 = 32 << 20;

/// The size of the first write to a new file, in bytes: one page. A power cut may leave of it the size alone.
const FIRST_WRITE: u64 = 4096;

/// Where the header says how the file is written: 1 with a journal, 2 with a WAL.
const WRITE_VERSION: u64 = 18;

/// How long a writer waits for another one before it gives up.
pub(in crate::store) const BUSY: Duration = Duration::from_secs(10);

/// How often a database is closed anew when somebody opens it meanwhile.
const TRIES_TO_CLOSE: u32 = 5;

/// Who has a database open that no komoju-sync works on.
const ANOTHER_PROGRAM: &str =
    "another program that has it open (an SQL client, a report): close that, and try again";

/// What a foreign database is.
const OTHER_PROGRAM: &str = "it is another program's SQLite database";
/// How long somebody who only looks waits.
const BUSY_LOOK: Duration = Duration::from_secs(2);

/// What a path in an SQLite URI may hold as it is.
const URI_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

static MIGRATION_FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

pub(in crate::store) static MIGRATIONS: LazyLock<Migrations<'static>> =
    LazyLock::new(|| Migrations::from_directory(&MIGRATION_FILES).expect("migrations/ is checked by a test"));

/// The SQL text of each migration.
pub(in crate::store) fn migration_texts() -> impl Iterator<Item = &'static str> {
    let files = MIGRATION_FILES.dirs().flat_map(Dir::files);
    files.filter_map(include_dir::File::contents_utf8)
}

/// The schema version that this program writes: the number of migrations.
pub fn known_version() -> i64 {
    i64::try_from(MIGRATION_FILES.dirs().count()).unwrap_or(i64::MAX)
}

/// What the header of an existing file says.
enum Header {
    /// No file, an empty one, or a first page that the power was cut in before any of it was written.
    Nothing,
    /// Ours.
    Ours { bytes: u64 },
}

/// Opens `path` for writing; makes and migrates it where needed.
pub fn for_writing(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    let found = look_at(path)?;
    if let Header::Nothing = found {
        refuse_left_over(path)?;
        create_empty(path)?;
    }
    let mut conn = writable(path)?;
    if let Header::Ours { bytes } = found {
        check_before_writing(&conn, path, bytes)?;
    }
    let result = (|| {
        if conn.pragma_query_value(None, "application_id", |row| row.get::<_, u32>(0))? != APPLICATION_ID {
            // Before WAL, so that the id is in the file's header from its first page on; and in one write without a journal,
            // so that a process that ends here leaves a file that is new or ours, never one to be rolled back.
            conn.pragma_update(None, "journal_mode", "memory")?;
            conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        configure_writer(&conn)?;
        migrate(&mut conn, path)?;
        Ok(conn)
    })();
    result.map_err(|e: StoreError| e.about(path))
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    MIGRATIONS.to_latest(conn).map_err(|e| match e {
        // A full disk, say: SQLite's words are better than those around them.
        rusqlite_migration::Error::RusqliteError { err, .. } => StoreError::Statement(err),
        source => StoreError::Migration { path: path.to_owned(), source },
    })
}

/// Opens an existing `path` for writing beside whoever else works on it, as a person's command does. Never migrates.
pub fn beside(path: &Path) -> Result<Connection, StoreError> {
    let bytes = must_be_ours(path)?;
    instance::refuse_second_name(path)?;
    let conn = writable(path)?;
    check_before_writing(&conn, path, bytes)?;
    // First: even the journal mode would be a change to a file that is not ours to change.
    check_version(&conn, path).and_then(|()| configure_writer(&conn)).map_err(|e| e.about(path))?;
    Ok(conn)
}

/// Opens a copy that nobody else knows of, to make the database of it: takes over what came with it beside the file, so that the
/// file stands alone, and brings its schema up to date.
pub(in crate::store) fn alone(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    must_be_ours(path)?;
    let mut conn = writable(path)?;
    if newer_than_us(&conn, path)? == 0 && is_empty(&conn)? {
        return Err(StoreError::Missing(path.to_owned()));
    }
    configure_writer(&conn)?;
    conn.pragma_update(None, "journal_mode", "delete")?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// What stands where a database is to be put.
#[derive(Debug)]
pub(in crate::store) enum Standing {
    /// Nothing, or an empty file.
    Nothing,
    /// A database of ours, closed and alone in its file; nobody else gets at it while this connection is open.
    Alone(Connection),
    /// Something that cannot be opened as the database it should be.
    Damaged,
}

/// Makes the database at `path` stand alone in its file and keeps everybody else from it, to take it away. Of one that is damaged
/// nothing is touched.
///
/// # Errors
/// Another program has it open, or it is another program's.
pub(in crate::store) fn to_take_away(path: &Path) -> Result<Standing, StoreError> {
    match look_at(path) {
        Ok(Header::Nothing) => return Ok(Standing::Nothing),
        Ok(Header::Ours { .. }) => {}
        Err(StoreError::Foreign { why, .. }) if why != OTHER_PROGRAM => return Ok(Standing::Damaged),
        Err(StoreError::Damaged { .. }) => return Ok(Standing::Damaged),
        Err(other) => return Err(other),
    }
    let closed = || -> Result<Connection, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        for _ in 0..TRIES_TO_CLOSE {
            // Only the last connection can leave WAL mode: -wal and -shm are folded in and gone then, for everybody.
            let mode: String = conn.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
            conn.execute_batch("BEGIN EXCLUSIVE")?;
            // Somebody may have come in between, and set it back.
            let still: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            if (mode.as_str(), still.as_str()) == ("delete", "delete") {
                return Ok(conn);
            }
            conn.execute_batch("ROLLBACK")?;
        }
        Err(StoreError::InUse { path: path.to_owned(), holder: ANOTHER_PROGRAM.to_owned() })
    };
    match closed().map_err(|e| e.about(path)) {
        Ok(conn) => Ok(Standing::Alone(conn)),
        Err(StoreError::Damaged { .. }) => Ok(Standing::Damaged),
        Err(e) if e.is_busy() => {
            Err(StoreError::InUse { path: path.to_owned(), holder: ANOTHER_PROGRAM.to_owned() })
        }
        Err(other) => Err(other),
    }
}

/// Opens an existing `path` for reading; the connection cannot write.
pub fn for_reading(path: &Path) -> Result<Connection, StoreError> {
    let conn = of_any_version(path)?;
    check_version(&conn, path).map_err(|e| e.about(path))?;
    Ok(conn)
}

/// The same for a schema of this version or an older one.
pub(in crate::store) fn of_any_version(path: &Path) -> Result<Connection, StoreError> {
    must_be_there(path)?;
    instance::refuse_second_name(path)?;
    let result = (|| {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        newer_than_us(&conn, path)?;
        Ok(conn)
    })();
    result.map_err(|e: StoreError| e.about(path))
}

/// Opens an existing `path`, of this schema or an older one, and leaves no trace: no file is made, none is changed.
///
/// An ordinary reader makes a missing -wal and -shm where it may, and notes in the -shm where it reads. This one takes the marks that
/// others made there; where a file is missing it reads the database alone, as if nobody could write to it. Where that would be wrong,
/// because somebody works on it or the -wal holds something, it is [`StoreError::Refused`].
pub fn for_looking(path: &Path) -> Result<Connection, StoreError> {
    assert_safe_sqlite()?;
    must_be_there(path)?;
    instance::refuse_second_name(path)?;
    let real = place::real(path)?;
    let is_whole = ["-wal", "-shm"].into_iter().all(|suffix| place::beside(&real, suffix).exists());
    if !is_whole {
        let wal = std::fs::metadata(place::beside(&real, "-wal")).map_or(0, |wal| wal.len());
        if wal > 0 || Instance::holder(path)?.is_some() {
            return Err(StoreError::Refused(format!(
                "{} cannot be read without making its missing -wal or -shm, and its last changes may be in them",
                path.display()
            )));
        }
    }
    let how = if is_whole { "readonly_shm=1" } else { "immutable=1" };
    let encoded = percent_encode(real.as_os_str().as_encoded_bytes(), URI_PATH);
    let result = (|| {
        let conn = Connection::open_with_flags(
            format!("file:{encoded}?mode=ro&{how}"),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
        )?;
        conn.busy_timeout(BUSY_LOOK)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        match newer_than_us(&conn, path)? {
            0 => Err(StoreError::Missing(path.to_owned())),
            _ => Ok(conn),
        }
    })();
    result.map_err(|e: StoreError| e.about(path))
}

/// Opens an existing `path` for reading, after the check that comes before writing.
pub fn checked_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let bytes = must_be_ours(path)?;
    let conn = for_reading(path)?;
    check_before_writing(&conn, path, bytes)?;
    Ok(conn)
}

/// A database of its own in memory, migrated: where `path` would be too much.
#[cfg(test)]
pub fn in_memory() -> Connection {
    let mut conn = Connection::open_in_memory().expect("memory opens");
    own::sign(&conn).expect("there is memory");
    MIGRATIONS.to_latest(&mut conn).expect("migrations apply");
    conn
}

fn configure_writer(conn: &Connection) -> Result<(), StoreError> {
    conn.pragma_update(None, "journal_mode", "wal")?;
    // In pages. An import writes many pages again and again: the fewer checkpoints, the fewer of them reach the database.
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    // Anything less may lose a commit when the power goes.
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // What is deleted or redacted is overwritten, not only forgotten.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// The size of a file that is ours.
fn must_be_ours(path: &Path) -> Result<u64, StoreError> {
    match look_at(path)? {
        Header::Ours { bytes } => Ok(bytes),
        Header::Nothing => Err(StoreError::Missing(path.to_owned())),
    }
}

/// Fails unless there is a database of ours. The error names a saved copy or a -wal that is left where the database was.
fn must_be_there(path: &Path) -> Result<(), StoreError> {
    match must_be_ours(path) {
        Err(StoreError::Missing(missing)) => {
            refuse_left_over(path)?;
            Err(StoreError::Missing(missing))
        }
        other => other.map(drop),
    }
}

/// Whether the file stands alone, without a -wal and a -shm beside it: as a backup does, and a restored database until its first start.
pub fn stands_alone(path: &Path) -> bool {
    let mut mode = [0];
    handle(path).is_ok_and(|file| file.read_exact_at(&mut mode, WRITE_VERSION).is_ok()) && mode == [1]
}

/// Reads the file's first hundred bytes (<https://www.sqlite.org/fileformat.html>, section 1.3).
fn look_at(path: &Path) -> Result<Header, StoreError> {
    let file = |what, source| StoreError::File { path: path.to_owned(), what, source };
    let opened = match handle(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Header::Nothing),
        other => other.map_err(|e| file("cannot be opened", e))?,
    };
    let bytes = opened.metadata().map_err(|e| file("cannot be read", e))?.len();
    let mut header = vec![0; 100];
    let read = opened.read_at(&mut header, 0).map_err(|e| file("cannot be read", e))?;
    header.truncate(read);
    let foreign = |why: &str| Err(StoreError::Foreign { path: path.to_owned(), why: why.to_owned() });
    if is_blank(&opened).map_err(|e| file("cannot be read", e))? {
        return Ok(Header::Nothing);
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
    Ok(Header::Ours { bytes })
}

/// What sorts or copies more than fits into memory, and no payment token in plain sight: what it sets aside lies in a file without a
/// name, and is gone with it.
pub(in crate::store) fn with_temporary_files<T>(
    conn: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    conn.pragma_update(None, "temp_store", "file")?;
    let worked = work(conn);
    let back = |conn: &Connection| conn.pragma_update(None, "temp_store", "memory");
    // It may be what an interrupt hits that came too late for the work.
    back(conn).or_else(|_| back(conn))?;
    worked.map_err(|e| match (e, conn.path()) {
        (StoreError::Statement(e), Some(path)) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            StoreError::FullBeside(path.into())
        }
        (e, _) => e,
    })
}

/// A connection that may write and did not yet; closed now, it leaves everything as it was.
fn writable(path: &Path) -> Result<Connection, StoreError> {
    let open = || -> Result<Connection, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        // A clean stop must leave -wal and -shm behind: without them a reader that may not write cannot open the database.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // A large sort must not leave payment tokens in a temporary file. Said before anything is read, for it would be read again.
        conn.pragma_update(None, "temp_store", "memory")?;
        own::sign(&conn)?;
        Ok(conn)
    };
    open().map_err(|e| e.about(path))
}

/// Finds a newer version and damage while nothing has been written yet.
fn check_before_writing(conn: &Connection, path: &Path, bytes: u64) -> Result<(), StoreError> {
    let check = || -> Result<(), StoreError> {
        if newer_than_us(conn, path)? == 0 && is_empty(conn)? {
            // A process ended before its first migration: nothing is in it yet.
            return Ok(());
        }
        let log_id: String = conn.query_row("SELECT log_id FROM meta", [], |row| row.get(0))?;
        if log_id.is_empty() {
            return Err(StoreError::Impossible("an empty log_id".into()));
        }
        if conn.query_row("SELECT is_backup FROM meta", [], |row| row.get(0))? {
            return Err(StoreError::IsBackup(path.to_owned()));
        }
        if bytes <= CHECKED_AT_OPEN {
            let checked = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
            match checked {
                Ok(found) if found == "ok" => {}
                Ok(found) => {
                    return Err(StoreError::Damaged { path: path.to_owned(), why: found.replace('\n', " ") });
                }
                // An operator's own index, by an order that only the operator's program knows: SQLite cannot check the file.
                Err(e) if lacks_collation(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    };
    check().map_err(|e| match e {
        // Our own table is missing from a file that says it is ours.
        StoreError::Statement(e) if is_missing(&e) => {
            StoreError::Damaged { path: path.to_owned(), why: e.to_string() }
        }
        e => e.about(path),
    })
}

/// Whether a statement names a table or column that is not there. SQLite has no code of its own for that.
fn is_missing(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
        && (text.starts_with("no such table") || text.starts_with("no such column"))
}

/// Whether an index is in an order that only another program knows, so that SQLite cannot check the file.
pub(in crate::store) fn lacks_collation(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR_MISSING_COLLSEQ)
}

fn is_empty(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// A missing database whose -wal (or -journal) still holds something was moved or removed by mistake: SQLite would wipe that.
fn refuse_left_over(path: &Path) -> Result<(), StoreError> {
    let real = place::real(path)?;
    for suffix in ["-wal", "-journal"] {
        let left_over = place::beside(&real, suffix);
        if std::fs::metadata(&left_over).is_ok_and(|file| file.len() > 0) {
            return Err(StoreError::LeftOver { path: path.to_owned(), left_over });
        }
    }
    // What an instance saved when the database was removed under it.
    if let Some(saved) = displaced::copies(path).into_iter().next() {
        let put_back = displaced::put_back(&saved, path);
        return Err(StoreError::Removed { path: path.to_owned(), saved, put_back });
    }
    // A restore that was cut off had moved it out of the way; one that was not kept the database with it.
    let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else { return Ok(()) };
    let begins = format!("{}.before-restore-", name.to_string_lossy());
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-journal"));
        if let Some(of) = of
            && of.starts_with(&begins)
            && !directory.join(of).exists()
            && entry.metadata().is_ok_and(|file| file.len() > 0)
        {
            return Err(StoreError::LeftOver { path: path.to_owned(), left_over: entry.path() });
        }
    }
    Ok(())
}

fn newer_than_us(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found > known_version() {
        true => Err(StoreError::Newer { path: path.to_owned(), found, known: known_version() }),
        false => Ok(found),
    }
}

fn check_version(conn: &Connection, path: &Path) -> Result<(), StoreError> {
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

/// Whether a file holds nothing: no byte, or a first page of zeros.
fn is_blank(file: &File) -> std::io::Result<bool> {
    if file.metadata()?.len() > FIRST_WRITE {
        return Ok(false);
    }
    let mut page = [0; FIRST_WRITE as usize];
    file.read_at(&mut page, 0)?;
    Ok(page.iter().all(|byte| *byte == 0))
}

/// Makes the file, readable by its group and by nobody else; -wal and -shm take after it.
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
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn looking_at_a_file_takes_no_lock_away_from_those_who_have_it_open() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let conn = for_writing(&path).unwrap();
        conn.query_row("SELECT log_id FROM meta", [], |_| Ok(())).unwrap();
        let inode = format!(":{} ", std::fs::metadata(&path).unwrap().ino());
        let locks = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().filter(|lock| lock.contains(&inode)).count()
        };
        assert_eq!(locks(), 1, "an open connection to a WAL database holds one");
        drop(for_reading(&path).unwrap());
        drop(beside(&path).unwrap());
        drop(for_writing(&path).unwrap());
        assert_eq!(locks(), 1);
        drop(conn);
        assert_eq!(locks(), 0);
    }

    #[test]
    fn where_temporary_files_have_no_room_it_is_said_that_it_may_be_theirs() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let mut conn = for_writing(&path).unwrap();
        let full = with_temporary_files(&mut conn, |conn| {
            conn.execute_batch("PRAGMA max_page_count = 1; CREATE TABLE wide (x); INSERT INTO wide VALUES (zeroblob(1000000))")?;
            Ok(())
        });
        let told = full.unwrap_err().to_string();
        assert!(told.contains("komoju.db, or in SQLite's directory for temporary files"), "{told}");
        let kept: i64 = conn.query_row("PRAGMA temp_store", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 2, "in memory, as before");
    }

    #[test]
    fn the_migrations_are_valid_and_counted() {
        let conn = in_memory();
        let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        let told: i64 =
            conn.query_row("SELECT schema_version FROM mirror_info", [], |row| row.get(0)).unwrap();
        assert_eq!((version, told), (known_version(), known_version()));
    }
}
