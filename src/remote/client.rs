//! The HTTP client: HTTPS with rustls, one attempt a call.
//!
//! - No redirect is followed: a 307 would send a body with its payment token to another host.
//! - The library's own retry is off: it has no backoff and bypasses the limiter.
//! - The key is in a header that is marked sensitive, and never part of a text.
//! - An answer is read in pieces up to a fixed size, so that no answer can fill the memory. Gzip is
//!   decoded while it streams, and the limit counts decoded bytes.

#[cfg(test)]
mod answers;
#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
mod classify;
mod push;
mod read;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::RequestBuilder;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use tokio::sync::watch;
use url::Url;

use classify::{chain, step_of};

use super::error::{ApiCall, ErrorCause, RemoteError};
use super::limiter::{Limiter, Share};
use super::meter::Meter;
use super::{BytesSent, retry_after, wire};
use crate::clock::Clock;
use crate::config::Config;
use crate::heartbeat;
use crate::secret::{Masker, SecretKey};
use komoju_core::ReducedRate;
use komoju_core::customer::LONGEST;

/// ALL_ANSWERS controls how many bytes all answers in memory may have together: those in flight,
/// and a few that wait for the database.
const ALL_ANSWERS: usize = 24 << 20;

/// WAITING_ANSWERS controls how many answers are parsed, or wait for the database, in addition to
/// those in flight.
const WAITING_ANSWERS: usize = 4;

/// ONE_CUSTOMER controls how many bytes are read of an answer with one customer: the longest
/// customer and its envelope.
const ONE_CUSTOMER: usize = LONGEST + (64 << 10);

/// KEPT controls how many bytes are kept of an answer that is too long: enough to find its
/// customer.
const KEPT: usize = 64 << 10;

/// LARGEST_ANSWER controls how many bytes of a page are read with few requests in flight. It allows
/// 40 kB for each of 100 customers; most of them need 1 kB.
const LARGEST_ANSWER: usize = 4 << 20;

/// SMALLEST_LIMIT controls the same with many requests in flight. It allows 5 kB for each of 100
/// customers.
const SMALLEST_LIMIT: usize = 512 << 10;

/// CONNECT_TIMEOUT controls how long a connection attempt may take. The rest of `request_timeout_s`
/// is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// POOL_IDLE_TIMEOUT controls how long an unused connection is kept. Common load balancers close it
/// after 60 s, and a request that is sent at that moment gets no answer.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// MAX_HEADERS controls how many headers an answer may have. The library's default is 100, and
/// proxies add theirs.
const MAX_HEADERS: usize = 256;

/// The byte order mark of UTF-8. Some servers write it before JSON, which does not allow it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The characters that are encoded in a path segment: all but the unreserved ones of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Returns a path below `api.base_url` as it is sent.
pub fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
        path
    })
}

/// KOMOJU's API over HTTP.
pub struct Http {
    client: reqwest::Client,
    base_url: Url,
    is_proxied: bool,
    limiter: Limiter,
    masker: Masker,
    clock: Arc<dyn Clock>,
    requests: AtomicU64,
    /// Whether any request was ever answered.
    answered: watch::Sender<bool>,
    /// Why the last request without an answer failed; masked.
    failure: Mutex<Option<String>>,
    /// The newest `Date` of an answer, and when the answer arrived by the steady clock.
    server_date: Mutex<Option<(Timestamp, Duration)>>,
    /// The most bytes of a page that are read.
    largest_answer: usize,
}

/// The client cannot be set up; masked.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct SetupError(String);

/// An HTTP answer.
struct HttpAnswer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether the body is complete. Otherwise it is the start of one that is too long.
    is_whole: bool,
}

/// The share of the limiter that a request uses, and the most bytes of its answer that are read.
#[derive(Clone, Copy)]
struct Terms {
    share: Share,
    limit: usize,
}

/// A request without an answer, and whether the request may have reached the API.
struct NoAnswer {
    cause: ErrorCause,
    bytes_sent: BytesSent,
}

