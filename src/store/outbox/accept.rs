//! Intents at the doors and in a person's hands: accepted, approved, retried, cancelled.
//!
//! Every transition is computed by [`komoju_core::intent::lifecycle`] and written here or in [`crate::store::outbox::engine`]; the triggers of the
//! schema refuse any other. The triggers also judge what every door accepts, in the same words as [`Intent::parse`].

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::spool;
use crate::store::file::wipe;
use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::MASKED_TOKEN;
use komoju_core::intent::lifecycle::{Lifecycle, Outcome, Retry, State};
use komoju_core::intent::{Body, Expect, Intent, Rule, Wish};
use komoju_core::{CustomerId, json as canonical, time};

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
            intent.wish.op(),
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
        has_token |= match &intent.wish {
            Wish::Create(body) | Wish::Update(_, body) => body.token().is_some(),
            Wish::Delete(_) => false,
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

/// An intent as the columns hold it.
struct Parts {
    target: Option<String>,
    body: Option<String>,
    expect: Option<String>,
    not_before: Option<String>,
}

impl Parts {
    fn of(intent: &Intent) -> Self {
        let (target, body) = match &intent.wish {
            Wish::Create(body) => (None, Some(body.text())),
            Wish::Update(target, body) => (Some(target.text()), Some(body.text())),
            Wish::Delete(target) => (Some(target.text()), None),
        };
        let expect = intent.expect.as_ref().map(Expect::text);
        Self { target, body, expect, not_before: intent.not_before.map(time::written) }
    }
}

/// What was dropped, as a digest.
pub(in crate::store) fn digest(intent: &Intent) -> Vec<u8> {
    let Parts { target, body, expect, not_before } = Parts::of(intent);
    let content = json!([intent.wish.op(), target, body, expect, not_before]);
    Sha256::digest(content.to_string()).to_vec()
}

/// The digest of the intent with this id; `None` inside where its row cannot be read.
fn content_of(conn: &Conn, id: &str) -> Result<Option<Option<Vec<u8>>>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT content, op, customer_id, body, expect, not_before FROM outbox JOIN intents USING (position) WHERE id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        let known: Option<Vec<u8>> = row.get(0)?;
        // Only what came in by SQL and was not attempted yet has none.
        Ok(known.or_else(|| intent_in(row, 1).ok().map(|intent| digest(&intent))))
    });
    Ok(found.optional()?)
}

/// Reads `op, customer_id, body, expect, not_before` from this column on. A row that another program spoilt gives the reason.
pub(in crate::store) fn intent_in(row: &Row<'_>, first: usize) -> Result<Intent, String> {
    let text = |at: usize| match row.get::<_, Sql>(first + at) {
        Ok(Sql::Text(text)) => Ok(Value::String(text)),
        Ok(Sql::Null) => Ok(Value::Null),
        _ => Err("a column holds something else than text".to_owned()),
    };
    let object = |at: usize| match text(at)? {
        Value::String(text) => {
            canonical::parse(text.as_bytes()).map_err(|_| "a column is not JSON".to_owned())
        }
        null => Ok(null),
    };
    // Put together by hand: `json!` would spell numbers anew.
    let fields = [
        ("op", text(0)?),
        ("customer_id", text(1)?),
        ("body", object(2)?),
        ("expect", object(3)?),
        ("not_before", text(4)?),
    ];
    let fields: Map<String, Value> =
        fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let fields = Value::Object(fields);
    Intent::stored(fields.to_string().as_bytes()).map_err(|bad| bad.to_string())
}

/// Whether this intent's content was erased with its customer.
fn is_erased(conn: &Conn, id: &str) -> Result<bool, StoreError> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM outbox JOIN intents USING (position) WHERE id = ?1 AND erased = 1)";
    Ok(conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
}

/// What a person's command needs to know of an intent.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its place in the order of acceptance.
    pub position: i64,
    /// Where it is in its life.
    pub life: Lifecycle,
    /// Its wish, or why its row cannot be read.
    pub intent: Result<Intent, String>,
}

/// The intent with this id.
pub fn find(conn: &Conn, id: &str) -> Result<Option<Known>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT position, state, outcome_unknown, attempts, op, customer_id, body, expect, not_before
         FROM intents JOIN outbox USING (position) WHERE id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        Ok(Known { position: row.get(0)?, life: life_in(row, 1)?, intent: intent_in(row, 4) })
    });
    Ok(found.optional()?)
}

/// Reads `state, outcome_unknown, attempts` from this column on.
pub(in crate::store) fn life_in(row: &Row<'_>, first: usize) -> rusqlite::Result<Lifecycle> {
    let state: String = row.get(first)?;
    Ok(Lifecycle {
        state: State::from_word(&state).unwrap_or(State::Parked),
        outcome: if row.get(first + 1)? { Outcome::Unknown } else { Outcome::Known },
        attempts: row.get::<_, Sql>(first + 2).map_or(0, |attempts| match attempts {
            Sql::Integer(n) => u32::try_from(n).unwrap_or(0),
            _ => 0,
        }),
    })
}

fn must_find(conn: &Conn, id: &str) -> Result<Known, StoreError> {
    find(conn, id)?.ok_or_else(|| {
        StoreError::Refused(format!(
            "there is no intent {id}; `komoju-sync intent list --all` shows them all"
        ))
    })
}

