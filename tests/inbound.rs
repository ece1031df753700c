//! The inbound half, whole: the real binary, or its passes, against the local KOMOJU over HTTP.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/account.rs"]
mod account;
#[path = "inbound/added.rs"]
mod added;
#[path = "inbound/broken.rs"]
mod broken;
#[path = "inbound/commands.rs"]
mod commands;
#[path = "inbound/database.rs"]
mod database;
#[path = "inbound/displaced.rs"]
mod displaced;
#[path = "inbound/doctor.rs"]
mod doctor;
#[path = "inbound/house.rs"]
mod house;
#[path = "inbound/imprecise.rs"]
mod imprecise;
#[path = "inbound/imprecise_status.rs"]
mod imprecise_status;
#[path = "inbound/missing.rs"]
mod missing;
#[path = "inbound/passes.rs"]
mod passes;
#[path = "inbound/resume.rs"]
mod resume;
#[path = "inbound/sources.rs"]
mod sources;
#[path = "inbound/unreadable.rs"]
mod unreadable;
