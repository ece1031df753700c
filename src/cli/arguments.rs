//! Arguments that several commands take.

use jiff::Timestamp;

use super::exit::UsageError;
use komoju_core::{CustomerId, time};

/// Takes an argument as a customer's id.
pub(super) fn parse_id(text: &str) -> Result<CustomerId, UsageError> {
    CustomerId::new(text).map_err(|why| UsageError(why.to_string()))
}

/// Takes an argument as a moment.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, UsageError> {
    // A date alone is its beginning; what is no date gives no time either.
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
