//! The daemon while nothing happens: its processor time and what it writes.

use std::process::Stdio;
use std::time::Duration;

use crate::process::{self, Sandbox};
use crate::{Plan, configure, text};

/// WATCHED controls how long the idle daemon is measured.
const WATCHED: Duration = Duration::from_secs(30);

pub fn main() {
    let plan = Plan { customers: 1000, in_flight: 4, latency_ms: 0, rounds: 1 };
    let sandbox = Sandbox::start(&plan);
    let directory = tempfile::TempDir::new().unwrap();
    let config = configure(directory.path(), &plan, &sandbox.url);
    // Once a year, so that nothing is due during the measurement.
    let mut content = std::fs::read_to_string(&config).unwrap();
    content.push_str("[inbound]\nsweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"\n");
    std::fs::write(&config, content).unwrap();
    let mut daemon = process::komoju_sync(&["--config", &text(&config), "run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = || {
        process::komoju_sync(&["--config", &text(&config), "status"]).stdout(Stdio::null()).status().unwrap()
    };
    while status().code() != Some(0) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(2));
    let (ticks, written) = (process::ticks(daemon.id()), process::written(daemon.id()));
    std::thread::sleep(WATCHED);
    let used = (process::ticks(daemon.id()) - ticks) as f64 / 100.0 / WATCHED.as_secs_f64() * 100.0;
    println!("{:<60} {used:>6.2}  (target 0.5)", "percent of a core while idle");
    println!("{:<60} {:>6}  (target 0)", "bytes written while idle", process::written(daemon.id()) - written);
    let resident = process::memory(daemon.id(), "VmRSS").unwrap() as f64 / 1024.0;
    println!("{:<60} {resident:>6.1}", "MiB resident while idle");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
