//! The mirror's rows. Only [`super::changes`] and [`super::verify::rebuild`] change them.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};

use crate::store::{Conn, StoreError, Tx};
use komoju_core::{Customer, CustomerId, MirrorRow, time};

/// A customer's row: its small dense number, which a sweep marks as seen, and the customer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCustomer {
    /// The row's number, from 1.
    pub row: i64,
    /// The customer's state; its body is never `None` here.
    pub mirror_row: MirrorRow,
}

/// Returns the customer with this id, live or deleted.
pub fn find(conn: &Conn, id: &CustomerId) -> Result<Option<StoredCustomer>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT row, body, first_seen_at, changed_at, deleted_at, live_seq, seq
         FROM mirror WHERE id = ?1",
    )?;
    let stored = statement.query_row([id.as_str()], |row| {
        Ok(StoredCustomer {
            row: row.get(0)?,
            mirror_row: MirrorRow {
                body: row.get(1)?,
                first_seen_at: row.get(2)?,
                changed_at: row.get(3)?,
                deleted_at: row.get(4)?,
                live_seq: row.get(5)?,
                seq: row.get(6)?,
            },
        })
    });
    Ok(stored.optional()?)
}

/// Returns whether the mirror ever had this customer: live, deleted, or erased since.
pub fn ever_had(conn: &Conn, id: &CustomerId) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM mirror WHERE id = ?1) OR EXISTS (SELECT 1 FROM change_log WHERE customer_id = ?1)",
    )?;
    Ok(statement.query_row([id.as_str()], |row| row.get(0))?)
}

/// Returns the id in this row; `None` if its customer was erased since the row was noted.
pub fn id_of(conn: &Conn, row: i64) -> Result<Option<CustomerId>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id FROM mirror WHERE row = ?1")?;
    Ok(statement.query_row([row], |row| id_in(row, 0)).optional()?)
}

/// Returns the id in this row, if its customer is live.
pub fn live_id_of(conn: &Conn, row: i64) -> Result<Option<CustomerId>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id FROM mirror WHERE row = ?1 AND deleted_at IS NULL")?;
    Ok(statement.query_row([row], |row| id_in(row, 0)).optional()?)
}

/// Writes a customer's state, into its row if it has one, and returns the row. Email and creation
/// time are taken from the body, so that the columns agree with it. `customer` is the parsed body,
/// if the caller has it.
pub(in crate::store) fn put(
    tx: &Tx<'_>,
    row: Option<i64>,
    id: &CustomerId,
    mirror_row: &MirrorRow,
    customer: Option<&Customer>,
) -> Result<i64, StoreError> {
    let body = mirror_row
        .body
        .as_deref()
        .ok_or_else(|| StoreError::Impossible(format!("customer {id} without content")))?;
    let read;
    let customer = match customer {
        Some(customer) => customer,
        None => {
            read = Customer::from_body(body).map_err(|why| {
                StoreError::Impossible(format!("customer {id} with content that is none ({why})"))
            })?;
            &read
        }
    };
    let sql = match row {
        Some(_) => {
            "UPDATE mirror SET id = ?2, email = ?3, created_at = ?4, body = ?5, first_seen_at = ?6, changed_at = ?7,
                 deleted_at = ?8, live_seq = ?9, seq = ?10
             WHERE row = ?1"
        }
        None => {
            "INSERT INTO mirror (row, id, email, created_at, body, first_seen_at, changed_at, deleted_at, live_seq, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        }
    };
    tx.prepare_cached(sql)?.execute(params![
        row,
        id.as_str(),
        customer.email(),
        customer.created_at(),
        body,
        mirror_row.first_seen_at,
        mirror_row.changed_at,
        mirror_row.deleted_at,
        mirror_row.live_seq,
        mirror_row.seq,
    ])?;
    Ok(row.unwrap_or_else(|| tx.last_insert_rowid()))
}

/// Returns whether the columns that are taken from the body agree with it.
pub(in crate::store) fn columns_agree(conn: &Conn, id: &CustomerId) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT email, created_at, body FROM mirror WHERE id = ?1")?;
    let (email, created_at, body): (Option<String>, Option<String>, String) =
        statement.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(Customer::from_body(&body).is_ok_and(|customer| {
        customer.email() == email.as_deref() && customer.created_at() == created_at.as_deref()
    }))
}

