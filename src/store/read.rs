//! Reading for people: what the commands print. Through the contract's views, on a connection that cannot write.

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
    /// Keeps other processes from writing, where the connection relies on that.
    _lock: Option<Instance>,
}

impl Reader {
    /// Opens `path`; a missing file is [`StoreError::Missing`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::for_reading(path)?, path: path.to_owned(), _lock: None })
    }

    /// Opens `path`, whose schema may be an older one, and leaves no trace in any file; see [`open::for_looking`].
    pub fn looking(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::for_looking(path)?, path: path.to_owned(), _lock: None })
    }

    /// Opens `path` for a dry run, which leaves no file where there was none. A missing database is an empty one.
    pub fn for_dry_run(path: &Path) -> Result<Self, StoreError> {
        let (conn, lock) = open::for_dry_run(path)?;
        Ok(Self { conn, path: path.to_owned(), _lock: lock })
    }

    /// Runs several queries on one state of the database, whatever others commit meanwhile.
    pub fn in_one_view<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.look(|conn| {
            let tx = conn.unchecked_transaction()?;
            work(&tx)
        })
    }

    /// Runs queries; what fails names the database.
    pub fn look<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.conn).map_err(|e| e.about(&self.path))
    }

    /// A number that changes when somebody else commits.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        self.look(|conn| Ok(conn.query_row("PRAGMA data_version", [], |row| row.get(0))?))
    }
}

impl Deref for Reader {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

/// Which rows of `changes`.
#[derive(Clone, Debug, Default)]
pub struct ChangeFilter {
    /// Only those after this one.
    pub since: i64,
    /// Only this customer's.
    pub customer: Option<CustomerId>,
    /// Only those seen up to this moment.
    pub until: Option<Timestamp>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// How many rows are read before they are shown: whoever is slow to take them (a pager) then holds no transaction open, which
/// would keep the WAL from being emptied.
pub(super) const PIECE: usize = 500;

/// Shows `visit` rows in pieces: `piece` reads up to [`PIECE`] of them after a row's `key` column, or from the beginning.
pub(super) fn in_pieces(
    mut piece: impl FnMut(Option<&Value>) -> Result<Vec<Record>, StoreError>,
    key: &str,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut last = None;
    loop {
        let rows = piece(last.as_ref())?;
        let more = rows.len() == PIECE;
        last = rows.last().map(|row| row.get(key).clone());
        rows.into_iter().try_for_each(&mut visit)?;
        if !more {
            return Ok(());
        }
    }
}

/// Shows `visit` the live customers, by id. Only within [`Reader::in_one_view`] are all of them of one moment.
pub fn customers(conn: &Conn, visit: impl FnMut(Record) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let piece = |last: Option<&Value>| {
        let after = last.and_then(Value::as_str).unwrap_or_default();
        let sql = "SELECT * FROM customers WHERE id > ?1 ORDER BY id LIMIT ?2";
        record::collect(conn, sql, params![after, PIECE])
    };
    in_pieces(piece, "id", visit)
}

/// The columns of `customers`, in their order.
pub fn customer_columns(conn: &Conn) -> Result<Vec<String>, StoreError> {
    let statement = conn.prepare("SELECT * FROM customers")?;
    Ok(statement.column_names().into_iter().map(str::to_owned).collect())
}

/// The customer with this id, live or deleted; a deleted one has `deleted_at`.
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
        Some(standing) if standing.is_live() => visit(past_record(conn, &id, &standing)?),
        _ => Ok(()),
    })
}

/// The customer with this id as it was at `moment`: live, deleted, or not there yet.
pub fn customer_as_of(conn: &Conn, id: &CustomerId, moment: Timestamp) -> Result<Option<Record>, StoreError> {
    let last_seq = changes::seq_at(conn, &time::written(moment))?;
    let standing = verify::folded_until(conn, id, last_seq)?;
    standing.map(|standing| past_record(conn, id, &standing)).transpose()
}

