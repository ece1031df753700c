//! Events that were read, and the customers that they name: which are requested, and when.
//!
//! An event is recognized by its id for 24 hours. A hint is one row a customer; more hints of the
//! same customer change that row. `komoju_core::plan::hints` decides when it is due.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::mirror::id_in;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::event::local_time;
use komoju_core::plan::hints::{self, HintStep, MOST_OPEN, MOST_SECOND_READS};
use komoju_core::{CustomerId, Event, time};

/// KEEP_EVENTS controls for how long an event is recognized by its id.
const KEEP_EVENTS: SignedDuration = SignedDuration::from_hours(24);

/// KEEP_ANSWERED controls for how long the last request of an answered hint is known.
const KEEP_ANSWERED: SignedDuration = SignedDuration::from_mins(1);

/// KEEP_DROPPED controls for how long a dropped hint is kept: longer than its request can take.
const KEEP_DROPPED: SignedDuration = SignedDuration::from_hours(1);

/// LONGEST_WAIT controls which times of hints are stored for an error of the clock: no read may lag
/// longer than an hour.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(65);

/// What became of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEvents {
    /// How many were not known before.
    pub new: u64,
    /// How many of the new ones made a hint.
    pub hinted: u64,
    /// How many of the new ones made no hint, because a sweep reads their customers.
    pub left_to_sweep: u64,
    /// The customers of the new ones.
    pub customers: Vec<CustomerId>,
    /// How many hints were dropped because there were too many: a sweep must read the customers.
    pub dropped: u64,
}

/// Stores events and the hints that follow from them. `now` and `server_now` are the time by the
/// clock of this machine and by the server's.
pub fn store_events(
    tx: &Tx<'_>,
    events: &[Event],
    (now, server_now): (Timestamp, Timestamp),
) -> Result<StoredEvents, StoreError> {
    let mut stored = StoredEvents::default();
    let seen_at = time::written(now);
    let dropped_at: Option<String> =
        tx.prepare_cached("SELECT dropped_at FROM event_state")?.query_row([], |row| row.get(0))?;
    // A time in the future was written by a clock that was wrong.
    let dropped_at = dropped_at.filter(|dropped_at| *dropped_at <= seen_at);
    for event in events {
        // An event from the future has the time at which it was read.
        let event_at = event.created_at.map_or(now, |at| local_time(at, now, server_now).min(now));
        let event_at = time::written(event_at);
        let customer = event.customer.as_ref().filter(|id| id.can_be_requested());
        let mut insert = tx.prepare_cached(
            "INSERT OR IGNORE INTO event (id, customer_id, event_at, seen_at, is_open) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let is_new = insert.execute(params![
            event.id,
            customer.map(CustomerId::as_str),
            event_at,
            seen_at,
            customer.is_some()
        ])? > 0;
        if !is_new {
            continue;
        }
        stored.new += 1;
        stored.customers.extend(customer.cloned());
        match customer {
            // The sweep that replaced the dropped hints reads this customer too.
            Some(_) if dropped_at.as_ref().is_some_and(|dropped_at| event_at <= *dropped_at) => {
                stored.left_to_sweep += 1;
            }
            Some(id) => {
                hint(tx, id, now)?;
                stored.hinted += 1;
            }
            None => drop(tx.execute("UPDATE event_state SET without_customer = without_customer + 1", [])?),
        }
    }
    if stored.new > 0 {
        tx.execute("UPDATE event_state SET last_event_at = ?1", [&seen_at])?;
        forget_old(tx, now)?;
        stored.dropped = drop_excess(tx, &seen_at)?;
    }
    Ok(stored)
}

