//! The fault matrix: a test of its own plays each fault, and `docs/faults.md` lists them.
//!
//! A fault is a [`Row`](matrix::Row): what is wrong, how a `sync` under it ends, what is reported,
//! and the states of a create, an update and a delete that are in the outbox meanwhile. The harness
//! ([`case::Case`]) asserts exactly what the row says, and the table is written from the rows, so
//! the two cannot differ. Everything is logged. At the end of each test the logs and files are
//! searched for the key and a payment token. `UPDATE_DOCS=1 cargo test --test faults table::`
//! writes the table.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod case;
mod matrix;

mod account;
mod answers;
mod clock;
mod database;
mod disk;
mod events;
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
