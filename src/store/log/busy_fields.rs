//! Fields that changed in many customers in the last complete sweep, and in how many sweeps in a
//! row they did.

use rusqlite::params;

use crate::store::record::{self, Record};
use crate::store::{Conn, StoreError, Tx};

/// Replaces the fields of the previous complete sweep. `fields` are the fields that changed, each
/// with the number of customers in which it did. `seen` is the number of all customers. The names
/// are masked and differ from each other.
pub fn replace(
    tx: &Tx<'_>,
    fields: impl IntoIterator<Item = (String, u64)>,
    seen: u64,
    at: &str,
) -> Result<(), StoreError> {
    // Negative marks a field of the previous sweep. Fields that stay negative did not change in
    // this one.
    tx.execute("UPDATE busy_field SET sweeps = -sweeps", [])?;
    for (field, customers) in fields {
        tx.prepare_cached(
            "INSERT INTO busy_field (field, customers, seen, sweeps, since) VALUES (?1, ?2, ?3, 1, ?4)
             ON CONFLICT (field) DO UPDATE
             SET customers = excluded.customers, seen = excluded.seen, sweeps = 1 - busy_field.sweeps",
        )?
        .execute(params![field, customers, seen, at])?;
    }
    tx.execute("DELETE FROM busy_field WHERE sweeps < 0", [])?;
    Ok(())
}

/// Returns all of them, the busiest first.
pub fn all(conn: &Conn) -> Result<Vec<Record>, StoreError> {
    let sql = "SELECT field, customers, seen, sweeps, since FROM busy_field ORDER BY customers DESC, field";
    record::collect(conn, sql, [])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn busy_field_counts_sweeps_in_a_row() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        let after = |fields: &[(&str, u64)], at: &str| {
            replace(&tx, fields.iter().map(|(name, count)| ((*name).to_owned(), *count)), 9, at).unwrap();
            let rows = all(&tx).unwrap();
            let row = |row: &Record| {
                let text = |name: &str| row.text(name).unwrap().to_owned();
                (text("field"), row.number("customers"), row.number("sweeps"), text("since"))
            };
            rows.iter().map(row).collect::<Vec<_>>()
        };
        let of = |field: &str, customers, sweeps, since: &str| {
            (field.to_owned(), customers, sweeps, since.to_owned())
        };
        assert_eq!(after(&[("a", 5), ("b", 7)], "t1"), [of("b", 7, 1, "t1"), of("a", 5, 1, "t1")]);
        assert_eq!(after(&[("a", 6)], "t2"), [of("a", 6, 2, "t1")]);
        assert_eq!(after(&[("a", 6), ("b", 1)], "t3"), [of("a", 6, 3, "t1"), of("b", 1, 1, "t3")]);
        assert_eq!(after(&[], "t4"), []);
    }
}
