//! The outbox: accepting, attempting, deciding and erasing intents.

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
