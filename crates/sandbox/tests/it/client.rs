//! A small client over bare TCP. It shows what an HTTP library hides: resets and truncated bodies.

use std::fmt::Write as _;
use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use komoju_sandbox::{Options, Readings, Sandbox};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time of the stopped clock of these sandboxes.
pub const NOW: &str = "2026-06-01T00:00:00Z";

/// Starts a sandbox with a stopped clock.
pub async fn sandbox(customers: u32) -> Sandbox {
    sandbox_with(customers, Readings::default()).await
}

pub async fn sandbox_with(customers: u32, readings: Readings) -> Sandbox {
    let options = Options { customers, readings, now: Some(NOW.parse().unwrap()), ..Options::default() };
    Sandbox::start(options).await.unwrap()
}

/// A request that is not sent yet.
pub struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    key: Option<String>,
}

impl Ask {
    /// Removes the key.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new(), key: None }
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("Content-Type", "application/json")
    }

    pub fn form(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self.header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// Sets a body without a Content-Type.
    pub fn untyped(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    pub async fn send(self, sandbox: &Sandbox) -> Reply {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let _ = write!(head, "Host: {}\r\nConnection: close\r\n", sandbox.address());
        if let Some(key) = self.key {
            let _ = write!(head, "Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{key}:")));
        }
        for (name, value) in self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = head.into_bytes();
        bytes.extend(self.body);
        send_raw(sandbox, &bytes).await
    }
}

/// Returns a request to the API with the sandbox's key.
pub fn ask(sandbox: &Sandbox, method: &'static str, path: &str) -> Ask {
    Ask::new(method, format!("/api/v1{path}")).key(sandbox.key())
}

pub async fn get(sandbox: &Sandbox, path: &str) -> Reply {
    ask(sandbox, "GET", path).send(sandbox).await
}

/// Requests one page and returns its customers.
pub async fn page(sandbox: &Sandbox, query: &str) -> Vec<Value> {
    let reply = get(sandbox, &format!("/customers?{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["data"].as_array().unwrap().clone()
}

/// Reads all pages in order, as a client that trusts `last_page`.
pub async fn sweep(sandbox: &Sandbox, per_page: usize) -> Vec<Value> {
    let mut customers = Vec::new();
    for number in 1.. {
        let reply = get(sandbox, &format!("/customers?per_page={per_page}&page={number}")).await.json();
        customers.extend(reply["data"].as_array().unwrap().clone());
        if number >= reply["last_page"].as_u64().unwrap() {
            return customers;
        }
    }
    unreachable!("pages are numbered without end")
}

pub fn ids(customers: &[Value]) -> Vec<String> {
    customers.iter().map(|customer| customer["id"].as_str().unwrap().to_owned()).collect()
}

/// Sends these bytes on a new connection and reads until its end.
pub async fn send_raw(sandbox: &Sandbox, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(sandbox.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received).await.err().map(|error| error.kind());
    Reply::parse(&received, end)
}

/// The bytes of an answer, as far as they arrived.
#[derive(Debug)]
pub struct Reply {
    /// 0 if there was no answer.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The error that ended the connection; none after an orderly close.
    pub end: Option<io::ErrorKind>,
}

impl Reply {
    fn parse(received: &[u8], end: Option<io::ErrorKind>) -> Self {
        let Some(split) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self { status: 0, headers: Vec::new(), body: received.to_vec(), end };
        };
        let head = String::from_utf8_lossy(&received[..split]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Self { status, headers, body: received[split + 4..].to_vec(), end };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = unchunked(&reply.body);
        }
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns status, code and parameter of an error in KOMOJU's form.
    #[track_caller]
    pub fn error(&self) -> (u16, String, Value) {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "details", "message", "param"]);
        (self.status, error["code"].as_str().unwrap().to_owned(), error["param"].clone())
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(split) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..split]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap().min(body.len() - split - 2);
        whole.extend_from_slice(&body[split + 2..split + 2 + size]);
        body = body.get(split + 2 + size + 2..).unwrap_or_default();
    }
    whole
}
