//! How much the requests are slowed down, as the text that the caller makes of it: what an earlier process has learned.

use crate::store::{Conn, StoreError, Tx};

/// The stored text; `None` where requests leave at the configured rate.
pub fn get(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT slowed FROM meta", [], |row| row.get(0))?)
}

/// Stores the text. Writes only what changes.
pub fn set(tx: &Tx<'_>, text: Option<&str>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET slowed = ?1 WHERE slowed IS NOT ?1", [text])?;
    Ok(())
}
