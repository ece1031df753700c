//! Wipes copies of settled tokens and of erased data that are left outside of rows: first in the
//! pages, then in the WAL.
//!
//! A trigger counts each token that leaves its row (`meta.left_over_tokens`), and an erasure sets
//! `meta.unscrubbed_erasure`. Scrubbing the pages and emptying the WAL each store the marks that
//! they have reached. So data that is added meanwhile never counts as wiped. The backlog survives a
//! restart, and is reported until no byte is left.

use std::path::Path;
use std::time::Duration;

use rusqlite::TransactionBehavior;

use super::wal::{self, OldFrames};
use super::{open, place, scrub};
use crate::store::{Conn, StoreError, Tx};

/// MAX_FRAMES controls how many frames of the WAL one attempt overwrites (40 MB). The database's
/// only writer does it, and other writes wait for it.
const MAX_FRAMES: u64 = 10_000;

/// BATCH controls how many frames one transaction overwrites. A stop and other writers wait for one
/// transaction at most.
const BATCH: u64 = 500;

/// What may still hold copies of settled tokens or of erased data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WipeBacklog {
    /// Whether erased data may be left.
    pub erasure: bool,
    /// Whether settled tokens may be left.
    pub tokens: bool,
    /// Whether pages may hold data. Otherwise only the WAL, and the pages that it will replace,
    /// may.
    pub in_pages: bool,
    /// Since when data is left.
    pub since: Option<String>,
    /// Whether two attempts in a row failed to wipe it.
    pub is_blocked: bool,
}

impl WipeBacklog {
    /// Returns whether data is left.
    pub fn is_any(&self) -> bool {
        self.erasure || self.tokens
    }
}

/// Returns what is left.
pub fn backlog(conn: &Conn) -> Result<WipeBacklog, StoreError> {
    let sql = "SELECT unscrubbed_erasure IS NOT NULL, wiped_tokens <> left_over_tokens,
                      scrubbed_tokens <> left_over_tokens OR scrubbed_erasure IS NOT unscrubbed_erasure, wipe_since, wipe_blocked
               FROM meta";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(WipeBacklog {
            erasure: row.get(0)?,
            tokens: row.get(1)?,
            in_pages: row.get(2)?,
            since: row.get(3)?,
            is_blocked: row.get(4)?,
        })
    })?)
}

/// Records that data was erased.
pub(in crate::store) fn note_erasure(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE meta SET unscrubbed_erasure = abs(random() / 2),
             wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        [],
    )?;
    Ok(())
}

/// Records that the WAL alone may hold tokens, of rows that were never committed. The salt that was
/// stored for earlier tokens proves nothing about these.
pub(in crate::store) fn note_in_wal(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE meta SET scrubbed_tokens = scrubbed_tokens + (scrubbed_tokens = left_over_tokens),
             left_over_tokens = left_over_tokens + 1, scrubbed_wal = NULL,
             wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        [],
    )?;
    Ok(())
}

/// Records that two attempts in a row failed to wipe what is left.
pub fn note_blocked(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET wipe_blocked = 1 WHERE wipe_blocked = 0 AND wipe_since IS NOT NULL", [])?;
    Ok(())
}

/// Wipes what is left. Waits up to `wait` for another writer, and up to `wait` for readers of the
/// WAL. Returns `false` if a reader keeps old pages.
pub(in crate::store) fn wipe(conn: &mut Conn, wait: Duration) -> Result<bool, StoreError> {
    let found = backlog(conn)?;
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

/// Records that the WAL was emptied after the pages were scrubbed up to these marks. Data that left
/// its row since then is still left.
fn note_wiped(conn: &Conn, tokens: i64, erasure: Option<i64>) -> Result<(), StoreError> {
    conn.execute(
        "UPDATE meta SET wiped_tokens = ?1, wipe_blocked = 0, scrubbed_erasure = NULL, scrubbed_wal = NULL,
             unscrubbed_erasure = CASE WHEN unscrubbed_erasure IS NOT ?2 THEN unscrubbed_erasure END,
             wipe_since = CASE WHEN left_over_tokens <> ?1 OR unscrubbed_erasure IS NOT ?2 THEN wipe_since END",
        (tokens, erasure),
    )?;
    Ok(())
}

/// Returns whether another process, such as Litestream, restarted the WAL after the pages were
/// scrubbed, and no older frame is left. `salt` is the WAL's salt at that time; the first call
/// stores it.
fn others_emptied_wal(conn: &mut Conn, salt: Option<i64>) -> Result<bool, StoreError> {
    let Some(path) = conn.path() else { return Ok(false) };
    let path = place::sibling(&place::real(Path::new(path))?, "-wal");
    let failed = |source| StoreError::File { path: path.clone(), what: "cannot be read", source };
    let Some(salt) = salt else {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read the salt under the write lock: another process that scrubs now would write its
        // frames under a later salt.
        let salt = wal::salt(&path).map_err(failed)?;
        tx.execute("UPDATE meta SET scrubbed_wal = ?1", [salt])?;
        tx.commit()?;
        return Ok(false);
    };
    let mut allowed = MAX_FRAMES;
    loop {
        match wal::older_frames(&path, salt).map_err(failed)? {
            OldFrames::NotRestarted => return Ok(false),
            OldFrames::Remaining(0) => return Ok(true),
            OldFrames::Remaining(_) if allowed == 0 => return Ok(false),
            // A restart leaves older frames behind the new ones until something overwrites them,
            // and an idle database writes nothing. The WAL may restart once more meanwhile, so
            // count the frames again after each batch.
            OldFrames::Remaining(frames) => {
                let written = rewrite_pages(conn, frames.min(BATCH).min(allowed))?;
                allowed = allowed.saturating_sub(written.max(1));
            }
        }
    }
}

/// Writes up to this many unchanged pages to the WAL. Returns how many.
fn rewrite_pages(conn: &mut Conn, most: u64) -> Result<u64, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pages: u64 = tx.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let count = pages.min(most);
    {
        // Through `sqlite_dbpage` a page is written even if it does not change, and no trigger or
        // column takes part.
        let mut write = tx.prepare("UPDATE sqlite_dbpage SET data = data WHERE pgno = ?1")?;
        for number in 1..=count {
            write.execute([number])?;
        }
    }
    tx.commit()?;
    Ok(count)
}

