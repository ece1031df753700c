//! The receivers of deliveries, which are on this machine, and the request to a receiver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{DeliveryAttempt, WebhookError};

/// ANSWER_MOST controls how many bytes of an answer's body are read.
const ANSWER_MOST: usize = 64 * 1024;

/// A receiver on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookTarget {
    socket: TargetSocket,
    host: String,
    path: String,
}

/// The socket of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetSocket {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl WebhookTarget {
    /// Reads `http://HOST:PORT/PATH` with a loopback host, or `unix:/SOCKET:/PATH`.
    ///
    /// # Errors
    /// It is another URL.
    pub(crate) fn parse(url: &str) -> Result<Self, WebhookError> {
        let target = match url.strip_prefix("unix:") {
            Some(rest) => Self::unix(rest),
            None => Self::tcp(url),
        };
        target.ok_or_else(|| WebhookError::Url { url: url.to_owned() })
    }

    /// Reads `/SOCKET:/PATH`; the path is `/` if it is absent.
    fn unix(text: &str) -> Option<Self> {
        let (socket, path) = match text.rsplit_once(":/") {
            Some((socket, path)) => (socket, format!("/{path}")),
            None => (text, "/".to_owned()),
        };
        path.parse::<Uri>().ok()?;
        let socket = socket.starts_with('/').then(|| TargetSocket::Unix(socket.into()))?;
        Some(Self { socket, host: "localhost".to_owned(), path })
    }

    /// Reads an HTTP URL whose host is a loopback address.
    fn tcp(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
        let address = match authority.host().trim_matches(['[', ']']) {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            host => host.parse().ok().filter(IpAddr::is_loopback)?,
        };
        let socket = TargetSocket::Tcp(SocketAddr::new(address, authority.port_u16().unwrap_or(80)));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { socket, host: authority.as_str().to_owned(), path })
    }
}

impl DeliveryAttempt {
    /// Sends the request and returns the status of the answer.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(crate) async fn send(&self) -> Result<u16, String> {
        let answered = tokio::time::timeout(self.timeout, async {
            match &self.target.socket {
                TargetSocket::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                    self.exchange(stream).await
                }
                TargetSocket::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
                    self.exchange(stream).await
                }
            }
        });
        let late = || Err(format!("no answer within {} ms", self.timeout.as_millis()));
        answered.await.unwrap_or_else(|_| late())
    }

    /// Sends the request on a new connection.
    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<u16, String> {
        let readable = |error: hyper::Error| error.to_string();
        let request = self.request().map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(readable)?;
        let exchange = async move {
            let answer = sender.send_request(request).await.map_err(readable)?;
            let status = answer.status().as_u16();
            // With the body unread, the connection would be reset while the receiver sends it.
            let _ = Limited::new(answer.into_body(), ANSWER_MOST).collect().await;
            Ok(status)
        };
        match select(pin!(exchange), pin!(connection)).await {
            Either::Left((answered, _)) => answered,
            Either::Right((_, exchange)) => exchange.await,
        }
    }

    /// Returns the request of this attempt.
    fn request(&self) -> Result<Request<Full<bytes::Bytes>>, hyper::http::Error> {
        Request::post(&self.target.path)
            .header(HOST, &self.target.host)
            .header(USER_AGENT, "Komoju-Webhook")
            .header(CONTENT_TYPE, "application/json")
            .header("X-Komoju-ID", &self.id)
            .header("X-Komoju-Event", &self.kind)
            .header("X-Komoju-Signature", &self.signature)
            .body(Full::new(self.body.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiver_is_a_loopback_address_or_a_unix_socket() {
        for (url, socket, host, path) in [
            ("http://127.0.0.1:8080/komoju?a=b", "127.0.0.1:8080", "127.0.0.1:8080", "/komoju?a=b"),
            ("http://localhost:81", "127.0.0.1:81", "localhost:81", "/"),
            ("http://[::1]/komoju", "[::1]:80", "[::1]", "/komoju"),
        ] {
            let socket = TargetSocket::Tcp(socket.parse().unwrap());
            let expected = WebhookTarget { socket, host: host.to_owned(), path: path.to_owned() };
            assert_eq!(WebhookTarget::parse(url).unwrap(), expected, "{url}");
        }
        for (url, path) in [("unix:/run/a.sock:/komoju", "/komoju"), ("unix:/run/a.sock", "/")] {
            let target = WebhookTarget::parse(url).unwrap();
            assert_eq!(target.socket, TargetSocket::Unix("/run/a.sock".into()), "{url}");
            assert_eq!(target.path, path);
        }
    }

    #[test]
    fn other_receivers_are_refused_with_their_url() {
        for url in [
            "https://127.0.0.1/",
            "http://192.0.2.1/",
            "http://example.com/",
            "unix:relative",
            "127.0.0.1:80",
            "",
        ] {
            let error = WebhookTarget::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(url) && error.contains("http://127.0.0.1:PORT/PATH"), "{error}");
        }
    }
}
