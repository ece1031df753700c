//! The customers that could be a create's, by the log and the outbox. `komoju_core::plan::creates`
//! decides what follows.

use std::collections::BTreeSet;

use rusqlite::params;

use crate::store::log::mirror;
use crate::store::outbox::rows::intent_in;
use crate::store::{Conn, StoreError};
use komoju_core::intent::{IntentBody, IntentOp};
use komoju_core::{Customer, CustomerId};

/// Whether the customers that other intents created are excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// A customer that another create made, or that the mirror had before the first attempt, is no
    /// candidate.
    Count,
    /// A customer that carries the intent's id is this intent's.
    DoNotCount,
}

/// ENTRIES_AT_ONCE controls how many entries of the log are read at once: other work on the
/// database runs in between.
pub const ENTRIES_AT_ONCE: i64 = 2_000;

/// The customers that entered the mirror after the first attempt and fitted when they were first
/// seen, live or deleted. Their `created_at` does not matter. The log since then may be long, so it
/// is read in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    found: BTreeSet<CustomerId>,
    /// The last entry that was read; `None` before the first.
    read_to: Option<i64>,
}

impl Entered {
    /// Reads the next entries, `many` at most. Returns whether these were the last.
    pub fn read_on(
        &mut self,
        conn: &Conn,
        position: i64,
        many: i64,
        could_be: impl Fn(&Customer) -> bool,
    ) -> Result<bool, StoreError> {
        let first = "SELECT coalesce((SELECT first_seq FROM outbox WHERE position = ?1), 0)";
        let from: i64 = match self.read_to {
            Some(seq) => seq,
            None => conn.query_row(first, [position], |row| row.get(0))?,
        };
        let last = "SELECT coalesce(max(seq), 0) FROM change_log";
        let last: i64 = conn.query_row(last, [], |row| row.get(0))?;
        let to = last.min(from.saturating_add(many));
        let mut entered = conn.prepare_cached(
            "SELECT customer_id, after FROM change_log
             WHERE seq > ?1 AND seq <= ?2 AND kind = 'created' AND after IS NOT NULL",
        )?;
        let mut rows = entered.query([from, to])?;
        while let Some(row) = rows.next()? {
            let first_seen: String = row.get(1)?;
            if Customer::from_body(&first_seen).is_ok_and(|customer| could_be(&customer)) {
                self.found.insert(mirror::id_in(row, 0)?);
            }
        }
        self.read_to = Some(to.max(from));
        Ok(to == last || from >= last)
    }
}

/// Returns the candidates for the customer of the create at `position`: the fitting ones of the
/// window (`listed`), and those that entered the mirror since. What entered after the last piece of
/// `entered` is read here.
pub fn candidates(
    conn: &Conn,
    position: i64,
    listed: impl IntoIterator<Item = CustomerId>,
    mut entered: Entered,
    claims: Claims,
    could_be: impl Fn(&Customer) -> bool,
) -> Result<Vec<CustomerId>, StoreError> {
    entered.read_on(conn, position, i64::MAX, could_be)?;
    let mut found = entered.found;
    found.extend(listed);
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
pub fn has_twin(conn: &Conn, position: i64, wanted: &IntentBody) -> Result<bool, StoreError> {
    let mut others = conn.prepare_cached(
        "SELECT op, customer_id, body, expect, not_before FROM outbox JOIN intents USING (position)
         WHERE is_open = 1 AND op = 'create' AND position <> ?1 AND (state <> 'queued' OR outcome_unknown = 1)",
    )?;
    let mut rows = others.query([position])?;
    while let Some(row) = rows.next()? {
        // An unreadable create may have the same content.
        let is_twin = match intent_in(row, 0).map(|intent| intent.op) {
            Ok(IntentOp::Create(body)) => body.without_token() == wanted.without_token(),
            _ => true,
        };
        if is_twin {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn log_that_is_read_in_pieces_shows_each_fitting_customer() {
        let conn = open::in_memory();
        let add = |seq: i64, kind: &str, email: &str| {
            let body = format!(r#"{{"id":"c{seq}","email":"{email}"}}"#);
            let sql = "INSERT INTO change_log (seq, customer_id, kind, observed_at, origin, after, salt, digest, chain)
                       VALUES (?1, 'c' || ?1, ?2, 't', 'sweep', ?3, x'01', zeroblob(32), zeroblob(32))";
            conn.execute(sql, (seq, kind, body)).unwrap();
        };
        for seq in 1..=7 {
            add(seq, if seq == 4 { "updated" } else { "created" }, if seq == 5 { "b" } else { "a" });
        }
        let could_be = |customer: &Customer| customer.email() == Some("a");
        let mut entered = Entered { read_to: Some(1), ..Entered::default() };
        let ends: Vec<bool> = (0..3).map(|_| entered.read_on(&conn, 1, 2, could_be).unwrap()).collect();
        assert_eq!(ends, [false, false, true]);
        assert!(entered.read_on(&conn, 1, 2, could_be).unwrap(), "nothing came");
        add(8, "created", "a");
        let found = candidates(&conn, 1, [], entered, Claims::DoNotCount, could_be).unwrap();
        let found: Vec<&str> = found.iter().map(CustomerId::as_str).collect();
        assert_eq!(found, ["c2", "c3", "c6", "c7", "c8"]);
    }
}
