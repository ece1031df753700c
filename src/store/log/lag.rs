//! What the change log says about reads that lag: a customer's recent history, and the customers that are requested again.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::mirror::{self, Stored, id_in};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::lag::{Consistency, DeferredRead, RecentChange};
use komoju_core::{ChangeKind, Customer, CustomerId, Origin, time};

/// At most so many customers wait to be requested again. What is left out beyond that, the next sweep reads.
pub const MOST_WAITING: u32 = 1000;

/// No customer waits so long: a time further ahead was written by a clock that was wrong.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(3);

/// How far back a customer's history is read: more changes of one customer within `consistency_s` than any client makes.
const MOST_ENTRIES: u32 = 200;

/// The customer's entries that a read requested at `requested_at` may be older than, the newest first; perhaps more.
pub fn recent(
    conn: &Conn,
    id: &CustomerId,
    stored: &Stored,
    requested_at: Timestamp,
    consistency: Consistency,
) -> Result<Vec<RecentChange>, StoreError> {
    // Most customers were not changed lately.
    let changed_at = time::read(&stored.standing.changed_at).unwrap_or(Timestamp::MAX);
    match consistency.may_be_behind(changed_at, requested_at) {
        true => history(conn, id, stored.standing.seq),
        false => Ok(Vec::new()),
    }
}

/// When our last push of this customer settled, if that was so shortly before `now` that a read may be older.
pub fn pushed_at(
    conn: &Conn,
    id: &CustomerId,
    now: Timestamp,
    consistency: Consistency,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(stored) = mirror::find(conn, id)? else { return Ok(None) };
    let history = recent(conn, id, &stored, now, consistency)?;
    let pushed = history.iter().find(|entry| entry.origin == Origin::Intent).map(|entry| entry.at);
    Ok(pushed.filter(|at| consistency.may_be_behind(*at, now)))
}

/// The customer's entries up to `seq`, the newest first, each with the state that it replaced.
pub fn history(conn: &Conn, id: &CustomerId, seq: i64) -> Result<Vec<RecentChange>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT kind, origin, observed_at, after FROM change_log WHERE customer_id = ?1 AND seq <= ?2
         ORDER BY seq DESC LIMIT ?3",
    )?;
    let mut rows = statement.query(params![id.as_str(), seq, MOST_ENTRIES])?;
    let mut history: Vec<RecentChange> = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, origin, at): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Some(newer) = history.last_mut() {
            newer.replaced = row.get(3)?;
        }
        let (Some(kind), Some(origin), Some(at)) =
            (ChangeKind::from_word(&kind), Origin::from_word(&origin), time::read(&at))
        else {
            break;
        };
        history.push(RecentChange { kind, origin, at, replaced: None });
    }
    Ok(history)
}

/// Notes that a read of this customer was not applied, and the lag that it shows.
pub fn leave_out(tx: &Tx<'_>, shown: &Customer, left_out: DeferredRead) -> Result<(), StoreError> {
    // A read of a new state may be news: shown again later, it is no sign of a longer lag.
    let replaced = left_out.is_replaced.then(|| digest(shown));
    if has_room(tx)? {
        schedule(tx, shown.id(), left_out.until, replaced.as_deref())?;
    }
    if let Some(lag) = left_out.lag {
        let lag = i64::try_from(lag.as_millis()).unwrap_or(i64::MAX);
        let longest = "UPDATE meta SET longest_lag_ms = ?1 WHERE coalesce(longest_lag_ms, -1) < ?1";
        tx.prepare_cached(longest)?.execute([lag])?;
    }
    Ok(())
}

/// Whether another customer may wait to be requested again. Without a bound, a field that changes on every read would make each
/// customer wait that a sweep reads twice.
fn has_room(conn: &Conn) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT count(*) < ?1 FROM recheck")?;
    Ok(statement.query_row([MOST_WAITING], |row| row.get(0))?)
}

