//! The states of an intent, and what moves it from one to the next.

mod clocks;
mod engine;
mod hold_deletes;
mod order;
mod outcomes;
mod read_back;
mod stops;
mod transitions;
