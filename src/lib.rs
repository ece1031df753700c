//! komoju-sync keeps a true SQLite mirror of a KOMOJU merchant's customers, and a change log from which the mirror can be
//! rebuilt; and it pushes local intents back, each once.
//!
//! # The map
//!
//! ```text
//! main → cli → app → tasks → remote      the API, in the product's words; HTTP, limiter, wire
//!                          → store       the database: one writer, read-only readers, all the SQL there is
//!                          → clock       the only place that asks for the time
//!        app, tasks, remote, store → pulse   whether the daemon's loops get on: what feeds the watchdog
//!        all of them       → config, mask                  the checked configuration, the typed key, masked texts
//!        app, cli          → watch       being told by the kernel that a file changed
//!                          → standing    how things stand, in one value: for status, the service manager, health, alerts
//!        app               → alerts      somebody's program, run when something waits for a person
//!        cli               → http        health and metrics, for whoever watches
//!        remote, tasks …   → measures    every metric there is, and the calls that count
//!        tests, fuzz/      → checks      what always holds of what comes from outside; no part of the program
//! ```
//!
//! All of them use `komoju-core` (`crates/core`): customers, changes, passes and intents as values, and the decisions ([`plan`]); it
//! does no I/O. `cli` alone uses `komoju-sandbox` (`crates/sandbox`), the local KOMOJU, which shares nothing with the others.
//!
//! `remote` and `store` never import each other; a test (`tests/architecture.rs`) holds the directions.
//!
//! [`plan`]: komoju_core::plan
//!
//! # What always holds
//!
//! - The fold of the change log equals the mirror after every commit ([`store::changes::Recorder`]).
//! - A pass reads, plans, applies and reports; no request is made while a transaction is open ([`tasks::pull`]).
//! - A delete needs evidence: the customer's own `not_found`, and within the same minute another customer that still answers
//!   ([`komoju_core::plan::evidence`]).
//! - A null source takes nothing away by itself ([`komoju_core::plan::sighting`]).
//! - The database belongs to one account ([`komoju_core::plan::guard`]).
//! - An intent is claimed, with what its attempts must repeat, before a byte leaves; a create whose outcome is unknown is found at the
//!   remote or parked, never guessed ([`tasks::push`], [`komoju_core::plan::creates`]).
//! - What we pushed does not come back as somebody else's change ([`tasks::Echoes`]).
//! - A backup holds no payment token; what is restored sends and deletes nothing before a person has looked ([`store::backup`],
//!   [`store::restore`]).
//! - No secret reaches a text ([`config::SecretKey`], [`mask`]).
//!
//! # Words
//!
//! **remote** the API · **mirror** the customers as last seen · **change log** what differed, and when · **pass** one reading of
//! the list: a **sweep** reads the whole, a **probe** the newest · **suspect** a customer that a sweep did not see · **canary**
//! one that it did see and that still answers · **hold** deletions that wait for a person · **tombstone** what was last known
//! of a deleted customer · **intent** what somebody wants changed at the remote, in the **outbox** until it is **settled** · **lane** the
//! intents that run one after the other · **attempt** one try at one · **park** leave it to a person · **echo** our own push, seen in an
//! answer.

pub mod alerts;
pub mod app;
#[cfg(any(test, fuzzing))]
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod mask;
pub mod measures;
pub mod pulse;
pub mod remote;
pub mod standing;
pub mod store;
pub mod tasks;
pub mod watch;
