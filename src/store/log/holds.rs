//! Held deletions: the customers that wait for an operator's decision, and how their holds ended.
//!
//! A hold only shrinks. A customer's state is `held` until an operator decides (`approved`,
//! `rejected`). A held or approved customer that answers, or that is listed again, ends as `alive`.
//! One that is proven to be gone, or that our own push deleted, ends as `deleted`. A rejected one
//! that exists again ends as `seen`. A restore ends the held and approved ones as `superseded`.

use rusqlite::{OptionalExtension, params};

use super::mirror::id_in;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::plan::absence::HoldReason;
use komoju_core::{CustomerId, PassId};

pub use komoju_core::plan::absence::HoldEnd;

/// The number of a hold.
pub type HoldId = i64;

/// Opens a hold for a pass; its customers are added with [`add`].
pub fn open(tx: &Tx<'_>, pass: PassId, at: &str, reason: HoldReason) -> Result<HoldId, StoreError> {
    tx.execute(
        "INSERT INTO hold (pass_id, opened_at, because) VALUES (?1, ?2, ?3)",
        params![pass, at, reason.word()],
    )?;
    Ok(tx.last_insert_rowid())
}

/// Adds a customer to a hold.
pub fn add(tx: &Tx<'_>, hold: HoldId, customer: &CustomerId) -> Result<(), StoreError> {
    let mut statement =
        tx.prepare_cached("INSERT INTO held_customer (hold_id, customer_id, state) VALUES (?1, ?2, 'held')")?;
    statement.execute(params![hold, customer.as_str()])?;
    Ok(())
}

/// Takes a customer out of its hold, because another hold takes it.
pub fn release(tx: &Tx<'_>, customer: &CustomerId) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE held_customer SET state = 'superseded' WHERE state = 'held' AND customer_id = ?1",
    )?;
    statement.execute([customer.as_str()])?;
    Ok(())
}

/// Returns how many customers wait for a decision.
pub fn held_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "held")
}

/// Returns the reason of the hold in which this customer waits for a decision, if it does.
pub fn held_because(conn: &Conn, customer: &CustomerId) -> Result<Option<HoldReason>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT because FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' AND customer_id = ?1",
    )?;
    let word: Option<String> = statement.query_row([customer.as_str()], |row| row.get(0)).optional()?;
    Ok(word.and_then(|word| HoldReason::ALL.into_iter().find(|reason| reason.word() == word)))
}

/// Shows `visit` the mirror's row of each customer that waits for a decision, for one of these
/// reasons.
pub fn each_held_row(
    conn: &Conn,
    reasons: &[HoldReason],
    mut visit: impl FnMut(i64),
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT row, because FROM held_customer JOIN hold ON hold.id = hold_id JOIN mirror ON mirror.id = customer_id
         WHERE state = 'held'",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let word: String = row.get(1)?;
        if reasons.iter().any(|reason| reason.word() == word) {
            visit(row.get(0)?);
        }
    }
    Ok(())
}

/// Returns whether every deletion is held. That is so after a restore until a sweep has accounted
/// for every customer, and until the deletions that it held are decided.
pub fn holds_all(conn: &Conn) -> Result<bool, StoreError> {
    let holds = conn.query_row(
        "SELECT restored_at IS NOT NULL OR EXISTS (
             SELECT 1 FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' AND because = ?1)
         FROM meta",
        [HoldReason::Restored.word()],
        |row| row.get(0),
    );
    Ok(holds?)
}

/// Returns when the database was restored; `None` once a sweep has accounted for every customer
/// since.
pub fn restored_at(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT restored_at FROM meta", [], |row| row.get(0))?)
}

/// Records that a sweep has accounted for every customer. Writes only what changes.
pub fn note_concluded(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET restored_at = NULL WHERE restored_at IS NOT NULL", [])?;
    Ok(())
}

/// Records that the database was restored: the next complete sweep holds everything that it misses,
/// also deletions that an operator had approved.
pub(in crate::store) fn hold_all_from(tx: &Tx<'_>, restored_at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET restored_at = ?1", [restored_at])?;
    tx.execute("UPDATE held_customer SET state = 'superseded' WHERE state IN ('held', 'approved')", [])?;
    Ok(())
}

/// Returns whether a deletion of this customer is held, or was decided and has not ended yet.
pub fn is_unsettled(conn: &Conn, customer: &CustomerId) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM held_customer WHERE state IN ('held', 'approved', 'rejected') AND customer_id = ?1",
    )?;
    Ok(statement.exists([customer.as_str()])?)
}

