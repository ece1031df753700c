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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::RequestBuilder;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
};
use tokio::sync::watch;
use url::Url;

use super::error::{ApiError, Call, Cause, Certificate, RemoteError, Step};
use super::limiter::{Limiter, Share};
use super::meter::Meter;
use super::retry_after;
use super::wire::{self, Answered, IsOurs};
use super::{Beginning, Left, Push, PushError, PushRemote, Pushed, PushedCustomer, Remote, Shown};
use crate::clock::Clock;
use crate::config::Config;
use crate::heartbeat;
use crate::secret::SecretKey;
use crate::secret::{MASK, Masker};
use komoju_core::customer::LONGEST;
use komoju_core::{CustomerId, Page, PageQuery, Slowed};

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

/// LONGEST_TARGET controls how many characters of a redirect's target are shown.
const LONGEST_TARGET: usize = 200;

/// Codes by which a card is refused, though the status says 502.
const CARD_REFUSALS: [&str; 4] = ["card_declined", "card_expired", "exceeds_limit", "bad_verification_value"];

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
        heartbeat::beat();
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
        heartbeat::beat();
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

    fn error_of(&self, call: &Call, answer: &Answer) -> RemoteError {
        let (told, ours) = wire::error(answer.status, &answer.body);
        let mask = |text: Option<String>| text.map(|text| self.masker.text(&text));
        let told =
            ApiError { code: mask(told.code), message: mask(told.message), param: mask(told.param), ..told };
        let retry_after = self.retry_after(&answer.headers);
        let cause = match (answer.status, ours) {
            (401, IsOurs::Yes) => Cause::KeyRefused(told),
            // A 403 on one customer or one write says nothing about the key; see `Cause::KeyRefused`.
            (403, IsOurs::Yes) if matches!(call, Call::List { .. }) => Cause::KeyRefused(told),
            (429, _) => Cause::Throttled(told),
            (503, _) if retry_after.is_some() => Cause::Throttled(told),
            // What the bank says of a card comes as a bad gateway, and is its last word too.
            (502, _) if told.code.as_deref().is_some_and(|code| CARD_REFUSALS.contains(&code)) => {
                Cause::Rejected(told)
            }
            // 408 and 409 pass; any other 4xx of the API itself is its last word.
            (408 | 409, _) => Cause::Unexpected(told),
            (400..=499, IsOurs::Yes) => Cause::Rejected(told),
            (300..=399, _) => {
                Cause::Redirected { status: told.status, to: self.redirect_target(&answer.headers) }
            }
            (200..=299, _) => Cause::Unusable(format!("answered HTTP {} where 200 is due", told.status)),
            _ => Cause::Unexpected(told),
        };
        let retry_after = retry_after.map(|wanted| self.limiter.pause(wanted));
        RemoteError { call: call.clone(), cause, retry_after }
    }

    /// Where a redirect leads, as the server writes it.
    fn redirect_target(&self, headers: &HeaderMap) -> Option<String> {
        let location = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned();
        let shown: String = self.masker.text(&location).chars().take(LONGEST_TARGET).collect();
        Some(shown).filter(|shown| !shown.is_empty())
    }

    /// A failed exchange in words: the URL is left out (the call is named already), the whole chain of causes is kept. A rejected
    /// certificate is named by the host that should have been proven.
    fn said(&self, step: Step, error: reqwest::Error) -> String {
        let error = error.without_url();
        let host = self.base_url.host_str().unwrap_or_default();
        let wrong = match step {
            Step::Tls(Certificate::Untrusted) => "not trusted",
            Step::Tls(Certificate::Untimely) => "not valid now",
            _ if error.is_timeout() => return "it took too long".to_owned(),
            _ => return chain(&error),
        };
        let why = tls_in(&error).map(ToString::to_string).unwrap_or_default();
        format!("the certificate of {host} is {wrong} ({why})")
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

impl Remote for Http {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        self.listed(query).await
    }

    async fn show(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.shown(id, Share::Read).await
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        self.limiter.paused_until()
    }

    fn server_time(&self) -> Option<Timestamp> {
        let (date, at) = (*self.server_date.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(self.clock.elapsed().saturating_sub(at)).ok()
    }
}

impl Http {
    /// Requests one page of the list and reads it.
    async fn listed(&self, query: PageQuery) -> Result<Page, RemoteError> {
        let call = Call::List { page: query.page };
        let mut url = self.url(&["customers"]);
        {
            let mut pairs = url.query_pairs_mut();
            pairs
                .append_pair("page", &query.page.to_string())
                .append_pair("per_page", &query.per_page.to_string());
            if let Some(from) = query.created_from {
                // Whole seconds, as the API writes them.
                pairs.append_pair("start_time", &format!("{from:.0}"));
            }
        }
        let mut meter = Meter::new(&call, &*self.clock);
        let limit = if query.per_page == 1 { ONE_CUSTOMER } else { self.largest_answer };
        let terms = Terms { share: Share::Read, limit };
        let listed = match self.get(&call, terms, url, &mut meter).await {
            Ok(answer) if answer.is_whole => wire::page(&answer.body).map_err(|why| {
                let cause = Cause::Unusable(self.masker.text(&why));
                RemoteError { call, cause, retry_after: None }
            }),
            Ok(answer) => {
                let cause = too_large(limit, wire::beginning(&answer.body));
                Err(RemoteError { call, cause, retry_after: None })
            }
            Err(error) => Err(error),
        };
        match &listed {
            Ok(_) => meter.answered(true),
            Err(error) => meter.failed(error),
        }
        listed
    }

    async fn shown(&self, id: &CustomerId, share: Share) -> Result<Shown, RemoteError> {
        let call = Call::Show { id: self.masker.text(id.as_str()) };
        let mut meter = Meter::new(&call, &*self.clock);
        let url = self.url(&["customers", id.as_str()]);
        let terms = Terms { share, limit: ONE_CUSTOMER };
        let shown = match self.get(&call, terms, url, &mut meter).await {
            Ok(answer) => match wire::one_customer(&answer.body, answer.is_whole) {
                Answered::Customer(customer) if customer.id() == id => match customer.is_deleted() {
                    true => Ok(Shown::NotFound),
                    false => Ok(Shown::Found(customer)),
                },
                Answered::Unreadable(bad) if bad.id.as_ref().is_none_or(|shown| shown == id) => {
                    Ok(Shown::Unreadable(bad))
                }
                other => {
                    let why = match other {
                        Answered::Other(why) => why,
                        _ => "the answer is about another customer".to_owned(),
                    };
                    let cause = Cause::Unusable(self.masker.text(&why));
                    Err(RemoteError { call, cause, retry_after: None })
                }
            },
            Err(RemoteError { cause: Cause::Rejected(told), .. }) if matches!(told.status, 404 | 410) => {
                Ok(Shown::NotFound)
            }
            Err(other) => Err(other),
        };
        match &shown {
            Ok(Shown::Unreadable(_)) => meter.unreadable(),
            Ok(shown) => meter.answered(matches!(shown, Shown::Found(_))),
            Err(error) => meter.failed(error),
        }
        shown
    }

    async fn pushed(&self, push: &Push, call: &Call, meter: &mut Meter<'_>) -> Result<Pushed, PushError> {
        let (request, asked) = match push {
            Push::Create { key, body } => {
                let request = self.client.post(self.url(&["customers"]));
                (request.header("x-komoju-idempotency", key).body(body.text()), None)
            }
            Push::Update { id, body } => {
                let request = self.client.patch(self.url(&["customers", id.as_str()]));
                (request.body(body.text()), Some(id))
            }
            Push::Delete { id } => (self.client.delete(self.url(&["customers", id.as_str()])), Some(id)),
        };
        let request = match push {
            Push::Delete { .. } => request,
            _ => request.header(CONTENT_TYPE, "application/json"),
        };
        let answer = self
            .exchange(call, Terms { share: Share::Write, limit: ONE_CUSTOMER }, request, meter)
            .await
            .map_err(|Unmade { cause, left }| PushError {
                error: RemoteError { call: call.clone(), cause, retry_after: None },
                left,
            })?;
        let answer = match push {
            Push::Create { body, .. } | Push::Update { body, .. } => without(answer, body.token()),
            Push::Delete { .. } => answer,
        };
        match answer.status {
            // Something in front of the API answered: nobody knows what became of the request.
            200..=299 if wire::is_web_page(&answer.body) => {
                let cause = Cause::Unexpected(wire::error(answer.status, &answer.body).0);
                let error = RemoteError { call: call.clone(), cause, retry_after: None };
                Err(PushError { error, left: Left::Perhaps })
            }
            // It took effect; an answer that cannot be read does not change that.
            200..=299 => {
                let is_its = |shown: &CustomerId| asked.is_none_or(|asked| shown == asked);
                let customer = match wire::one_customer(&answer.body, answer.is_whole) {
                    Answered::Customer(customer) if is_its(customer.id()) => PushedCustomer::Shown(customer),
                    Answered::Unreadable(bad) if bad.id.as_ref().is_none_or(is_its) => {
                        PushedCustomer::Unreadable(bad)
                    }
                    _ => PushedCustomer::None,
                };
                Ok(Pushed::Took { customer, status: answer.status })
            }
            _ => match self.error_of(call, &answer) {
                RemoteError { cause: Cause::Rejected(told), .. }
                    if told.status == 404 && told.code.as_deref() == Some("not_found") && asked.is_some() =>
                {
                    Ok(Pushed::NotFound { told })
                }
                error => Err(PushError { error, left: Left::Perhaps }),
            },
        }
    }
}

impl PushRemote for Http {
    async fn push(&self, push: &Push) -> Result<Pushed, PushError> {
        let call = match push {
            Push::Create { .. } => Call::Create,
            Push::Update { id, .. } => Call::Update { id: self.masker.text(id.as_str()) },
            Push::Delete { id } => Call::Delete { id: self.masker.text(id.as_str()) },
        };
        let mut meter = Meter::new(&call, &*self.clock);
        let pushed = self.pushed(push, &call, &mut meter).await;
        match &pushed {
            Ok(pushed) => meter.answered(matches!(pushed, Pushed::Took { .. })),
            Err(refused) => meter.failed(&refused.error),
        }
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.shown(id, Share::Write).await
    }
}

/// An error that repeats the token it was given, without it: before anything is made of its text.
fn without(answer: Answer, token: Option<&str>) -> Answer {
    match token.filter(|token| !token.is_empty() && !(200..=299).contains(&answer.status)) {
        Some(token) => {
            let body = String::from_utf8_lossy(&answer.body).replace(token, MASK).into_bytes();
            Answer { body, ..answer }
        }
        None => answer,
    }
}

/// A page that is too long: to be read in parts where it is a list, otherwise something that is not the API.
fn too_large(limit: usize, begun: Option<Beginning>) -> Cause {
    let limit_kib = limit >> 10;
    match begun {
        Some(begun) => Cause::TooLarge { limit_kib, begun },
        None => Cause::Unusable(format!("the answer is larger than {limit_kib} KiB, and not a list")),
    }
}

/// The server's clock.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    date.try_into().ok()
}

