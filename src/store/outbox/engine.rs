//! The outbox: which intents are due, and the transitions that need no attempt.
//!
//! The intents of one *lane* (a column of `outbox`) are sent one after the other. The lane is a
//! customer's id. For a create and the intents that wait for its customer, it is `@` and the
//! create's id.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, params};

use crate::store::outbox::rows::{intent_in, life_in};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::MASKED_TOKEN;
use komoju_core::intent::lifecycle::{Lifecycle, OutcomeStatus};
use komoju_core::open_intent::{FrozenRequest, OpenIntent};
use komoju_core::park_timer::ParkTimer;
use komoju_core::plan::settle::IntentUpdate;
use komoju_core::{CustomerId, time};

/// LONGEST_WAIT_MS controls which waits without a stored length are believed. No attempt waits
/// longer than a day.
const LONGEST_WAIT_MS: i64 = 24 * 60 * 60 * 1000;

/// The time that decides which intents are due.
#[derive(Clone, Debug)]
pub struct DueTimes {
    /// The time at which waits end.
    pub at: String,
    /// The time at which `not_before` ends; `None` while the clock is not confirmed.
    pub confirmed: Option<String>,
}

const OPEN: &str = "SELECT outbox.position, id, state, outcome_unknown,
     (SELECT coalesce(max(n), 0) FROM attempts WHERE intent_id = id), op, customer_id, body, expect, not_before, lane, key, tag, base,
     first_attempt_at, first_boot, first_boot_ms, first_server_at, met_server_error, patience_from, patience_boot, patience_boot_ms,
     (SELECT coalesce(finished_at, started_at) FROM attempts WHERE intent_id = id ORDER BY n DESC LIMIT 1)
     FROM outbox CROSS JOIN intents USING (position)";

/// Returns up to `count` intents that are due, except those in `tried`, in the order of acceptance.
pub fn due(
    conn: &Conn,
    now: &DueTimes,
    count: usize,
    tried: &HashSet<i64>,
) -> Result<Vec<OpenIntent>, StoreError> {
    let mut found = Vec::new();
    each_due(conn, OPEN, now, tried, |row| {
        found.push(open_in(row)?);
        Ok(found.len() < count)
    })?;
    Ok(found)
}

/// Returns whether an intent is due that is not among `tried`. Reads no intent's content.
pub fn is_any_due(conn: &Conn, now: &DueTimes, tried: &HashSet<i64>) -> Result<bool, StoreError> {
    let positions = "SELECT outbox.position FROM outbox CROSS JOIN intents USING (position)";
    let mut is_any = false;
    each_due(conn, positions, now, tried, |_| {
        is_any = true;
        Ok(false)
    })?;
    Ok(is_any)
}

/// Calls `visit` with the first intent of each lane, if it is due, until `visit` returns false. A
/// wait that has longer left than it was planned for was planned by a clock that was set back
/// since. Such a wait is over.
fn each_due(
    conn: &Conn,
    select: &str,
    now: &DueTimes,
    tried: &HashSet<i64>,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "{select} WHERE is_head = 1 AND held = 0 AND is_follower = 0 AND state IN ('queued', 'waiting')
             AND (coalesce(next_attempt_at, '') <= ?1
                 OR julianday(next_attempt_at) > julianday(?1) + (coalesce(wait_ms, {LONGEST_WAIT_MS}) + 1) / 86400000.0)
             AND (not_before IS NULL OR julianday(not_before) <= julianday(?2))
             AND NOT EXISTS (SELECT 1 FROM outbox AS sent WHERE sent.lane = outbox.lane AND sent.is_sending = 1)
         ORDER BY outbox.position"
    ))?;
    let mut rows = statement.query(params![now.at, now.confirmed])?;
    while let Some(row) = rows.next()? {
        if !tried.contains(&row.get(0)?) && !visit(row)? {
            break;
        }
    }
    Ok(())
}

