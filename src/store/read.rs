//! Queries for the commands that print data. They read the views of the contract, on a connection
//! that cannot write.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::params;
use serde_json::Value;

use super::{Conn, Instance, StoreError, record};
use crate::store::file::open;
use crate::store::log::{changes, verify};
use komoju_core::{Customer, CustomerId, MirrorRow, time};

pub use super::record::Record;

/// A read-only connection to an existing database.
pub struct Reader {
    conn: Conn,
    path: PathBuf,
    /// The lock that keeps other processes from writing, where the connection relies on that.
    _lock: Option<Instance>,
}

impl Reader {
    /// Opens `path`; a missing file is [`StoreError::Missing`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::for_reading(path)?, path: path.to_owned(), _lock: None })
    }

    /// Opens `path`, whose schema may be an older one, and changes no file. See
    /// [`open::without_trace`].
    pub fn without_trace(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::without_trace(path)?, path: path.to_owned(), _lock: None })
    }

    /// Opens `path` for a dry run. A missing database counts as an empty one, and no file is made
    /// for it.
    pub fn for_dry_run(path: &Path) -> Result<Self, StoreError> {
        let (conn, lock) = open::for_dry_run(path)?;
        Ok(Self { conn, path: path.to_owned(), _lock: lock })
    }

    /// Runs several queries on one state of the database, whatever other connections commit
    /// meanwhile.
    pub fn in_snapshot<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.query(|conn| {
            let tx = conn.unchecked_transaction()?;
            work(&tx)
        })
    }

    /// Runs queries. An error names the database.
    pub fn query<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.conn).map_err(|e| e.with_path(&self.path))
    }

    /// Returns a number that changes when another connection commits.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        self.query(|conn| Ok(conn.query_row("PRAGMA data_version", [], |row| row.get(0))?))
    }
}

impl Deref for Reader {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

/// Selects rows of `changes`.
#[derive(Clone, Debug, Default)]
pub struct ChangeFilter {
    /// Only changes after this `seq`.
    pub since: i64,
    /// Only changes of this customer.
    pub customer: Option<CustomerId>,
    /// Only changes observed up to this moment.
    pub until: Option<Timestamp>,
    /// At most this number of changes.
    pub limit: Option<usize>,
}

/// CHUNK controls how many rows are read before they are shown. A slow consumer, such as a pager,
/// then holds no transaction open, which would keep the WAL from being emptied.
pub(super) const CHUNK: usize = 500;

/// Shows `visit` rows in chunks. `chunk` reads up to [`CHUNK`] rows after the last row's value in
/// the column `key`, or from the beginning.
pub(super) fn in_chunks(
    mut chunk: impl FnMut(Option<&Value>) -> Result<Vec<Record>, StoreError>,
    key: &str,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut last = None;
    loop {
        let rows = chunk(last.as_ref())?;
        let more = rows.len() == CHUNK;
        last = rows.last().map(|row| row.get(key).clone());
        rows.into_iter().try_for_each(&mut visit)?;
        if !more {
            return Ok(());
        }
    }
}

/// Shows `visit` the live customers, by id. They are of one moment only within
/// [`Reader::in_snapshot`].
pub fn customers(conn: &Conn, visit: impl FnMut(Record) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let chunk = |last: Option<&Value>| {
        let after = last.and_then(Value::as_str).unwrap_or_default();
        let sql = "SELECT * FROM customers WHERE id > ?1 ORDER BY id LIMIT ?2";
        record::collect(conn, sql, params![after, CHUNK])
    };
    in_chunks(chunk, "id", visit)
}

/// Returns the columns of `customers`, in their order.
pub fn customer_columns(conn: &Conn) -> Result<Vec<String>, StoreError> {
    let statement = conn.prepare("SELECT * FROM customers")?;
    Ok(statement.column_names().into_iter().map(str::to_owned).collect())
}

/// Returns the customer with this id, live or deleted; a deleted one has `deleted_at`.
pub fn customer(conn: &Conn, id: &CustomerId) -> Result<Option<Record>, StoreError> {
    let mut found = None;
    let live = "SELECT * FROM customers WHERE id = ?1";
    record::each(conn, live, [id.as_str()], |record| {
        found = Some(record);
        Ok(())
    })?;
    if found.is_none() {
        record::each(conn, "SELECT * FROM deleted_customers WHERE id = ?1", [id.as_str()], |record| {
            found = Some(record);
            Ok(())
        })?;
    }
    Ok(found)
}

/// Shows `visit` the customers that were live at `moment`, by id, as they were then.
pub fn customers_as_of(
    conn: &Conn,
    moment: Timestamp,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let last_seq = changes::seq_at(conn, &time::written(moment))?;
    verify::each_folded_until(conn, last_seq, |id, folded| match folded? {
        Some(mirror_row) if mirror_row.is_live() => visit(past_record(conn, &id, &mirror_row)?),
        _ => Ok(()),
    })
}

/// Returns the customer with this id as it was at `moment`, live or deleted; `None` if it was not
/// known yet.
pub fn customer_as_of(conn: &Conn, id: &CustomerId, moment: Timestamp) -> Result<Option<Record>, StoreError> {
    let last_seq = changes::seq_at(conn, &time::written(moment))?;
    let mirror_row = verify::folded_until(conn, id, last_seq)?;
    mirror_row.map(|mirror_row| past_record(conn, id, &mirror_row)).transpose()
}

/// Shows `visit` the changes that `filter` selects, in the order of the log.
pub fn changes(
    conn: &Conn,
    filter: &ChangeFilter,
    visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let last_seq = match filter.until {
        Some(moment) => changes::seq_at(conn, &time::written(moment))?,
        None => i64::MAX,
    };
    let mut left = filter.limit.unwrap_or(usize::MAX);
    let chunk = |last: Option<&Value>| {
        let after = last.and_then(Value::as_i64).unwrap_or(filter.since);
        let count = CHUNK.min(left);
        left -= count;
        match &filter.customer {
            Some(id) => {
                let sql = "SELECT * FROM changes WHERE customer_id = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4";
                record::collect(conn, sql, params![id.as_str(), after, last_seq, count])
            }
            None => {
                let sql = "SELECT * FROM changes WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
                record::collect(conn, sql, params![after, last_seq, count])
            }
        }
    };
    in_chunks(chunk, "seq", visit)
}

/// Returns the `seq` before the newest `count` changes, of one customer or of all: a
/// [`ChangeFilter::since`] that shows exactly these.
pub fn before_newest(conn: &Conn, customer: Option<&CustomerId>, count: usize) -> Result<i64, StoreError> {
    let sql = "SELECT ifnull(min(seq) - 1, 0) FROM
        (SELECT seq FROM changes WHERE ?1 IS NULL OR customer_id = ?1 ORDER BY seq DESC LIMIT ?2)";
    Ok(conn.query_row(sql, params![customer.map(CustomerId::as_str), count], |row| row.get(0))?)
}

/// Returns the SQL condition for held deletions: those that are not decided or not carried out yet,
/// or all.
fn which_held(all: bool) -> &'static str {
    if all { "" } else { "WHERE state IN ('held', 'approved')" }
}

