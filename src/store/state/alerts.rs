//! Conditions that need an operator, and which of them were sent. Each is sent once, also across
//! restarts.

use rusqlite::params;

use crate::store::{Conn, StoreError, Tx};

/// Whether the mirror is stale. The caller decides, because the decision needs the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// It is not stale.
    Fresh,
    /// It is stale. That does not start an alert, and does not end one.
    Stale,
    /// It is stale, and an alert is due.
    Overdue,
}

impl rusqlite::ToSql for Staleness {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        let word = match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Overdue => "overdue",
        };
        Ok(word.into())
    }
}

/// The conditions that are active now: kind, and the thing that each is about. `?1` is a
/// [`Staleness`].
const ACTIVE: &str = "
    SELECT 'held_deletions' AS kind, CAST(hold_id AS TEXT) AS thing FROM held_customer WHERE state = 'held' GROUP BY hold_id
    UNION ALL SELECT 'held_deletes', '' WHERE EXISTS (SELECT 1 FROM outbox WHERE is_open = 1 AND held = 1)
    UNION ALL SELECT 'parked_intents', id FROM intents WHERE state = 'parked'
    UNION ALL SELECT 'key_refused', refused_since FROM meta WHERE refused_since IS NOT NULL
    UNION ALL SELECT 'account_stopped', stopped_at FROM account WHERE stopped_at IS NOT NULL
    UNION ALL SELECT 'unfinished_wipe', wipe_since FROM meta
        WHERE wipe_blocked = 1 AND wipe_since IS NOT NULL AND (unscrubbed_erasure IS NOT NULL OR wiped_tokens <> left_over_tokens)
    UNION ALL SELECT 'stale_mirror', ''
        WHERE ?1 = 'overdue' OR (?1 = 'stale' AND EXISTS (SELECT 1 FROM alert WHERE kind = 'stale_mirror'))";

/// A kind of condition with at least one thing that was not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAlert {
    /// The kind's name in SQL and in the note.
    pub kind: String,
    /// How many things of this kind are active.
    pub count: u64,
    /// How many of those were not sent.
    pub new: u64,
    /// When the first of all of them was noticed.
    pub noticed_at: String,
    /// When things that are still active were last sent.
    pub last_sent_at: Option<String>,
}

/// Returns whether the table `alert` lists exactly the active conditions. Writes nothing.
pub fn is_noted(conn: &Conn, staleness: Staleness) -> Result<bool, StoreError> {
    let sql = format!(
        "WITH active AS ({ACTIVE})
         SELECT NOT EXISTS (SELECT kind, thing FROM active EXCEPT SELECT kind, thing FROM alert)
            AND NOT EXISTS (SELECT kind, thing FROM alert EXCEPT SELECT kind, thing FROM active)"
    );
    Ok(conn.prepare_cached(&sql)?.query_row([staleness], |row| row.get(0))?)
}

/// Adds new conditions to the table, and removes those that are no longer active.
pub fn note(tx: &Tx<'_>, staleness: Staleness, at: &str) -> Result<(), StoreError> {
    let cleared =
        format!("DELETE FROM alert WHERE (kind, thing) NOT IN (SELECT kind, thing FROM ({ACTIVE}))");
    tx.prepare_cached(&cleared)?.execute([staleness])?;
    let new = format!(
        "INSERT OR IGNORE INTO alert (kind, thing, noticed_at) SELECT kind, thing, ?2 FROM ({ACTIVE})"
    );
    tx.prepare_cached(&new)?.execute(params![staleness, at])?;
    Ok(())
}

/// Returns the kinds with things that were not sent, the earliest noticed first.
pub fn pending(conn: &Conn) -> Result<Vec<PendingAlert>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT kind, count(*), count(*) FILTER (WHERE told_at IS NULL) AS new, min(noticed_at) AS first, max(told_at)
         FROM alert GROUP BY kind HAVING new > 0 ORDER BY first, kind",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(PendingAlert {
            kind: row.get(0)?,
            count: row.get(1)?,
            new: row.get(2)?,
            noticed_at: row.get(3)?,
            last_sent_at: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Records that all noted conditions of this kind were sent.