/// Shows `visit` the changes that `filter` lets through, in the order of the log.
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
    let piece = |last: Option<&Value>| {
        let after = last.and_then(Value::as_i64).unwrap_or(filter.since);
        let count = PIECE.min(left);
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
    in_pieces(piece, "seq", visit)
}

/// Returns the `seq` before the newest `count` changes, of one customer or of all: a
/// [`ChangeFilter::since`] that shows exactly these.
pub fn before_newest(conn: &Conn, customer: Option<&CustomerId>, count: usize) -> Result<i64, StoreError> {
    let sql = "SELECT ifnull(min(seq) - 1, 0) FROM
        (SELECT seq FROM changes WHERE ?1 IS NULL OR customer_id = ?1 ORDER BY seq DESC LIMIT ?2)";
    Ok(conn.query_row(sql, params![customer.map(CustomerId::as_str), count], |row| row.get(0))?)
}

/// Which held deletions are of interest: those that wait, or all.
fn which_held(all: bool) -> &'static str {
    if all { "" } else { "WHERE state IN ('held', 'approved')" }
}

/// Shows `visit` the held deletions that wait, or all of them.
pub fn held_deletions(
    conn: &Conn,
    all: bool,
    visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT * FROM held_deletions {} ORDER BY hold_id, customer_id", which_held(all));
    record::each(conn, &sql, [], visit)
}

/// The same with each customer's email and why it is held, for people.
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

/// The pass with this number.
pub fn pass(conn: &Conn, id: komoju_core::PassId) -> Result<Option<Record>, StoreError> {
    record::one(conn, "SELECT * FROM passes WHERE id = ?1", [id])
}

/// The one row of `mirror_info`.
pub fn mirror_info(conn: &Conn) -> Result<Record, StoreError> {
    record::one(conn, "SELECT * FROM mirror_info", [])?
        .ok_or_else(|| StoreError::Impossible("mirror_info is empty".into()))
}

/// The last pass of a kind that has ended.
pub fn last_pass(conn: &Conn, kind: komoju_core::PassKind) -> Result<Option<Record>, StoreError> {
    let sql = "SELECT * FROM passes WHERE kind = ?1 AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1";
    record::one(conn, sql, [kind.word()])
}

/// The pass that runs now, with how many pages the list has.
pub fn running_pass(conn: &Conn) -> Result<Option<Record>, StoreError> {
    record::one(
        conn,
        "SELECT id, kind, started_at, since_at, since_pages, pages, last_page, requests, customers_seen, created, updated,
                deleted, restored
         FROM pass WHERE finished_at IS NULL ORDER BY id DESC LIMIT 1",
        [],
    )
}

/// What stands in the way of everything: since when the key is refused, and until when the API asked us to wait.
pub fn obstacles(conn: &Conn) -> Result<(Option<String>, Option<String>), StoreError> {
    Ok(conn.query_row("SELECT refused_since, throttled_until FROM meta", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?)
}

/// The columns of `customers` over a body (?2), by the expressions of that view: its types are SQLite's.
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

/// A customer's record as `customers` and `deleted_customers` would have shown it.
fn past_record(conn: &Conn, id: &CustomerId, standing: &MirrorRow) -> Result<Record, StoreError> {
    let customer = standing.body.as_deref().and_then(|body| Customer::from_body(body).ok());
    let parameters = params![
        id.as_str(),
        standing.body,
        customer.as_ref().and_then(Customer::email),
        customer.as_ref().and_then(Customer::created_at),
        standing.first_seen_at,
        standing.changed_at,
        standing.seq,
    ];
    let record = record::one(conn, PAST, parameters)?
        .ok_or_else(|| StoreError::Impossible("a query without a table has no row".into()))?;
    Ok(match standing.deleted_at.as_deref() {
        Some(at) => record.with("deleted_at", at.into()),
        None => record,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::log::changes::{Cause, recording};
    use crate::store::log::passes;
    use komoju_core::{ChangeKind, Origin};

    #[test]
    fn record_of_the_past_is_the_record_of_the_view_for_any_types() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let cause = Cause {
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
    fn mirror_is_partial_until_the_first_whole_sweep_has_finished() {
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