/// Returns whether an operator has decided about this customer, and the deletion has not ended yet.
pub fn is_decided(conn: &Conn, customer: &CustomerId) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM held_customer WHERE state IN ('approved', 'rejected') AND customer_id = ?1",
    )?;
    Ok(statement.exists([customer.as_str()])?)
}

/// Returns whether an operator's rejection of this deletion is in force.
pub fn is_rejected(conn: &Conn, customer: &CustomerId) -> Result<bool, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT 1 FROM held_customer WHERE state = 'rejected' AND customer_id = ?1")?;
    Ok(statement.exists([customer.as_str()])?)
}

/// An operator's decision about a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Record the deletions, if the remote still says that the customers are gone.
    Approve,
    /// Keep the customers live, and do not report them until they are seen again.
    Reject,
}

/// Decides one hold, or every open one. Returns how many deletions that decides.
///
/// # Errors
/// [`StoreError::Refused`] where there is nothing to decide.
pub fn decide(
    tx: &Tx<'_>,
    hold: Option<HoldId>,
    decision: Decision,
    at: &str,
    by: &str,
) -> Result<usize, StoreError> {
    let (state, other) = match decision {
        Decision::Approve => ("approved", "rejected"),
        Decision::Reject => ("rejected", "approved"),
    };
    // A hold that is named by its number can be decided the other way, unless that was carried out.
    let also = if hold.is_some() { other } else { "held" };
    tx.execute(
        "UPDATE hold SET decided_at = ?2, decided_by = ?3
         WHERE id IN (SELECT hold_id FROM held_customer WHERE state IN ('held', ?4)) AND id = coalesce(?1, id)",
        params![hold, at, by, also],
    )?;
    let decided = tx.execute(
        "UPDATE held_customer SET state = ?2 WHERE state IN ('held', ?3) AND hold_id = coalesce(?1, hold_id)",
        params![hold, state, also],
    )?;
    if decided == 0 {
        return Err(StoreError::Refused(match hold {
            Some(hold) => format!(
                "hold {hold} has no deletion to decide; `komoju-sync deletions list` lists the holds that have one"
            ),
            None => "no deletion waits for a decision".to_owned(),
        }));
    }
    Ok(decided)
}

/// Returns how many deletions are approved and not settled yet.
pub fn approved_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "approved")
}

/// Returns how many customers stay live because an operator rejected their deletion, and were not
/// seen since.
pub fn rejected_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "rejected")
}

fn count(conn: &Conn, state: &str) -> Result<u64, StoreError> {
    let count = "SELECT count(DISTINCT customer_id) FROM held_customer WHERE state = ?1";
    let count: i64 = conn.query_row(count, [state], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns up to `count` customers, after `after` by id, whose deletion is approved and not settled
/// yet.
pub fn approved(conn: &Conn, after: &str, count: u32) -> Result<Vec<CustomerId>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT customer_id FROM held_customer
         WHERE state = 'approved' AND customer_id > ?1
         ORDER BY customer_id LIMIT ?2",
    )?;
    let ids = statement.query_map(params![after, count], |row| id_in(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Shows `visit` the mirror's row of each customer whose deletion is held, or is decided and has
/// not ended.
pub fn each_unsettled_row(conn: &Conn, mut visit: impl FnMut(i64)) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT row FROM mirror
         WHERE id IN (SELECT customer_id FROM held_customer WHERE state IN ('held', 'approved', 'rejected'))",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?);
    }
    Ok(())
}

/// Ends the hold of a customer, or the decision about it. A rejected customer that exists again
/// ends as `seen`.
pub fn end(tx: &Tx<'_>, customer: &CustomerId, end: HoldEnd) -> Result<(), StoreError> {
    let sql = match end {
        HoldEnd::Deleted => {
            "UPDATE held_customer SET state = 'deleted' WHERE state IN ('held', 'approved', 'rejected') AND customer_id = ?1"
        }
        HoldEnd::Alive => {
            "UPDATE held_customer SET state = iif(state = 'rejected', 'seen', 'alive')
             WHERE state IN ('held', 'approved', 'rejected') AND customer_id = ?1"
        }
    };
    tx.prepare_cached(sql)?.execute([customer.as_str()])?;
    Ok(())
}
