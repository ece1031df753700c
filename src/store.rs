//! The database: mirror, change log, passes, holds and account in one SQLite file, and all the SQL there is.
//!
//! One writer, on a thread of its own, takes closures and runs each in one `BEGIN IMMEDIATE` transaction: whatever a closure
//! records, log entry and mirror row alike, commits together or not at all. A closure gets values and returns values; it
//! neither asks the remote nor waits. Everybody else reads through [`Reader`], a connection that cannot write.
//!
//! The data dictionary is `migrations/`: tables are ours, views are the contract. Invariants held here: the mirror is the fold
//! of the log after every commit ([`changes::Recorder`] is the only way to change either), the log is append-only (triggers), and
//! a file that is not ours, damaged or newer than this program is never written to ([`open`]).
//!
//! Rejected: an async pool (one writer is what SQLite has), and deferred transactions for writers (their upgrade fails at once
//! under contention, whatever the busy timeout).

pub mod account;
mod added;
pub mod alerts;
pub mod backup;
pub mod busy_fields;
pub mod candidates;
pub mod changes;
pub mod checkup;
pub mod clock;
pub mod continuity;
pub mod copy;
pub mod coverage;
pub mod delete_limit;
mod displaced;
pub mod erase;
pub mod error;
mod exhausted;
pub mod holds;
mod identity;
pub mod indexes;
pub mod instance;
pub mod intents;
pub mod lag;
pub mod listed;
mod lock_file;
pub mod mirror;
pub mod open;
pub mod outbox;
pub mod own;
mod page;
pub mod passes;
mod place;
pub mod queue;
pub mod read;
pub mod readers;
mod record;
pub mod restore;
mod schema_copy;
mod scrub;
pub mod slowed;
pub mod spool;
pub mod unlisted;
pub mod unreadable;
pub mod verify;
mod wal;
pub mod wipe;
pub mod work;
mod writer;

pub use error::StoreError;
pub use exhausted::can_pass;
pub use identity::FileIdentity;
pub use instance::{Holder, Instance};
pub use lock_file::LogMark;
pub use place::beside;
pub use read::Reader;
pub use writer::{Beside, Store, Wiped, wipe_beside, write_beside};

/// The version of the SQLite within this program.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A transaction that writes. Hand it to the functions of this module's children.
pub type Tx<'a> = rusqlite::Transaction<'a>;

/// A connection or transaction that reads.
pub type Conn = rusqlite::Connection;
