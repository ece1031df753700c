//! The database as a file: opening, locking, the one writer, copies, and the removal of bytes that
//! no row needs.

mod added;
pub mod backup;
pub mod checkup;
pub mod continuity;
pub mod copy_job;
mod diagnose;
mod displaced;
mod exhausted;
pub(super) mod identity;
pub mod indexes;
pub mod inspect;
pub mod instance;
pub(super) mod lock_file;
pub mod migrations;
pub mod open;
mod page;
pub mod place;
pub mod processes;
pub mod readers;
pub mod restore;
mod schema_copy;
mod scrub;
pub mod signature;
mod wal;
pub mod wipe;
pub(super) mod writer;
