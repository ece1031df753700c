//! Attempts at intents: claimed before the first byte leaves, and ended with what came of them.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::engine::{Frozen, Open, Words, write};
use crate::store::outbox::rows::digest;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::lifecycle::Lifecycle;
use komoju_core::patience::Patience;
use komoju_core::time;

/// Begins an attempt: from here on a byte may leave. What `frozen` fixes is kept from the first attempt on.
pub fn claim(
    tx: &Tx<'_>,
    open: &Open,
    life: Lifecycle,
    frozen: &Frozen,
    patience: &Patience,
    at: &str,
) -> Result<(), StoreError> {
    write(tx, open.position, life, Words::default())?;
    let content = open.intent.as_ref().ok().map(digest);
    freeze(tx, open.position, frozen)?;
    let (boot, boot_ms) = patience.boot.as_ref().map(|(boot, ms)| (boot, ms)).unzip();
    tx.prepare_cached(
        "UPDATE outbox SET patience_from = ?2, patience_boot = ?3, patience_boot_ms = ?4, content = coalesce(content, ?5)
         WHERE position = ?1",
    )?
    .execute(params![open.position, time::written(patience.from), boot, boot_ms, content])?;
    tx.prepare_cached("INSERT INTO attempts (intent_id, n, started_at) VALUES (?1, ?2, ?3)")?
        .execute(params![open.id, life.attempts, at])?;
    Ok(())
}

/// When the attempt before this one ended; `None` for the first one.
pub fn last_attempt_at(conn: &Conn, open: &Open) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(finished_at, started_at) FROM attempts WHERE intent_id = ?1 AND n < ?2 ORDER BY n DESC LIMIT 1",
    )?;
    let at: Option<String> =
        statement.query_row(params![open.id, open.life.attempts], |row| row.get(0)).optional()?;
    Ok(at.as_deref().and_then(time::read))
}

/// Fixes what attempts from now on repeat.
pub fn freeze(tx: &Tx<'_>, position: i64, frozen: &Frozen) -> Result<(), StoreError> {
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

/// From here on the attempt under way may take effect: until it has ended, its outcome is unknown.
pub fn note_unknown(tx: &Tx<'_>, position: i64) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE outbox SET outcome_unknown = 1 WHERE position = ?1")?.execute([position])?;
    Ok(())
}

/// How an attempt ended.
#[derive(Clone, Debug, Default)]
pub struct AttemptEnd {
    /// The HTTP status.
    pub status: Option<u16>,
    /// What went wrong, masked.
    pub error: Option<String>,
}

/// Ends the attempt that runs.
pub fn end_attempt(
    tx: &Tx<'_>,
    open: &Open,
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