/// Has the customer requested again by itself, at `at` or later.
pub fn schedule(tx: &Tx<'_>, id: &CustomerId, at: Timestamp, shown: Option<&[u8]>) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO recheck (customer_id, due_at, shown) VALUES (?1, ?2, ?3)
         ON CONFLICT (customer_id) DO UPDATE SET due_at = max(due_at, excluded.due_at), shown = coalesce(excluded.shown, shown)",
    )?;
    statement.execute(params![id.as_str(), time::written(at), shown])?;
    Ok(())
}

fn digest(shown: &Customer) -> Vec<u8> {
    Sha256::digest(shown.body().as_bytes()).to_vec()
}

/// When the next customer is due; `None` where none waits.
pub fn next_due(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<String> = conn.query_row("SELECT min(due_at) FROM recheck", [], |row| row.get(0))?;
    Ok(next.map(|next| time::read(&next).unwrap_or(Timestamp::MIN)))
}

/// After this time, as text, no customer can be due.
fn latest(now: Timestamp) -> String {
    time::written(now.checked_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX))
}

/// Whether a time in the table was written by a clock that was ahead.
pub fn is_ahead(conn: &Conn, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM recheck WHERE due_at > ?1")?;
    Ok(statement.exists([latest(now)])?)
}

/// Sets the times that were written by a clock that was ahead to when a read requested now can no longer be behind.
pub fn bring_near(tx: &Tx<'_>, now: Timestamp, consistency: Consistency) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE recheck SET due_at = ?2 WHERE due_at > ?1",
        params![latest(now), time::written(consistency.after(now))],
    )?;
    Ok(())
}

/// Up to `count` customers that are due.
pub fn due(conn: &Conn, now: Timestamp, count: u32) -> Result<Vec<CustomerId>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT customer_id FROM recheck WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2")?;
    let ids = statement.query_map(params![time::written(now), count], |row| id_in(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Returns whether `shown` is the very state, replaced in the log, of which a read was left out.
pub fn shows_left_out(conn: &Conn, shown: &Customer) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM recheck WHERE customer_id = ?1 AND shown = ?2")?;
    Ok(statement.exists(params![shown.id().as_str(), digest(shown)])?)
}

/// The customer was requested again: it waits no longer.
pub fn end(tx: &Tx<'_>, id: &CustomerId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM recheck WHERE customer_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Notes that a read showed a replaced state later than `consistency_s` after it was replaced.
pub fn note_exceeded(tx: &Tx<'_>, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET lag_exceeded_at = ?1", [at])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::file::open;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn customer(n: u32) -> Customer {
        Customer::from_value(json!({"id": format!("c{n}")})).unwrap()
    }

    #[test]
    fn only_so_many_customers_wait_to_be_requested_again() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let left_out = DeferredRead { until: at(60), is_replaced: false, lag: None };
        for n in 0..MOST_WAITING + 5 {
            leave_out(&tx, &customer(n), left_out).unwrap();
        }
        let waiting: u32 = tx.query_row("SELECT count(*) FROM recheck", [], |row| row.get(0)).unwrap();
        assert_eq!(waiting, MOST_WAITING);
    }

    #[test]
    fn time_that_a_wrong_clock_wrote_keeps_no_customer_waiting() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let consistency = Consistency::seconds(60);
        schedule(&tx, customer(1).id(), at(90), None).unwrap();
        assert!(!is_ahead(&tx, at(0)).unwrap());
        schedule(&tx, customer(2).id(), at(365 * 24 * 3600), None).unwrap();
        assert!(is_ahead(&tx, at(0)).unwrap());
        bring_near(&tx, at(0), consistency).unwrap();
        assert!(!is_ahead(&tx, at(0)).unwrap());
        assert_eq!(
            next_due(&tx).unwrap(),
            Some(at(60)),
            "not at once: the read that was left out may be behind"
        );
        assert_eq!(due(&tx, at(59), 9).unwrap(), []);
        assert_eq!(due(&tx, at(60), 9).unwrap(), [customer(2).id().clone()]);
        assert_eq!(due(&tx, at(90), 9).unwrap().len(), 2);
    }
}
