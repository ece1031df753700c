//! The rows of the outbox: an intent as the columns hold it, and the counts of intents.

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Row};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::store::{Conn, StoreError};
use komoju_core::intent::lifecycle::{IntentState, Lifecycle, OutcomeStatus};
use komoju_core::intent::{Expect, Intent, IntentOp};
use komoju_core::{json as canonical, time};

/// An intent as the columns hold it.
pub(super) struct Parts {
    pub(super) target: Option<String>,
    pub(super) body: Option<String>,
    pub(super) expect: Option<String>,
    pub(super) not_before: Option<String>,
}

impl Parts {
    pub(super) fn of(intent: &Intent) -> Self {
        let (target, body) = match &intent.op {
            IntentOp::Create(body) => (None, Some(body.text())),
            IntentOp::Update(target, body) => (Some(target.text()), Some(body.text())),
            IntentOp::Delete(target) => (Some(target.text()), None),
        };
        let expect = intent.expect.as_ref().map(Expect::text);
        Self { target, body, expect, not_before: intent.not_before.map(time::written) }
    }
}

/// What was dropped, as a digest.
pub(in crate::store) fn digest(intent: &Intent) -> Vec<u8> {
    let Parts { target, body, expect, not_before } = Parts::of(intent);
    let content = json!([intent.op.name(), target, body, expect, not_before]);
    Sha256::digest(content.to_string()).to_vec()
}

/// The digest of the intent with this id; `None` inside where its row cannot be read.
pub(super) fn content_of(conn: &Conn, id: &str) -> Result<Option<Option<Vec<u8>>>, StoreError> {
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
pub(super) fn is_erased(conn: &Conn, id: &str) -> Result<bool, StoreError> {
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
        state: IntentState::from_word(&state).unwrap_or(IntentState::Parked),
        outcome: if row.get(first + 1)? { OutcomeStatus::Unknown } else { OutcomeStatus::Known },
        attempts: row.get::<_, Sql>(first + 2).map_or(0, |attempts| match attempts {
            Sql::Integer(n) => u32::try_from(n).unwrap_or(0),
            _ => 0,
        }),
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
