//! Live customers that the list does not show, which of them answered single requests, and what the
//! sweeps learned about the list.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::changes;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::lag::Consistency;
use komoju_core::plan::rows::RowSet;
use komoju_core::time;

/// SWEEPS_WITHOUT_REQUEST controls for how many sweeps after its answer a customer is not requested
/// again.
pub const SWEEPS_WITHOUT_REQUEST: i64 = 2;

/// LARGEST_OFFSET controls how far before the bound creation times are read. They may have any
/// offset from UTC, and are first compared as text.
const LARGEST_OFFSET: SignedDuration = SignedDuration::from_hours(24);

/// What the sweeps have learned about the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHistory {
    /// How many sweeps have read the list to its end.
    pub sweeps: i64,
    /// How many of the last ones in a row had further rounds that showed no new customer.
    pub vain_sweeps: i64,
    /// When more customers than the limit were last unlisted although one of them was alive.
    pub above_limit_at: Option<Timestamp>,
}

/// Returns what the sweeps have learned.
pub fn list_history(conn: &Conn) -> Result<ListHistory, StoreError> {
    let history = conn.query_row("SELECT sweeps, vain_sweeps, above_limit_at FROM meta", [], |row| {
        let above: Option<String> = row.get(2)?;
        let above_limit_at = above.as_deref().and_then(time::read);
        Ok(ListHistory { sweeps: row.get(0)?, vain_sweeps: row.get(1)?, above_limit_at })
    });
    Ok(history?)
}

/// Writes what the sweeps have learned, and what is imprecise about the list. There is one phrase
/// for each imprecision; `ignores_page` says that the second page repeats the first.
pub fn note_list_history(
    tx: &Tx<'_>,
    history: &ListHistory,
    phrases: &[String],
    ignores_page: bool,
) -> Result<(), StoreError> {
    let report = (!phrases.is_empty()).then(|| serde_json::to_string(phrases).unwrap_or_default());
    let above_limit_at = history.above_limit_at.map(time::written);
    tx.execute(
        "UPDATE meta SET sweeps = ?1, vain_sweeps = ?2, above_limit_at = ?3, list_report = ?4, page_ignored = ?5",
        params![history.sweeps, history.vain_sweeps, above_limit_at, report, ignores_page],
    )?;
    Ok(())
}

/// Records that more customers than the limit were unlisted although one of them was alive.
pub fn note_above_limit(tx: &Tx<'_>, at: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET above_limit_at = ?1", [time::written(at)])?;
    Ok(())
}

/// Records that a customer that this sweep did not list answered.
pub fn note_verified(tx: &Tx<'_>, id: &str, sweep: i64, at: &str) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO unlisted (customer_id, since_sweep, verified_sweep, verified_at) VALUES (?1, ?2, ?2, ?3)
         ON CONFLICT (customer_id) DO UPDATE SET verified_sweep = excluded.verified_sweep, verified_at = excluded.verified_at",
    )?;
    statement.execute(params![id, sweep, at])?;
    Ok(())
}

/// Removes the customers that the sweep has listed, and those that are no longer live.
pub fn forget_listed(tx: &Tx<'_>, is_listed: impl Fn(i64) -> bool) -> Result<(), StoreError> {
    let mut forgotten = Vec::new();
    {
        let mut statement = tx.prepare_cached(
            "SELECT customer_id, row, deleted_at IS NULL FROM unlisted LEFT JOIN mirror ON mirror.id = customer_id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (mirrored, is_live): (Option<i64>, bool) = (row.get(1)?, row.get(2)?);
            if !is_live || mirrored.is_none_or(&is_listed) {
                forgotten.push(row.get::<_, String>(0)?);
            }
        }
    }
    let mut forget = tx.prepare_cached("DELETE FROM unlisted WHERE customer_id = ?1")?;
    for id in forgotten {
        forget.execute([id])?;
    }
    Ok(())
}

