//! The outbox against the local KOMOJU: what becomes of intents, whatever happens on the way.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "outbound/desk.rs"]
mod desk;

#[path = "outbound/accounts.rs"]
mod accounts;
#[path = "outbound/clocks.rs"]
mod clocks;
#[path = "outbound/crashes.rs"]
mod crashes;
#[path = "outbound/cuts.rs"]
mod cuts;
#[path = "outbound/echoes.rs"]
mod echoes;
#[path = "outbound/forbidden.rs"]
mod forbidden;
#[path = "outbound/gone.rs"]
mod gone;
#[path = "outbound/hold_deletes.rs"]
mod hold_deletes;
#[path = "outbound/hostile.rs"]
mod hostile;
#[path = "outbound/imprecise.rs"]
mod imprecise;
#[path = "outbound/lag.rs"]
mod lag;
#[path = "outbound/machine.rs"]
mod machine;
#[path = "outbound/once.rs"]
mod once;
#[path = "outbound/order.rs"]
mod order;
#[path = "outbound/outcomes.rs"]
mod outcomes;
#[path = "outbound/secrets.rs"]
mod secrets;
#[path = "outbound/unreadable.rs"]
mod unreadable;
#[path = "outbound/window.rs"]
mod window;
#[path = "outbound/wiping.rs"]
mod wiping;
