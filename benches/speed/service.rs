//! The time until the service is ready, until it has stopped, and of `status`.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{self, Sandbox};
use crate::{Plan, configure, millis, text};

const TIMES: usize = 9;

pub fn main(plan: &Plan) {
    let sandbox = Sandbox::start(plan);
    let directory = tempfile::TempDir::new().unwrap();
    let config = configure(directory.path(), plan, &sandbox.url);
    let command = |arguments: &[&str]| {
        let config = text(&config);
        process::komoju_sync(&[&["--config", &config], arguments].concat())
    };
    process::run(command(&["sync"]));
    println!("{} customers, {TIMES} times; milliseconds, median (most)\n", plan.customers);

    let socket = directory.path().join("notify");
    let notifications = UnixDatagram::bind(&socket).unwrap();
    let (mut ready, mut stopped, mut is_within) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TIMES {
        let started = Instant::now();
        let mut daemon = command(&["run"])
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wait_for = |what: &str| {
            let mut buffer = [0; 4096];
            loop {
                let length = notifications.recv(&mut buffer).unwrap();
                if String::from_utf8_lossy(&buffer[..length]).contains(what) {
                    return;
                }
            }
        };
        wait_for("READY=1");
        ready.push(started.elapsed());
        // Wait until the daemon is within a sweep: it stores its position at its first page.
        let pass = "SELECT count(*) FROM pass WHERE finished_at IS NULL AND pages > 0";
        let conn = rusqlite::Connection::open(directory.path().join("komoju.db")).unwrap();
        while conn.query_row(pass, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let asked = Instant::now();
        let id = daemon.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
        stopped.push(asked.elapsed());
        let interrupted = "SELECT outcome = 'interrupted' FROM pass ORDER BY id DESC LIMIT 1";
        is_within += conn.query_row(interrupted, [], |row| row.get::<_, usize>(0)).unwrap();
    }
    let mut status = Vec::new();
    let mut floor = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        // The exit code depends on the sweeps that were stopped above.
        command(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        status.push(started.elapsed());
        floor.push(process::run(command(&["--version"])).took);
    }
    figure("from start to READY", &mut ready, "target 1000");
    figure(
        &format!("from SIGTERM to the end, in a sweep {is_within} times of {TIMES}"),
        &mut stopped,
        "target 2000",
    );
    figure("status", &mut status, "target 50");
    figure("floor: --version", &mut floor, "reported");
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_komoju-sync")).unwrap().len() as f64 / 1e6;
    println!("{:<60} {size:>8.1}  (target 15)", "MB of the binary as built here");
}

fn figure(what: &str, took: &mut [Duration], target: &str) {
    took.sort();
    let (median, most) = (millis(took[took.len() / 2]), millis(took[took.len() - 1]));
    println!("{what:<60} {median:>8.1} ({most:.1})  ({target})");
}
