//! Customers whose JSON cannot be mirrored.
//!
//! A row is identified by the customer's id, or by a digest of its text where the id cannot be
//! read. So it stays the same row when the list moves. A complete sweep removes the rows that it
//! did not find again.

use rusqlite::{OptionalExtension, params};

use crate::store::record::{self, Record};
use crate::store::{Conn, StoreError, Tx};
use komoju_core::{CustomerId, PassId, Unreadable};

pub use komoju_core::unreadable::UnreadableOccurrence;

/// MAX_ROWS controls how many rows are kept. Where every customer is unreadable, more rows would
/// say nothing new.
const MAX_ROWS: u64 = 1000;

/// Records an unreadable customer. `reason` is masked. Returns whether the customer is new.
pub fn note(
    tx: &Tx<'_>,
    bad: &Unreadable,
    reason: &str,
    occurrence: &UnreadableOccurrence,
) -> Result<bool, StoreError> {
    let key = match &bad.id {
        // The list shows the same text, and a request by id has shown the id that it belongs to.
        Some(id) if name(tx, &text_key(bad), id)? => text_key(bad),
        _ => key(bad),
    };
    let (page, position) = occurrence.place.unzip();
    let known = tx
        .prepare_cached(
            "UPDATE unreadable_customer
             SET page = coalesce(?2, page), position = coalesce(?3, position), reason = ?4, last_seen_at = ?5,
                 pass_id = coalesce(?6, pass_id)
             WHERE key = ?1",
        )?
        .execute(params![key, page, position, reason, occurrence.at, occurrence.pass])?;
    if known > 0 || count(tx)? >= MAX_ROWS {
        return Ok(false);
    }
    let id = bad.id.as_ref().map(CustomerId::as_str);
    tx.prepare_cached(
        "INSERT INTO unreadable_customer (key, id, page, position, reason, first_seen_at, last_seen_at, pass_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
    )?
    .execute(params![key, id, page, position, reason, occurrence.at, occurrence.pass])?;
    Ok(true)
}

/// A row of an unreadable customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnreadableRow {
    /// Its key: the same for the same customer.
    pub key: String,
    /// How many complete sweeps found it; `None` where there is no such row.
    pub sweeps: Option<i64>,
}

/// Returns the row that [`note`] would write.
pub fn row_of(conn: &Conn, bad: &Unreadable) -> Result<UnreadableRow, StoreError> {
    let sweeps = |key: &str| {
        let sql = "SELECT sweeps FROM unreadable_customer WHERE key = ?1";
        conn.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
    };
    let text = text_key(bad);
    if let Some(sweeps) = sweeps(&text)? {
        return Ok(UnreadableRow { key: text, sweeps: Some(sweeps) });
    }
    let key = key(bad);
    Ok(UnreadableRow { sweeps: sweeps(&key)?, key })
}

/// Returns whether there is room for another row.
pub fn has_room(conn: &Conn) -> Result<bool, StoreError> {
    Ok(count(conn)? < MAX_ROWS)
}

/// Removes the rows that a complete sweep did not find again, and counts the sweep in the others.
pub fn conclude(tx: &Tx<'_>, sweep: PassId) -> Result<(), StoreError> {
    let delete = "DELETE FROM unreadable_customer WHERE pass_id IS NULL OR pass_id < ?1";
    tx.prepare_cached(delete)?.execute([sweep])?;
    let found = "UPDATE unreadable_customer SET sweeps = sweeps + 1 WHERE pass_id = ?1";
    tx.prepare_cached(found)?.execute([sweep])?;
    Ok(())
}

/// Returns how many unreadable customers are known.
pub fn count(conn: &Conn) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM unreadable_customer";
    Ok(conn.prepare_cached(count)?.query_row([], |row| row.get(0))?)
}

/// Returns how many of them are new since the complete sweep before the last one.
pub fn count_new(conn: &Conn) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM unreadable_customer WHERE sweeps <= 1";
    Ok(conn.prepare_cached(count)?.query_row([], |row| row.get(0))?)
}

/// Returns the first rows of the view, new ones first.
pub fn first(conn: &Conn, limit: usize) -> Result<Vec<Record>, StoreError> {
    let sql = "SELECT id, page, position, reason, first_seen_at, last_seen_at FROM unreadable_customer
               ORDER BY sweeps > 1, page, position, key LIMIT ?1";
    record::collect(conn, sql, [limit])
}

