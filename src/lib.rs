//! komoju-sync keeps a true SQLite mirror of a KOMOJU merchant's customers, and a change log from which the mirror can be
//! rebuilt; and it pushes local intents back, each once.
//!
//! # The map
//!
//! ```text
//! main → cli → app → tasks → remote      the API, in the product's words; HTTP, limiter, wire
//!                          → store       the database: one writer, read-only readers, all the SQL there is
//!                          → reconcile   the decisions: values in, values out
//!                          → clock       the only place that asks for the time
//!        all of them       → model       customers, changes, passes, intents                        pure
//!                          → config, mask                  the checked configuration, the typed key, masked texts
//!        app, cli          → watch       being told by the kernel that a file changed
//!        cli               → sandbox     the local KOMOJU; imports nothing of the others
//! ```
//!
//! `remote`, `store` and `reconcile` never import each other; a test (`tests/architecture.rs`) holds the directions.
//!
//! # What always holds
//!
//! - The fold of the change log equals the mirror after every commit ([`store::changes::Recorder`]).
//! - A pass reads, plans, applies and reports; no request is made while a transaction is open ([`tasks::pull`]).
//! - A delete needs evidence: the customer's own `not_found`, and within the same minute another customer that still answers
//!   ([`reconcile::evidence`]).
//! - A null source takes nothing away by itself ([`reconcile::sighting`]).
//! - The database belongs to one account ([`reconcile::guard`]).
//! - An intent is claimed, with what its attempts must repeat, before a byte leaves; a create whose outcome is unknown is found at the
//!   remote or parked, never guessed ([`tasks::push`], [`reconcile::creates`]).
//! - What we pushed does not come back as somebody else's change ([`tasks::Echoes`]).
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

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod mask;
pub mod model;
pub mod reconcile;
pub mod remote;
pub mod sandbox;
pub mod store;
pub mod tasks;
pub mod watch;
