//! The database: mirror, change log, passes, holds and account in one SQLite file, and all the SQL there is.
//!
//! One writer, on a thread of its own, takes closures and runs each in one `BEGIN IMMEDIATE` transaction: whatever a closure
//! records, log entry and mirror row alike, commits together or not at all. A closure gets values and returns values; it
//! neither asks the remote nor waits. Everybody else reads through [`Reader`], a connection that cannot write.
//!
//! The data dictionary is `migrations/`: tables are ours, views are the contract. Invariants held here: the mirror is the fold
//! of the log after every commit ([`log::changes::Recorder`] is the only way to change either), the log is append-only (triggers), and
//! a file that is not ours, damaged or newer than this program is never written to ([`file::open`]).
//!
//! Rejected: an async pool (one writer is what SQLite has), and deferred transactions for writers (their upgrade fails at once
//! under contention, whatever the busy timeout).

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

/// The version of the SQLite within this program.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A transaction that writes. Hand it to the functions of this module's children.
pub type Tx<'a> = rusqlite::Transaction<'a>;

/// A connection or transaction that reads.
pub type Conn = rusqlite::Connection;
