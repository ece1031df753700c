//! Faults of the disk. Tests in `tests/it/disk_errors` play them below SQLite.

use crate::matrix::{Ends, Outbox, Row};

const fn elsewhere(entry: &'static str, fault: &'static str, ends: Ends, test: &'static str) -> Row {
    Row { entry, fault, ends, outbox: Outbox::Kept, test }
}

/// The rows that other tests play.
pub const ROWS: &[Row] = &[
    elsewhere(
        "disk full at each write",
        "the disk is full at any one write",
        Ends::Elsewhere(
            "the command fails with a message, the database is whole, and the next pass is complete",
        ),
        "it::disk_errors::sync_after_enospc_at_each_write_recovers",
    ),
    elsewhere(
        "I/O error at each write",
        "any one read, write or sync fails",
        Ends::Elsewhere(
            "the command fails with a message, and the next pass reads everything and is complete",
        ),
        "it::disk_errors::sync_after_eio_at_each_read_write_and_sync_recovers",
    ),
    elsewhere(
        "read-only file system",
        "the database's file system is read-only",
        Ends::Elsewhere("nothing is started, and the message gives the reason"),
        "it::disk_errors::sync_on_a_read_only_file_system_exits_5_and_recovers",
    ),
];
