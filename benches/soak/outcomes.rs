//! Checks the outcome of each intent against its row and the customers at KOMOJU.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::daemon::Installation;
use crate::doors::Dropper;

/// The live customers at KOMOJU, by their ids.
type Truth = BTreeMap<String, Value>;

/// The row of an intent.
struct Row {
    id: String,
    op: String,
    customer: Option<String>,
    state: String,
    result: Option<String>,
    /// The status of an attempt that was answered 5xx and may have taken effect all the same.
    failure: Option<u16>,
    reason: Option<String>,
}

const ROWS: &str = "SELECT json_array(id, op, customer_id, state, result_customer_id,
        (SELECT max(status) FROM attempts WHERE intent_id = intents.id AND status >= 500), reason)
    FROM intents ORDER BY position";

fn rows(harness: &Installation) -> Vec<Row> {
    let read = |row: String| {
        let (id, op, customer, state, result, failure, reason) = serde_json::from_str(&row).unwrap();
        Row { id, op, customer, state, result, failure, reason }
    };
    harness.column(ROWS).into_iter().map(read).collect()
}

/// The start of the reason of a parked create with an unknown outcome.
const UNKNOWN: &str = "it is not known whether this create took effect";

/// Returns what is wrong about the intents. The soak does not delete customers of intents or change
/// the metadata that intents write, and no email is used twice. So each outcome has exactly one
/// explanation.
pub fn judge(harness: &Installation, dropper: &Dropper, truth: &Truth) -> Vec<String> {
    let rows = rows(harness);
    let states: BTreeMap<&str, &str> = rows.iter().map(|row| (row.id.as_str(), row.state.as_str())).collect();
    let mut wrong = Vec::new();
    // What the customers' metadata must say: each key as the last update that is done left it.
    let mut wanted = BTreeMap::<(&str, &String), (&Value, &str)>::new();
    for row in &rows {
        let Row { id, op, state, .. } = row;
        let Some(accepted) = dropper.intents.get(id) else { continue };
        let made_by = row.customer.as_deref().and_then(|customer| customer.strip_prefix('@'));
        let is_there = |customer: &Option<String>| customer.as_ref().is_some_and(|id| truth.contains_key(id));
        let is_explained = match (state.as_str(), op.as_str()) {
            // Only if KOMOJU declines its token.
            ("rejected", "create") => accepted.is_declined(),
            // Only if the soak has deleted the customer. It never deletes customers of intents.
            ("rejected", "update") => made_by.is_none() && !is_there(&row.customer),
            ("done", "create") => !accepted.is_declined() && is_there(&row.result),
            ("done", "update") => made_by.is_none() || is_there(&row.result),
            ("done", "delete") => !is_there(&row.customer),
            // Only after a 5xx, if the lists left out customers that the mirror has.
            ("parked", "create") => {
                row.failure.is_some() && row.reason.as_ref().is_some_and(|reason| reason.starts_with(UNKNOWN))
            }
            // Only if the create of the customer was declined.
            ("parked", "update") => made_by.is_some_and(|create| states.get(create) == Some(&"rejected")),
            // The ledger checks whether it may be open.
            ("queued" | "sending" | "waiting", _) => true,
            _ => false,
        };
        if !is_explained {
            let reason = row.reason.as_deref().unwrap_or("without a reason");
            wrong.push(format!(
                "{id}, {op} of {:?}, is {state} for a reason that explains nothing: {reason}",
                row.customer
            ));
        }
        if let ("done", "update", Some(customer)) = (state.as_str(), op.as_str(), &row.result) {
            for (key, value) in accepted.intent["body"]["metadata"].as_object().unwrap() {
                wanted.insert((customer, key), (value, id));
            }
        }
    }
    for ((customer, key), (value, id)) in wanted {
        let is_so = truth.get(customer).is_none_or(|theirs| theirs["metadata"][key] == *value);
        if !is_so {
            let theirs = &truth[customer]["metadata"][key];
            wrong.push(format!("{id} is done, and the {key} of {customer} is {theirs}, not {value}"));
        }
    }
    wrong
}