/// Moves the content of the WAL into the database and truncates the WAL. Returns `false` if a
/// reader prevents that.
fn empty_wal(conn: &Conn) -> Result<bool, StoreError> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `tokens`, `erasure` and `in_pages` of the backlog.
    fn shown(conn: &Conn) -> [bool; 3] {
        let backlog = backlog(conn).unwrap();
        assert_eq!(backlog.is_any(), backlog.since.is_some());
        [backlog.tokens, backlog.erasure, backlog.in_pages]
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
    fn erasure_and_token_after_a_scrub_stay_in_the_backlog() {
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
        assert_eq!(backlog(&conn).unwrap(), WipeBacklog::default());
    }

    #[test]
    fn uncommitted_tokens_are_noted_in_the_wal_alone() {
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

    #[test]
    fn token_in_the_wal_after_its_restart_is_not_counted_as_wiped() {
        let mut conn = open::in_memory();
        token_leaves_its_row(&conn);
        scrub::scrub(&mut conn).unwrap();
        conn.execute_batch("UPDATE meta SET scrubbed_wal = 7").unwrap();
        let tx = conn.transaction().unwrap();
        note_in_wal(&tx).unwrap();
        tx.commit().unwrap();
        let salt: Option<i64> =
            conn.query_row("SELECT scrubbed_wal FROM meta", [], |row| row.get(0)).unwrap();
        assert_eq!(salt, None, "the salt is noted again");
    }

    /// Returns how often the value occurs in the file.
    fn count(path: &Path) -> usize {
        std::fs::read(path).unwrap().windows(6).filter(|window| window == b"SECRET").count()
    }

    #[test]
    fn older_frames_behind_a_restarted_wal_are_overwritten() {
        // The WAL has fewer frames than the database has pages, about as many, and so many that
        // several batches are needed.
        for commits in [1, 60, 1500] {
            let directory = tempfile::TempDir::new().unwrap();
            let path = directory.path().join("komoju.db");
            let wal = directory.path().join("komoju.db-wal");
            let mut conn = open::for_writing(&path).unwrap();
            let other = rusqlite::Connection::open(&path).unwrap();
            other
                .execute_batch(
                    "PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0; PRAGMA wal_checkpoint(TRUNCATE);
                     CREATE TABLE filled (x); INSERT INTO filled VALUES (0);",
                )
                .unwrap();
            for n in 1..=commits {
                other.execute("UPDATE filled SET x = ?1 || ' SECRET'", [n]).unwrap();
            }
            other.execute_batch("UPDATE filled SET x = 0").unwrap();
            token_leaves_its_row(&conn);
            let reader = rusqlite::Connection::open(&path).unwrap();
            let begin = |reader: &rusqlite::Connection| {
                reader.execute_batch("BEGIN; SELECT * FROM filled").unwrap();
            };
            begin(&reader);
            let soon = Duration::from_millis(1);
            for _ in 0..2 {
                assert!(!wipe(&mut conn, soon).unwrap(), "the reader keeps the WAL");
                assert!(count(&wal) > 0);
            }

            // As Litestream does: a complete checkpoint that keeps the file, and a read of the
            // database alone. No restart of the WAL waits for such a read, but every checkpoint
            // does.
            reader.execute_batch("COMMIT").unwrap();
            let all: bool = other
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
                })
                .unwrap();
            assert!(all);
            begin(&reader);
            other.execute_batch("UPDATE filled SET x = 'new'").unwrap();
            let (before, size) = (count(&wal), std::fs::metadata(&wal).unwrap().len());
            assert!(before > 0, "older frames are left");
            assert!(backlog(&conn).unwrap().is_any());

            assert!(wipe(&mut conn, soon).unwrap());
            assert_eq!((count(&wal), count(&path)), (0, 0), "{commits} commits");
            assert_eq!(backlog(&conn).unwrap(), WipeBacklog::default());
            // The last frame is the one that records that all is wiped.
            let now = std::fs::metadata(&wal).unwrap().len();
            assert!(now == size || now == size + 24 + 4096, "the WAL grows by no more: {size}, {now}");
            let x: String = other.query_row("SELECT x FROM filled", [], |row| row.get(0)).unwrap();
            assert_eq!(x, "new");
            let whole: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(whole, "ok");
        }
    }
}
