//! How the schema tells this program's connections from those of other programs.
//!
//! The triggers that protect our tables ask `sqlite_source_id()`. Every SQLite has that function; this program's connections replace
//! it. So another program is refused with the trigger's message, and not because a function is missing; nothing in the file says
//! who writes; and no statement can claim it.
//!
//! A trigger costs about a microsecond a row, so a pass records its changes with triggers off
//! ([`Store::write_pass`](crate::store::Store::write_pass)).
//!
//! Rejected: a mark in `meta`, which costs a page in every transaction and which another program can set; triggers off for everything,
//! because our own writes to the outbox need them.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// What the triggers compare with.
const NAME: &str = "komoju-sync";

/// Lets the triggers recognise this connection as one of this program: it may write every table. For connections that this program
/// opens, and for tests that set up a state.
///
/// # Errors
/// SQLite has no memory left.
pub fn sign(conn: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("sqlite_source_id", 0, flags, |_| Ok(NAME))
}
