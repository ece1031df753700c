//! Whose customers these are: one salted fingerprint of the key that reads them, and a stop while another key is in doubt.

use rusqlite::{OptionalExtension, params};

use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::change::Hash;

/// The account's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundAccount {
    /// What keys are salted with before they are fingerprinted here.
    pub salt: Vec<u8>,
    /// The key that reads these customers.
    pub fingerprint: Hash,
    /// Since when.
    pub bound_at: String,
    /// Another key to which none of the known customers answered, and since when everything waits because of it.
    pub stopped: Option<(Hash, String)>,
}

/// The account, once a key is bound.
pub fn load(conn: &Conn) -> Result<Option<BoundAccount>, StoreError> {
    let found =
        conn.query_row("SELECT salt, fingerprint, bound_at, candidate, stopped_at FROM account", [], |row| {
            let (candidate, stopped_at): (Option<Hash>, Option<String>) = (row.get(3)?, row.get(4)?);
            Ok(BoundAccount {
                salt: row.get(0)?,
                fingerprint: row.get(1)?,
                bound_at: row.get(2)?,
                stopped: candidate.zip(stopped_at),
            })
        });
    Ok(found.optional()?)
}

/// Binds the database to the key with this fingerprint, of the same account as far as is known, and ends a stop.
pub fn bind(tx: &Tx<'_>, salt: &[u8], fingerprint: &Hash, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO account (one, salt, fingerprint, bound_at) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (one) DO UPDATE SET
             salt = excluded.salt, fingerprint = excluded.fingerprint, bound_at = excluded.bound_at,
             candidate = NULL, stopped_at = NULL",
        params![salt, fingerprint, at],
    )?;
    Ok(())
}

/// Binds the database to a key that may be of another account. A create of which nobody knows whether it took effect was sent to the
/// one before: there it cannot be looked for any more, and here it would be made a second time. So a person decides.
pub fn take_over(tx: &Tx<'_>, salt: &[u8], fingerprint: &Hash, at: &str) -> Result<(), StoreError> {
    if load(tx)?.is_some_and(|known| known.fingerprint != *fingerprint) {
        engine::as_engine(tx, || {
            tx.execute(
                "UPDATE intents SET state = 'parked', next_attempt_at = NULL, reason = ?1
                 WHERE state = 'waiting' AND op = 'create'
                   AND position IN (SELECT position FROM outbox WHERE is_open = 1 AND outcome_unknown = 1)",
                ["it was sent with the key of another account, and may have taken effect there: look there, then retry or cancel it"],
            )?;
            Ok(())
        })?;
    }
    bind(tx, salt, fingerprint, at)
}

/// Stops everything for the key with this fingerprint.
pub fn stop(tx: &Tx<'_>, candidate: &Hash, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE account SET candidate = ?1, stopped_at = ?2", params![candidate, at])?;
    Ok(())
}

/// Ends a stop without binding another key: the old one is back.
pub fn resume(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE account SET candidate = NULL, stopped_at = NULL WHERE candidate IS NOT NULL", [])?;
    Ok(())
}

/// A person's word: the key in doubt is the right one. Returns its fingerprint.
pub fn accept(tx: &Tx<'_>, at: &str) -> Result<Hash, StoreError> {
    let account = load(tx)?;
    let Some(BoundAccount { salt, stopped: Some((candidate, _)), .. }) = account else {
        return Err(StoreError::Refused("no other key waits to be accepted".to_owned()));
    };
    take_over(tx, &salt, &candidate, at)?;
    Ok(candidate)
}
