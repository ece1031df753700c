//! What a check-up asks of the database. Nothing here walks through all of it but [`damage`], which is for small files.

use rusqlite::OptionalExtension as _;

use super::{indexes, inspect};
use crate::store::log::mirror;
use crate::store::{Conn, StoreError};
use komoju_core::CustomerId;

/// The schema version of an open database.
pub fn schema_version(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// The first thing that is wrong with the file's structure; reads all of it.
pub fn damage(conn: &Conn) -> Result<Option<String>, StoreError> {
    match conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(found) => Ok((found != "ok").then_some(found)),
        Err(e) if inspect::lacks_collation(&e) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Which of the indexes that the first complete sweep makes are not there.
pub fn missing_indexes(conn: &Conn) -> Result<Vec<&'static str>, StoreError> {
    let mut found = conn.prepare("SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = ?1")?;
    let mut missing = Vec::new();
    for name in indexes::names() {
        if found.query_row([name], |row| row.get::<_, i64>(0))? == 0 {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// The latest time that the last change and the last pass carry.
pub fn last_stamp(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row(
        "SELECT max(stamp) FROM (
             SELECT (SELECT observed_at FROM change_log ORDER BY seq DESC LIMIT 1) AS stamp
             UNION ALL
             SELECT (SELECT coalesce(finished_at, started_at) FROM pass ORDER BY id DESC LIMIT 1))",
        [],
        |row| row.get(0),
    )?)
}

/// A live customer that the remote can be asked about.
pub fn some_live(conn: &Conn) -> Result<Option<CustomerId>, StoreError> {
    let row: Option<i64> = conn
        .query_row("SELECT row FROM mirror WHERE deleted_at IS NULL ORDER BY row DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let id = row.map(|row| mirror::id_of(conn, row)).transpose()?;
    Ok(id.flatten().filter(CustomerId::can_be_asked))
}
