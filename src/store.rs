//! The database: mirror, change log, passes, holds, events, account and outbox in one SQLite file.
//! All SQL of the program is in this module and in `migrations/`.
//!
//! There is one writer, on its own thread ([`Store`]). It takes closures and runs each in one
//! `BEGIN IMMEDIATE` transaction. What a closure records, log entry and mirror row alike, commits
//! together or not at all. A closure gets values and returns values: it sends no request and does
//! not wait. All other code reads through [`Reader`], a connection that cannot write. An operator's
//! command writes through [`OperatorConnection`], also while the daemon runs.
//!
//! The data dictionary is `migrations/`: tables are internal, views are the contract.
//!
//! Invariants:
//! - The mirror is the fold of the log after every commit. Only [`log::changes::Recorder`] and
//!   [`log::verify::rebuild`] change the mirror.
//! - The log is append-only (triggers).
//! - A file that is not ours, is damaged or is newer than this program is never written to
//!   ([`file::open`]).
//!
//! These designs were rejected:
//! - An async pool, because SQLite has one writer.
//! - Deferred transactions for writers. Their upgrade fails at once under contention, whatever the
//!   busy timeout is.

pub mod error;
pub mod file;
pub mod log;
pub mod outbox;
pub mod read;
mod record;
pub mod state;

pub use error::{StoreError, is_transient_io};
pub use file::identity::FileIdentity;
pub use file::instance::{Holder, Instance};
pub use file::lock_file::LogMark;
pub use file::place::sibling;
pub use file::writer::{OperatorConnection, Store, WipeOutcome, write_and_wipe, write_as_operator};
pub use read::Reader;

/// Returns the version of the SQLite library in this program.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A transaction that writes. The functions of this module's children take it.
pub type Tx<'a> = rusqlite::Transaction<'a>;

/// A connection or transaction that reads.
pub type Conn = rusqlite::Connection;
