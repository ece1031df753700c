//! komoju-sync keeps a true SQLite mirror of a KOMOJU merchant's customers, and a change log from
//! which the mirror can be rebuilt. It pushes local intents back, each once.
//!
//! # The map
//!
//! ```text
//! main → cli → daemon → tasks → remote     the API: HTTP client, limiter, what an answer means
//!                             → store      the database: the file, the log, the outbox, and all SQL
//!        remote, tasks, daemon → clock     the only place that reads the time
//!        all of them           → config    the checked configuration
//!                              → secret    the typed key, and the mask for texts
//!                              → metrics   every metric, and the calls that count
//!                              → heartbeat the progress of the daemon's loops, for the watchdog
//!        daemon, cli           → watch     notifications of the kernel that a file changed
//!        tests, fuzz/          → checks    properties of all input; no part of the program
//! ```
//!
//! All of them use `komoju-core` (`crates/core`), which does no I/O. It has customers, changes,
//! passes and intents as values, and the decisions ([`plan`]). Only `cli` uses `komoju-sandbox`
//! (`crates/sandbox`), the local KOMOJU, which shares no code with the other crates.
//!
//! `remote` and `store` never import each other. A test checks all directions.
//!
//! # Invariants
//!
//! `docs/invariants.md` lists the invariants, and `docs/promises.md` the tests of each. The most
//! important ones, and where they are kept:
//!
//! - The fold of the change log equals the mirror after every commit
//!   ([`store::log::changes::Recorder`]).
//! - A pass reads, plans, applies and reports. No request is made while a transaction is open
//!   ([`tasks::pull`]).
//! - A delete needs evidence: an answer that the customer is gone, and within a minute of it an
//!   answer that another customer exists ([`plan::absence`]).
//! - A null source takes nothing away by itself ([`plan::comparison`]).
//! - The database belongs to one account ([`plan::account`]).
//! - An intent is claimed, with what its attempts must repeat, before a byte is sent. A create with
//!   an unknown outcome is found at the remote or parked, never guessed ([`tasks::push`],
//!   [`plan::attempt`], [`plan::creates`]).
//! - A change that we pushed is not recorded again as a change by others
//!   ([`tasks::InFlightPushes`]).
//! - A backup has no payment token. A restored database sends and deletes nothing before an
//!   operator has decided ([`store::file::backup`], [`store::file::restore`]).
//! - No secret reaches a text ([`secret`]).
//!
//! # Glossary
//!
//! **remote** the API · **mirror** the customers as last seen · **change log** what differed, and
//! when · **pass** one reading of the list: a **sweep** reads all of it, a **probe** the newest
//! customers · **suspect** a customer that a sweep did not see · **canary** one that it saw and
//! that still answers · **hold** deletions that wait for an operator · **tombstone** the last known
//! state of a deleted customer · **intent** a change requested for the remote; it is in the
//! **outbox** until it is **settled** · **attempt** one try at an intent; the attempts for one
//! customer follow each other · **park** leave an intent to an operator · **echo** our own push,
//! seen in an answer · **operator** the person or program that runs commands.
//!
//! [`plan`]: komoju_core::plan
//! [`plan::absence`]: komoju_core::plan::absence
//! [`plan::comparison`]: komoju_core::plan::comparison
//! [`plan::account`]: komoju_core::plan::account
//! [`plan::attempt`]: komoju_core::plan::attempt
//! [`plan::creates`]: komoju_core::plan::creates

#[cfg(any(test, fuzzing))]
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod heartbeat;
pub mod metrics;
pub mod remote;
pub mod secret;
pub mod store;
pub mod tasks;
pub mod watch;
