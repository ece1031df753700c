//! Scrubbing: overwrites every byte of the database file that holds no content with zero.
//!
//! A value that left its row may still be wherever SQLite ever moved it. That is between the cells
//! of any page, behind the end of an overflow page, or on a free page. When another table takes
//! over a free page, it is in the pages of that table. `secure_delete` does not prevent that, and
//! another program may have it off. So no page is trusted: all are read, and bytes that are not
//! content are overwritten. Afterwards each byte of the file is content, structure or zero, so a
//! value that no row holds is gone.
//!
//! One write transaction does it, through `sqlite_dbpage`, a table whose rows are the pages. Only
//! pages that change are written, so it costs about as much as reading the file once. Nothing
//! depends on the names, triggers or columns of the schema.
//!
//! These designs were rejected:
//! - `VACUUM`. For a million customers it takes a minute, during which nothing else can be written,
//!   and three times the file's size.
//! - Rewriting tables. It depends on every name in the schema, and leaves the root page and the
//!   pages of other tables.

use rusqlite::TransactionBehavior;

use super::page::{self, Malformed, PageUse};
use crate::store::{Conn, StoreError, Tx};

/// Overwrites all unused bytes, and stores up to which marks that is done, in one transaction.
pub(in crate::store) fn scrub(conn: &mut Conn) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let unused = find_unused(&tx)?;
    {
        let mut read = tx.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut write = tx.prepare("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
        for (number, used) in unused.dirty {
            let mut bytes: Vec<u8> = read.query_row([number], |row| row.get(0))?;
            page::wipe(&mut bytes, number, used, unused.usable).map_err(|Malformed| malformed(number))?;
            write.execute((number, bytes))?;
        }
    }
    tx.execute(
        "UPDATE meta SET scrubbed_tokens = left_over_tokens, scrubbed_erasure = unscrubbed_erasure, scrubbed_wal = NULL",
        [],
    )?;
    tx.commit()?;
    Ok(())
}

/// The pages whose unused bytes are not all zero.
struct Unused {
    usable: usize,
    dirty: Vec<(u32, PageUse)>,
}

fn find_unused(tx: &Tx<'_>) -> Result<Unused, StoreError> {
    let mut one = tx.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    let mut load = |number: u32| one.query_row([number], |row| row.get::<_, Vec<u8>>(0));
    let first = load(1)?;
    let usable = page::usable(&first).map_err(|Malformed| malformed(1))?;
    let mut dirty = Vec::new();
    let mut look = |number: u32, used: PageUse, bytes: &mut [u8]| -> Result<(), StoreError> {
        if page::wipe(bytes, number, used, usable).map_err(|Malformed| malformed(number))? {
            dirty.push((number, used));
        }
        Ok(())
    };

    let mut trees = tx.prepare(
        "SELECT tree.pageno, tree.pagetype, tree.payload, page.data
         FROM dbstat AS tree CROSS JOIN sqlite_dbpage AS page ON page.pgno = tree.pageno",
    )?;
    let mut rows = trees.query([])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        let used = match row.get_ref(1)?.as_bytes().unwrap_or_default() {
            b"internal" | b"leaf" => PageUse::Tree,
            b"overflow" => PageUse::Overflow(row.get(2)?),
            _ => return Err(malformed(number)),
        };
        bytes.clear();
        bytes.extend_from_slice(row.get_ref(3)?.as_blob().unwrap_or_default());
        look(number, used, &mut bytes)?;
    }

    // Each trunk page lists at least itself, so there are at most as many of them as free pages.
    let free: u32 = tx.query_row("SELECT freelist_count FROM pragma_freelist_count", [], |row| row.get(0))?;
    let mut trunk = page::first_trunk(&first).map_err(|Malformed| malformed(1))?;
    for _ in 0..free {
        if trunk == 0 {
            break;
        }
        let mut bytes = load(trunk)?;
        let leaves: Vec<u32> = page::leaves(&bytes).map_err(|Malformed| malformed(trunk))?.collect();
        let next = page::next_trunk(&bytes).map_err(|Malformed| malformed(trunk))?;
        look(trunk, PageUse::Trunk, &mut bytes)?;
        for leaf in leaves {
            look(leaf, PageUse::Free, &mut load(leaf)?)?;
        }
        trunk = next;
    }
    Ok(Unused { usable, dirty })
}

fn malformed(number: u32) -> StoreError {
    StoreError::Impossible(format!("page {number} contradicts the format of a database"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::store::file::open;

    /// Returns how often the value occurs in the database file.
    fn count(path: &Path) -> usize {
        std::fs::read(path).unwrap().windows(6).filter(|window| window == b"SECRET").count()
    }

    #[test]
    fn free_pages_and_reused_pages_are_scrubbed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let mut conn = open::for_writing(&path).unwrap();
        let other = Connection::open(&path).unwrap();
        // First there are free pages. Then overflow pages, indexes and tables take over some of
        // them, and leave their ends unchanged.
        other
            .execute_batch(
                "PRAGMA secure_delete = OFF;
                 CREATE TABLE gone (x);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                     INSERT INTO gone SELECT replace(hex(zeroblob(450)), '000', 'SECRET') FROM n;
                 DROP TABLE gone;
                 CREATE TABLE kept (x); CREATE INDEX kept_x ON kept (x);
                 INSERT INTO kept VALUES (hex(zeroblob(2500))), (hex(zeroblob(4000))), ('short');
                 PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        assert!(count(&path) > 1000);
        let free: i64 = other.query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap();
        assert!(free > 1100, "more than one page lists them: {free}");
        scrub(&mut conn).unwrap();
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(count(&path), 0);
        let whole: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let kept: i64 = other.query_row("SELECT sum(length(x)) FROM kept", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 5000 + 8000 + 5);
    }
}