pub fn note_sent(tx: &Tx<'_>, kind: &str, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE alert SET told_at = ?2 WHERE kind = ?1 AND told_at IS NULL", [kind, at])?;
    Ok(())
}

/// Returns whether no condition is noted.
pub fn is_empty(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM alert)", [], |row| row.get(0))?)
}

/// Returns the oldest hold that is not decided.
pub fn oldest_hold(conn: &Conn) -> Result<Option<i64>, StoreError> {
    Ok(conn.query_row("SELECT min(hold_id) FROM held_customer WHERE state = 'held'", [], |row| row.get(0))?)
}

/// Returns the held delete intent that was accepted first.
pub fn oldest_held_delete(conn: &Conn) -> Result<Option<String>, StoreError> {
    let sql = "SELECT id FROM intents WHERE position = (SELECT min(position) FROM outbox WHERE is_open = 1 AND held = 1)";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;
    use Staleness::{Fresh, Overdue, Stale};

    fn kinds(conn: &Conn) -> Vec<(String, u64, u64)> {
        pending(conn).unwrap().into_iter().map(|alert| (alert.kind, alert.count, alert.new)).collect()
    }

    #[test]
    fn alert_is_sent_once_and_removed_when_it_clears() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        assert!(is_noted(&tx, Fresh).unwrap() && is_noted(&tx, Stale).unwrap() && is_empty(&tx).unwrap());
        tx.execute_batch(
            "INSERT INTO hold (pass_id, opened_at, because) VALUES (1, 'x', 'too_many'), (2, 'y', 'too_many');
             INSERT INTO held_customer VALUES (1, 'a', 'held'), (1, 'b', 'held'), (2, 'c', 'rejected');
             UPDATE meta SET refused_since = 't1'",
        )
        .unwrap();
        assert!(!is_noted(&tx, Fresh).unwrap());
        note(&tx, Fresh, "2026-01-01").unwrap();
        assert!(is_noted(&tx, Fresh).unwrap() && !is_noted(&tx, Overdue).unwrap());
        let first = [("held_deletions".to_owned(), 1, 1), ("key_refused".to_owned(), 1, 1)];
        assert_eq!(kinds(&tx), first);
        note_sent(&tx, "held_deletions", "2026-01-02").unwrap();
        assert_eq!(kinds(&tx), first[1..]);
        assert_eq!(oldest_hold(&tx).unwrap(), Some(1));

        // Another hold, and a key that was accepted and refused again, are new.
        note_sent(&tx, "key_refused", "2026-01-02").unwrap();
        tx.execute_batch("UPDATE held_customer SET state = 'held'; UPDATE meta SET refused_since = 't2'")
            .unwrap();
        note(&tx, Overdue, "2026-01-03").unwrap();
        note(&tx, Stale, "2026-01-03").unwrap();
        assert!(is_noted(&tx, Stale).unwrap(), "a sent alert stays until the mirror is fresh");
        let second = [
            ("held_deletions".to_owned(), 2, 1),
            ("key_refused".to_owned(), 1, 1),
            ("stale_mirror".to_owned(), 1, 1),
        ];
        let mut now = kinds(&tx);
        now.sort();
        assert_eq!(now, second);
        let hold = pending(&tx).unwrap().into_iter().find(|alert| alert.kind == "held_deletions").unwrap();
        assert_eq!(
            (hold.noticed_at.as_str(), hold.last_sent_at.as_deref()),
            ("2026-01-01", Some("2026-01-02"))
        );

        tx.execute_batch("UPDATE held_customer SET state = 'alive'; UPDATE meta SET refused_since = NULL")
            .unwrap();
        assert!(!is_noted(&tx, Fresh).unwrap());
        note(&tx, Fresh, "2026-01-04").unwrap();
        assert!(is_empty(&tx).unwrap() && is_noted(&tx, Fresh).unwrap());
        assert_eq!((oldest_hold(&tx).unwrap(), oldest_held_delete(&tx).unwrap()), (None, None));
    }
}
