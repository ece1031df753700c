//! The daemon as a child process, its log, and its HTTP endpoint.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::installation::Installation;
use crate::process::{self, Process};
use crate::wait::eventually;

/// A running daemon whose standard error goes to a file.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub child: Process,
    log: PathBuf,
}

impl Daemon {
    /// Starts `run`.
    pub fn start(harness: &Installation) -> Self {
        Self::spawn(harness, harness.command(&["run"]))
    }

    /// Starts this command; its log is a new file beside the configuration.
    pub fn spawn(harness: &Installation, mut command: Command) -> Self {
        let log =
            harness.path(&format!("log-{}", std::fs::read_dir(harness.directory.path()).unwrap().count()));
        let file = File::create(&log).unwrap();
        let child = Process::start(command.stdout(Stdio::null()).stderr(file));
        Self { child, log }
    }

    /// Starts the daemon with its HTTP endpoint on a free port. Returns the address too.
    pub fn listening(harness: &Installation) -> (Self, String) {
        harness.append_config("[http]\nlisten = \"127.0.0.1:0\"");
        let daemon = Self::start(harness);
        let address = daemon.address();
        (daemon, address)
    }

    /// Returns the log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log contains a text.
    #[track_caller]
    pub fn says(&self, what: &str) {
        eventually(what, || self.said().contains(what));
    }

    /// Waits until it listens, and returns the address.
    pub fn address(&self) -> String {
        let mut address = None;
        eventually("it listens", || {
            let log = self.said();
            address = log.split("http://").find_map(|rest| {
                let (address, _) = rest.split_once('/')?;
                log.contains(&format!("health and metrics at http://{address}/")).then(|| address.to_owned())
            });
            address.is_some()
        });
        address.unwrap()
    }

    /// Sends SIGTERM, waits until it ends, and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        process::stop(&mut self.child)
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        process::signal(name, self.child.id());
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status; 0 if there is none.
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends these bytes and reads to the end.
pub fn exchange(mut stream: impl std::io::Read + std::io::Write, request: &str) -> HttpAnswer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    HttpAnswer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Sends a request without a body, and returns the answer.
pub fn ask(address: &str, method: &str, path: &str) -> HttpAnswer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.flush().unwrap();
    exchange(stream, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

/// Sends a GET, and returns the answer.
pub fn get(address: &str, path: &str) -> HttpAnswer {
    ask(address, "GET", path)
}