/// Returns one open intent, whether it is due or not.
pub fn open(conn: &Conn, position: i64) -> Result<Option<OpenIntent>, StoreError> {
    let sql = format!("{OPEN} WHERE outbox.position = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([position], open_in).optional()?)
}

fn open_in(row: &Row<'_>) -> rusqlite::Result<OpenIntent> {
    let lane: String = row.get(10)?;
    // A create has no customer yet. Every other lane is the customer's id.
    let customer = (!lane.starts_with('@')).then(|| CustomerId::new(lane).ok()).flatten();
    let (boot, boot_ms): (Option<String>, Option<i64>) = (row.get(15)?, row.get(16)?);
    let last_attempt_at: Option<String> = row.get(22)?;
    Ok(OpenIntent {
        position: row.get(0)?,
        id: row.get(1)?,
        intent: intent_in(row, 5),
        life: life_in(row, 2)?,
        customer,
        frozen: FrozenRequest {
            key: row.get(11)?,
            tag: row.get(12)?,
            base: row.get(13)?,
            first_attempt_at: row.get(14)?,
            first_boot: boot.zip(boot_ms),
            first_server_at: row.get(17)?,
        },
        met_server_error: row.get(18)?,
        park_timer: park_timer_in(row)?,
        last_attempt_at: last_attempt_at.as_deref().and_then(time::read),
    })
}

fn park_timer_in(row: &Row<'_>) -> rusqlite::Result<Option<ParkTimer>> {
    let (from, boot, ms): (Option<String>, Option<String>, Option<i64>) =
        (row.get(19)?, row.get(20)?, row.get(21)?);
    Ok(from.as_deref().and_then(time::read).map(|from| ParkTimer { from, boot: boot.zip(ms) }))
}

/// Returns when the next intent becomes due, of those that wait only for a time.
pub fn next_due(conn: &Conn, now: &str) -> Result<Option<String>, StoreError> {
    let next = conn
        .prepare_cached(
            "SELECT min(due) FROM (
                 SELECT max(coalesce(next_attempt_at, ''), coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', not_before), '')) AS due
                 FROM outbox CROSS JOIN intents USING (position)
                 WHERE is_head = 1 AND held = 0 AND is_follower = 0 AND state IN ('queued', 'waiting')
                   AND typeof(next_attempt_at) IN ('text', 'null'))
             WHERE due > ?1",
        )?
        .query_row([now], |row| row.get(0));
    Ok(next?)
}

/// Returns whether any intent is open.
pub fn has_open(conn: &Conn) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM outbox WHERE is_open = 1)";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Returns the last position in the order of acceptance; 0 while there is no intent.
pub fn last_position(conn: &Conn) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(position), 0) FROM intents";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Returns how many deletes wait for an operator.
pub fn held_deletes(conn: &Conn) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM outbox WHERE is_open = 1 AND held = 1";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

