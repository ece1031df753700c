//! The operator's decisions about intents: retry, cancel, approve.
//!
//! Every transition is computed by [`komoju_core::intent::lifecycle`] and written here or in [`super::engine`]; the triggers of the
//! schema refuse any other.

use rusqlite::params;

use super::rows::{Known, find, is_erased};
use super::{engine, spool};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::lifecycle::{Lifecycle, OutcomeStatus, RetryBody};
use komoju_core::intent::{IntentBody, IntentOp, MASKED_TOKEN, Rule};
use komoju_core::plan::settle::IntentUpdate;

fn must_find(conn: &Conn, id: &str) -> Result<Known, StoreError> {
    find(conn, id)?.ok_or_else(|| {
        StoreError::Refused(format!(
            "there is no intent {id}; `komoju-sync intent list --all` shows them all"
        ))
    })
}

/// A person wants it tried again, with a corrected body or the same. With another body it gets another key, and a first attempt of
/// its own; so does one that the API said no to. Where a byte may have left, the key stays.
pub fn retry(tx: &Tx<'_>, id: &str, corrected: Option<&IntentBody>) -> Result<Lifecycle, StoreError> {
    let known = must_find(tx, id)?;
    if is_erased(tx, id)? {
        return Err(StoreError::Refused(format!(
            "{id}: its content was erased with its customer, so it cannot be tried again; drop another intent"
        )));
    }
    let with = if corrected.is_some() { RetryBody::Corrected } else { RetryBody::Same };
    let life = known.life.retry(with).map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let op = known.intent.map(|intent| intent.op);
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
                "the payment token of {id} is not here any more (it is wiped when an intent is settled, and left out of backups); \
                 give its whole body anew, with another token (--body @FILE)"
            )));
        }
        _ => {}
    }
    engine::own(tx, || {
        tx.execute(
            "UPDATE intents SET state = ?2, body = coalesce(?3, body), next_attempt_at = NULL, settled_at = NULL,
                 reason = 'a person wants it tried again', detail = NULL
             WHERE position = ?1",
            params![known.position, life.state.word(), corrected.map(IntentBody::text)],
        )?;
        tx.execute(
            "UPDATE outbox SET outcome_unknown = ?2, patience_from = NULL WHERE position = ?1",
            params![known.position, life.outcome == OutcomeStatus::Unknown],
        )?;
        spool::reopen(tx, id)?;
        Ok(())
    })?;
    Ok(life)
}

/// A person takes it back.
pub fn cancel(tx: &Tx<'_>, id: &str, at: &str, by: &str) -> Result<(), StoreError> {
    let known = must_find(tx, id)?;
    let life = known.life.cancel().map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let update = IntentUpdate {
        settled_at: Some(at.to_owned()),
        reason: Some(format!("cancelled by {by}")),
        ..IntentUpdate::default()
    };
    engine::own(tx, || engine::write(tx, known.position, life, update))
}

/// A person lets deletes through: these, or every one that waits for it. Returns how many.
pub fn approve(tx: &Tx<'_>, ids: &[String]) -> Result<usize, StoreError> {
    let mut approved = 0;
    for id in ids {
        let known = must_find(tx, id)?;
        if !matches!(known.intent.as_ref().map(|intent| &intent.op), Ok(IntentOp::Delete(_))) {
            return Err(StoreError::Refused(format!(
                "{id} is not a delete: only deletes wait for an approval"
            )));
        }
        if !known.life.state.blocks_followers() {
            return Err(StoreError::Refused(format!("{id} is {} already", known.life.state)));
        }
        approved += let_through(tx, known.position)?;
    }
    if ids.is_empty() {
        let waiting: Vec<i64> = tx
            .prepare("SELECT position FROM outbox WHERE is_open = 1 AND held = 1 ORDER BY position")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for position in waiting {
            approved += let_through(tx, position)?;
        }
    }
    Ok(approved)
}

fn let_through(tx: &Tx<'_>, position: i64) -> Result<usize, StoreError> {
    engine::own(tx, || {
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