/// Returns the mirror's rows of the unlisted customers that answered, each with the sweep in which
/// it last did.
pub fn verified(conn: &Conn) -> Result<HashMap<i64, i64>, StoreError> {
    // CROSS JOIN keeps the order of the tables: without statistics SQLite would read the whole
    // mirror for a few customers.
    let mut statement = conn.prepare_cached(
        "SELECT row, verified_sweep FROM unlisted CROSS JOIN mirror ON mirror.id = customer_id WHERE deleted_at IS NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns the rows of customers that are so young that a read may be from before them. These were
/// created, first seen, live again or pushed to within `consistency`. Customers that the first
/// complete sweep imported were not young then. `now` is the time by our clock, `server_now` by the
/// server's.
pub fn young(
    conn: &Conn,
    consistency: Consistency,
    (now, server_now): (Timestamp, Timestamp),
) -> Result<RowSet, StoreError> {
    let mut young = RowSet::default();
    if consistency.0.is_zero() {
        return Ok(young);
    }
    let since = |now: Timestamp| now.checked_sub(consistency.0).unwrap_or(Timestamp::MIN);
    let first = "SELECT min(finished_at) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held')";
    let imported_until: Option<String> = conn.query_row(first, [], |row| row.get(0))?;
    let mut recent = conn.prepare_cached(
        "SELECT row, observed_at FROM change_log JOIN mirror ON mirror.id = customer_id
         WHERE change_log.seq > ?1 AND (kind = 'restored' OR origin = 'intent' OR (kind = 'created' AND observed_at > ?2))",
    )?;
    let from = changes::seq_at(conn, &time::written(since(now)))?;
    // Without a complete sweep all customers were imported.
    let imported_until = imported_until.unwrap_or_else(|| time::written(Timestamp::MAX));
    let mut rows = recent.query(params![from, imported_until])?;
    while let Some(row) = rows.next()? {
        let at: String = row.get("observed_at")?;
        if time::read(&at).is_some_and(|at| consistency.may_be_behind(at, now)) {
            young.insert(row.get("row")?);
        }
    }
    let mut created = conn
        .prepare_cached("SELECT row, created_at FROM mirror WHERE created_at > ?1 AND deleted_at IS NULL")?;
    let bound = since(server_now).checked_sub(LARGEST_OFFSET).unwrap_or(Timestamp::MIN);
    let mut rows = created.query([time::written(bound)])?;
    while let Some(row) = rows.next()? {
        let at: String = row.get("created_at")?;
        // A creation time in the future proves nothing.
        let at = time::read(&at).filter(|at| *at <= server_now);
        if at.is_some_and(|at| consistency.may_be_behind(at, server_now)) {
            young.insert(row.get("row")?);
        }
    }
    Ok(young)
}

/// Returns how many deletions sweeps and events have recorded since this time.
pub fn deletions_since(conn: &Conn, since: Timestamp) -> Result<u64, StoreError> {
    let from = changes::seq_at(conn, &time::written(since))?;
    let count = "SELECT count(*) FROM change_log WHERE seq > ?1 AND kind = 'deleted' AND origin IN ('sweep', 'event')";
    let count: i64 = conn.query_row(count, [from], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// How many deletions events have recorded since this time.
pub fn deletions_by_events_since(conn: &Conn, since: Timestamp) -> Result<u64, StoreError> {
    let from = changes::seq_at(conn, &time::written(since))?;
    let count = "SELECT count(*) FROM change_log WHERE seq > ?1 AND kind = 'deleted' AND origin = 'event'";
    let count: i64 = conn.query_row(count, [from], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns whether an attempt at an intent of this customer is in flight or waits for a retry.
pub fn has_push_open(conn: &Conn, id: &str) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM outbox JOIN intents USING (position)
         WHERE lane = ?1 AND is_open = 1 AND state IN ('sending', 'waiting')",
    )?;
    Ok(statement.exists([id])?)
}
