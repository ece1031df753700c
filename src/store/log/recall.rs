//! Recall: the share of changes that events reported. Sweeps and probes found the others.
//!
//! A change is counted on its day (UTC). An event belongs to the first change of its customer that
//! is observed at or after it. Both are matched when the event is read, when its customer is read,
//! and when a pass ends. Our own pushes are matched too, so that `doctor` can tell whether KOMOJU
//! reports them, but not counted.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::mirror::id_in;
use super::{changes, passes};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::{CustomerId, Origin, time};

/// COUNTED_DAYS controls how many days are counted, today included.
const COUNTED_DAYS: i64 = 7;

/// EARLIEST controls how long before its event's time a change may be observed. An event was seen
/// whose time is two seconds after that of its change.
const EARLIEST: SignedDuration = SignedDuration::from_secs(10);

/// How many changes were reported by events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The first moment that is counted, in the written form of [`komoju_core::time`].
    pub since: String,
    /// The changes that were found at KOMOJU.
    pub changes: u64,
    /// Those of them that an event reported.
    pub reported: u64,
}

impl Recall {
    /// Returns how many changes only sweeps and probes found.
    pub fn missed(&self) -> u64 {
        self.changes.saturating_sub(self.reported)
    }
}

/// Begins to count, once a complete sweep exists: before it, every customer is a change. Where no
/// event was ever read or received, nothing is counted.
pub fn start(tx: &Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    if counted_from(tx)?.is_some() || !passes::has_whole_sweep(tx)? {
        return Ok(());
    }
    let head = changes::head(tx)?.seq;
    tx.execute(
        "UPDATE event_state SET counted_since = ?1, counted_from = ?2
         WHERE last_read_at IS NOT NULL OR last_event_at IS NOT NULL",
        params![time::written(now), head],
    )?;
    Ok(())
}

fn counted_from(conn: &Conn) -> Result<Option<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT counted_from FROM event_state")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Counts changes that were recorded now.
pub fn count(tx: &Tx<'_>, origin: Origin, at: &str, changes: u64) -> Result<(), StoreError> {
    if changes == 0 || !is_counted(origin) || counted_from(tx)?.is_none() {
        return Ok(());
    }
    let mut add = tx.prepare_cached(
        "INSERT INTO recall (day, changes, reported) VALUES (substr(?1, 1, 10), ?2, 0)
         ON CONFLICT (day) DO UPDATE SET changes = changes + excluded.changes",
    )?;
    add.execute(params![at, i64::try_from(changes).unwrap_or(i64::MAX)])?;
    Ok(())
}

fn is_counted(origin: Origin) -> bool {
    matches!(origin, Origin::Sweep | Origin::Probe | Origin::Event | Origin::Lookup)
}

/// An event that has no change yet.
struct OpenEvent {
    id: String,
    event_at: String,
    seen_at: String,
}

/// Finds the changes of a customer's open events.
pub fn match_events(tx: &Tx<'_>, customer: &CustomerId) -> Result<(), StoreError> {
    match_from(tx, customer, |event| event.event_at.clone())
}

/// Finds the events of the changes after this entry of the log.
pub fn match_changes(tx: &Tx<'_>, after_seq: i64) -> Result<(), StoreError> {
    let Some(from) = counted_from(tx)? else { return Ok(()) };
    // CROSS JOIN keeps the order of the tables: a pass records few changes, and many events may be
    // open.
    let mut statement = tx.prepare_cached(
        "SELECT DISTINCT change_log.customer_id FROM change_log
         CROSS JOIN event ON event.customer_id = change_log.customer_id AND is_open = 1
         WHERE seq > ?1",
    )?;
    let customers = statement.query_map([after_seq.max(from)], |row| id_in(row, 0))?;
    for customer in customers.collect::<Result<Vec<_>, _>>()? {
        match_events(tx, &customer)?;
    }
    Ok(())
}

/// Ends the open events of a customer that was read and had not changed. A change that was observed
/// shortly before an event still belongs to it.
pub fn close(tx: &Tx<'_>, customer: &CustomerId) -> Result<(), StoreError> {
    match_from(tx, customer, |event| {
        let at = time::read(&event.event_at).unwrap_or(Timestamp::MIN);
        time::written(at.checked_sub(EARLIEST).unwrap_or(Timestamp::MIN))
    })?;
    tx.prepare_cached("UPDATE event SET is_open = 0 WHERE is_open = 1 AND customer_id = ?1")?
        .execute([customer.as_str()])?;
    Ok(())
}

