//! Which customers could be a create's, by the log and the outbox. What follows from them is decided by the reconciliation of creates.

use std::collections::BTreeSet;

use rusqlite::params;

use super::intents::intent_in;
use super::{Conn, StoreError, mirror};
use crate::model::intent::{Body, Wish};
use crate::model::{Customer, CustomerId};

/// Whether the customers that other intents created are excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// A customer that another create made, or that the mirror had before the first attempt, is no candidate.
    Count,
    /// A customer that carries the intent's id is this intent's, whatever else is known of it.
    DoNotCount,
}

/// Returns the candidates for the customer of the create at `position`: the fitting ones of the window (`listed`), and those that
/// entered the mirror after the first attempt and fitted when they were first seen, live or gone. Their `created_at` does not matter.
pub fn candidates(
    conn: &Conn,
    position: i64,
    listed: impl IntoIterator<Item = CustomerId>,
    claims: Claims,
    could_be: impl Fn(&Customer) -> bool,
) -> Result<Vec<CustomerId>, StoreError> {
    let mut found: BTreeSet<CustomerId> = listed.into_iter().collect();
    let mut entered = conn.prepare_cached(
        "SELECT customer_id, after FROM change_log
         WHERE seq > coalesce((SELECT first_seq FROM outbox WHERE position = ?1), 0)
           AND kind = 'created' AND after IS NOT NULL",
    )?;
    let mut rows = entered.query([position])?;
    while let Some(row) = rows.next()? {
        let first_seen: String = row.get(1)?;
        if Customer::from_body(&first_seen).is_ok_and(|customer| could_be(&customer)) {
            found.insert(mirror::id_in(row, 0)?);
        }
    }
    if claims == Claims::DoNotCount {
        return Ok(found.into_iter().collect());
    }
    let mut claimed = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM intents WHERE result_customer_id = ?1 AND op = 'create' AND position <> ?2)
             OR EXISTS (SELECT 1 FROM mirror WHERE id = ?1 AND live_seq <= (SELECT first_seq FROM outbox WHERE position = ?2))",
    )?;
    let mut unclaimed = Vec::new();
    for customer in found {
        if !claimed.query_row(params![customer.as_str(), position], |row| row.get::<_, bool>(0))? {
            unclaimed.push(customer);
        }
    }
    Ok(unclaimed)
}

/// Whether another open create has the same content, and may have been sent.
pub fn has_twin(conn: &Conn, position: i64, wanted: &Body) -> Result<bool, StoreError> {
    let mut others = conn.prepare_cached(
        "SELECT op, customer_id, body, expect, not_before FROM outbox JOIN intents USING (position)
         WHERE is_open = 1 AND op = 'create' AND position <> ?1 AND (state <> 'queued' OR outcome_unknown = 1)",
    )?;
    let mut rows = others.query([position])?;
    while let Some(row) = rows.next()? {
        // One that cannot be read may be anything.
        let is_twin = match intent_in(row, 0).map(|intent| intent.wish) {
            Ok(Wish::Create(body)) => body.without_token() == wanted.without_token(),
            _ => true,
        };
        if is_twin {
            return Ok(true);
        }
    }
    Ok(false)
}
