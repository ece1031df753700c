//! Tests of the contract and the invariants, against the real binary and the library.
//!
//! A module stands for a part of the contract, or for an invariant of
//! [docs/invariants.md](../../docs/invariants.md). A line `Promises:` in a module names the
//! promises that its tests hold. [docs/promises.md](../../docs/promises.md) lists the tests by
//! promise.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod backup_restore;
mod commands;
mod configuration;
mod disk_errors;
mod docs;
mod doctor;
mod doors;
mod examples;
mod exit_codes;
mod golden;
mod inv_01_log_folds_to_mirror;
mod inv_03_reading_is_liberal;
mod inv_04_delete_needs_evidence;
mod inv_05_null_source;
mod inv_06_log_does_not_go_back;
mod inv_07_create_at_most_once;
mod inv_08_one_account;
mod inv_09_secrets;
mod inv_10_memory;
mod inv_11_unchanged_sweep;
mod inv_12_limiter;
mod inv_13_probe;
mod inv_14_append_only;
mod inv_15_erase;
mod inv_16_one_file_one_writer;
mod inv_17_one_bad_customer;
mod inv_18_events_are_hints;
mod outbox_states;
mod promises;
mod reading_sql;
mod refused_key;
mod requests;
mod schema;
mod service;
mod webhook;
mod writing_cli;
mod writing_files;
mod writing_sql;

/// The binary under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_komoju-sync");
