//! The operator's decisions about intents: retry, cancel, approve.
//!
//! [`komoju_core::intent::lifecycle`] computes every transition; it is written here or in
//! [`super::engine`]. The triggers of the schema refuse any other.

use rusqlite::params;

use super::rows::{StoredIntent, find, is_erased};
use super::{engine, spool};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::lifecycle::{Lifecycle, OutcomeStatus, RetryBody};
use komoju_core::intent::{IntentBody, IntentOp, MASKED_TOKEN, Rule};
use komoju_core::plan::settle::IntentUpdate;

fn must_find(conn: &Conn, id: &str) -> Result<StoredIntent, StoreError> {
    find(conn, id)?.ok_or_else(|| {
        StoreError::Refused(format!(
            "there is no intent {id}; `komoju-sync intent list --all` shows them all"
        ))
    })
}

/// Retries an intent, with a corrected body or the same. With another body it gets a new key and a
/// new first attempt; so does an intent that the API rejected. Where a byte may have left, the key
/// stays.
///
/// # Errors
/// [`StoreError::Refused`] where this state or content cannot be retried.
pub fn retry(tx: &Tx<'_>, id: &str, corrected: Option<&IntentBody>) -> Result<Lifecycle, StoreError> {
    let row = must_find(tx, id)?;
    if is_erased(tx, id)? {
        return Err(StoreError::Refused(format!(
            "{id}: its content was erased with its customer, so it cannot be retried; submit another intent"
        )));
    }
    let with = if corrected.is_some() { RetryBody::Corrected } else { RetryBody::Same };
    let life = row.life.retry(with).map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let op = row.intent.map(|intent| intent.op);
    match (&op, corrected) {
        (Ok(IntentOp::Delete(_)), Some(_)) => {
            return Err(StoreError::Refused(format!("{id} is a delete: it has no body to correct")));
        }
        (Ok(IntentOp::Create(_)), Some(body)) if body.fields().is_empty() => {
            return Err(StoreError::Refused(format!("body: {}", Rule::EmptyCreate)));
        }
        (Ok(IntentOp::Update(..)), Some(body)) if body.fields().is_empty() => {
            return Err(StoreError::Refused(format!("body: {}", Rule::EmptyUpdate)));
        }
        (Ok(IntentOp::Create(body) | IntentOp::Update(_, body)), None)
            if body.token() == Some(MASKED_TOKEN) =>
        {
            return Err(StoreError::Refused(format!(
                "the payment token of {id} is no longer stored (it is wiped when an intent is settled, and left out of backups); \
                 pass the whole body again, with another token (--body @FILE)"
            )));
        }
        _ => {}
    }
    engine::as_engine(tx, || {
        tx.execute(
            "UPDATE intents SET state = ?2, body = coalesce(?3, body), next_attempt_at = NULL, settled_at = NULL,
                 reason = 'an operator requested a retry', detail = NULL
             WHERE position = ?1",
            params![row.position, life.state.word(), corrected.map(IntentBody::text)],
        )?;
        tx.execute(
            "UPDATE outbox SET outcome_unknown = ?2, patience_from = NULL WHERE position = ?1",
            params![row.position, life.outcome == OutcomeStatus::Unknown],
        )?;
        spool::reopen(tx, id)?;
        Ok(())
    })?;
    Ok(life)
}

/// Cancels an intent.
pub fn cancel(tx: &Tx<'_>, id: &str, at: &str, by: &str) -> Result<(), StoreError> {
    let row = must_find(tx, id)?;
    let life = row.life.cancel().map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let update = IntentUpdate {
        settled_at: Some(at.to_owned()),
        reason: Some(format!("cancelled by {by}")),
        ..IntentUpdate::default()
    };
    engine::as_engine(tx, || engine::write(tx, row.position, life, update))
}

/// Approves these deletes, or every held one. Returns how many.
pub fn approve(tx: &Tx<'_>, ids: &[String]) -> Result<usize, StoreError> {
    let mut approved = 0;
    for id in ids {
        let row = must_find(tx, id)?;
        if !matches!(row.intent.as_ref().map(|intent| &intent.op), Ok(IntentOp::Delete(_))) {
            return Err(StoreError::Refused(format!(
                "{id} is not a delete: only deletes wait for an approval"
            )));
        }
        if !row.life.state.blocks_followers() {
            return Err(StoreError::Refused(format!("{id} is {} already", row.life.state)));
        }
        approved += approve_one(tx, row.position)?;
    }
    if ids.is_empty() {
        let waiting: Vec<i64> = tx
            .prepare("SELECT position FROM outbox WHERE is_open = 1 AND held = 1 ORDER BY position")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for position in waiting {
            approved += approve_one(tx, position)?;
        }
    }
    Ok(approved)
}

fn approve_one(tx: &Tx<'_>, position: i64) -> Result<usize, StoreError> {
    engine::as_engine(tx, || {
        tx.execute(
            "UPDATE intents SET reason = NULL
             WHERE state = 'queued' AND position = (SELECT position FROM outbox WHERE position = ?1 AND held = 1)",
            [position],
        )?;
        Ok(tx.execute(
            "UPDATE outbox SET approved = 1, held = 0 WHERE position = ?1 AND approved = 0",
            [position],
        )?)
    })
}
