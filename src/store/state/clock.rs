//! The last confirmed time, which the next process starts with.

use rusqlite::params;

use crate::store::{Conn, StoreError, Tx};

/// A confirmed time, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// By the wall clock.
    pub at: String,
    /// The id of the machine's boot.
    pub boot: String,
    /// Milliseconds since that boot.
    pub boot_ms: i64,
}

/// Returns the last confirmed time.
pub fn confirmed(conn: &Conn) -> Result<Option<Confirmed>, StoreError> {
    let sql = "SELECT confirmed_at, confirmed_boot, confirmed_boot_ms FROM meta";
    let (at, boot, boot_ms): (Option<String>, Option<String>, Option<i64>) =
        conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(at.zip(boot).zip(boot_ms).map(|((at, boot), boot_ms)| Confirmed { at, boot, boot_ms }))
}

/// Stores a confirmed time.
pub fn note_confirmed(tx: &Tx<'_>, confirmed: &Confirmed) -> Result<(), StoreError> {
    let Confirmed { at, boot, boot_ms } = confirmed;
    tx.execute(
        "UPDATE meta SET confirmed_at = ?1, confirmed_boot = ?2, confirmed_boot_ms = ?3",
        params![at, boot, boot_ms],
    )?;
    Ok(())
}
