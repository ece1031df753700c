//! The indexes for readers that are made once the first sweep is complete.
//!
//! Ids and emails come in no order, so each new entry of such an index is a page of the database to read, to log and to write. Made
//! at the end, from everything at once, they cost a fraction of that; and until then the mirror is not whole anyway.

use super::{StoreError, Tx};

/// The statements that make them; each takes a while for a million customers, so each is a transaction of its own.
pub const ALL: [&str; 2] = [
    "CREATE INDEX IF NOT EXISTS change_log_by_customer ON change_log (customer_id, seq)",
    "CREATE INDEX IF NOT EXISTS mirror_by_email ON mirror (email) WHERE email IS NOT NULL",
];

/// Makes one of [`ALL`], if it is missing.
pub fn ensure(tx: &Tx<'_>, index: &'static str) -> Result<(), StoreError> {
    tx.execute_batch(index)?;
    Ok(())
}

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    // The word after IF NOT EXISTS.
    ALL.into_iter().filter_map(|index| index.split(' ').nth(5))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_read_out_of_the_statements() {
        assert!(super::names().eq(["change_log_by_customer", "mirror_by_email"]));
    }
}
