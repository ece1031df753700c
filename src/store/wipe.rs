//! What is left of settled tokens and erased data outside of the rows, and how that is wiped: pages first, then the WAL.
//!
//! A trigger counts each token that leaves its row (`meta.left_over_tokens`), and an erasure sets `meta.unscrubbed_erasure`. Scrubbing
//! the pages and emptying the WAL each note how far they have come, so what enters meanwhile is never taken for done. What is left
//! survives a restart, and is reported until no byte is left.

use std::path::Path;
use std::time::Duration;

use super::{Conn, StoreError, Tx, open, place, scrub, wal};

/// What may still hold copies of settled tokens or of erased data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Whether erased data may be left.
    pub erasure: bool,
    /// Whether settled tokens may be left.
    pub tokens: bool,
    /// Whether pages may hold some; otherwise only the WAL and the pages that it has yet to replace.
    pub in_pages: bool,
    /// Since when something is left.
    pub since: Option<String>,
    /// Whether two attempts in a row could not wipe it.
    pub is_blocked: bool,
}

impl Left {
    /// Whether anything is left.
    pub fn is_any(&self) -> bool {
        self.erasure || self.tokens
    }
}

/// Reads what is left.
pub fn left(conn: &Conn) -> Result<Left, StoreError> {
    let sql = "SELECT unscrubbed_erasure IS NOT NULL, wiped_tokens <> left_over_tokens,
                      scrubbed_tokens <> left_over_tokens OR scrubbed_erasure IS NOT unscrubbed_erasure, wipe_since, wipe_blocked
               FROM meta";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(Left {
            erasure: row.get(0)?,
            tokens: row.get(1)?,
            in_pages: row.get(2)?,
            since: row.get(3)?,
            is_blocked: row.get(4)?,
        })
    })?)
}

/// Notes that data was erased.
pub(super) fn note_erasure(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE meta SET unscrubbed_erasure = abs(random() / 2),
             wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        [],
    )?;
    Ok(())
}

/// Notes that the WAL alone may hold tokens, of rows that were never committed.
pub(super) fn note_in_wal(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE meta SET scrubbed_tokens = scrubbed_tokens + (scrubbed_tokens = left_over_tokens),
             left_over_tokens = left_over_tokens + 1,
             wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        [],
    )?;
    Ok(())
}

/// Notes whether what is left could not be wiped by two attempts in a row.
pub fn note_blocked(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET wipe_blocked = 1 WHERE wipe_blocked = 0 AND wipe_since IS NOT NULL", [])?;
    Ok(())
}

/// Wipes what is left, waiting up to `wait` for another writer, and as long for readers of the WAL; `false` if a reader keeps old
/// pages.
pub(super) fn wipe(conn: &mut Conn, wait: Duration) -> Result<bool, StoreError> {
    let found = left(conn)?;
    if !found.is_any() {
        return Ok(true);
    }
    conn.busy_timeout(wait)?;
    let wiped = wipe_now(conn, found.in_pages);
    conn.busy_timeout(open::BUSY)?;
    wiped
}

fn wipe_now(conn: &mut Conn, in_pages: bool) -> Result<bool, StoreError> {
    if in_pages {
        scrub::scrub(conn)?;
    }
    let sql = "SELECT scrubbed_tokens, scrubbed_erasure, scrubbed_wal FROM meta";
    let (tokens, erasure, salt): (i64, Option<i64>, Option<i64>) =
        conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let is_clean = empty_wal(conn)? || others_emptied_wal(conn, salt)?;
    if is_clean {
        note_wiped(conn, tokens, erasure)?;
    }
    Ok(is_clean)
}

/// Notes that the WAL was emptied after the pages were scrubbed at these marks. What left its row since then is still left.
fn note_wiped(conn: &Conn, tokens: i64, erasure: Option<i64>) -> Result<(), StoreError> {
    conn.execute(
        "UPDATE meta SET wiped_tokens = ?1, wipe_blocked = 0, scrubbed_erasure = NULL, scrubbed_wal = NULL,
             unscrubbed_erasure = CASE WHEN unscrubbed_erasure IS NOT ?2 THEN unscrubbed_erasure END,
             wipe_since = CASE WHEN left_over_tokens <> ?1 OR unscrubbed_erasure IS NOT ?2 THEN wipe_since END",
        (tokens, erasure),
    )?;
    Ok(())
}

/// Returns whether another process, such as Litestream, restarted the WAL after the pages were scrubbed. `salt` is what the WAL had
/// then; the first call notes it.
fn others_emptied_wal(conn: &Conn, salt: Option<i64>) -> Result<bool, StoreError> {
    let Some(path) = conn.path() else { return Ok(false) };
    let path = place::beside(&place::real(Path::new(path))?, "-wal");
    let failed = |source| StoreError::File { path: path.clone(), what: "cannot be read", source };
    match salt {
        Some(salt) => wal::is_new_since(&path, salt).map_err(failed),
        None => {
            let salt = wal::salt(&path).map_err(failed)?;
            conn.execute("UPDATE meta SET scrubbed_wal = ?1", [salt])?;
            Ok(false)
        }
    }
}

/// Empties the WAL into the database; `false` if a reader prevents that.
fn empty_wal(conn: &Conn) -> Result<bool, StoreError> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tokens`, `erasure` and `in_pages` of what is left.
    fn shown(conn: &Conn) -> [bool; 3] {
        let left = left(conn).unwrap();
        assert_eq!(left.is_any(), left.since.is_some());
        [left.tokens, left.erasure, left.in_pages]
    }

    fn token_leaves_its_row(conn: &Conn) {
        conn.execute_batch("UPDATE meta SET left_over_tokens = left_over_tokens + 1, wipe_since = 'x'")
            .unwrap();
    }

    fn erasure(conn: &mut Conn) -> Option<i64> {
        let tx = conn.transaction().unwrap();
        note_erasure(&tx).unwrap();
        tx.commit().unwrap();
        conn.query_row("SELECT unscrubbed_erasure FROM meta", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn erasure_and_token_after_the_scrub_stay_left() {
        let mut conn = open::in_memory();
        token_leaves_its_row(&conn);
        let first = erasure(&mut conn);
        assert_eq!(shown(&conn), [true, true, true]);
        scrub::scrub(&mut conn).unwrap();
        assert_eq!(shown(&conn), [true, true, false], "the WAL is left");
        token_leaves_its_row(&conn);
        let second = erasure(&mut conn);
        note_wiped(&conn, 1, first).unwrap();
        assert_eq!(shown(&conn), [true, true, true], "the second of each");
        scrub::scrub(&mut conn).unwrap();
        note_wiped(&conn, 2, first).unwrap();
        assert_eq!(shown(&conn), [false, true, true]);
        scrub::scrub(&mut conn).unwrap();
        note_wiped(&conn, 2, second).unwrap();
        assert_eq!(left(&conn).unwrap(), Left::default());
    }

    #[test]
    fn tokens_that_were_never_committed_are_in_the_wal_alone() {
        let mut conn = open::in_memory();
        let note = |conn: &mut Conn| {
            let tx = conn.transaction().unwrap();
            note_in_wal(&tx).unwrap();
            tx.commit().unwrap();
        };
        note(&mut conn);
        assert_eq!(shown(&conn), [true, false, false]);
        token_leaves_its_row(&conn);
        note(&mut conn);
        assert_eq!(shown(&conn), [true, false, true], "pages that are to be scrubbed still are");
    }
}
