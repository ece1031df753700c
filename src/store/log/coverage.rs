//! What the change log covers: which time, and which customers.

use jiff::Timestamp;

use crate::store::{Conn, StoreError};
use komoju_core::{CustomerId, time};

/// The time that the change log covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCoverage {
    /// The time of the earliest entry, or the end of the first complete sweep where that is
    /// earlier: an account may have no customers.
    pub begin: Timestamp,
    /// The time of the latest entry. It may be in the future if a clock was set back since.
    pub last: Option<Timestamp>,
}

/// Returns the time that the change log covers; `None` where nothing is recorded.
pub fn coverage(conn: &Conn) -> Result<Option<LogCoverage>, StoreError> {
    let moment = |text: Option<String>| text.as_deref().and_then(time::read);
    // Not the first and the last entry by `seq`: after a clock was set back, later entries have
    // earlier times.
    let sql = "SELECT min(observed_at), max(observed_at),
                   (SELECT min(finished_at) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held'))
               FROM change_log";
    let (first, last, swept) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let begin = moment(first).into_iter().chain(moment(swept)).min();
    Ok(begin.map(|begin| LogCoverage { begin, last: moment(last) }))
}

/// Returns whether the change log has an entry of this customer.
pub fn knows(conn: &Conn, id: &CustomerId) -> Result<bool, StoreError> {
    // Ask the mirror first: the index of the log by customer exists only after the first complete
    // sweep.
    let sql = "SELECT EXISTS (SELECT 1 FROM mirror WHERE id = ?1)
                   OR EXISTS (SELECT 1 FROM change_log WHERE customer_id = ?1)";
    Ok(conn.query_row(sql, [id.as_str()], |row| row.get(0))?)
}