/// Removes a customer and all that is noted of it, after an erasure.
pub(in crate::store) fn remove(tx: &Tx<'_>, id: &CustomerId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM listed WHERE row = (SELECT row FROM mirror WHERE id = ?1)")?
        .execute([id.as_str()])?;
    for table in ["recheck", "unlisted", "hint", "event"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE customer_id = ?1"))?.execute([id.as_str()])?;
    }
    tx.prepare_cached("DELETE FROM mirror WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Empties the mirror before a rebuild.
pub(in crate::store) fn clear(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM listed", [])?;
    tx.execute("DELETE FROM mirror", [])?;
    Ok(())
}

/// Returns how many customers are live.
pub fn live_count(conn: &Conn) -> Result<u64, StoreError> {
    let live: i64 = conn.prepare_cached("SELECT live FROM meta")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(live).unwrap_or(0))
}

/// Updates the counts: `live` customers became live, `deleted` became tombstones, and `undeleted`
/// are no longer tombstones.
pub(in crate::store) fn count(
    tx: &Tx<'_>,
    live: u64,
    deleted: u64,
    undeleted: u64,
) -> Result<(), StoreError> {
    if live + deleted + undeleted > 0 {
        tx.prepare_cached("UPDATE meta SET live = live + ?1 - ?2, deleted = deleted + ?2 - ?3")?
            .execute(params![live, deleted, undeleted])?;
    }
    Ok(())
}

/// Counts the rows of the mirror: live and deleted.
pub(in crate::store) fn counted(conn: &Conn) -> Result<(i64, i64), StoreError> {
    let counts = conn.query_row(
        "SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(*) FILTER (WHERE deleted_at IS NOT NULL) FROM mirror",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    Ok(counts?)
}

/// Sets the stored counts to the number of rows.
pub(in crate::store) fn recount(tx: &Tx<'_>) -> Result<(), StoreError> {
    let (live, deleted) = counted(tx)?;
    tx.execute("UPDATE meta SET live = ?1, deleted = ?2", params![live, deleted])?;
    Ok(())
}

/// Returns the newest known `created_at` of a live customer that is not later than `now`.
pub fn newest_created_at(conn: &Conn, now: &str) -> Result<Option<jiff::Timestamp>, StoreError> {
    let newest: Option<String> = conn.query_row(
        "SELECT max(created_at) FROM mirror WHERE deleted_at IS NULL AND created_at <= ?1",
        [now],
        |row| row.get(0),
    )?;
    Ok(newest.as_deref().and_then(time::read))
}

/// Shows `visit` each customer that may become a *suspect*: live since the change `head` of the log
/// or earlier, and not decided by an operator. The caller knows which rows its sweep saw.
pub fn each_live_before(
    conn: &Conn,
    head: i64,
    mut visit: impl FnMut(i64, CustomerId) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT row, id FROM mirror
         WHERE deleted_at IS NULL AND live_seq <= ?1
           AND id NOT IN (SELECT customer_id FROM held_customer WHERE state IN ('approved', 'rejected'))",
    )?;
    let mut rows = statement.query([head])?;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?, id_in(row, 1)?)?;
    }
    Ok(())
}

/// Which customers [`live_from`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveFilter {
    /// All live customers.
    All,
    /// All live customers but those whose deletion an operator approved. They are the canaries
    /// while those are requested.
    Unapproved,
}

/// Returns the largest row number; 0 for an empty mirror.
pub fn last_row(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_row("SELECT coalesce(max(row), 0) FROM mirror", [], |row| row.get(0))?)
}

/// Returns up to `count` live customers that can be requested, from this row on, then from the
/// first row. Those whose deletion is held, approved or rejected come last, because most of them
/// are gone.
pub fn live_from(
    conn: &Conn,
    row: i64,
    count: usize,
    filter: LiveFilter,
) -> Result<Vec<CustomerId>, StoreError> {
    const DOUBTFUL: &str =
        "(SELECT customer_id FROM held_customer WHERE state IN ('held', 'approved', 'rejected'))";
    let approved = match filter {
        LiveFilter::All => "",
        LiveFilter::Unapproved => {
            "AND id NOT IN (SELECT customer_id FROM held_customer WHERE state = 'approved')"
        }
    };
    let mut ids = Vec::with_capacity(count);
    for doubt in [format!("NOT IN {DOUBTFUL}"), format!("IN {DOUBTFUL} {approved}")] {
        for side in ["row >= ?1", "row < ?1"] {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT id FROM mirror
                 WHERE {side} AND deleted_at IS NULL AND id NOT IN ('.', '..') AND id {doubt}
                 ORDER BY row LIMIT ?2"
            ))?;
            let room = i64::try_from(count - ids.len()).unwrap_or(0);
            let found = statement.query_map(params![row, room], |row| id_in(row, 0))?;
            for id in found {
                ids.push(id?);
            }
        }
    }
    Ok(ids)
}

/// Reads a column that holds a customer's id.
pub(in crate::store) fn id_in(row: &Row<'_>, column: usize) -> rusqlite::Result<CustomerId> {
    let text: String = row.get(column)?;
    CustomerId::new(text)
        .map_err(|why| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(why)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::file::open;
    use crate::store::log::changes;
    use crate::store::log::changes::{ChangeContext, Recorder};
    use komoju_core::{ChangeKind, Origin};

    #[test]
    fn suspect_candidates_were_live_before_the_head() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let cause = ChangeContext {
            observed_at: "2026-01-01T00:00:00.000Z".into(),
            origin: Origin::Sweep,
            pass_id: None,
            intent_id: None,
        };
        let customer = |id: &str| Customer::from_value(json!({"id": id})).unwrap();
        let stored = |id: &str| find(&tx, customer(id).id()).unwrap();
        let earlier = |recorder: &mut Recorder<'_, '_>| {
            for id in ["stays", "gone", "back"] {
                recorder.record(ChangeKind::Created, &customer(id), None)?;
            }
            recorder.record_deleted(customer("gone").id())?;
            recorder.record_deleted(customer("back").id())
        };
        changes::recording(&tx, cause.clone(), earlier).unwrap();
        let head = changes::head(&tx).unwrap().seq;
        let later = |recorder: &mut Recorder<'_, '_>| {
            recorder.record(ChangeKind::Restored, &customer("back"), stored("back"))?;
            recorder.record(ChangeKind::Created, &customer("new"), None)?;
            let stays = customer("stays").with("email", Some(json!("x")));
            recorder.record(ChangeKind::Updated, &stays, stored("stays"))
        };
        changes::recording(&tx, cause, later).unwrap();
        assert_eq!((live_count(&tx).unwrap(), counted(&tx).unwrap()), (3, (3, 1)));

        let mut shown = Vec::new();
        each_live_before(&tx, head, |_, id| {
            shown.push(id.as_str().to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(shown, ["stays"]);
    }
}
