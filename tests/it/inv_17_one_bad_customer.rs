//! Invariant 17: one bad customer costs one customer.
//!
//! Promises: invariant 17

mod passes;
mod pushes;

use komoju_sandbox::Payload;
use komoju_testkit::Installation;
use serde_json::{Value, json};

use crate::PROGRAM;

/// The email of the customer that answers show in another form.
pub(crate) const MARK: &str = "mark@example.com";

/// Its locale.
const LOCALE: &str = "mark";

pub(crate) fn text(text: impl Into<String>) -> Payload {
    Payload::Text(text.into())
}

/// A harness with 57 customers, the 25th of which is the marked one; returns its id.
pub(crate) fn marked() -> (Installation, String) {
    let harness = Installation::with(PROGRAM, 57);
    let id = harness.sandbox.world().ids()[24].clone();
    harness.sandbox.world().update(&id, json!({"email": MARK, "locale": LOCALE}));
    (harness, id)
}

/// The rows of the view, without their times.
pub(crate) fn unreadable(harness: &Installation) -> Vec<Value> {
    let row = "SELECT json_object('id', id, 'page', page, 'position', position, 'reason', reason) FROM unreadable_customers";
    harness.column(row).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}
