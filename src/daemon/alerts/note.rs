//! The JSON object that `alerts.command` reads (docs/alerts.md).

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::secret::mask::harmless;
use crate::store::state::alerts::PendingAlert;
use komoju_core::{Attention, time};

/// The machine and the database that an alert names.
#[derive(Debug)]
pub(super) struct AlertOrigin<'a> {
    pub(super) database: &'a Path,
    pub(super) host: Option<&'a str>,
}

/// Returns the object for a condition that is sent at `at`. `untold` says how much of it is new. It
/// may count more than the observed condition, so the object has the larger count.
pub(super) fn note(
    attention: &Attention,
    untold: &PendingAlert,
    origin: &AlertOrigin<'_>,
    at: Timestamp,
) -> Value {
    let safe = |text: &str| text.chars().map(harmless).collect::<String>();
    let oldest = attention.waiting().and_then(|waiting| waiting.oldest.as_deref());
    json!({
        "alert": attention.key(),
        "at": time::written(at),
        "count": attention.count().max(untold.count),
        "database": origin.database.to_string_lossy(),
        "host": origin.host,
        "new": untold.new,
        "oldest": oldest.map(safe),
        "sentence": safe(&attention.to_string()),
        "since": attention.since().unwrap_or(&untold.noticed_at),
    })
}
