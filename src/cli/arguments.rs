//! Arguments that several commands take.

use jiff::Timestamp;

use super::exit::UsageError;
use komoju_core::{CustomerId, time};

/// Parses a customer's id.
pub(super) fn parse_id(text: &str) -> Result<CustomerId, UsageError> {
    CustomerId::new(text).map_err(|why| UsageError(why.to_string()))
}

/// Parses a time, or a date, which stands for its beginning in UTC.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, UsageError> {
    time::read(text).or_else(|| time::read(&format!("{text}T00:00:00Z"))).ok_or_else(|| {
        UsageError(
            "a time looks like 2026-01-31T09:30:00Z, or 2026-01-31 for the beginning of that day in UTC"
                .into(),
        )
    })
}

/// The error for a customer without an entry in the change log.
pub(super) fn unknown(id: &CustomerId) -> anyhow::Error {
    anyhow::anyhow!("the change log knows no customer {id}")
}
