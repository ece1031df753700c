//! The commands as operators and scripts use them.

mod demo;
mod dry_run;
mod queries;
mod sandbox;
mod status;
mod usage;

use serde_json::Value;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
