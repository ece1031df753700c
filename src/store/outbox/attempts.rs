//! The rows of attempts: claimed before the first byte is sent, and ended with their outcome.

use rusqlite::params;

use super::engine::write;
use crate::store::outbox::rows::digest;
use crate::store::{StoreError, Tx};
use komoju_core::intent::lifecycle::Lifecycle;
use komoju_core::open_intent::{FrozenRequest, OpenIntent};
use komoju_core::park_timer::ParkTimer;
use komoju_core::plan::settle::{AttemptEnd, IntentUpdate};
use komoju_core::time;

/// Begins the attempt of a claimed intent: from here on a byte may be sent. What it froze is kept
/// from the first attempt on.
pub fn claim(tx: &Tx<'_>, open: &OpenIntent, park_timer: &ParkTimer, at: &str) -> Result<(), StoreError> {
    write(tx, open.position, open.life, IntentUpdate::default())?;
    let content = open.intent.as_ref().ok().map(digest);
    freeze(tx, open.position, &open.frozen)?;
    let (boot, boot_ms) = park_timer.boot.as_ref().map(|(boot, ms)| (boot, ms)).unzip();
    tx.prepare_cached(
        "UPDATE outbox SET patience_from = ?2, patience_boot = ?3, patience_boot_ms = ?4, content = coalesce(content, ?5)
         WHERE position = ?1",
    )?
    .execute(params![open.position, time::written(park_timer.from), boot, boot_ms, content])?;
    tx.prepare_cached("INSERT INTO attempts (intent_id, n, started_at) VALUES (?1, ?2, ?3)")?
        .execute(params![open.id, open.life.attempts, at])?;
    Ok(())
}

/// Stores what later attempts repeat.
pub fn freeze(tx: &Tx<'_>, position: i64, frozen: &FrozenRequest) -> Result<(), StoreError> {
    let (boot, boot_ms) = frozen.first_boot.as_ref().map(|(boot, ms)| (boot, ms)).unzip();
    tx.prepare_cached(
        "UPDATE outbox SET key = ?2, tag = ?3, base = ?4, first_attempt_at = ?5, first_boot = ?6, first_boot_ms = ?7, first_server_at = ?8,
             met_server_error = met_server_error AND key IS ?2,
             first_seq = CASE WHEN key IS ?2 THEN first_seq ELSE (SELECT coalesce(max(seq), 0) FROM change_log) END
         WHERE position = ?1",
    )?
    .execute(params![
        position,
        frozen.key,
        frozen.tag,
        frozen.base,
        frozen.first_attempt_at,
        boot,
        boot_ms,
        frozen.first_server_at
    ])?;
    Ok(())
}

/// Stores when a create is first sent, by the server's clock. Where the server tells no time, the
/// outcome counts as unknown until the attempt ends: a later process must know that the create may
/// have taken effect.
pub fn freeze_first(tx: &Tx<'_>, position: i64, frozen: &FrozenRequest) -> Result<(), StoreError> {
    if frozen.first_server_at.is_some() {
        return freeze(tx, position, frozen);
    }
    tx.prepare_cached("UPDATE outbox SET outcome_unknown = 1 WHERE position = ?1")?.execute([position])?;
    Ok(())
}

/// Ends the attempt that is under way.
pub fn end_attempt(
    tx: &Tx<'_>,
    open: &OpenIntent,
    life: Lifecycle,
    at: &str,
    end: &AttemptEnd,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE attempts SET finished_at = ?3, status = ?4, outcome = ?5, error = ?6 WHERE intent_id = ?1 AND n = ?2",
    )?
    .execute(params![open.id, life.attempts, at, end.status, life.state.word(), end.error])?;
    if end.status.is_some_and(|status| status >= 500) {
        tx.prepare_cached("UPDATE outbox SET met_server_error = 1 WHERE position = ?1")?
            .execute([open.position])?;
    }
    Ok(())
}
