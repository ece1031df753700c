//! Held deletions: the customers that wait for an operator's decision, and what became of them.
//!
//! A hold only shrinks. A customer's state is `held` until an operator decides (`approved`, `rejected`). A held or approved customer
//! that answers, or that is listed again, ends `alive`; one that is proven gone, or that our own push deleted, ends `deleted`. A
//! rejected one that is there again ends `seen`. A restore ends all holds (`superseded`).

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

/// Puts a customer under a hold.
pub fn add(tx: &Tx<'_>, hold: HoldId, customer: &CustomerId) -> Result<(), StoreError> {
    let mut statement =
        tx.prepare_cached("INSERT INTO held_customer (hold_id, customer_id, state) VALUES (?1, ?2, 'held')")?;
    statement.execute(params![hold, customer.as_str()])?;
    Ok(())
}

/// Takes a customer out of its hold, because another one takes it up.
pub fn release(tx: &Tx<'_>, customer: &CustomerId) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE held_customer SET state = 'superseded' WHERE state = 'held' AND customer_id = ?1",
    )?;
    statement.execute([customer.as_str()])?;
    Ok(())
}

/// How many customers wait for a decision.
pub fn held_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "held")
}

/// Why this customer waits for a decision, if it does.
pub fn held_because(conn: &Conn, customer: &CustomerId) -> Result<Option<HoldReason>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT because FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' AND customer_id = ?1",
    )?;
    let word: Option<String> = statement.query_row([customer.as_str()], |row| row.get(0)).optional()?;
    Ok(word.and_then(|word| HoldReason::ALL.into_iter().find(|reason| reason.word() == word)))
}

/// Shows `visit` the mirror's row of each customer who waits for a decision for one of these reasons.
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

/// Whether every deletion waits for a person: no whole sweep has concluded since the database was restored, or what that sweep held
/// is not decided yet.
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

/// When the database was restored, while no whole sweep has concluded since.
pub fn restored_at(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT restored_at FROM meta", [], |row| row.get(0))?)
}

/// A whole sweep has concluded. Writes only what changes.
pub fn note_concluded(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET restored_at = NULL WHERE restored_at IS NOT NULL", [])?;
    Ok(())
}

/// The database was restored: the next whole sweep holds all that it misses, those too about whom a person had said yes.
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

/// Whether a person has said yes or no about this customer, and it has not ended yet.
pub fn is_decided(conn: &Conn, customer: &CustomerId) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM held_customer WHERE state IN ('approved', 'rejected') AND customer_id = ?1",
    )?;
    Ok(statement.exists([customer.as_str()])?)
}

/// Whether a person's "no" about this customer stands.
pub fn is_rejected(conn: &Conn, customer: &CustomerId) -> Result<bool, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT 1 FROM held_customer WHERE state = 'rejected' AND customer_id = ?1")?;
    Ok(statement.exists([customer.as_str()])?)
}

/// What a person can say to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may be deleted, if the remote still says that they are gone.
    Approve,
    /// They stay, and are not reported again until they are seen again.
    Reject,
}

/// Decides one hold, or every open one; returns how many customers that settles.
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
    // By its number a hold can be decided the other way, as far as that has not been carried out.
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
                "hold {hold} has no deletion to decide; `komoju-sync deletions list` shows those that do"
            ),
            None => "no deletion waits for a decision".to_owned(),
        }));
    }
    Ok(decided)
}

/// How many customers' deletions were approved and not settled since.
pub fn approved_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "approved")
}

/// How many customers stay because a person rejected their deletion, and were not seen since.
pub fn rejected_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, "rejected")
}

fn count(conn: &Conn, state: &str) -> Result<u64, StoreError> {
    let count = "SELECT count(DISTINCT customer_id) FROM held_customer WHERE state = ?1";
    let count: i64 = conn.query_row(count, [state], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Up to `count` customers whose deletion a person approved and that were not settled since, after `after` by id.
pub fn approved(conn: &Conn, after: &str, count: u32) -> Result<Vec<CustomerId>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT customer_id FROM held_customer
         WHERE state = 'approved' AND customer_id > ?1
         ORDER BY customer_id LIMIT ?2",
    )?;
    let ids = statement.query_map(params![after, count], |row| id_in(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Shows `visit` the mirror's row of each customer whose deletion waits for a person or was decided, as long as that has not ended.
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

/// Ends the hold of a customer, or the decision about it. A rejected one that is there again ends `seen`.
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
