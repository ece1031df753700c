//! Whole processes: how long they run, and their most memory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Plan;

/// One run of a process.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub took: Duration,
    /// Its largest resident memory, as the kernel counts it.
    pub peak_kib: u64,
}

impl std::ops::Div for Measured {
    type Output = f64;

    fn div(self, floor: Self) -> f64 {
        self.took.as_secs_f64() / floor.took.as_secs_f64()
    }
}

pub fn komoju_sync(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_komoju-sync"));
    command.args(arguments).env("KOMOJU_SECRET_KEY", "sk_test_sandbox");
    command
}

pub fn run(command: Command) -> Measured {
    run_watching(command, None).0
}

/// Runs to the end and watches how large a file becomes meanwhile.
pub fn run_watching(mut command: Command, file: Option<&Path>) -> (Measured, u64) {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut peak_kib, mut largest) = (0, 0);
    let status = loop {
        // Both only grow until the process ends. Then one is gone and the other is emptied, so read
        // them often.
        peak_kib = memory(child.id(), "VmHWM").unwrap_or(peak_kib);
        largest = largest.max(file.and_then(|file| file.metadata().ok()).map_or(0, |file| file.len()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = started.elapsed();
    let mut errors = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut errors).unwrap();
    }
    assert!(status.success(), "{command:?}: {errors}");
    (Measured { took, peak_kib }, largest)
}

/// A line of `/proc/PID/status` in KiB.
pub fn memory(process: u32, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(line))?;
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()
}

/// User and system time of a process so far, in clock ticks (hundredths of a second on Linux).
pub fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Bytes that a process has had written to storage so far.
pub fn written(process: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

/// The local KOMOJU, in a process of its own, its pages rendered.
pub struct Sandbox {
    process: Child,
    pub url: String,
}

impl Sandbox {
    pub fn start(plan: &Plan) -> Self {
        let directory = tempfile::TempDir::new().unwrap();
        let url_file = directory.path().join("url");
        let process = komoju_sync(&["sandbox", "--listen", "127.0.0.1:0", "--frozen-lists"])
            .args(["--customers", &plan.customers.to_string(), "--latency-ms", &plan.latency_ms.to_string()])
            .args(["--url-file", url_file.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = loop {
            if let Ok(url) = std::fs::read_to_string(&url_file) {
                break url;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let sandbox = Self { process, url };
        // The first answer to each page renders it.
        run(crate::floors::command(&["client", &sandbox.url, &plan.pages().to_string(), "4"]));
        sandbox
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
