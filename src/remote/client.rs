//! The real remote: HTTPS with rustls, one attempt a call.
//!
//! No redirect is followed (a 307 would re-send a body with its payment token to another host) and the client's own retry is
//! off (it has no backoff and passes under the limiter). The key travels in a header that is marked sensitive and is never part
//! of a text. An answer is read in pieces up to a fixed size, so that no answer can fill the memory. Compressed answers (gzip) are
//! decoded while they stream, and the size that counts is the decoded one.

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

use super::error::{Call, Cause, RemoteError};
use super::limiter::{Limiter, Share};
use super::meter::Meter;
use super::{Left, retry_after, wire};
use crate::clock::Clock;
use crate::config::Config;
use crate::heartbeat;
use crate::secret::{Masker, SecretKey};
use komoju_core::Slowed;
use komoju_core::customer::LONGEST;

/// How much may be held of all answers together: those under way, and a few that wait for the database.
const ALL_ANSWERS: usize = 24 << 20;

/// How many answers wait for the database, or are being taken apart, besides those under way.
const WAITING_ANSWERS: usize = 4;

/// How much is read of an answer that shows one customer: the longest customer, and the envelope around it.
const ONE_CUSTOMER: usize = LONGEST + (64 << 10);

/// How much is kept of an answer that is too long: enough to tell whose it is.
const KEPT: usize = 64 << 10;

/// The largest answer that is read, however few are under way: 40 kB for each of 100 customers, who rarely have one …
const LARGEST_ANSWER: usize = 4 << 20;

/// … and however many: 5 kB for each of 100 customers.
const SMALLEST_LIMIT: usize = 512 << 10;

/// How long a connection may take to come up; the rest of `request_timeout_s` is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// POOL_IDLE_TIMEOUT controls how long an unused connection is kept. Common load balancers close theirs after 60 s; a request
/// that is sent at that moment gets no answer.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// MAX_HEADERS controls how many headers an answer may have. The library's default is 100, and proxies add theirs.
const MAX_HEADERS: usize = 256;

/// Some servers write it before JSON; it is no part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a path segment may hold as it is: the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path below `api.base_url`, as it is sent.
pub fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
        path
    })
}

/// KOMOJU over HTTP.
pub struct Http {
    client: reqwest::Client,
    base_url: Url,
    is_proxied: bool,
    limiter: Limiter,
    masker: Masker,
    clock: Arc<dyn Clock>,
    requests: AtomicU64,
    /// Whether anything has ever answered.
    answered: watch::Sender<bool>,
    /// Why the last request that brought no answer did not.
    failure: Mutex<Option<String>>,
    /// The newest `Date` of an answer, and when it came by the steady clock.
    server_date: Mutex<Option<(Timestamp, Duration)>>,
    largest_answer: usize,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct SetupError(String);

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether the body is all of the answer, or the beginning of one that is too long.
    is_whole: bool,
}

/// What a request is: where it waits, and how long its answer may be.
#[derive(Clone, Copy)]
struct Terms {
    share: Share,
    limit: usize,
}

/// A request without an answer.
struct Unmade {
    cause: Cause,
    left: Left,
}

impl Http {
    /// A client for the configured API with this key.
    pub fn new(config: &Config, key: &SecretKey, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        // A second call finds the provider installed; that is as good.
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
            // The local sandbox, on a machine without CA certificates perhaps: no TLS will be spoken (configuration refuses a
            // proxy here), so none are needed.
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

    fn url(&self, segments: &[&str]) -> Url {
        let text = self.base_url.as_str().trim_end_matches('/').to_owned() + &path(segments);
        // Appending encoded segments to a URL gives a URL.
        Url::parse(&text).unwrap_or_else(|_| self.base_url.clone())
    }

    /// One GET. Any status but 200 is an error here.
    async fn get(
        &self,
        call: &Call,
        terms: Terms,
        url: Url,
        meter: &mut Meter<'_>,
    ) -> Result<Answer, RemoteError> {
        let unmade = |why: Unmade| RemoteError { call: call.clone(), cause: why.cause, retry_after: None };
        let answer = self.exchange(call, terms, self.client.get(url), meter).await.map_err(unmade)?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(self.error_of(call, &answer)),
        }
    }

    /// One request: waits for the limiter, sends, reads.
    async fn exchange(
        &self,
        call: &Call,
        Terms { share, limit }: Terms,
        request: RequestBuilder,
        meter: &mut Meter<'_>,
    ) -> Result<Answer, Unmade> {
        let left_at = self.limiter.admit(share).await;
        heartbeat::tick();
        self.requests.fetch_add(1, Ordering::Relaxed);
        meter.sent();
        let unreachable = |e: reqwest::Error| {
            // Without a connection nothing was sent; with one, who knows.
            let left = if e.is_connect() || e.is_builder() { Left::Nothing } else { Left::Perhaps };
            let step = step_of(&e, self.is_proxied);
            let why = self.masker.text(&self.said(step, e));
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
            Unmade { cause: Cause::Unreachable { step, why }, left }
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
            self.limiter.refused(left_at);
        }
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        // An answer that announces more is not read any further than what is kept of it.
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
            // The firewall in front of the API.
            403 | 503 if wire::is_web_page(&body) => self.limiter.refused(left_at),
            // A server that fails says nothing of the rate.
            500.. => {}
            _ => self.limiter.answered(left_at),
        }
        tracing::debug!(%call, status, bytes = body.len(), is_whole, "answered");
        Ok(Answer { status, headers, body, is_whole })
    }

    /// What `Retry-After` asks for, by the server's own clock where it tells its time.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
        retry_after::wait(text, date_of(headers).unwrap_or_else(|| self.clock.now()))
    }
}

impl Http {
    /// Returns as soon as anything has answered, whatever it said.
    pub async fn first_answer(&self) {
        // The other end lives as long as this value.
        let _ = self.answered.subscribe().wait_for(|answered| *answered).await;
    }

    /// Why the last request that brought no answer did not; masked.
    pub fn last_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no request may leave now, because the API asked us to wait or refused requests for their speed.
    pub fn is_paused(&self) -> bool {
        self.limiter.is_paused()
    }

    /// How much the requests are slowed down; `None` while they leave at the configured rate.
    pub fn slowed(&self) -> Option<Slowed> {
        self.limiter.slowed()
    }

    /// Slows the requests down as an earlier process had to.
    pub fn slow_down(&self, slowed: &Slowed) {
        self.limiter.learn(slowed);
    }

    /// Changes whenever a refusal has slowed the requests down.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.limiter.refusals()
    }

    /// Sends nothing for so long, within bounds: what an earlier process was asked for holds for this one too.
    pub fn pause(&self, wanted: Duration) {
        self.limiter.pause(wanted);
    }
}

/// The server's clock.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    date.try_into().ok()
}