/// Returns whether an intent is `sending` without an attempt, because another program set that
/// state.
pub fn is_any_stuck(conn: &Conn) -> Result<bool, StoreError> {
    let sql = format!("SELECT EXISTS ({STUCK})");
    Ok(conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

const STUCK: &str = "SELECT outbox.position FROM outbox CROSS JOIN intents USING (position)
     WHERE is_sending = 1 AND NOT EXISTS (SELECT 1 FROM attempts WHERE intent_id = id AND finished_at IS NULL)";

/// Moves stuck intents to `waiting`.
pub fn release_stuck(tx: &Tx<'_>) -> Result<(), StoreError> {
    if is_any_stuck(tx)? {
        as_engine(tx, || {
            let reason = "another program set the state to sending";
            let sql =
                format!("UPDATE intents SET state = 'waiting', reason = ?1 WHERE position IN ({STUCK})");
            Ok(tx.execute(&sql, [reason])?)
        })?;
    }
    Ok(())
}

/// Parks the intents that wait for the customer of a rejected or cancelled create.
pub fn park_orphans(tx: &Tx<'_>) -> Result<(), StoreError> {
    let orphans: Vec<i64> = tx
        .prepare_cached(
            "SELECT outbox.position FROM outbox CROSS JOIN intents USING (position)
             WHERE is_follower = 1 AND is_open = 1 AND state = 'queued'
               AND EXISTS (SELECT 1 FROM intents AS made
                   WHERE made.id = substr(outbox.lane, 2) AND made.state IN ('rejected', 'cancelled'))",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for position in orphans {
        as_engine(tx, || {
            tx.execute(
                "UPDATE intents SET state = 'parked',
                     reason = 'the create that it waits for was rejected or cancelled: retry that one, then this one; or cancel it'
                 WHERE position = ?1",
                [position],
            )?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes what each queued intent after the position `after` waits for. Returns the last position
/// of all intents.
pub fn explain(tx: &Tx<'_>, after: i64, now: &str) -> Result<i64, StoreError> {
    const WAITS: &str = "
        FROM outbox CROSS JOIN intents USING (position)
        WHERE outbox.position > ?1 AND is_open = 1 AND state = 'queued' AND reason IS NULL";
    let sql = format!(
        "SELECT outbox.position, CASE
             WHEN not_before IS NOT NULL AND julianday(not_before) > julianday(?2) THEN 'waits for its time, ' || not_before
             ELSE 'waits for intent ' || (SELECT id FROM outbox AS ahead JOIN intents AS first USING (position)
                 WHERE ahead.lane = outbox.lane AND ahead.is_open = 1 AND ahead.position < outbox.position
                 ORDER BY ahead.position DESC LIMIT 1) END
         {WAITS} ORDER BY outbox.position"
    );
    let waiting: Vec<(i64, Option<String>)> = tx
        .prepare_cached(&sql)?
        .query_map(params![after, now], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (position, reason) in waiting {
        let Some(reason) = reason else { continue };
        as_engine(tx, || {
            tx.prepare_cached("UPDATE intents SET reason = ?2 WHERE position = ?1")?
                .execute(params![position, reason])?;
            Ok(())
        })?;
    }
    last_position(tx)
}

/// Ends the attempts that are in flight, at a stop or after a crash. The outcome is unknown where a
/// byte may have left. The intents are due at once, with the same key.
pub fn interrupt(tx: &Tx<'_>, at: &str) -> Result<usize, StoreError> {
    as_engine(tx, || {
        tx.execute(
            // Before a create is sent, either the server's time is committed or its outcome is
            // marked as unknown.
            "UPDATE outbox SET outcome_unknown = 1 WHERE is_sending = 1 AND (key IS NULL OR first_server_at IS NOT NULL)",
            [],
        )?;
        tx.execute(
            "UPDATE attempts SET finished_at = ?1, outcome = 'waiting', error = 'the process ended during the attempt' WHERE finished_at IS NULL",
            [at],
        )?;
        let interrupted = tx.execute(
            "UPDATE intents SET state = 'waiting', next_attempt_at = NULL, reason = 'the process ended while it was sent' WHERE state = 'sending'",
            [],
        )?;
        Ok(interrupted)
    })
}

/// Parks every open intent of a restored database, because an intent that was open when the backup
/// was made may have been performed since. Returns how many intents are parked now. Keys stay. The
/// outcome of every intent that was attempted counts as unknown, even where that attempt did
/// nothing. Another attempt with the same key may have followed.
pub(in crate::store) fn park_all(tx: &Tx<'_>, at: &str) -> Result<u64, StoreError> {
    import_untracked(tx)?;
    interrupt(tx, at)?;
    as_engine(tx, || {
        // A key that was committed but not sent may have been sent since. Only this machine's clock
        // tells when. Subtract an hour: a window that begins too early still contains the customer.
        tx.execute(
            "UPDATE outbox SET outcome_unknown = 1,
                 first_server_at = CASE WHEN key IS NULL THEN first_server_at
                     ELSE coalesce(first_server_at, strftime('%Y-%m-%dT%H:%M:%fZ', first_attempt_at, '-1 hour')) END
             WHERE is_open = 1 AND (key IS NOT NULL OR first_attempt_at IS NOT NULL)",
            [],
        )?;
        tx.execute(
            "UPDATE intents SET reason = ?1 || coalesce('; parked before that: ' || reason, '') WHERE state = 'parked'",
            ["restored from a backup: it may have been tried again since that was made. Look at KOMOJU before you retry it"],
        )?;
        tx.execute(
            "UPDATE intents SET state = 'parked', next_attempt_at = NULL,
                 reason = ?1 || CASE WHEN state = 'waiting' THEN coalesce('; before that: ' || reason, '') ELSE '' END
             WHERE state IN ('queued', 'waiting')",
            ["restored from a backup: it may have been carried out since that was made. Look at KOMOJU, then retry or cancel it"],
        )?;
        Ok(())
    })?;
    Ok(tx.query_row("SELECT count(*) FROM intents WHERE state = 'parked'", [], |row| row.get(0))?)
}

/// Adds the rows of `intents` that are not in the outbox: another program wrote them past the
/// triggers. Returns how many.
pub fn import_untracked(tx: &Tx<'_>) -> Result<usize, StoreError> {
    let imported = tx.execute(
        "INSERT INTO outbox (position, followed_state, lane, is_open, is_delete)
         SELECT position, state, CASE WHEN op = 'create' THEN '@' || id ELSE coalesce(CAST(customer_id AS TEXT), '') END,
                state IN ('queued', 'sending', 'waiting', 'parked'), coalesce(op = 'delete', 0)
         FROM intents WHERE position NOT IN (SELECT position FROM outbox)",
        [],
    )?;
    if imported > 0 {
        tx.execute(
            "UPDATE outbox SET is_head = (position = (SELECT min(position) FROM outbox AS first WHERE first.lane = outbox.lane AND first.is_open = 1))
             WHERE is_open = 1",
            [],
        )?;
    }
    Ok(imported)
}

/// Writes the state of an intent, and wipes its token if it is settled. Call it within
/// [`as_engine`].
pub fn write(tx: &Tx<'_>, position: i64, life: Lifecycle, update: IntentUpdate) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE intents SET state = ?2, attempts = ?3, next_attempt_at = ?4, settled_at = ?5,
             result_customer_id = coalesce(?6, result_customer_id), change_seq = coalesce(?7, change_seq), reason = ?8, detail = ?9
         WHERE position = ?1",
    )?
    .execute(params![
        position,
        life.state.word(),
        life.attempts,
        update.next_attempt_at,
        update.settled_at,
        update.result_customer_id,
        update.change_seq,
        update.reason,
        update.detail.map(|detail| detail.to_string()),
    ])?;
    tx.prepare_cached("UPDATE outbox SET outcome_unknown = ?2, wait_ms = ?3 WHERE position = ?1")?
        .execute(params![position, life.outcome == OutcomeStatus::Unknown, update.wait_ms])?;
    if life.state.is_settled() {
        tx.prepare_cached(
            "UPDATE intents SET body = json_set(body, '$.payment_details', ?2)
             WHERE position = ?1 AND CASE WHEN json_valid(body) THEN json_type(body, '$.payment_details') IS NOT NULL END",
        )?
        .execute(params![position, MASKED_TOKEN])?;
    }
    Ok(())
}

/// Runs `work`, whose changes of intents the triggers accept as changes of the engine.
pub fn as_engine<T>(tx: &Tx<'_>, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    tx.prepare_cached("UPDATE meta SET engine = 1")?.execute([])?;
    let value = work()?;
    tx.prepare_cached("UPDATE meta SET engine = 0")?.execute([])?;
    Ok(value)
}

/// Stores whether pushing is on, for the doors.
pub fn set_enabled(tx: &Tx<'_>, enabled: bool) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET outbound_enabled = ?1 WHERE outbound_enabled IS NOT ?1", [enabled])?;
    Ok(())
}

/// Returns whether pushing is on, as of the last start of `run` or `sync`.
pub fn is_enabled(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT outbound_enabled FROM meta", [], |row| row.get(0))?)
}

/// Excludes the time under a refused key from the park timers of open intents.
pub(in crate::store) fn pause_park_timers(tx: &Tx<'_>, from: &str, to: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE outbox SET
             patience_from = strftime('%Y-%m-%dT%H:%M:%fZ', julianday(patience_from) + paused),
             patience_boot_ms = patience_boot_ms + CAST(paused * 86400000 AS INTEGER)
         FROM (SELECT position AS at, max(0, julianday(?2) - max(julianday(?1), julianday(patience_from))) AS paused
               FROM outbox WHERE is_open = 1 AND patience_from IS NOT NULL)
         WHERE position = at",
        [from, to],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
