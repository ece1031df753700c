//! What `doctor` asks of the database. Nothing here reads all of it.

use rusqlite::OptionalExtension as _;

use super::indexes;
use crate::store::log::mirror;
use crate::store::{Conn, StoreError};
use komoju_core::CustomerId;

/// Returns the schema version of an open database.
pub fn schema_version(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Returns the names of the indexes that the first complete sweep makes and that are missing.
pub fn missing_indexes(conn: &Conn) -> Result<Vec<&'static str>, StoreError> {
    let mut missing = Vec::new();
    for index in indexes::ALL {
        if !indexes::exists(conn, index.name)? {
            missing.push(index.name);
        }
    }
    Ok(missing)
}

/// Returns the latest time that the last change and the last pass carry.
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

/// Returns a live customer that the remote can be asked about.
pub fn some_live(conn: &Conn) -> Result<Option<CustomerId>, StoreError> {
    let row: Option<i64> = conn
        .query_row("SELECT row FROM mirror WHERE deleted_at IS NULL ORDER BY row DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let id = row.map(|row| mirror::id_of(conn, row)).transpose()?;
    Ok(id.flatten().filter(CustomerId::can_be_requested))
}