/// Makes this customer due for a request.
fn hint(tx: &Tx<'_>, id: &CustomerId, now: Timestamp) -> Result<(), StoreError> {
    let mut last = tx.prepare_cached("SELECT requested_at FROM hint WHERE customer_id = ?1")?;
    let requested_at: Option<Option<String>> = last.query_row([id.as_str()], |row| row.get(0)).optional()?;
    let requested_at = requested_at.flatten().as_deref().and_then(time::read);
    let due_at = time::written(hints::due_at(now, requested_at));
    let mut upsert = tx.prepare_cached(
        "INSERT INTO hint (customer_id, first_at, due_at, is_second, hints) VALUES (?1, ?2, ?3, 0, 1)
         ON CONFLICT (customer_id) DO UPDATE SET
             hints = hints + 1,
             first_at = CASE WHEN due_at IS NULL THEN excluded.first_at ELSE first_at END,
             due_at = CASE WHEN due_at IS NULL OR is_second = 1 THEN excluded.due_at ELSE min(due_at, excluded.due_at) END,
             is_second = 0",
    )?;
    upsert.execute(params![id.as_str(), time::written(now), due_at])?;
    Ok(())
}

/// Drops all hints that wait for their first request where there are too many; returns how many.
fn drop_excess(tx: &Tx<'_>, at: &str) -> Result<u64, StoreError> {
    if open_count(tx)? <= MOST_OPEN.into() {
        return Ok(0);
    }
    let dropped =
        tx.execute("UPDATE hint SET due_at = NULL WHERE due_at IS NOT NULL AND is_second = 0", [])?;
    tx.execute("UPDATE event_state SET dropped_at = ?1", [at])?;
    Ok(dropped as u64)
}

/// Notes that a sweep reads what these hints would have: events up to now make none.
pub fn leave_to_sweep(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE event_state SET dropped_at = ?1, gap_at = ?1", [at])?;
    tx.execute("UPDATE hint SET due_at = NULL WHERE due_at IS NOT NULL AND is_second = 0", [])?;
    Ok(())
}

fn forget_old(tx: &Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let before = |age| time::written(now.checked_sub(age).unwrap_or(Timestamp::MIN));
    tx.prepare_cached("DELETE FROM event WHERE seen_at < ?1")?.execute([before(KEEP_EVENTS)])?;
    // A dropped hint may be in the middle of its request.
    tx.prepare_cached(
        "DELETE FROM hint WHERE due_at IS NULL
         AND (requested_at < ?1 OR (requested_at IS NULL AND first_at < ?2))",
    )?
    .execute([before(KEEP_ANSWERED), before(KEEP_DROPPED)])?;
    Ok(())
}

/// Returns how many hints wait for their first request.
pub fn open_count(conn: &Conn) -> Result<u64, StoreError> {
    count(conn, 0)
}

/// Returns how many hints wait for their second request (`is_second` is 1) or for their first one
/// (0).
fn count(conn: &Conn, is_second: i64) -> Result<u64, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT count(*) FROM hint WHERE due_at IS NOT NULL AND is_second = ?1")?;
    let count: i64 = statement.query_row([is_second], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns the latest time at which a hint can be due. One after it was written by a clock that was
/// wrong.
fn latest(now: Timestamp) -> Timestamp {
    now.checked_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX)
}

/// A hint that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueHint {
    /// The customer.
    pub id: CustomerId,
    /// When the first open hint of it arrived.
    pub first_at: Timestamp,
    /// Whether this request repeats one that showed nothing new.
    pub is_second: bool,
    /// How many hints of it have arrived.
    pub hints: i64,
    /// Whether it is live in the mirror.
    pub is_live: bool,
    /// The last change of the customer in the log; 0 where the mirror does not know it.
    pub seq: i64,
}

