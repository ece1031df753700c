//! The outbox: intents as they are accepted, attempted, decided on by an operator, and erased.

pub mod accept;
pub mod attempts;
pub mod candidates;
pub mod delete_limit;
pub mod engine;
pub mod erase;
pub mod operator;
pub mod queue;
pub mod rows;
pub mod settle;
pub mod spool;