fn match_from(
    tx: &Tx<'_>,
    customer: &CustomerId,
    earliest: impl Fn(&OpenEvent) -> String,
) -> Result<(), StoreError> {
    let Some(from) = counted_from(tx)? else { return Ok(()) };
    let mut change = tx.prepare_cached(
        "SELECT seq, observed_at, origin FROM change_log
         WHERE customer_id = ?1 AND observed_at >= ?2 AND seq > ?3 ORDER BY seq LIMIT 1",
    )?;
    for event in open_events(tx, customer)? {
        let found: Option<(i64, String, String)> = change
            .query_row(params![customer.as_str(), earliest(&event), from], |row| {
                Ok((row.get("seq")?, row.get("observed_at")?, row.get("origin")?))
            })
            .optional()?;
        let Some((seq, observed_at, origin)) = found else { continue };
        let mut close = tx.prepare_cached("UPDATE event SET is_open = 0 WHERE id = ?1")?;
        close.execute([&event.id])?;
        report(tx, seq, &event, Origin::from_word(&origin).is_some_and(is_counted), &observed_at)?;
    }
    Ok(())
}

fn open_events(tx: &Tx<'_>, customer: &CustomerId) -> Result<Vec<OpenEvent>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT id, event_at, seen_at FROM event WHERE is_open = 1 AND customer_id = ?1 ORDER BY event_at",
    )?;
    let events = statement.query_map([customer.as_str()], |row| {
        Ok(OpenEvent { id: row.get("id")?, event_at: row.get("event_at")?, seen_at: row.get("seen_at")? })
    })?;
    Ok(events.collect::<Result<_, _>>()?)
}

/// Notes that an event reported a change.
fn report(
    tx: &Tx<'_>,
    seq: i64,
    event: &OpenEvent,
    is_counted: bool,
    observed_at: &str,
) -> Result<(), StoreError> {
    let mut insert =
        tx.prepare_cached("INSERT OR IGNORE INTO change_event (seq, event_at, seen_at) VALUES (?1, ?2, ?3)")?;
    if insert.execute(params![seq, event.event_at, event.seen_at])? == 0 {
        let mut earlier =
            tx.prepare_cached("UPDATE change_event SET event_at = ?2 WHERE seq = ?1 AND event_at > ?2")?;
        earlier.execute(params![seq, event.event_at])?;
    } else if is_counted {
        let mut count =
            tx.prepare_cached("UPDATE recall SET reported = reported + 1 WHERE day = substr(?1, 1, 10)")?;
        count.execute([observed_at])?;
    }
    Ok(())
}

/// Returns how many changes events reported, of the last days; `None` where nothing is counted yet.
pub fn read(conn: &Conn, now: Timestamp) -> Result<Option<Recall>, StoreError> {
    let first_day = now.checked_sub(SignedDuration::from_hours(24 * (COUNTED_DAYS - 1)));
    let first_day = time::written(first_day.unwrap_or(Timestamp::MIN))[..10].to_owned();
    let mut statement = conn.prepare_cached(
        "SELECT counted_since, coalesce(sum(changes), 0) AS changes, coalesce(sum(reported), 0) AS reported
         FROM event_state LEFT JOIN recall ON day >= ?1 WHERE counted_since IS NOT NULL GROUP BY one",
    )?;
    let recall = statement.query_row([&first_day], |row| {
        let counted_since: String = row.get("counted_since")?;
        let (changes, reported): (i64, i64) = (row.get("changes")?, row.get("reported")?);
        Ok(Recall {
            since: counted_since.max(format!("{first_day}T00:00:00.000Z")),
            changes: u64::try_from(changes).unwrap_or(0),
            reported: u64::try_from(reported).unwrap_or(0),
        })
    });
    Ok(recall.optional()?)
}

/// NEWEST_PUSHES controls how many of our own pushes are compared with events.
const NEWEST_PUSHES: u32 = 200;

/// How many of our own pushes KOMOJU reported as events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushRecall {
    /// The pushes that were applied at KOMOJU, long enough ago that an event would have been read.
    pub pushes: u64,
    /// Those of them with an event.
    pub reported: u64,
}

/// Returns how many of our newest pushes KOMOJU reported: those of the last day that were made up
/// to `until`.
pub fn of_pushes(conn: &Conn, until: Timestamp) -> Result<PushRecall, StoreError> {
    let Some(counted_from) = counted_from(conn)? else { return Ok(PushRecall::default()) };
    let since = until.checked_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    // By the index change_log_by_intent: `status` runs after each commit.
    let mut statement = conn.prepare_cached(
        "SELECT count(*) AS pushes, count(change_event.seq) AS reported FROM
             (SELECT seq, observed_at FROM change_log WHERE origin = 'intent' AND seq > ?1
              ORDER BY seq DESC LIMIT ?4) AS push
         LEFT JOIN change_event USING (seq) WHERE observed_at BETWEEN ?2 AND ?3",
    )?;
    let recall = statement.query_row(
        params![counted_from, time::written(since), time::written(until), NEWEST_PUSHES],
        |row| {
            let (pushes, reported): (i64, i64) = (row.get("pushes")?, row.get("reported")?);
            Ok(PushRecall {
                pushes: u64::try_from(pushes).unwrap_or(0),
                reported: u64::try_from(reported).unwrap_or(0),
            })
        },
    );
    Ok(recall?)
}
