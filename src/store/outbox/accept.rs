//! Accepting intents, by file and by command line.
//!
//! The triggers of the schema check each intent too, with the same messages as [`Intent::parse`].

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;

use rusqlite::params;

use super::rows::{Parts, content_of, digest, is_erased};
use crate::store::file::wipe;
use crate::store::{StoreError, Tx};
use komoju_core::CustomerId;
use komoju_core::intent::{Intent, IntentOp};

/// By which way an intent came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A file in the spool directory.
    File,
    /// The command line.
    Cli,
}

impl Door {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Cli => "cli",
        }
    }
}

/// What a door's acceptance came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is queued under this id.
    New(String),
    /// It is the very intent that was accepted under this id before.
    Known(String),
}

impl Accepted {
    /// The intent's id.
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Known(id) => id,
        }
    }
}

/// Accepts an intent. The schema's triggers judge it once more, and what they say is [`StoreError::Refused`].
pub fn accept(tx: &Tx<'_>, intent: &Intent, door: Door, by: Option<&str>) -> Result<Accepted, StoreError> {
    let content = digest(intent);
    let id = match &intent.id {
        Some(id) => id.as_str().to_owned(),
        None => tx.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))?,
    };
    match content_of(tx, &id)? {
        None => {}
        Some(_) if is_erased(tx, &id)? => {
            return Err(StoreError::Refused(format!(
                "id: {id} was used before, for an intent whose content was erased with its customer; choose another id"
            )));
        }
        Some(Some(known)) if known == content => return Ok(Accepted::Known(id)),
        Some(_) => {
            return Err(StoreError::Refused(format!(
                "id: {id} was used before, for another intent; choose another id, or leave it out"
            )));
        }
    }
    let parts = Parts::of(intent);
    let inserted = tx
        .prepare_cached(
            "INSERT INTO intents (id, op, customer_id, body, expect, not_before, door, submitted_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            id,
            intent.op.name(),
            parts.target,
            parts.body,
            parts.expect,
            parts.not_before,
            door.word(),
            by,
        ]);
    inserted.map_err(refused)?;
    tx.prepare_cached("UPDATE outbox SET content = ?2 WHERE position = ?1")?
        .execute(params![tx.last_insert_rowid(), content])?;
    Ok(Accepted::New(id))
}

/// What becomes of intents that are all acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are queued.
    Yes,
    /// They were only tried.
    No,
}

/// The places of intents that are refused, and the reasons.
pub type Refusals = Vec<(usize, String)>;

/// Accepts all of these intents or none. Otherwise returns those that are refused.
pub fn accept_all<'a>(
    tx: &Tx<'_>,
    intents: impl Iterator<Item = &'a Intent>,
    door: Door,
    by: Option<&str>,
    keep: Keep,
) -> Result<Result<Vec<Accepted>, Refusals>, StoreError> {
    let (mut accepted, mut refused, mut has_token) = (Vec::new(), Vec::new(), false);
    tx.execute_batch("SAVEPOINT tried")?;
    for (place, intent) in intents.enumerate() {
        has_token |= match &intent.op {
            IntentOp::Create(body) | IntentOp::Update(_, body) => body.token().is_some(),
            IntentOp::Delete(_) => false,
        };
        match accept(tx, intent, door, by) {
            Ok(one) => accepted.push(one),
            Err(StoreError::Refused(why)) => refused.push((place, why)),
            Err(other) => return Err(other),
        }
    }
    if refused.is_empty() && keep == Keep::Yes {
        tx.execute_batch("RELEASE tried")?;
        return Ok(Ok(accepted));
    }
    tx.execute_batch("ROLLBACK TO tried; RELEASE tried")?;
    if has_token {
        // A long transaction spills into the WAL before its end.
        wipe::note_in_wal(tx)?;
    }
    Ok(if refused.is_empty() { Ok(accepted) } else { Err(refused) })
}

/// Drops an intent as any SQL client does, through the triggers alone.
pub fn insert(
    tx: &Tx<'_>,
    op: &str,
    customer: Option<&CustomerId>,
    body: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO intents (op, customer_id, body) VALUES (?1, ?2, ?3)";
    tx.execute(sql, params![op, customer.map(CustomerId::as_str), body]).map_err(refused)?;
    Ok(())
}

/// A trigger's words are for whoever drops the intent; anything else is the database's own trouble.
fn refused(error: rusqlite::Error) -> StoreError {
    match &error {
        rusqlite::Error::SqliteFailure(failure, Some(words))
            if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER =>
        {
            StoreError::Refused(words.clone())
        }
        _ => StoreError::Statement(error),
    }
}