impl Http {
    /// Returns a client for the configured API with this key.
    ///
    /// # Errors
    /// The system has no certificates, or a setting cannot be used.
    pub fn new(config: &Config, key: &SecretKey, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        // This fails if the provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let masker = Masker::new(Some(key));
        let setup = |e: &dyn std::fmt::Display| SetupError(masker.text(&e.to_string()));
        let mut headers = HeaderMap::new();
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{}:", key.expose()));
        let mut authorization =
            HeaderValue::try_from(format!("Basic {credentials}")).map_err(|e| setup(&e))?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let version = HeaderValue::try_from(&config.api.api_version).map_err(|e| setup(&e))?;
        headers.insert("x-komoju-api-version", version);

        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("komoju-sync/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.api.request_timeout())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http1_max_headers(MAX_HEADERS)
            .gzip(true)
            .no_proxy();
        if config.api.base_url.scheme() == "http" {
            // This is a local sandbox, perhaps on a machine without CA certificates. It needs none,
            // because the configuration refuses a proxy for plain HTTP.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if let Some(proxy) = &config.api.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy.url().as_str()).map_err(|e| setup(&e))?);
        }
        let client = builder.build().map_err(|e| SetupError(masker.text(&chain(&e))))?;
        let limiter =
            Limiter::new(config.rate_limit.requests_per_second, config.rate_limit.burst, Arc::clone(&clock));
        Ok(Self {
            client,
            base_url: config.api.base_url.clone(),
            is_proxied: config.api.proxy.is_some(),
            limiter,
            masker,
            clock,
            requests: AtomicU64::new(0),
            answered: watch::Sender::new(false),
            failure: Mutex::new(None),
            server_date: Mutex::new(None),
            largest_answer: (ALL_ANSWERS / (config.api.max_concurrent_requests as usize + WAITING_ANSWERS))
                .clamp(SMALLEST_LIMIT, LARGEST_ANSWER),
        })
    }

    /// Returns the URL of a path below `api.base_url`.
    fn url(&self, segments: &[&str]) -> Url {
        let text = self.base_url.as_str().trim_end_matches('/').to_owned() + &path(segments);
        // A URL with more encoded segments is a URL, so this does not fail.
        Url::parse(&text).unwrap_or_else(|_| self.base_url.clone())
    }

    /// Sends one GET. Any status but 200 is an error.
    async fn get(
        &self,
        call: &ApiCall,
        terms: Terms,
        url: Url,
        meter: &mut Meter<'_>,
    ) -> Result<HttpAnswer, RemoteError> {
        let failed =
            |none: NoAnswer| RemoteError { call: call.clone(), cause: none.cause, retry_after: None };
        let answer = self.exchange(call, terms, self.client.get(url), meter).await.map_err(failed)?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(self.error_of(call, &answer)),
        }
    }

    /// Waits for the limiter, sends one request, and reads the answer.
    async fn exchange(
        &self,
        call: &ApiCall,
        Terms { share, limit }: Terms,
        request: RequestBuilder,
        meter: &mut Meter<'_>,
    ) -> Result<HttpAnswer, NoAnswer> {
        let sent_at = self.limiter.admit(share).await;
        heartbeat::tick();
        self.requests.fetch_add(1, Ordering::Relaxed);
        meter.sent();
        let unreachable = |e: reqwest::Error| {
            // Without a connection nothing was sent. With one, the request may have arrived.
            let bytes_sent =
                if e.is_connect() || e.is_builder() { BytesSent::None } else { BytesSent::Maybe };
            let step = step_of(&e, self.is_proxied);
            let why = self.masker.text(&self.explain(step, e));
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
            NoAnswer { cause: ErrorCause::Unreachable { stage: step, why }, bytes_sent }
        };
        let sent = request.send().await;
        heartbeat::tick();
        let mut response = sent.map_err(unreachable)?;
        self.answered.send_if_modified(|answered| !std::mem::replace(answered, true));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if let Some(date) = date_of(&headers) {
            self.clock.compare(date);
            let mut newest = self.server_date.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = Some((date, self.clock.elapsed()));
        }
        if status == 429 {
            self.limiter.refused(sent_at);
        }
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        // Of an answer that announces more, read only what is kept.
        let most = if announced.is_some_and(|length| length > limit) { KEPT } else { limit };
        let (mut body, mut is_whole) = (Vec::with_capacity(announced.unwrap_or(0).min(most)), true);
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > most {
                let room = most - body.len();
                body.extend_from_slice(&piece[..room]);
                is_whole = false;
                break;
            }
            body.extend_from_slice(&piece);
        }
        if !is_whole {
            body.truncate(KEPT);
            body.shrink_to_fit();
        }
        if body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
        }
        match status {
            429 => {}
            // The firewall in front of the API answers with web pages.
            403 | 503 if wire::is_web_page(&body) => self.limiter.refused(sent_at),
            // An error of the server is no information about the rate.
            500.. => {}
            _ => self.limiter.answered(sent_at),
        }
        tracing::debug!(%call, status, bytes = body.len(), is_whole, "answered");
        Ok(HttpAnswer { status, headers, body, is_whole })
    }

    /// Returns the wait that `Retry-After` asks for, by the server's clock where the answer has a
    /// `Date`.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
        retry_after::wait(text, date_of(headers).unwrap_or_else(|| self.clock.now()))
    }
}

impl Http {
    /// Waits until any request was answered, with any status.
    pub async fn first_answer(&self) {
        // This fails only if the sender is dropped, and `self` owns it.
        let _ = self.answered.subscribe().wait_for(|answered| *answered).await;
    }

    /// Returns why the last request without an answer failed; masked.
    pub fn last_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no request may be sent now, because the API asked for a wait or refused requests for
    /// their speed.
    pub fn is_paused(&self) -> bool {
        self.limiter.is_paused()
    }

    /// Returns the reduced request rate; none at the configured rate.
    pub fn slowed(&self) -> Option<ReducedRate> {
        self.limiter.slowed()
    }

    /// Reduces the request rate to what an earlier process has learned.
    pub fn slow_down(&self, slowed: &ReducedRate) {
        self.limiter.learn(slowed);
    }

    /// Returns a counter that changes with each refusal that reduced the rate.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.limiter.refusals()
    }

    /// Sends nothing for this time, within bounds. A wait that an earlier process was asked for
    /// applies to this process too.
    pub fn pause(&self, wanted: Duration) {
        self.limiter.pause(wanted);
    }
}

/// Returns the server's time in the `Date` header.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    date.try_into().ok()
}
