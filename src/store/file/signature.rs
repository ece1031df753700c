//! How the schema distinguishes this program's connections from those of other programs.
//!
//! The triggers that protect our tables call `sqlite_source_id()`. Every SQLite has that function;
//! this program's connections replace it. So another program is refused with the trigger's message,
//! and not because a function is missing. Nothing in the file identifies the writer, and no
//! statement can pretend to be this program.
//!
//! A trigger costs about a microsecond a row, so a pass records its changes with triggers off
//! ([`Store::write_pass`](crate::store::Store::write_pass)).
//!
//! These designs were rejected:
//! - A mark in `meta`. It costs a page in every transaction, and another program can set it.
//! - Triggers off for all our writes, because our own writes to the outbox need them.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// The value that the triggers compare with.
const NAME: &str = "komoju-sync";

/// Makes the triggers recognise this connection as one of this program, which may write every
/// table. For connections that this program opens, and for tests that prepare a state.
///
/// # Errors
/// SQLite is out of memory.
pub fn sign(conn: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("sqlite_source_id", 0, flags, |_| Ok(NAME))
}