/// Returns up to `most` hints that are due, first requests before second ones; none while hints
/// pause.
pub fn due(conn: &Conn, now: Timestamp, most: u32) -> Result<Vec<DueHint>, StoreError> {
    if paused_until(conn, now)?.is_some() {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached(
        "SELECT customer_id, first_at, is_second, hints, coalesce(mirror.seq, 0) AS seq,
                mirror.seq IS NOT NULL AND deleted_at IS NULL AS is_live
         FROM hint LEFT JOIN mirror ON mirror.id = customer_id
         WHERE due_at <= ?1 OR due_at > ?2 ORDER BY is_second, due_at LIMIT ?3",
    )?;
    let ahead = time::written(latest(now));
    let due = statement.query_map(params![time::written(now), ahead, most], |row| {
        let first_at: String = row.get("first_at")?;
        Ok(DueHint {
            id: id_in(row, 0)?,
            first_at: time::read(&first_at).unwrap_or(now),
            is_second: row.get("is_second")?,
            hints: row.get("hints")?,
            is_live: row.get("is_live")?,
            seq: row.get("seq")?,
        })
    })?;
    Ok(due.collect::<Result<_, _>>()?)
}

/// Returns when the next hint is due; `None` where none is open.
pub fn next_due(conn: &Conn, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT min(due_at) FROM hint WHERE due_at IS NOT NULL")?;
    let next: Option<String> = statement.query_row([], |row| row.get(0))?;
    let next = next.map(|next| time::read(&next).unwrap_or(Timestamp::MIN));
    // A time that far ahead was written by a clock that was wrong, and is due now.
    let next = next.map(|next| if next > latest(now) { now } else { next });
    let paused_until = paused_until(conn, now)?;
    Ok(next.map(|next| paused_until.map_or(next, |until| until.max(next))))
}

/// Returns whether another hint of the customer has arrived since `due`.
pub fn is_hinted_again(conn: &Conn, due: &DueHint) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT hints FROM hint WHERE customer_id = ?1")?;
    let hints: Option<i64> = statement.query_row([due.id.as_str()], |row| row.get(0)).optional()?;
    Ok(hints.is_some_and(|hints| hints != due.hints))
}

/// Carries out what follows from the request of a hinted customer. Returns whether the hint is
/// answered.
pub fn settle(
    tx: &Tx<'_>,
    id: &CustomerId,
    requested_at: Timestamp,
    step: HintStep,
) -> Result<bool, StoreError> {
    let (due_at, is_second) = match step {
        HintStep::Close => (None, false),
        HintStep::ReadAt { is_second: true, .. } if count(tx, 1)? >= MOST_SECOND_READS.into() => {
            (None, false)
        }
        HintStep::ReadAt { at, is_second } => (Some(time::written(at)), is_second),
    };
    let mut update = tx.prepare_cached(
        "UPDATE hint SET due_at = ?2, is_second = ?3, requested_at = ?4 WHERE customer_id = ?1",
    )?;
    update.execute(params![id.as_str(), due_at, is_second, time::written(requested_at)])?;
    Ok(due_at.is_none())
}

/// Requests no hinted customer until this time, and notes why.
pub fn pause(tx: &Tx<'_>, until: Timestamp, reason: &str) -> Result<(), StoreError> {
    let sql = "UPDATE event_state SET paused_until = ?1, pause_reason = ?2";
    tx.execute(sql, params![time::written(until), reason])?;
    Ok(())
}

/// Returns until when hinted customers are not requested, if they are not.
pub fn paused_until(conn: &Conn, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT paused_until FROM event_state")?;
    let until: Option<String> = statement.query_row([], |row| row.get(0))?;
    let until = until.as_deref().and_then(time::read).filter(|until| *until > now);
    // A time that far ahead was written by a clock that was wrong.
    Ok(until.filter(|until| until.duration_since(now) <= hints::PAUSE_FOR))
}

/// Forgets the hints and why they wait: the database is used for another account, or was restored.
pub fn reset(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM hint", [])?;
    forget_obstacles(tx)
}

/// Forgets why events and hints wait: another key reads the account.
pub fn forget_obstacles(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE event_state SET off_since = NULL, off_reason = NULL, paused_until = NULL, pause_reason = NULL,
             dropped_at = NULL, gap_at = NULL",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
