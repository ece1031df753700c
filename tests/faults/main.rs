//! The fault matrix: each thing that may go wrong is played once, by a test of its own, and written down in `docs/faults.md`.
//!
//! A fault is a [`Row`](matrix::Row): what is wrong, how a `sync` under it ends, what is said, and what becomes of a create, an update
//! and a delete that lie in the outbox meanwhile. The harness ([`case::Case`]) asserts exactly what the row says, and the table is
//! printed from the rows, so that neither can say what the other does not. The key and a payment token go through all of it while
//! everything is logged, and are searched for at each end. `UPDATE_DOCS=1 cargo test --test faults table::` writes
//! it anew.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod case;
mod matrix;

mod account;
mod answers;
mod clock;
mod database;
mod disk;
mod ids_and_metadata;
mod lists;
mod moving;
mod peers;
mod readings;
mod statuses;
mod stops_and_kills;
mod table;
mod throttling;
mod transport;

const PROGRAM: &str = env!("CARGO_BIN_EXE_komoju-sync");
