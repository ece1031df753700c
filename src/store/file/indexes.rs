//! The indexes for readers, which are created after the first complete sweep.
//!
//! Ids and emails arrive in no order, so each new entry of such an index reads, logs and writes
//! another page of the database. Created once at the end, an index costs a fraction of that. Until
//! then the mirror is not complete anyway.

use super::open;
use crate::store::{Conn, StoreError};

/// An index that is created after the first complete sweep.
#[derive(Clone, Copy, Debug)]
pub struct ReaderIndex {
    /// Its name.
    pub name: &'static str,
    sql: &'static str,
}

/// ALL holds these indexes. Each takes some time for a million customers, and is created in its own
/// transaction.
pub const ALL: [ReaderIndex; 2] = [
    ReaderIndex {
        name: "change_log_by_customer",
        sql: "CREATE INDEX IF NOT EXISTS change_log_by_customer ON change_log (customer_id, seq)",
    },
    ReaderIndex {
        name: "mirror_by_email",
        sql: "CREATE INDEX IF NOT EXISTS mirror_by_email ON mirror (email) WHERE email IS NOT NULL",
    },
];

/// Creates one of [`ALL`] if it is missing.
pub(in crate::store) fn ensure(conn: &mut Conn, index: ReaderIndex) -> Result<(), StoreError> {
    match exists(conn, index.name)? {
        true => Ok(()),
        false => open::with_temporary_files(conn, |conn| Ok(conn.execute_batch(index.sql)?)),
    }
}

/// Returns whether the database has an index of this name.
pub(in crate::store) fn exists(conn: &Conn, name: &str) -> Result<bool, StoreError> {
    Ok(conn.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?.exists([name])?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Returns whether this process has one of SQLite's temporary files open. They have no name any
    /// more.
    fn has_temporary_file() -> bool {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let names = open.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        names.into_iter().any(|name| name.to_string_lossy().contains("/etilqs_"))
    }

    #[test]
    fn index_is_sorted_in_a_temporary_file() {
        let mut conn = open::in_memory();
        conn.pragma_update(None, "temp_store", "memory").unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO mirror (id, email, body, first_seen_at, changed_at, live_seq, seq)
                 SELECT i, hex(randomblob(150)), '{}', '', '', 1, 1 FROM n",
        )
        .unwrap();
        let seen = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&seen);
        let look = move || {
            noted.fetch_or(has_temporary_file(), Ordering::Relaxed);
            false
        };
        conn.progress_handler(10_000, Some(look)).unwrap();
        ensure(&mut conn, ALL[1]).unwrap();
        assert!(seen.load(Ordering::Relaxed), "it was sorted in memory");
        let stored: i64 = conn.pragma_query_value(None, "temp_store", |row| row.get(0)).unwrap();
        assert_eq!(stored, 2, "and from then on nothing is");
        // An index that exists costs nothing.
        ensure(&mut conn, ALL[1]).unwrap();
    }
}