/// Shows `visit` the held deletions that are not settled, or all of them.
pub fn held_deletions(
    conn: &Conn,
    all: bool,
    visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT * FROM held_deletions {} ORDER BY hold_id, customer_id", which_held(all));
    record::each(conn, &sql, [], visit)
}

/// Like [`held_deletions`], with each customer's email and the reason of its hold.
pub fn held_customers(
    conn: &Conn,
    all: bool,
    visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT held_deletions.*, email, because FROM held_deletions
         JOIN hold ON hold.id = hold_id LEFT JOIN mirror ON mirror.id = customer_id {}
         ORDER BY hold_id, customer_id",
        which_held(all)
    );
    record::each(conn, &sql, [], visit)
}

/// Returns the pass with this number.
pub fn pass(conn: &Conn, id: komoju_core::PassId) -> Result<Option<Record>, StoreError> {
    record::one(conn, "SELECT * FROM passes WHERE id = ?1", [id])
}

/// Returns the one row of `mirror_info`.
pub fn mirror_info(conn: &Conn) -> Result<Record, StoreError> {
    record::one(conn, "SELECT * FROM mirror_info", [])?
        .ok_or_else(|| StoreError::Impossible("mirror_info is empty".into()))
}

/// Returns the last pass of this kind that has ended.
pub fn last_pass(conn: &Conn, kind: komoju_core::PassKind) -> Result<Option<Record>, StoreError> {
    let sql = "SELECT * FROM passes WHERE kind = ?1 AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1";
    record::one(conn, sql, [kind.word()])
}

/// Returns the pass that runs now, with the number of pages of the list.
pub fn running_pass(conn: &Conn) -> Result<Option<Record>, StoreError> {
    record::one(
        conn,
        "SELECT id, kind, started_at, since_at, since_pages, pages, last_page, requests, customers_seen, created, updated,
                deleted, restored
         FROM pass WHERE finished_at IS NULL ORDER BY id DESC LIMIT 1",
        [],
    )
}

