//! Faults of the disk: they are struck below SQLite, by tests of their own.

use crate::matrix::{Ends, Outbox, Row};

const fn elsewhere(entry: &'static str, fault: &'static str, ends: Ends, test: &'static str) -> Row {
    Row { entry, fault, ends, outbox: Outbox::Kept, test }
}

/// What is played elsewhere, whole.
pub const ROWS: &[Row] = &[
    elsewhere(
        "disk full at each write",
        "the disk is full at one write, whichever",
        Ends::Elsewhere("the command fails in words, the database is whole, and the next pass is complete"),
        "it::disk_errors::sync_after_enospc_at_each_write_recovers",
    ),
    elsewhere(
        "I/O error at each write",
        "one read, write or sync fails, whichever",
        Ends::Elsewhere("the command fails in words, everything is read anew, and the next pass is complete"),
        "it::disk_errors::sync_after_eio_at_each_read_write_and_sync_recovers",
    ),
    elsewhere(
        "read-only file system",
        "the database's file system is read-only",
        Ends::Elsewhere("nothing is started, and it is said why"),
        "it::disk_errors::sync_on_a_read_only_file_system_exits_5_and_recovers",
    ),
];