/// Returns whether this unreadable customer was known before this moment.
pub fn was_known(conn: &Conn, bad: &Unreadable, before: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM unreadable_customer WHERE key = ?1 AND first_seen_at < ?2";
    let found = conn.prepare_cached(sql)?.query_row(params![key(bad), before], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// Writes an id into the row of a text whose id could not be read. Returns whether there is such a
/// row.
fn name(tx: &Tx<'_>, text_key: &str, id: &CustomerId) -> Result<bool, StoreError> {
    let name = "UPDATE unreadable_customer SET id = ?2 WHERE key = ?1";
    Ok(tx.prepare_cached(name)?.execute(params![text_key, id.as_str()])? > 0)
}

fn key(bad: &Unreadable) -> String {
    bad.id.as_ref().map_or_else(|| text_key(bad), |id| format!("id:{}", id.as_str()))
}

fn text_key(bad: &Unreadable) -> String {
    bad.fingerprint.iter().fold("text:".to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;
    use komoju_core::BadCustomer;

    fn bad(text: &str) -> Unreadable {
        Unreadable::new(text.as_bytes(), Some(1), BadCustomer::NoId)
    }

    fn seen(place: Option<(u64, u64)>, pass: Option<PassId>) -> UnreadableOccurrence {
        UnreadableOccurrence { place, at: "2026-01-01T00:00:00.000Z".into(), pass }
    }

    fn shown(conn: &Conn) -> Vec<(Option<String>, Option<i64>)> {
        let rows = first(conn, 10).unwrap();
        rows.iter().map(|row| (row.text("id").map(str::to_owned), row.get("page").as_i64())).collect()
    }

    #[test]
    fn unreadable_customer_stays_one_row_when_the_list_moves() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        for (text, id) in [("null", None), (r#"{"id":"a"}"#, Some("a".to_owned()))] {
            assert!(note(&tx, &bad(text), "no id", &seen(Some((1, 2)), Some(1))).unwrap());
            assert!(!note(&tx, &bad(text), "no id", &seen(Some((3, 4)), Some(2))).unwrap());
            // A request by id does not know the place in the list.
            assert!(!note(&tx, &bad(text), "no id", &seen(None, None)).unwrap());
            assert!(shown(&tx).contains(&(id, Some(3))));
        }
        assert_eq!(count(&tx).unwrap(), 2);
    }

    #[test]
    fn unreadable_customer_is_new_until_a_second_complete_sweep_finds_it() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let (old, new) = (bad("null"), bad("7"));
        for pass in 1..=3 {
            note(&tx, &old, "", &seen(Some((1, 1)), Some(pass))).unwrap();
            assert_eq!(count_new(&tx).unwrap(), u64::from(pass < 3), "before the end of sweep {pass}");
            conclude(&tx, pass).unwrap();
            assert_eq!(count_new(&tx).unwrap(), u64::from(pass < 2), "after sweep {pass}");
        }
        note(&tx, &new, "", &seen(None, None)).unwrap();
        assert_eq!((count(&tx).unwrap(), count_new(&tx).unwrap()), (2, 1));
        conclude(&tx, 4).unwrap();
        assert_eq!(count(&tx).unwrap(), 0, "a sweep that finds neither removes both");
    }

    #[test]
    fn request_by_id_names_the_customer_of_a_text_without_id() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let nameless = bad(r#"{"id":7}"#);
        note(&tx, &nameless, "", &seen(Some((1, 2)), Some(1))).unwrap();
        let named = Unreadable { id: CustomerId::new("a").ok(), ..nameless.clone() };
        assert!(!note(&tx, &named, "", &seen(None, Some(1))).unwrap());
        note(&tx, &nameless, "", &seen(Some((2, 3)), Some(2))).unwrap();
        assert_eq!(shown(&tx), [(Some("a".to_owned()), Some(2))]);
    }

    #[test]
    fn rows_are_bounded() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        for n in 0..MAX_ROWS + 5 {
            let has_room = has_room(&tx).unwrap();
            let is_noted = note(&tx, &bad(&n.to_string()), "", &seen(None, None)).unwrap();
            assert_eq!((has_room, is_noted), (n < MAX_ROWS, n < MAX_ROWS));
        }
        assert_eq!(count(&tx).unwrap(), MAX_ROWS);
    }
}
