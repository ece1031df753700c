//! Reads the outbox for display: as a list, one intent, or a plan. Writes nothing.
//!
//! Every record is returned without its payment token, whatever the state of its intent.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use crate::store::outbox::engine;
use crate::store::read::{PIECE, in_pieces};
use crate::store::record::{self, Record};
use crate::store::{Conn, StoreError};
use komoju_core::intent::MASKED_TOKEN;
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::open_intent::OpenIntent;

/// Which intents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are not settled.
    Open,
    /// Every one.
    All,
    /// Those in this state.
    In(IntentState),
}

/// Shows `visit` rows of `intents`, without tokens, in the order of their acceptance.
pub fn intents(
    conn: &Conn,
    which: Which,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let piece = |last: Option<&Value>| {
        let after = last.and_then(Value::as_i64).unwrap_or(i64::MIN);
        match which {
            Which::Open => {
                let sql = "SELECT intents.* FROM outbox CROSS JOIN intents USING (position)
                           WHERE is_open = 1 AND outbox.position > ?1 ORDER BY outbox.position LIMIT ?2";
                record::collect(conn, sql, params![after, PIECE])
            }
            Which::All => {
                let sql = "SELECT * FROM intents WHERE position > ?1 ORDER BY position LIMIT ?2";
                record::collect(conn, sql, params![after, PIECE])
            }
            Which::In(state) => {
                let sql =
                    "SELECT * FROM intents WHERE state = ?3 AND position > ?1 ORDER BY position LIMIT ?2";
                record::collect(conn, sql, params![after, PIECE, state.word()])
            }
        }
    };
    in_pieces(piece, "position", |record| visit(masked(record)))
}

/// The row of `intents` with this id, without its token.
pub fn intent(conn: &Conn, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(record::one(conn, "SELECT * FROM intents WHERE id = ?1", [id])?.map(masked))
}

/// Returns whether this delete waits for an approval because of the limit on deletes.
pub fn is_held(conn: &Conn, position: i64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM outbox WHERE position = ?1 AND held = 1 AND is_open = 1)";
    Ok(conn.prepare_cached(sql)?.query_row([position], |row| row.get(0))?)
}

/// The attempts at this intent, oldest first.
pub fn attempts(conn: &Conn, id: &str) -> Result<Vec<Record>, StoreError> {
    record::collect(conn, "SELECT * FROM attempts WHERE intent_id = ?1 ORDER BY n", [id])
}

/// Returns the state of an intent and its reason.
pub fn standing(conn: &Conn, id: &str) -> Result<Option<(IntentState, Option<String>)>, StoreError> {
    let sql = "SELECT state, reason FROM intents WHERE id = ?1";
    let found = conn
        .prepare_cached(sql)?
        .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.and_then(|(state, reason)| Some((IntentState::from_word(&state)?, reason))))
}

/// An open intent, and what decides when it is sent.
#[derive(Debug)]
pub struct Planned {
    /// The intent; its body still holds the token.
    pub open: OpenIntent,
    /// Whether an operator approved this delete.
    pub is_approved: bool,
    /// Whether it is one of too many deletes.
    pub is_held: bool,
    /// When it is tried again.
    pub next_attempt_at: Option<String>,
    /// The reason for its state.
    pub reason: Option<String>,
    /// The open intent of the same customer right ahead of it.
    pub ahead: Option<String>,
    /// Its customer's body as the mirror has it.
    pub mirrored: Option<Value>,
}

/// Shows `visit` the open intents in the order of their acceptance.
pub fn planned(
    conn: &Conn,
    mut visit: impl FnMut(Planned) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let piece = |last: Option<&Value>| {
        let after = last.and_then(Value::as_i64).unwrap_or(i64::MIN);
        let sql = "SELECT outbox.position, approved, held, next_attempt_at, reason,
                       (SELECT id FROM outbox AS others JOIN intents AS first USING (position)
                        WHERE others.lane = outbox.lane AND others.is_open = 1 AND others.position < outbox.position
                        ORDER BY others.position DESC LIMIT 1) AS ahead,
                       (SELECT mirror.body FROM mirror WHERE mirror.id = outbox.lane) AS body
                   FROM outbox CROSS JOIN intents USING (position)
                   WHERE is_open = 1 AND outbox.position > ?1 ORDER BY outbox.position LIMIT ?2";
        record::collect(conn, sql, params![after, PIECE])
    };
    in_pieces(piece, "position", |row| {
        let Some(open) = engine::open(conn, row.number("position"))? else { return Ok(()) };
        let text = |name: &str| row.text(name).map(str::to_owned);
        visit(Planned {
            open,
            is_approved: row.number("approved") != 0,
            is_held: row.number("held") != 0,
            next_attempt_at: text("next_attempt_at"),
            reason: text("reason"),
            ahead: text("ahead"),
            mirrored: Some(row.get("body").clone()).filter(|body| !body.is_null()),
        })
    })
}

/// The record with `****` where a token may stand. A body that cannot be read may hold one
/// anywhere.
fn masked(mut record: Record) -> Record {
    record.change("body", |body| match body {
        Value::Null => {}
        Value::Object(fields) => {
            if let Some(token) = fields.get_mut("payment_details") {
                *token = MASKED_TOKEN.into();
            }
        }
        unreadable => *unreadable = MASKED_TOKEN.into(),
    });
    record
}
