//! The fault matrix: each thing that may go wrong is played once, by a test of its own, and written down in `docs/faults.md`.
//!
//! A fault is a [`Row`](matrix::Row): what is wrong, how a `sync` under it ends, what is said, and what becomes of a create, an update
//! and a delete that lie in the outbox meanwhile. The harness ([`case::Case`]) asserts exactly what the row says, and the table is
//! printed from the rows, so that neither can say what the other does not. The key and a payment token go through all of it while
//! everything is logged, and are searched for at each end. `UPDATE_DOCS=1 cargo test --test faults the_table` writes
//! it anew.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs every room")]
mod house;

#[path = "door_to_door/search.rs"]
mod search;

#[path = "faults/case.rs"]
mod case;
#[path = "faults/matrix.rs"]
mod matrix;

#[path = "faults/account.rs"]
mod account;
#[path = "faults/answers.rs"]
mod answers;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/database.rs"]
mod database;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/ids_and_metadata.rs"]
mod ids_and_metadata;
#[path = "faults/lists.rs"]
mod lists;
#[path = "faults/moving.rs"]
mod moving;
#[path = "faults/peers.rs"]
mod peers;
#[path = "faults/readings.rs"]
mod readings;
#[path = "faults/statuses.rs"]
mod statuses;
#[path = "faults/stops_and_kills.rs"]
mod stops_and_kills;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/throttling.rs"]
mod throttling;
#[path = "faults/transport.rs"]
mod transport;
