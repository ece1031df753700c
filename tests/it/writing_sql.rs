//! The first door, SQL.

mod door;
mod engine_columns;
