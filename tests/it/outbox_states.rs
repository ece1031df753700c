//! The states of an intent and its transitions.

mod clocks;
mod engine;
mod hold_deletes;
mod order;
mod outcomes;
mod read_back;
mod stops;
mod transitions;
mod waits;
