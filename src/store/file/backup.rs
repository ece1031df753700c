//! Backups: a checked copy of the database in one file, without payment tokens.
//!
//! A backup is made table by table in one read transaction, so it shows one moment, whatever other
//! connections commit meanwhile. The tokens of unsettled intents are masked while their rows are
//! copied, so that no token is ever written to the backup's directory. A backup holds no free pages
//! and needs no `-wal`. It is marked as a backup, and a daemon does not start on it, because its
//! unfinished intents may have been carried out since. [`super::restore`] makes a database of it.
//!
//! These designs were rejected:
//! - SQLite's backup API, because it copies free pages too.
//! - VACUUM INTO with the tokens wiped afterwards. It first writes the tokens to the backup's
//!   directory, and leaves them there if the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use serde_json::Value;
use tempfile::TempPath;

use super::copy_job::{CopyJob, CopyStep};
use super::schema_copy::{self, ObjectKind, SchemaObject};
use super::{inspect, migrations, open, place, signature};
use crate::store::StoreError;
use crate::store::log::changes::{self, Head};
use crate::store::log::mirror;
use crate::store::log::verify::{self, Verification};
use crate::store::outbox::rows::{digest, intent_in};
use komoju_core::intent::MASKED_TOKEN;
use komoju_core::json;

/// What a backup contains.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// Its size in bytes.
    pub bytes: u64,
    /// How many customers are live in it.
    pub live: u64,
    /// Where its log ends.
    pub head: Head,
    /// The result of its verification. With any finding the file is no backup.
    pub verified: Verification,
}

/// Makes a backup of the database at `from` in the new file `to`, and checks it. The caller makes
/// the name of `to` durable.
///
/// # Errors
/// The database is missing, foreign, damaged, newer or older than this program; `to` exists or
/// cannot be written; or the job was stopped. `to` is then no backup.
pub fn make(from: &Path, to: &Path, job: &CopyJob) -> Result<BackupSummary, StoreError> {
    // An error names the source, not the copy.
    let source = open::checked_for_reading(from)?;
    let bytes: u64 = source
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
            row.get(0)
        })
        .map_err(|e| StoreError::from(e).with_path(from))?;
    drop(source);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|source| StoreError::File { path: to.to_owned(), what: "cannot be made", source })?;
    job.begin_growing(to.to_owned(), bytes);
    let copied = copy(from, to, job).map_err(|e| match e {
        StoreError::Statement(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            StoreError::Full(to.to_owned())
        }
        other => other.with_path(from),
    });
    job.or_stopped(copied)?;
    let made = check(to, job).map_err(|e| e.with_path(to));
    let made = job.or_stopped(made)?;
    let unsynced = |source| StoreError::File { path: to.to_owned(), what: "cannot be written", source };
    File::open(to).and_then(|file| file.sync_all()).map_err(unsynced)?;
    Ok(made)
}

/// Gives the backup at `made` the name `to`, in the same directory or one above, durably. Never
/// replaces a file.
///
/// # Errors
/// The name exists, or the file system refuses.
pub fn publish(made: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { path: to.to_owned(), what: "cannot be made", source };
    let made = TempPath::try_from_path(made).map_err(failed)?;
    match made.persist_noclobber(to) {
        Ok(()) => {}
        // Not every file system supports links, or a rename that does not replace.
        Err(e) if e.error.kind() != ErrorKind::AlreadyExists && fs::symlink_metadata(to).is_err() => {
            e.path.persist(to).map_err(|e| failed(e.error))?;
        }
        Err(e) => return Err(failed(e.error)),
    }
    place::sync_directory(to).map_err(failed)
}

/// Returns whether `file` belongs to the database at `path`. It does if it has a name that the
/// database's files have or may get, by whichever path its directory is reached. It also does if it
/// is one of these files under another name.
///
/// # Errors
/// The database's directory cannot be used.
pub fn is_own_file(path: &Path, file: &Path) -> Result<bool, StoreError> {
    let real = place::real(path)?;
    let inode = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let is_same = |one: &Path, other: &Path| inode(one).is_some_and(|found| inode(other) == Some(found));
    let directory = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(["", "-wal", "-shm", "-journal", ".lock"].iter().any(|suffix| {
        let own = place::sibling(&real, suffix);
        own == file
            || is_same(&own, file)
            || (own.file_name() == file.file_name() && is_same(&directory(&own), &directory(file)))
    }))
}

