//! How events are read: the cursor of the event list, and why it is not read.

use jiff::Timestamp;
use rusqlite::params;

use crate::store::{Conn, StoreError, Tx};
use komoju_core::time;

/// How events are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventState {
    /// Up to where the event list was read, by the server's clock.
    pub cursor: Option<Timestamp>,
    /// When the event list was last read, as text.
    pub last_read_at: Option<String>,
    /// When a new event about a customer was last read or received.
    pub last_event_at: Option<String>,
    /// Since when the event list cannot be read, and why.
    pub off: Option<(String, String)>,
    /// When more events were new than are read at once.
    pub gap_at: Option<String>,
    /// Until when hinted customers are not requested, and why.
    pub paused: Option<(String, String)>,
    /// How many events about a customer did not name it.
    pub without_customer: u64,
}

/// Reads the state.
pub fn read(conn: &Conn) -> Result<EventState, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT cursor_at, last_read_at, last_event_at, off_since, off_reason, gap_at, paused_until, pause_reason,
                without_customer
         FROM event_state",
    )?;
    let state = statement.query_row([], |row| {
        let cursor: Option<String> = row.get("cursor_at")?;
        let off: (Option<String>, Option<String>) = (row.get("off_since")?, row.get("off_reason")?);
        let paused: (Option<String>, Option<String>) = (row.get("paused_until")?, row.get("pause_reason")?);
        let without_customer: i64 = row.get("without_customer")?;
        Ok(EventState {
            cursor: cursor.as_deref().and_then(time::read),
            last_read_at: row.get("last_read_at")?,
            last_event_at: row.get("last_event_at")?,
            off: off.0.zip(off.1),
            gap_at: row.get("gap_at")?,
            paused: paused.0.zip(paused.1),
            without_customer: u64::try_from(without_customer).unwrap_or(0),
        })
    });
    Ok(state?)
}

/// Forgets the events of another account, and up to where they were read.
pub fn reset(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM event", [])?;
    tx.execute("UPDATE event_state SET cursor_at = NULL", [])?;
    Ok(())
}

/// Notes that the event list was read up to this time of the server's clock.
pub fn note_read(tx: &Tx<'_>, cursor: Timestamp, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE event_state SET cursor_at = ?1, last_read_at = ?2, off_since = NULL, off_reason = NULL",
        params![time::written(cursor), at],
    )?;
    Ok(())
}

/// Notes that the event list cannot be read; `reason` is masked. The first time stays.
pub fn note_off(tx: &Tx<'_>, at: &str, reason: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE event_state SET off_since = coalesce(off_since, ?1), off_reason = ?2",
        params![at, reason],
    )?;
    Ok(())
}
