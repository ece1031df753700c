//! A receiver of webhooks over bare TCP or a Unix socket. It shares no code with the sandbox.

use std::path::Path;
use std::pin::pin;

use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a receiver does with a delivery.
#[derive(Debug, Clone, Copy)]
pub enum Reaction {
    /// Answers with this status.
    Status(u16),
    /// Closes the connection.
    Close,
    /// Never answers.
    Hang,
}

/// A delivery as it arrived.
#[derive(Debug)]
pub struct Received {
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    /// Returns a header by its name in lower case.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the id of the customer.
    pub fn customer(&self) -> String {
        self.json()["data"]["id"].as_str().unwrap().to_owned()
    }
}

/// A receiver that listens until it is dropped.
pub struct Receiver {
    pub url: String,
    received: mpsc::UnboundedReceiver<Received>,
    stop: CancellationToken,
}

impl Receiver {
    /// Listens on a free port. `react` decides by the number of the delivery, from 0.
    pub async fn tcp(react: impl FnMut(usize) -> Reaction + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/komoju", listener.local_addr().unwrap());
        let streams = stream::unfold(listener, async |listener| {
            let stream = listener.accept().await.unwrap().0;
            Some((stream, listener))
        });
        Self::run(url, streams, react)
    }

    /// Listens on a Unix socket.
    pub fn unix(path: &Path, react: impl FnMut(usize) -> Reaction + Send + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let url = format!("unix:{}:/komoju", path.display());
        let streams = stream::unfold(listener, async |listener| {
            let stream = listener.accept().await.unwrap().0;
            Some((stream, listener))
        });
        Self::run(url, streams, react)
    }

    fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
        url: String,
        streams: impl Stream<Item = S> + Send + 'static,
        mut react: impl FnMut(usize) -> Reaction + Send + 'static,
    ) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let serve = async move {
            let mut streams = pin!(streams);
            let mut number = 0;
            while let Some(mut stream) = streams.next().await {
                // A connection that was closed without a request is no delivery.
                let Some(delivery) = read(&mut stream).await else { continue };
                let _ = sender.send(delivery);
                number += 1;
                match react(number - 1) {
                    Reaction::Status(status) => {
                        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                    Reaction::Close => {}
                    Reaction::Hang => {
                        // It ends when the sandbox gives up.
                        let _ = stream.read(&mut [0]).await;
                    }
                }
            }
        };
        TaskTracker::new().spawn(async move { token.run_until_cancelled(serve).await });
        Self { url, received, stop }
    }

    /// Waits for the next delivery.
    pub async fn next(&mut self) -> Received {
        self.received.recv().await.unwrap()
    }

    /// Returns the deliveries that have arrived.
    pub fn arrived(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Reads one request.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    let received = Received { line, headers, body: Vec::new() };
    let length: usize = received.header("content-length").parse().unwrap();
    while body.len() < length {
        stream.read_buf(&mut body).await.ok().filter(|&read| read > 0)?;
    }
    Some(Received { body, ..received })
}