/// Copies everything but tokens, within one transaction that sees one state of the source.
fn copy(from: &Path, to: &Path, job: &CopyJob) -> Result<(), StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut conn = Connection::open_with_flags(to, flags)?;
    conn.busy_timeout(open::BUSY)?;
    signature::sign(&conn)?;
    job.interrupt_on_stop(&conn)?;
    // A file without its final name need not survive a crash. Foreign keys may refer to rows that
    // are copied later.
    conn.pragma_update(None, "journal_mode", "off")?;
    conn.pragma_update(None, "synchronous", "off")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "application_id", inspect::APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", migrations::known_version())?;
    conn.execute("ATTACH ?1 AS source", [place::uri(from, "mode=ro")])?;
    let tx = conn.transaction()?;
    let objects = schema_copy::objects(&tx, "source")?;
    let each = |wanted: &[ObjectKind], make: &dyn Fn(&SchemaObject) -> Result<(), StoreError>| {
        let wanted = objects.iter().filter(|object| wanted.contains(&object.kind));
        wanted.into_iter().try_for_each(|object| {
            job.check_stop()?;
            make(object).map_err(|e| object.cannot_be_copied(from, e))
        })
    };
    let create = |object: &SchemaObject| Ok(tx.execute_batch(&object.sql)?);
    // Create the indexes before the rows are copied: SQLite then copies whole tables with their
    // indexes page by page, and sorts nothing in memory.
    each(&[ObjectKind::Table], &create)?;
    each(&[ObjectKind::Index], &create)?;
    each(&[ObjectKind::Table], &|table| match table.name.as_str() {
        INTENTS => Ok(()),
        _ => schema_copy::rows(&tx, table),
    })?;
    // Copy the intents last, because their digests are written to another table.
    copy_intents(&tx)?;
    schema_copy::sequences(&tx)?;
    // Create the triggers after the rows are copied, so that none runs for them.
    each(&[ObjectKind::View, ObjectKind::Trigger], &create)?;
    each(&[ObjectKind::Virtual], &|table| schema_copy::virtual_table(&tx, table))?;
    schema_copy::must_be_whole(&tx, from)?;
    // The copy has no left-over token, whatever the source has.
    tx.execute(
        "UPDATE main.meta SET is_backup = 1, left_over_tokens = 0, scrubbed_tokens = 0, wiped_tokens = 0, wipe_since = NULL,
             wipe_blocked = 0, unscrubbed_erasure = NULL, scrubbed_erasure = NULL, scrubbed_wal = NULL",
        [],
    )?;
    tx.commit()?;
    Ok(())
}

/// The table whose rows are copied one by one where they may hold a token.
const INTENTS: &str = "intents";

/// Selects rows that may hold a token. Their body is no JSON object, contains a token, or contains
/// escapes, which may hide the name of its field.
const MAY_HOLD_A_TOKEN: &str = "body IS NOT NULL
     AND (typeof(body) <> 'text' OR NOT json_valid(body) OR CASE WHEN json_valid(body) THEN json_type(body) <> 'object' END
          OR instr(body, 'payment_details') > 0 OR instr(body, '\\') > 0)";

fn copy_intents(conn: &Connection) -> Result<(), StoreError> {
    // Without generated columns, because these cannot be written.
    let names = schema_copy::columns(conn, INTENTS)?.stored.join(", ");
    conn.execute(
        &format!(
            "INSERT INTO main.intents ({names}) SELECT {names} FROM source.intents WHERE ({MAY_HOLD_A_TOKEN}) IS NOT 1"
        ),
        [],
    )?;
    let mut rows = conn.prepare(&format!("SELECT {names} FROM source.intents WHERE {MAY_HOLD_A_TOKEN}"))?;
    let columns = rows.column_count();
    let (body_at, position_at) = (rows.column_index("body")?, rows.column_index("position")?);
    let places = vec!["?"; columns].join(", ");
    let mut insert = conn.prepare(&format!("INSERT INTO main.intents ({names}) VALUES ({places})"))?;
    let mut as_dropped = conn.prepare(
        "SELECT op, customer_id, body, expect, not_before FROM source.intents WHERE position = ?1",
    )?;
    // A digest cannot be computed from the masked body, so compute it here.
    let mut keep_digest = conn.prepare(
        "UPDATE main.outbox SET content = ?2 WHERE position = ?1 AND content IS NULL AND is_open = 1",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let mut values = (0..columns).map(|at| row.get(at)).collect::<Result<Vec<Sql>, _>>()?;
        let position: i64 = row.get(position_at)?;
        if let Ok(intent) = as_dropped.query_row([position], |row| Ok(intent_in(row, 0)))? {
            keep_digest.execute((position, digest(&intent)))?;
        }
        values[body_at] = without_token(&values[body_at]);
        insert.execute(params_from_iter(values))?;
    }
    Ok(())
}

