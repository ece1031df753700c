//! The sandbox over its wire: every call, reading, fault and counter, asked by a client that shares nothing with it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "sandbox/calls.rs"]
mod calls;
#[path = "sandbox/client.rs"]
mod client;
#[path = "sandbox/connections.rs"]
mod connections;
#[path = "sandbox/control.rs"]
mod control;
#[path = "sandbox/documented.rs"]
mod documented;
#[path = "sandbox/idempotency.rs"]
mod idempotency;
#[path = "sandbox/imprecise.rs"]
mod imprecise;
#[path = "sandbox/lag.rs"]
mod lag;
#[path = "sandbox/life.rs"]
mod life;
#[path = "sandbox/limit.rs"]
mod limit;
#[path = "sandbox/lists.rs"]
mod lists;
#[path = "sandbox/paging.rs"]
mod paging;
#[path = "sandbox/readings.rs"]
mod readings;
#[path = "sandbox/sdk.rs"]
mod sdk;
