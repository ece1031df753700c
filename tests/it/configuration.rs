//! The configuration file.

mod check;
mod example;
mod keys;
