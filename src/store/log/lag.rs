//! Reads that lag: a customer's recent history in the change log, and the customers that are
//! requested again.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::mirror::{self, StoredCustomer, id_in};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::lag::{Consistency, DeferredRead, RecentChange};
use komoju_core::{ChangeKind, Customer, CustomerId, Origin, time};

/// MAX_RECHECKS controls how many customers can be scheduled to be requested again. The next sweep
/// reads those that are left out beyond that.
pub const MAX_RECHECKS: u32 = 1000;

/// MAX_WAIT controls which due times are believed. No customer is scheduled so far ahead, so a
/// later time was written by a wrong clock.
const MAX_WAIT: SignedDuration = SignedDuration::from_hours(3);

/// MAX_ENTRIES controls how much of a customer's history is read. It is above the number of changes
/// that any client makes to one customer within `consistency_s`.
const MAX_ENTRIES: u32 = 200;

/// Returns the customer's entries that a read requested at `requested_at` may be older than, and
/// possibly earlier ones, the newest first.
pub fn recent(
    conn: &Conn,
    id: &CustomerId,
    stored: &StoredCustomer,
    requested_at: Timestamp,
    consistency: Consistency,
) -> Result<Vec<RecentChange>, StoreError> {
    // Most customers did not change within the last minutes.
    let changed_at = time::read(&stored.mirror_row.changed_at).unwrap_or(Timestamp::MAX);
    match consistency.may_be_behind(changed_at, requested_at) {
        true => history(conn, id, stored.mirror_row.seq),
        false => Ok(Vec::new()),
    }
}

/// Returns when our last push of this customer settled, if a read requested at `now` may be older
/// than that.
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

/// Returns the customer's entries up to `seq`, the newest first, each with the state that it
/// replaced.
pub fn history(conn: &Conn, id: &CustomerId, seq: i64) -> Result<Vec<RecentChange>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT kind, origin, observed_at, after FROM change_log WHERE customer_id = ?1 AND seq <= ?2
         ORDER BY seq DESC LIMIT ?3",
    )?;
    let mut rows = statement.query(params![id.as_str(), seq, MAX_ENTRIES])?;
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

/// Records that a read of this customer was not applied, and the lag that it shows.
pub fn leave_out(tx: &Tx<'_>, shown: &Customer, left_out: DeferredRead) -> Result<(), StoreError> {
    // A read that shows a new state may be right. If it is shown again later, it does not prove a
    // longer lag.
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

/// Returns whether another customer can be scheduled. Without the limit, a field that changes on
/// every read would schedule each customer that a sweep reads twice.
fn has_room(conn: &Conn) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT count(*) < ?1 FROM recheck")?;
    Ok(statement.query_row([MAX_RECHECKS], |row| row.get(0))?)
}

/// Schedules a request of this customer alone, at `at` or later.
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

/// Returns when the next customer is due; `None` where none is scheduled.
pub fn next_due(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<String> = conn.query_row("SELECT min(due_at) FROM recheck", [], |row| row.get(0))?;
    Ok(next.map(|next| time::read(&next).unwrap_or(Timestamp::MIN)))
}

/// Returns the latest time, as text, at which a customer can be due.
fn latest(now: Timestamp) -> String {
    time::written(now.checked_add(MAX_WAIT).unwrap_or(Timestamp::MAX))
}

/// Returns whether the table has a time that was written by a clock that was ahead.
pub fn is_ahead(conn: &Conn, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM recheck WHERE due_at > ?1")?;
    Ok(statement.exists([latest(now)])?)
}

/// Replaces times that were written by a clock that was ahead. The new time is the earliest at
/// which a read is not behind `now`.
pub fn cap_due_times(tx: &Tx<'_>, now: Timestamp, consistency: Consistency) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE recheck SET due_at = ?2 WHERE due_at > ?1",
        params![latest(now), time::written(consistency.after(now))],
    )?;
    Ok(())
}

/// Returns up to `count` customers that are due.
pub fn due(conn: &Conn, now: Timestamp, count: u32) -> Result<Vec<CustomerId>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT customer_id FROM recheck WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2")?;
    let ids = statement.query_map(params![time::written(now), count], |row| id_in(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Returns whether `shown` equals the replaced state that a read showed when it was left out.
pub fn shows_left_out(conn: &Conn, shown: &Customer) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM recheck WHERE customer_id = ?1 AND shown = ?2")?;
    Ok(statement.exists(params![shown.id().as_str(), digest(shown)])?)
}

/// Removes the customer from the schedule, because it was requested again.
pub fn end(tx: &Tx<'_>, id: &CustomerId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM recheck WHERE customer_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Records that a read showed a state more than `consistency_s` after it was replaced.
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
    fn scheduled_rechecks_are_bounded() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let left_out = DeferredRead { until: at(60), is_replaced: false, lag: None };
        for n in 0..MAX_RECHECKS + 5 {
            leave_out(&tx, &customer(n), left_out).unwrap();
        }
        let waiting: u32 = tx.query_row("SELECT count(*) FROM recheck", [], |row| row.get(0)).unwrap();
        assert_eq!(waiting, MAX_RECHECKS);
    }

    #[test]
    fn only_the_state_that_was_left_out_is_recognized() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let shown = |email: &str| {
            Customer::from_value(json!({"id": "c1", "email": format!("{email}@x.jp")})).unwrap()
        };
        leave_out(&tx, &shown("old"), DeferredRead { until: at(60), is_replaced: true, lag: None }).unwrap();
        assert!(shows_left_out(&tx, &shown("old")).unwrap());
        assert!(!shows_left_out(&tx, &shown("new")).unwrap());
    }

    #[test]
    fn due_time_of_a_wrong_clock_is_replaced() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let consistency = Consistency::seconds(60);
        schedule(&tx, customer(1).id(), at(90), None).unwrap();
        assert!(!is_ahead(&tx, at(0)).unwrap());
        schedule(&tx, customer(2).id(), at(365 * 24 * 3600), None).unwrap();
        assert!(is_ahead(&tx, at(0)).unwrap());
        cap_due_times(&tx, at(0), consistency).unwrap();
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
