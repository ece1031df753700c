//! The types of values that are more than a number or a text.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

use crate::secret::MASK;

/// An HTTP proxy. Only [`Proxy::url`] returns its user name and password.
#[derive(Clone, PartialEq)]
pub struct Proxy(Url);

impl Proxy {
    /// Returns a proxy at this address.
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// Returns the whole address, for the client that connects.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if !url.username().is_empty() || url.password().is_some() {
            // Neither fails: an http URL has a host.
            let _ = url.set_password(None);
            let _ = url.set_username(MASK);
        }
        url.fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port. Port 0 is any free port.
    Tcp(SocketAddr),
    /// A Unix socket, absolute.
    Unix(PathBuf),
}

impl Listen {
    /// Returns whether other machines may reach the address.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, priorities and fields for the journal under systemd, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// The word for each format.
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, format)| format == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}
