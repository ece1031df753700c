//! The daemon as it is watched: health, metrics and alerts of the real binary, with the local KOMOJU.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs every room")]
mod house;

#[path = "watching/alerts.rs"]
mod alerts;
#[path = "watching/exposition.rs"]
mod exposition;
#[path = "watching/http.rs"]
mod http;
#[path = "watching/metrics.rs"]
mod metrics;
#[path = "watching/wall.rs"]
mod wall;

use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use house::House;

/// Looks until it holds, for half a minute at most.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

/// Adds lines below `[outbound]`, and whole tables after it.
fn configure(house: &House, lines: &str) {
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(house.path("config.toml"), format!("{text}{lines}\n")).unwrap();
}

/// The daemon, and what it says.
struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    fn start(house: &House) -> Self {
        Self::spawn(house, house.command(&["run"]))
    }

    fn spawn(house: &House, mut command: Command) -> Self {
        let log = house.path(&format!("log-{}", std::fs::read_dir(house.directory.path()).unwrap().count()));
        let said = File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(said).spawn().unwrap();
        Self { child, log }
    }

    /// The daemon with metrics at an address of its own; returns that too.
    fn listening(house: &House) -> (Self, String) {
        configure(house, "[http]\nlisten = \"127.0.0.1:0\"");
        let daemon = Self::start(house);
        let address = daemon.address();
        (daemon, address)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Where it listens.
    fn address(&self) -> String {
        let mut address = None;
        eventually("it listens", || {
            let said = self.said();
            let told = said.split("http://").find_map(|rest| {
                let (address, _) = rest.split_once('/')?;
                said.contains(&format!("health and metrics at http://{address}/")).then(|| address.to_owned())
            });
            address = told;
            address.is_some()
        });
        address.unwrap()
    }

    /// SIGTERM; returns the exit code.
    fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(told.unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends these bytes and reads to the end.
fn exchange(mut stream: impl std::io::Read + std::io::Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn ask(address: &str, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.flush().unwrap();
    exchange(stream, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn get(address: &str, path: &str) -> Answer {
    ask(address, "GET", path)
}
