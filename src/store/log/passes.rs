//! The passes: what each read, when, and how it ended.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::store::file::inspect::APPLICATION_ID;
use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::{PassId, PassKind, PassOutcome, Tally, time};

/// Writes the header of the file again. The commit proves that the database can be written.
pub fn prove_writable(tx: &Tx<'_>) -> Result<(), StoreError> {
    // SQLite writes no page for an UPDATE that changes no value.
    Ok(tx.pragma_update(None, "application_id", APPLICATION_ID)?)
}

/// Opens a pass; returns its number.
pub fn start(tx: &Tx<'_>, kind: PassKind, at: &str) -> Result<PassId, StoreError> {
    tx.execute(
        "INSERT INTO pass (kind, started_at, since_at) VALUES (?1, ?2, ?2)",
        params![kind.word(), at],
    )?;
    Ok(tx.last_insert_rowid())
}

/// The list that a pass reads, as its newest answer describes it. Zero before the first answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListPosition {
    /// The last page that is known; 0 if none is.
    pub last_page: u64,
    /// How many customers a page holds.
    pub per_page: u64,
}

/// Writes the progress of a running pass.
pub fn progress(tx: &Tx<'_>, id: PassId, tally: &Tally, position: ListPosition) -> Result<(), StoreError> {
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
    outcome: PassOutcome,
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
pub struct InterruptedSweep {
    /// Its number.
    pub id: PassId,
    /// What it did. The first `pages` pages of the list are applied without a gap.
    pub tally: Tally,
    /// The list that it read.
    pub position: ListPosition,
}

/// Returns the last sweep, if it was interrupted before it had read the whole list, so that another
/// process can resume it. The caller holds the database and runs no pass, so a pass that is still
/// open was cut by a crash.
pub fn interrupted(conn: &Conn) -> Result<Option<InterruptedSweep>, StoreError> {
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
            let position = ListPosition { last_page: row.get(8)?, per_page: row.get(9)? };
            Ok(InterruptedSweep { id: row.get(0)?, tally, position })
        },
    );
    Ok(found.optional()?)
}

/// Opens an interrupted pass again, to resume it.
pub fn resume(tx: &Tx<'_>, id: PassId, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE pass SET finished_at = NULL, outcome = NULL, error = NULL, resumed = 1, since_at = ?2, since_pages = pages
         WHERE id = ?1",
        params![id, at],
    )?;
    Ok(())
}

/// Closes the passes that an earlier instance left open. The caller holds the lock, so no pass can
/// be running.
pub fn close_orphans(tx: &Tx<'_>, at: &str) -> Result<usize, StoreError> {
    let closed = tx.execute(
        "UPDATE pass SET finished_at = ?1, outcome = 'interrupted', error = 'the process ended during the pass'
         WHERE finished_at IS NULL",
        [at],
    )?;
    Ok(closed)
}

/// Removes passes from before `cutoff` that changed nothing, except the first and the last complete
/// (or held) sweep and passes with a hold. Passes are numbered in the order of their start. A pass
/// after one that ended between `cutoff` and `now` is not old, whatever time a wrong clock gave it.
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

/// Returns whether the mirror lacks customers: no complete (or held) sweep has ended, or none had
/// at this moment.
pub fn is_partial(conn: &Conn, as_of: Option<Timestamp>) -> Result<bool, StoreError> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held')
         AND finished_at <= coalesce(?1, finished_at))";
    Ok(conn.query_row(sql, [as_of.map(time::written)], |row| row.get(0))?)
}

/// Returns whether a complete (or held) sweep has ever ended.
pub fn has_whole_sweep(conn: &Conn) -> Result<bool, StoreError> {
    let found = conn.query_row(
        "SELECT 1 FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held') LIMIT 1",
        [],
        |_| Ok(()),
    );
    Ok(found.optional()?.is_some())
}

/// Returns when the last whole sweep finished; `None` before the first one.
pub fn last_whole_sweep_at(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    let finished: Option<String> = conn
        .prepare_cached(
            "SELECT finished_at FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held') ORDER BY id DESC LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(finished.as_deref().and_then(time::read))
}

/// Records since when the API refuses the key. Writes only what changes.
pub fn note_refused(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET refused_since = ?1 WHERE refused_since IS NULL", [at])?;
    Ok(())
}

/// Records that the API no longer refuses the key. Writes only what changes.
pub fn note_accepted(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    let since: Option<String> = tx.query_row("SELECT refused_since FROM meta", [], |row| row.get(0))?;
    if let Some(since) = since {
        engine::pause_park_timers(tx, &since, at)?;
        tx.execute("UPDATE meta SET refused_since = NULL", [])?;
    }
    Ok(())
}

/// Records until when the API asked us to wait. Writes only what changes.
pub fn note_throttled(tx: &Tx<'_>, until: Option<&str>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET throttled_until = ?1 WHERE throttled_until IS NOT ?1", [until])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn proof_that_the_database_is_writable_writes_to_the_disk() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let mut conn = open::for_writing(&path).unwrap();
        let written = || std::fs::metadata(directory.path().join("komoju.db-wal")).unwrap().len();
        let before = written();
        let tx = conn.transaction().unwrap();
        prove_writable(&tx).unwrap();
        tx.commit().unwrap();
        assert!(written() > before, "a full disk would not be noticed");
    }

    #[test]
    fn whole_sweep_is_a_sweep_that_is_complete_or_held() {
        let mut conn = open::in_memory();
        for (kind, outcome, is_whole) in [
            (PassKind::Sweep, None, false),
            (PassKind::Sweep, Some(PassOutcome::Partial), false),
            (PassKind::Sweep, Some(PassOutcome::Interrupted), false),
            (PassKind::Probe, Some(PassOutcome::Complete), false),
            (PassKind::Sweep, Some(PassOutcome::Complete), true),
            (PassKind::Sweep, Some(PassOutcome::Held), true),
        ] {
            let tx = conn.transaction().unwrap();
            assert!(!has_whole_sweep(&tx).unwrap(), "no pass");
            let id = start(&tx, kind, "2026-01-01T00:00:00.000Z").unwrap();
            if let Some(outcome) = outcome {
                finish(&tx, id, "2026-01-01T00:01:00.000Z", outcome, None).unwrap();
            }
            assert_eq!(has_whole_sweep(&tx).unwrap(), is_whole, "{kind}, {outcome:?}");
            tx.rollback().unwrap();
        }
    }

    #[test]
    fn pass_left_open_is_closed_once_and_a_finished_one_is_unchanged() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let finished = start(&tx, PassKind::Sweep, "2026-01-01T00:00:00.000Z").unwrap();
        finish(&tx, finished, "2026-01-01T00:01:00.000Z", PassOutcome::Complete, None).unwrap();
        assert_eq!(close_orphans(&tx, "2026-01-01T00:02:00.000Z").unwrap(), 0, "no pass is open");
        let open = start(&tx, PassKind::Sweep, "2026-01-01T00:03:00.000Z").unwrap();
        assert_eq!(close_orphans(&tx, "2026-01-01T00:04:00.000Z").unwrap(), 1);
        assert_eq!(close_orphans(&tx, "2026-01-01T00:05:00.000Z").unwrap(), 0, "it is closed already");
        let end = |id: PassId| -> (String, String) {
            let sql = "SELECT finished_at, outcome FROM pass WHERE id = ?1";
            tx.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(end(finished), ("2026-01-01T00:01:00.000Z".into(), "complete".into()));
        assert_eq!(end(open), ("2026-01-01T00:04:00.000Z".into(), "interrupted".into()));
    }
}