/// How far a failed exchange came.
fn step_of(error: &reqwest::Error, is_proxied: bool) -> Step {
    if let Some(tls) = tls_in(error) {
        return Step::Tls(certificate_in(tls));
    }
    match error.is_connect() {
        true if is_proxied => Step::Proxy,
        // The client tells this in words alone.
        true if chain(error).contains("dns error") => Step::Name,
        true => Step::Connection,
        false => Step::Answer,
    }
}

/// TLS's own error among the causes.
fn tls_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An I/O error keeps what it was made of to itself: its `source` is what comes after that.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match error.downcast_ref() {
        None => inner.and_then(|inner| tls_in(inner)).or_else(|| error.source().and_then(tls_in)),
        found => found,
    }
}

fn certificate_in(error: &rustls::Error) -> Certificate {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => Certificate::Untimely,
        rustls::Error::InvalidCertificate(_) => Certificate::Untrusted,
        _ => Certificate::Unchecked,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_found_among_the_causes_and_a_certificate_out_of_time_is_told_apart() {
        use rustls::{CertificateError, Error};
        let wrapped = |error: Error| std::io::Error::other(std::io::Error::other(error));
        let cases = [
            (Error::InvalidCertificate(CertificateError::Expired), Certificate::Untimely),
            (Error::InvalidCertificate(CertificateError::NotValidYet), Certificate::Untimely),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), Certificate::Untrusted),
            (Error::DecryptError, Certificate::Unchecked),
        ];
        for (error, expected) in cases {
            assert_eq!(tls_in(&wrapped(error)).map(certificate_in), Some(expected));
        }
        assert!(tls_in(&std::io::Error::other("reset")).is_none());
    }
}
