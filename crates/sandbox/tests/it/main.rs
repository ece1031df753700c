//! Tests the sandbox over TCP: every call, reading, fault and counter. The client shares no code
//! with it.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a failed test")]

mod calls;
mod client;
mod connections;
mod control;
mod documented;
mod events;
mod idempotency;
mod imprecise;
mod lag;
mod life;
mod limit;
mod lists;
mod paging;
mod readings;
mod receiver;
mod sdk;
mod webhooks;
