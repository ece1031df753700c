//! By how much an earlier process had to lower the request rate, as text. The caller defines its
//! format.

use crate::store::{Conn, StoreError, Tx};

/// Returns the stored text; `None` where the configured rate applies.
pub fn get(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT slowed FROM meta", [], |row| row.get(0))?)
}

/// Stores the text. Writes only what changes.
pub fn set(tx: &Tx<'_>, text: Option<&str>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET slowed = ?1 WHERE slowed IS NOT ?1", [text])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn stored_rate_is_read_until_it_is_removed() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        for text in [None, Some("one"), Some("two"), None] {
            set(&tx, text).unwrap();
            assert_eq!(get(&tx).unwrap().as_deref(), text);
        }
    }
}
