//! `sandbox`: a local KOMOJU in its own process.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use komoju_testkit::{Installation, Process, stop};

use crate::PROGRAM;

/// Promises: command sandbox
#[test]
fn sandbox_serves_customers_to_a_sync() {
    let harness = Installation::with(PROGRAM, 0);
    let mut sandbox = Process::start(
        harness
            .command(&["sandbox", "--customers", "12", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
    let base_url = lines
        .find_map(|line| {
            let line = line.unwrap();
            let at = line.find("http://127.0.0.1:")?;
            Some(line[at..].split_whitespace().next().unwrap().trim_end_matches(['"', '.']).to_owned())
        })
        .unwrap();
    harness.replace_in_config(&harness.sandbox.base_url(), &base_url);
    let mut sync = harness.command(&["sync"]);
    sync.env("KOMOJU_SECRET_KEY", "sk_test_sandbox");
    assert!(sync.status().unwrap().success());
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "12");
    assert_eq!(stop(&mut sandbox), Some(0));
}
