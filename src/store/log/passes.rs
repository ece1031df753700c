//! The passes: what was read when, and how it ended.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::{Outcome, PassId, PassKind, Tally, time};

/// Writes something that changes nothing: its commit proves that the database can be written.
pub fn prove_writable(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET log_id = log_id", [])?;
    Ok(())
}

/// Opens a pass; returns its number.
pub fn start(tx: &Tx<'_>, kind: PassKind, at: &str) -> Result<PassId, StoreError> {
    tx.execute(
        "INSERT INTO pass (kind, started_at, since_at) VALUES (?1, ?2, ?2)",
        params![kind.word(), at],
    )?;
    Ok(tx.last_insert_rowid())
}

/// The list that a pass reads, by its newest answer; zero while there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Up to which page it is known to go; 0 while that is not known.
    pub last_page: u64,
    /// How many customers a page is to hold.
    pub per_page: u64,
}

/// Writes how far a running pass has come.
pub fn progress(tx: &Tx<'_>, id: PassId, tally: &Tally, position: Position) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE pass SET pages = ?2, last_page = ?3, per_page = ?4, requests = ?5, customers_seen = ?6,
             created = ?7, updated = ?8, deleted = ?9, restored = ?10, unreadable = ?11, unverified = ?12
         WHERE id = ?1",
    )?;
    statement.execute(params![
        id,
        tally.pages,
        position.last_page,
        position.per_page,
        tally.requests,
        tally.customers_seen,
        tally.created,
        tally.updated,
        tally.deleted,
        tally.restored,
        tally.unreadable,
        tally.unverified,
    ])?;
    Ok(())
}

/// Closes a pass.
pub fn finish(
    tx: &Tx<'_>,
    id: PassId,
    at: &str,
    outcome: Outcome,
    error: Option<&str>,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE pass SET finished_at = ?2, outcome = ?3, error = ?4 WHERE id = ?1",
        params![id, at, outcome.word(), error],
    )?;
    Ok(())
}

/// A sweep that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Its number.
    pub id: PassId,
    /// What it had done; `pages` of the list are applied without a gap.
    pub tally: Tally,
    /// The list that it read.
    pub position: Position,
}

/// The last sweep, if it was interrupted before it had read everything: another process can go on from there. Whoever asks holds
/// the database and makes no pass just now, so one that is still open was cut off.
pub fn interrupted(conn: &Conn) -> Result<Option<Interrupted>, StoreError> {
    let found = conn.query_row(
        "SELECT id, pages, requests, customers_seen, created, updated, deleted, restored, last_page, per_page, unreadable
         FROM pass
         WHERE id = (SELECT max(id) FROM pass WHERE kind = 'sweep')
           AND (outcome = 'interrupted' OR outcome IS NULL) AND pages > 0 AND (pages < last_page OR last_page = 0)",
        [],
        |row| {
            let tally = Tally {
                pages: row.get(1)?,
                requests: row.get(2)?,
                customers_seen: row.get(3)?,
                created: row.get(4)?,
                updated: row.get(5)?,
                deleted: row.get(6)?,
                restored: row.get(7)?,
                unreadable: row.get(10)?,
                unverified: 0,
            };
            let position = Position { last_page: row.get(8)?, per_page: row.get(9)? };
            Ok(Interrupted { id: row.get(0)?, tally, position })
        },
    );
    Ok(found.optional()?)
}

/// Opens an interrupted pass again, to go on with it.
pub fn resume(tx: &Tx<'_>, id: PassId, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE pass SET finished_at = NULL, outcome = NULL, error = NULL, resumed = 1, since_at = ?2, since_pages = pages
         WHERE id = ?1",
        params![id, at],
    )?;
    Ok(())
}

/// Closes what an instance that is gone left open: it holds the lock no longer, so it cannot be at work.
pub fn close_orphans(tx: &Tx<'_>, at: &str) -> Result<usize, StoreError> {
    let closed = tx.execute(
        "UPDATE pass SET finished_at = ?1, outcome = 'interrupted', error = 'the process ended within it'
         WHERE finished_at IS NULL",
        [at],
    )?;
    Ok(closed)
}

/// Removes passes from before `cutoff` that changed nothing, but the first and the last whole sweep and those with a hold. Passes are
/// numbered in the order in which they were made: one after a pass between `cutoff` and `now` is not old, whatever a clock
/// that was wrong stamped it with.
pub fn prune(tx: &Tx<'_>, cutoff: &str, now: &str) -> Result<usize, StoreError> {
    let pruned = tx.execute(
        "DELETE FROM pass
         WHERE finished_at < ?1 AND created + updated + deleted + restored = 0
           AND id < (SELECT id FROM pass WHERE finished_at BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1)
           AND id NOT IN (SELECT pass_id FROM hold)
           AND id IS NOT (SELECT min(id) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held'))
           AND id IS NOT (SELECT max(id) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held'))",
        [cutoff, now],
    )?;
    Ok(pruned)
}

/// Whether the mirror lacks customers: no whole sweep has finished, or none had by this moment.
pub fn is_partial(conn: &Conn, as_of: Option<Timestamp>) -> Result<bool, StoreError> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held')
         AND finished_at <= coalesce(?1, finished_at))";
    Ok(conn.query_row(sql, [as_of.map(time::written)], |row| row.get(0))?)
}

/// Whether a whole sweep was ever finished.
pub fn has_whole_sweep(conn: &Conn) -> Result<bool, StoreError> {
    let found = conn.query_row(
        "SELECT 1 FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held') LIMIT 1",
        [],
        |_| Ok(()),
    );
    Ok(found.optional()?.is_some())
}

/// When the last whole sweep finished; `None` before the first one.
pub fn last_whole_sweep_at(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    let finished: Option<String> = conn
        .prepare_cached(
            "SELECT finished_at FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held') ORDER BY id DESC LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(finished.as_deref().and_then(time::read))
}

/// Notes since when the API refuses the key. Writes only what changes.
pub fn note_refused(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET refused_since = ?1 WHERE refused_since IS NULL", [at])?;
    Ok(())
}

/// Notes that the API does not refuse the key any more. Writes only what changes.
pub fn note_accepted(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    let since: Option<String> = tx.query_row("SELECT refused_since FROM meta", [], |row| row.get(0))?;
    if let Some(since) = since {
        engine::pause_patience(tx, &since, at)?;
        tx.execute("UPDATE meta SET refused_since = NULL", [])?;
    }
    Ok(())
}

/// Notes until when the API asked us to wait. Writes only what changes.
pub fn note_throttled(tx: &Tx<'_>, until: Option<&str>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET throttled_until = ?1 WHERE throttled_until IS NOT ?1", [until])?;
    Ok(())
}
