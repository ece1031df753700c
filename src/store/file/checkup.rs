//! Queries of `doctor`. None of them reads the whole database.

use rusqlite::OptionalExtension as _;

use super::indexes;
use crate::store::log::mirror;
use crate::store::{Conn, StoreError};
use komoju_core::CustomerId;

/// Returns the schema version of an open database.
pub fn schema_version(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Returns the names of missing indexes, of those that the first complete sweep creates.
pub fn missing_indexes(conn: &Conn) -> Result<Vec<&'static str>, StoreError> {
    let mut missing = Vec::new();
    for index in indexes::ALL {
        if !indexes::exists(conn, index.name)? {
            missing.push(index.name);
        }
    }
    Ok(missing)
}

/// Returns the later of the times of the last change and the last pass.
pub fn last_stamp(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row(
        "SELECT max(stamp) FROM (
             SELECT (SELECT observed_at FROM change_log ORDER BY seq DESC LIMIT 1) AS stamp
             UNION ALL
             SELECT (SELECT coalesce(finished_at, started_at) FROM pass ORDER BY id DESC LIMIT 1))",
        [],
        |row| row.get(0),
    )?)
}

/// Returns a live customer that can be requested.
pub fn some_live(conn: &Conn) -> Result<Option<CustomerId>, StoreError> {
    let row: Option<i64> = conn
        .query_row("SELECT row FROM mirror WHERE deleted_at IS NULL ORDER BY row DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let id = row.map(|row| mirror::id_of(conn, row)).transpose()?;
    Ok(id.flatten().filter(CustomerId::can_be_requested))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;
    use crate::store::log::changes::{self, ChangeContext};
    use crate::store::log::passes;
    use komoju_core::{ChangeKind, Customer, Origin, PassKind, PassOutcome};
    use serde_json::json;

    #[test]
    fn last_stamp_is_the_time_of_the_last_change_or_of_the_last_pass() {
        let mut conn = open::in_memory();
        assert_eq!(last_stamp(&conn).unwrap(), None, "an empty database");
        let at = |second: u32| format!("2026-06-01T00:00:{second:02}.000Z");
        let tx = conn.transaction().unwrap();
        let pass = passes::start(&tx, PassKind::Sweep, &at(1)).unwrap();
        assert_eq!(last_stamp(&tx).unwrap(), Some(at(1)), "a pass is running");
        let context =
            ChangeContext { observed_at: at(2), origin: Origin::Sweep, pass_id: None, intent_id: None };
        let customer = Customer::from_value(json!({"id": "a", "email": "a@example.com"})).unwrap();
        changes::recording(&tx, context, |recorder| recorder.record(ChangeKind::Created, &customer, None))
            .unwrap();
        assert_eq!(last_stamp(&tx).unwrap(), Some(at(2)), "a change is newer");
        passes::finish(&tx, pass, &at(3), PassOutcome::Complete, None).unwrap();
        assert_eq!(last_stamp(&tx).unwrap(), Some(at(3)), "the end of the pass is newer");
    }
}
