//! The one test harness of komoju-sync, for `tests/` and `benches/` of the root package.
//!
//! [`Installation`] runs the real binary against a local KOMOJU, in a directory with a
//! configuration. [`InProcess`] runs pulls and pushes in the process of the test, by a clock that
//! the test moves. The rest serves both. It has connections ([`sql`]), waits ([`wait`]), child
//! processes and signals ([`process`], [`daemon`]). It simulates a disk that fails
//! ([`disk_faults`]) and a wall clock that is wrong ([`wall_clock`]), and searches for secrets
//! ([`search`]).
//!
//! A library cannot know where Cargo put the binary, so callers pass it:
//! `Installation::with(env!("CARGO_BIN_EXE_komoju-sync"), 3)`.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a failed test")]

pub mod daemon;
pub mod disk_faults;
pub mod in_process;
pub mod installation;
pub mod process;
pub mod search;
pub mod sql;
pub mod wait;
pub mod wall_clock;

pub use daemon::Daemon;
pub use in_process::{InProcess, START};
pub use installation::{Installation, KEY, Ran};
pub use process::{Process, signal, stop};
pub use sql::own;
pub use wait::{eventually, eventually_in_task, looked_until};