/// A person wants it tried again, with a corrected body or the same. With another body it gets another key, and a first attempt of
/// its own; so does one that the API said no to. Where a byte may have left, the key stays.
pub fn retry(tx: &Tx<'_>, id: &str, corrected: Option<&Body>) -> Result<Lifecycle, StoreError> {
    let known = must_find(tx, id)?;
    if is_erased(tx, id)? {
        return Err(StoreError::Refused(format!(
            "{id}: its content was erased with its customer, so it cannot be tried again; drop another intent"
        )));
    }
    let with = if corrected.is_some() { Retry::Corrected } else { Retry::Same };
    let life = known.life.retry(with).map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let wish = known.intent.map(|intent| intent.wish);
    match (&wish, corrected) {
        (Ok(Wish::Delete(_)), Some(_)) => {
            return Err(StoreError::Refused(format!("{id} is a delete: it has no body to correct")));
        }
        (Ok(Wish::Create(_)), Some(body)) if body.fields().is_empty() => {
            return Err(StoreError::Refused(format!("body: {}", Rule::EmptyCreate)));
        }
        (Ok(Wish::Update(..)), Some(body)) if body.fields().is_empty() => {
            return Err(StoreError::Refused(format!("body: {}", Rule::EmptyUpdate)));
        }
        (Ok(Wish::Create(body) | Wish::Update(_, body)), None) if body.token() == Some(MASKED_TOKEN) => {
            return Err(StoreError::Refused(format!(
                "the payment token of {id} is not here any more (it is wiped when an intent is settled, and left out of backups); \
                 give its whole body anew, with another token (--body @FILE)"
            )));
        }
        _ => {}
    }
    engine::own(tx, || {
        tx.execute(
            "UPDATE intents SET state = ?2, body = coalesce(?3, body), next_attempt_at = NULL, settled_at = NULL,
                 reason = 'a person wants it tried again', detail = NULL
             WHERE position = ?1",
            params![known.position, life.state.word(), corrected.map(Body::text)],
        )?;
        tx.execute(
            "UPDATE outbox SET outcome_unknown = ?2, patience_from = NULL WHERE position = ?1",
            params![known.position, life.outcome == Outcome::Unknown],
        )?;
        spool::reopen(tx, id)?;
        Ok(())
    })?;
    Ok(life)
}

/// A person takes it back.
pub fn cancel(tx: &Tx<'_>, id: &str, at: &str, by: &str) -> Result<(), StoreError> {
    let known = must_find(tx, id)?;
    let life = known.life.cancel().map_err(|illegal| StoreError::Refused(format!("{id}: {illegal}")))?;
    let words = engine::Words {
        settled_at: Some(at.to_owned()),
        reason: Some(format!("cancelled by {by}")),
        ..engine::Words::default()
    };
    engine::own(tx, || engine::write(tx, known.position, life, words))
}

/// A person lets deletes through: these, or every one that waits for it. Returns how many.
pub fn approve(tx: &Tx<'_>, ids: &[String]) -> Result<usize, StoreError> {
    let mut approved = 0;
    for id in ids {
        let known = must_find(tx, id)?;
        if !matches!(known.intent.as_ref().map(|intent| &intent.wish), Ok(Wish::Delete(_))) {
            return Err(StoreError::Refused(format!(
                "{id} is not a delete: only deletes wait for an approval"
            )));
        }
        if !known.life.state.blocks_those_behind() {
            return Err(StoreError::Refused(format!("{id} is {} already", known.life.state)));
        }
        approved += let_through(tx, known.position)?;
    }
    if ids.is_empty() {
        let waiting: Vec<i64> = tx
            .prepare("SELECT position FROM outbox WHERE is_open = 1 AND held = 1 ORDER BY position")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for position in waiting {
            approved += let_through(tx, position)?;
        }
    }
    Ok(approved)
}

fn let_through(tx: &Tx<'_>, position: i64) -> Result<usize, StoreError> {
    engine::own(tx, || {
        tx.execute(
            "UPDATE intents SET reason = NULL
             WHERE state = 'queued' AND position = (SELECT position FROM outbox WHERE position = ?1 AND held = 1)",
            [position],
        )?;
        Ok(tx.execute(
            "UPDATE outbox SET approved = 1, held = 0 WHERE position = ?1 AND approved = 0",
            [position],
        )?)
    })
}

/// How many intents are in this state, and the oldest of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// The state.
    pub state: String,
    /// How many.
    pub count: u64,
    /// The id of the one that was accepted first.
    pub oldest: String,
    /// When that one was accepted.
    pub oldest_created_at: String,
    /// What it waits for, where that is said.
    pub oldest_reason: Option<String>,
}

/// The intents that are not settled, by state.
pub fn count_open(conn: &Conn) -> Result<Vec<Counted>, StoreError> {
    // Counted in the index alone, however many were settled.
    let mut statement = conn.prepare(
        "SELECT state, many, id, created_at, reason
         FROM (SELECT state, count(*) AS many, min(position) AS position FROM intents
               WHERE state IN ('queued', 'sending', 'waiting', 'parked') GROUP BY state)
             JOIN intents USING (position, state)
         ORDER BY state",
    )?;
    let counted = statement.query_map([], |row| {
        Ok(Counted {
            state: row.get(0)?,
            count: row.get(1)?,
            oldest: row.get(2)?,
            oldest_created_at: row.get(3)?,
            oldest_reason: row.get(4)?,
        })
    })?;
    Ok(counted.collect::<Result<_, _>>()?)
}

/// How many intents were settled, by state.
pub fn count_settled(conn: &Conn) -> Result<Vec<(String, u64)>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT state, count(*) FROM intents WHERE state IN ('done', 'rejected', 'cancelled') GROUP BY state ORDER BY state",
    )?;
    let counted = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counted.collect::<Result<_, _>>()?)
}
