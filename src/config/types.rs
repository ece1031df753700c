//! The configuration as plain data: one struct a table of the file, with its defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::cron::Cadence;
use crate::secret::MASK;

/// Everything that can be set, one field a table of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[api]`
    pub api: Api,
    /// `[rate_limit]`
    pub rate_limit: RateLimit,
    /// `[database]`
    pub database: Database,
    /// `[inbound]`
    pub inbound: Inbound,
    /// `[outbound]`
    pub outbound: Outbound,
    /// `[http]`
    pub http: Http,
    /// `[alerts]`
    pub alerts: Alerts,
    /// `[log]`
    pub log: Log,
}

/// How KOMOJU is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// https, or http to this machine; no user, query or fragment; no slash at the end of a path.
    pub base_url: Url,
    /// The date sent as `X-KOMOJU-API-VERSION`.
    pub api_version: String,
    /// Where the secret key is, unless systemd or the environment has it.
    pub secret_key_file: Option<PathBuf>,
    /// Customers asked for at once, 1 to 1000. KOMOJU may give fewer.
    pub per_page: u32,
    /// Requests under way at once, 1 to 64.
    pub max_concurrent_requests: u32,
    /// Seconds one request may take, 1 to 600.
    pub request_timeout_s: u32,
    /// The HTTP proxy in between; none: straight to KOMOJU.
    pub proxy: Option<Proxy>,
}

impl Api {
    /// How long one request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s.into())
    }
}

impl Default for Api {
    fn default() -> Self {
        let base_url = Url::parse("https://komoju.com/api/v1");
        Self {
            base_url: base_url.expect("the default is an address, which a test says"),
            api_version: "2025-01-28".to_owned(),
            secret_key_file: None,
            per_page: 100,
            max_concurrent_requests: 4,
            request_timeout_s: 30,
            proxy: None,
        }
    }
}

/// An HTTP proxy. Its user name and password are shown by nothing but [`Proxy::url`].
#[derive(Clone, PartialEq)]
pub struct Proxy(Url);

impl Proxy {
    /// A proxy at this address.
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole address, for the client that connects.
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

/// How fast KOMOJU is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Requests a second, on average, 0.05 to 1000; 0: no limit.
    pub requests_per_second: f64,
    /// Requests that may follow each other at once after a pause, 1 to 1000.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests_per_second: 4.0, burst: 4 }
    }
}

/// Where the mirror is.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// The SQLite file, absolute.
    pub path: PathBuf,
}

impl Default for Database {
    fn default() -> Self {
        Self { path: "/var/lib/komoju-sync/komoju.db".into() }
    }
}

/// How changes at KOMOJU come here.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// When the whole list is read.
    pub sweep_cron: Cadence,
    /// When the newest customers are read.
    pub probe_cron: Cadence,
    /// Deletions a sweep may record by itself; the larger of this and the next is the limit.
    pub max_delete_count: u64,
    /// The same in percent of the live customers, 0 to 100.
    pub max_delete_percent: u32,
    /// How long KOMOJU's reads may lag behind its writes, in seconds; 0 where they never do.
    pub consistency_s: u32,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            sweep_cron: Cadence::built_in("0 */15 * * * *"),
            probe_cron: Cadence::built_in("30 * * * * *"),
            max_delete_count: 10,
            max_delete_percent: 5,
            consistency_s: 120,
        }
    }
}

/// How intents go to KOMOJU.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    /// Whether anything may be created, changed or deleted there.
    pub enabled: bool,
    /// Where intents are dropped as files, absolute.
    pub spool_dir: PathBuf,
    /// Open delete intents beyond which all of them wait for a person; 0: each one waits.
    pub hold_deletes_over: u64,
    /// Hours after its first attempt at which an intent parks, 24 to 8760.
    pub park_after_h: u32,
    /// The metadata key that carries an intent's id, 1 to 30 characters; none: creates carry none.
    pub reconcile_tag: Option<String>,
}

impl Outbound {
    /// How long after its first attempt an intent parks.
    pub fn park_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.park_after_h) * 60 * 60)
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            enabled: true,
            spool_dir: "/var/lib/komoju-sync/intents".into(),
            hold_deletes_over: 20,
            park_after_h: 72,
            reconcile_tag: None,
        }
    }
}

/// Health and metrics over HTTP.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Http {
    /// Where to listen; none: nowhere.
    pub listen: Option<Listen>,
}

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port; port 0: one that is free.
    Tcp(SocketAddr),
    /// A Unix socket, absolute.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who is told when something waits for a person.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alerts {
    /// The program, absolute, and its arguments, run without a shell; none: nobody is told.
    pub command: Option<Vec<String>>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Log {
    /// The least that is logged.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
}

/// How much is logged. There is no "off": a daemon that is refused must say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Only what failed.
    Error,
    /// What may need a person.
    Warn,
    /// What was done.
    #[default]
    Info,
    /// How it was done.
    Debug,
    /// Every step.
    Trace,
}

impl Level {
    pub(super) const WORDS: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::WORDS, self))
    }
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal and under systemd, whose journal people read; JSON anywhere else.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::WORDS, self))
    }
}

fn name_of<T: PartialEq>(words: &[(&'static str, T)], meaning: &T) -> &'static str {
    words.iter().find(|(_, known)| known == meaning).map_or("", |(name, _)| name)
}
