//! The account that the database belongs to: a salted fingerprint of the key that reads it, and a
//! stop while another key is in doubt.

use rusqlite::{OptionalExtension, params};

use super::events;
use crate::store::log::hints;
use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx, read};
use komoju_core::change::Hash;

/// The account that the database is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundAccount {
    /// The salt of the fingerprints.
    pub salt: Vec<u8>,
    /// The fingerprint of the key that reads this account.
    pub fingerprint: Hash,
    /// When the database was bound to this key.
    pub bound_at: String,
    /// The fingerprint of another key for which no known customer exists, and since when all work
    /// is stopped because of it.
    pub stopped: Option<(Hash, String)>,
}

/// Returns the account; `None` before the first key is bound.
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

/// Returns whether a key is the one that the database is bound to, and is neither refused nor in
/// doubt. `fingerprint` gives the key's fingerprint with a salt.
pub fn is_accepted(conn: &Conn, fingerprint: impl Fn(&[u8]) -> Hash) -> Result<bool, StoreError> {
    if read::obstacles(conn)?.0.is_some() {
        return Ok(false);
    }
    Ok(load(conn)?.is_some_and(|account| {
        account.stopped.is_none() && account.fingerprint == fingerprint(&account.salt)
    }))
}

/// Binds the database to the key with this fingerprint and ends a stop. The caller knows of nothing
/// that contradicts that the key is of the same account.
pub fn bind(tx: &Tx<'_>, salt: &[u8], fingerprint: &Hash, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO account (one, salt, fingerprint, bound_at) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (one) DO UPDATE SET
             salt = excluded.salt, fingerprint = excluded.fingerprint, bound_at = excluded.bound_at,
             candidate = NULL, stopped_at = NULL",
        params![salt, fingerprint, at],
    )?;
    hints::forget_obstacles(tx)
}

/// Binds the database to a key that may be of another account. A create with an unknown outcome was
/// sent to the previous account. It cannot be looked up there any more, and a retry here would
/// create a second customer. Such creates are parked for the operator.
pub fn take_over(tx: &Tx<'_>, salt: &[u8], fingerprint: &Hash, at: &str) -> Result<(), StoreError> {
    if load(tx)?.is_some_and(|known| known.fingerprint != *fingerprint) {
        engine::as_engine(tx, || {
            tx.execute(
                "UPDATE intents SET state = 'parked', next_attempt_at = NULL, reason = ?1
                 WHERE state = 'waiting' AND op = 'create'
                   AND position IN (SELECT position FROM outbox WHERE is_open = 1 AND outcome_unknown = 1)",
                ["it was sent with the key of another account, and may have taken effect there: check that account, then retry or cancel it"],
            )?;
            Ok(())
        })?;
        hints::reset(tx)?;
        events::reset(tx)?;
    }
    bind(tx, salt, fingerprint, at)
}

/// Stops all work because of the key with this fingerprint.
pub fn stop(tx: &Tx<'_>, candidate: &Hash, at: &str) -> Result<(), StoreError> {
    tx.execute("UPDATE account SET candidate = ?1, stopped_at = ?2", params![candidate, at])?;
    Ok(())
}

/// Ends a stop without binding another key, because the bound key is in use again.
pub fn resume(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE account SET candidate = NULL, stopped_at = NULL WHERE candidate IS NOT NULL", [])?;
    Ok(())
}

/// Binds the key in doubt, because the operator accepts it. Returns its fingerprint.
///
/// # Errors
/// [`StoreError::Refused`] where no key is in doubt.
pub fn accept(tx: &Tx<'_>, at: &str) -> Result<Hash, StoreError> {
    let account = load(tx)?;
    let Some(BoundAccount { salt, stopped: Some((candidate, _)), .. }) = account else {
        return Err(StoreError::Refused("no other key waits to be accepted".to_owned()));
    };
    take_over(tx, &salt, &candidate, at)?;
    Ok(candidate)
}
