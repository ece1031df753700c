//! The webhook receiver, with the real binary: what it takes, what it refuses, and what follows.

mod bodies;
mod clients;
mod input;
mod limits;
mod reload;
mod signature;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use komoju_testkit::daemon::{HttpAnswer, get};
use komoju_testkit::{Daemon, Installation, eventually};
use ring::hmac;
use serde_json::{Value, json};

use crate::PROGRAM;

/// The secret of most tests. No output may contain it.
const SECRET: &str = "hook-secret-5d1c7a90b2";

/// An account with a swept mirror, a daemon that receives its webhooks, and no event list.
struct Receiver {
    harness: Installation,
    daemon: Daemon,
    /// The address of webhooks.
    address: String,
}

impl Receiver {
    fn start() -> Self {
        Self::with(SECRET)
    }

    /// Starts with this text in the secret's file.
    fn with(secret: &str) -> Self {
        let harness = configured(secret);
        harness.expect(0, &["sync"]);
        Self::of(harness)
    }

    fn of(harness: Installation) -> Self {
        let daemon = Daemon::start(&harness);
        let address = address(&daemon);
        eventually("the first sweep is complete", || daemon.said().contains(" complete: "));
        Self { harness, daemon, address }
    }

    /// Sends a body with its signature, and returns the status.
    fn deliver(&self, body: &str) -> u16 {
        self.deliver_signed(SECRET, body)
    }

    fn deliver_signed(&self, secret: &str, body: &str) -> u16 {
        let answer = self.post(&[("X-Komoju-Signature", &sign(secret, body.as_bytes()))], body.as_bytes());
        assert_eq!(answer.body, "", "an answer has no body");
        answer.status
    }

    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        post(TcpStream::connect(&self.address).unwrap(), "/komoju", headers, body)
    }

    /// Returns how many events are stored.
    fn events(&self) -> u64 {
        self.harness.one("SELECT count(*) FROM event").parse().unwrap()
    }

    /// Waits until the counter of this result has this value.
    #[track_caller]
    fn counted(&self, result: &str, expected: u64) {
        let http = self.daemon.address();
        let line = format!("komoju_sync_webhooks_total{{result=\"{result}\"}} {expected}\n");
        eventually(&line, || get(&http, "/metrics").body.contains(&line));
    }
}

/// Returns an installation whose webhooks are received at a free port; it reads no event list.
fn configured(secret: &str) -> Installation {
    let harness = Installation::with(PROGRAM, 8);
    write_secret(&harness, secret);
    harness.append_config(&format!(
        "[webhook]\nlisten = \"127.0.0.1:0\"\nsecret_file = '{}'\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nlevel = \"trace\"",
        harness.path("webhook-secret").display()
    ));
    harness
}

fn write_secret(harness: &Installation, secret: &str) {
    let file = harness.path("webhook-secret");
    fs::write(&file, secret).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Waits until the daemon receives webhooks, and returns the address.
fn address(daemon: &Daemon) -> String {
    let mut address = None;
    eventually("it receives webhooks", || {
        let said = daemon.said();
        let found =
            said.split("webhooks: POST /komoju at http://").nth(1).and_then(|rest| rest.split_once('/'));
        address = found.map(|(address, _)| address.to_owned());
        address.is_some()
    });
    address.unwrap()
}

/// Returns the signature that KOMOJU sends: lower-case hexadecimal.
fn sign(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the head of a request.
fn head(path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nHost: example.jp\r\nContent-Length: {length}\r\n{headers}\r\n")
}

/// Sends a request and reads the answer to its end.
fn post(mut stream: impl Read + Write, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
    stream.write_all(head(path, headers, body.len()).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    answer(stream)
}

/// Reads an answer to its end; the status is 0 if there is none.
fn answer(mut stream: impl Read) -> HttpAnswer {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    HttpAnswer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Returns an event about a customer, as JSON.
fn event(id: &str, customer: &str) -> String {
    let data = json!({"id": customer, "resource": "customer"});
    typed(id, "customer.updated", data)
}

fn typed(id: &str, kind: &str, data: Value) -> String {
    let at = "2026-01-01T00:00:00Z";
    json!({"id": id, "type": kind, "resource": "event", "created_at": at, "data": data}).to_string()
}