/// Returns a body with its token masked. A body that cannot be read may hold a token anywhere, so
/// all of it is masked.
fn without_token(body: &Sql) -> Sql {
    let Sql::Text(text) = body else { return Sql::Text(MASKED_TOKEN.to_owned()) };
    let Ok(Value::Object(mut fields)) = json::parse(text.as_bytes()) else {
        return Sql::Text(MASKED_TOKEN.to_owned());
    };
    let named_once = text.matches("payment_details").count() == 1;
    match fields.get_mut("payment_details") {
        Some(Value::String(token)) if token == MASKED_TOKEN && named_once => body.clone(),
        Some(token) => {
            *token = MASKED_TOKEN.into();
            Sql::Text(Value::Object(fields).to_string())
        }
        None => body.clone(),
    }
}

fn check(path: &Path, job: &CopyJob) -> Result<BackupSummary, StoreError> {
    let conn = open::for_reading(path)?;
    job.interrupt_on_stop(&conn)?;
    let head = changes::head(&conn)?;
    job.begin(CopyStep::Checking, u64::try_from(head.seq).unwrap_or(0));
    let verified = verify::verify_with_progress(&conn, Some(head), |seq| job.set_done(seq))?;
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(BackupSummary { bytes, live: mirror::live_count(&conn)?, head, verified })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn backup_under_the_name_of_a_file_is_refused_and_the_file_is_kept() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("made"), "the new backup").unwrap();
        fs::write(at("b.db"), "an old backup").unwrap();
        let message = publish(&at("made"), &at("b.db")).unwrap_err().to_string();
        assert!(message.contains("b.db cannot be made"), "{message}");
        assert_eq!(fs::read(at("b.db")).unwrap(), b"an old backup");
    }

    #[test]
    fn intents_that_cannot_be_copied_are_not_reported_as_a_full_disk() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        drop(Store::open(&at("komoju.db")).unwrap());
        let conn = Connection::open(at("komoju.db")).unwrap();
        // The bodies differ only in their tokens, which a backup masks.
        conn.execute_batch(
            r#"CREATE UNIQUE INDEX operators_index ON intents (body);
               INSERT INTO intents (id, op, body) VALUES
                   ('a', 'create', '{"email":"a@example.com","payment_details":"tok_1"}'),
                   ('b', 'create', '{"email":"a@example.com","payment_details":"tok_2"}')"#,
        )
        .unwrap();
        drop(conn);
        let message = make(&at("komoju.db"), &at("copy.db"), &CopyJob::default()).unwrap_err().to_string();
        assert!(message.contains("operators_index") && !message.contains("disk is full"), "{message}");
    }

    #[test]
    fn check_does_not_change_the_copy() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        drop(Store::open(&at("komoju.db")).unwrap());
        let conn = Connection::open(at("komoju.db")).unwrap();
        conn.execute_batch(
            "CREATE VIRTUAL TABLE search USING fts5 (x); INSERT INTO search VALUES ('a b'), ('c')",
        )
        .unwrap();
        drop(conn);
        let job = CopyJob::default();
        let first = make(&at("komoju.db"), &at("copy.db"), &job).unwrap();
        assert_eq!(first.verified.findings, Vec::<String>::new());
        let state = || {
            let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            (
                names,
                fs::read(at("copy.db")).unwrap(),
                fs::metadata(at("copy.db")).unwrap().modified().unwrap(),
            )
        };
        let before = state();
        check(&at("copy.db"), &job).unwrap();
        assert!(state() == before, "the check wrote to the copy");
    }
}