/// Returns what blocks all requests: since when the key is refused, and until when the API asked us
/// to wait.
pub fn obstacles(conn: &Conn) -> Result<(Option<String>, Option<String>), StoreError> {
    Ok(conn.query_row("SELECT refused_since, throttled_until FROM meta", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?)
}

/// The columns of `customers` over a body (?2), by the expressions of that view, so that SQLite
/// decides their types.
const PAST: &str = "SELECT ?1 AS id, ?3 AS email,
     nullif(?2 -> '$.source', 'null') AS source,
     ?2 ->> '$.source.type' AS source_type,
     ?2 ->> '$.source.brand' AS source_brand,
     ?2 ->> '$.source.last_four_digits' AS source_last_four,
     ?2 ->> '$.source.month' AS source_month,
     ?2 ->> '$.source.year' AS source_year,
     nullif(?2 -> '$.metadata', 'null') AS metadata,
     ?2 ->> '$.locale' AS locale,
     ?4 AS created_at, ?2 AS body, ?5 AS first_seen_at, ?6 AS changed_at, ?7 AS seq";

/// Returns a customer's record as `customers` or `deleted_customers` showed it at that time.
fn past_record(conn: &Conn, id: &CustomerId, mirror_row: &MirrorRow) -> Result<Record, StoreError> {
    let customer = mirror_row.body.as_deref().and_then(|body| Customer::from_body(body).ok());
    let parameters = params![
        id.as_str(),
        mirror_row.body,
        customer.as_ref().and_then(Customer::email),
        customer.as_ref().and_then(Customer::created_at),
        mirror_row.first_seen_at,
        mirror_row.changed_at,
        mirror_row.seq,
    ];
    let record = record::one(conn, PAST, parameters)?
        .ok_or_else(|| StoreError::Impossible("a query without a table has no row".into()))?;
    Ok(match mirror_row.deleted_at.as_deref() {
        Some(at) => record.with("deleted_at", at.into()),
        None => record,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::log::changes::{ChangeContext, recording};
    use crate::store::log::passes;
    use komoju_core::{ChangeKind, Origin};

    #[test]
    fn past_record_equals_the_views_record_for_any_types() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let cause = ChangeContext {
            observed_at: "2026-01-01T00:00:00.000Z".into(),
            origin: Origin::Sweep,
            pass_id: None,
            intent_id: None,
        };
        let sources = [
            json!(null),
            json!("text"),
            json!(7),
            json!([1, {"type": "x"}]),
            json!({"type": true, "brand": {"a": 1.5}, "last_four_digits": 42, "month": "7", "year": 2030.0}),
            json!({"type": "a\u{0}b", "brand": [], "last_four_digits": null, "month": false, "year": 1e300}),
        ];
        let others = [json!(null), json!("ja"), json!(0), json!(false), json!({"k": [1, "x"]}), json!([])];
        let bodies = sources.iter().zip(&others).enumerate().map(|(n, (source, other))| {
            json!({"id": format!("c{n}"), "source": source, "metadata": other, "locale": other, "email": other,
                   "created_at": other})
        });
        let huge = komoju_core::json::parse(
            br#"{"id":"huge","source":{"year":12345678901234567890,"month":1E400,"brand":1.50}}"#,
        );
        for body in bodies.chain([huge.unwrap()]) {
            let customer = Customer::from_value(body).unwrap();
            recording(&tx, cause.clone(), |recorder| recorder.record(ChangeKind::Created, &customer, None))
                .unwrap();
        }
        let (mut now, mut then) = (Vec::new(), Vec::new());
        customers(&tx, |record| {
            now.push(record);
            Ok(())
        })
        .unwrap();
        customers_as_of(&tx, "2026-02-01T00:00:00Z".parse().unwrap(), |record| {
            then.push(record);
            Ok(())
        })
        .unwrap();
        assert_eq!(now.len(), 7);
        assert_eq!(now, then);
        assert_eq!(then[0].names(), customer_columns(&tx).unwrap());
    }

    #[test]
    fn mirror_is_partial_until_the_first_complete_sweep_has_ended() {
        let conn = open::in_memory();
        let is_partial =
            |at: Option<&str>| passes::is_partial(&conn, at.map(|at| at.parse().unwrap())).unwrap();
        conn.execute_batch(
            "INSERT INTO pass (kind, started_at, finished_at, outcome)
             VALUES ('sweep', 'a', '2026-01-01T00:00:00.000Z', 'interrupted'), ('probe', 'a', '2026-01-01T00:00:00.000Z', 'complete')",
        )
        .unwrap();
        assert!(is_partial(None));
        conn.execute_batch(
            "INSERT INTO pass (kind, started_at, finished_at, outcome)
             VALUES ('sweep', 'a', '2026-01-02T00:00:00.000Z', 'held'), ('sweep', 'a', '2026-01-03T00:00:00.000Z', 'complete')",
        )
        .unwrap();
        assert!(!is_partial(None));
        let before_pruning = ["2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z", "2026-02-01T00:00:00Z"];
        assert_eq!(before_pruning.map(|at| is_partial(Some(at))), [true, false, false]);
        let tx = conn.unchecked_transaction().unwrap();
        tx.execute_batch(
            "INSERT INTO pass (kind, started_at, finished_at, outcome)
             VALUES ('sweep', 'a', '2026-03-15T00:00:00.000Z', 'complete')",
        )
        .unwrap();
        // The last sweep before the cutoff is no longer the newest one.
        let pruned = passes::prune(&tx, "2026-03-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z").unwrap();
        assert_eq!(pruned, 3);
        assert_eq!(before_pruning.map(|at| is_partial(Some(at))), [true, false, false]);
    }
}
