//! Invariant 17: one bad customer costs one customer.
//!
//! Promises: invariant 17

mod passes;
mod pushes;

use komoju_sandbox::Payload;
use komoju_testkit::Installation;
use serde_json::{Value, json};

use crate::PROGRAM;

/// MARK is the email of the marked customer, which answers show in another form.
pub(crate) const MARK: &str = "mark@example.com";

/// LOCALE is the locale of the marked customer.
const LOCALE: &str = "mark";

pub(crate) fn text(text: impl Into<String>) -> Payload {
    Payload::Text(text.into())
}

/// Returns a harness with 57 customers and the id of the 25th, which is the marked one.
pub(crate) fn marked() -> (Installation, String) {
    let harness = Installation::with(PROGRAM, 57);
    let id = harness.sandbox.world().ids()[24].clone();
    harness.sandbox.world().update(&id, json!({"email": MARK, "locale": LOCALE}));
    (harness, id)
}

/// Returns the rows of `unreadable_customers` without their times.
pub(crate) fn unreadable(harness: &Installation) -> Vec<Value> {
    let row = "SELECT json_object('id', id, 'page', page, 'position', position, 'reason', reason) FROM unreadable_customers";
    harness.column(row).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}
