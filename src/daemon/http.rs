//! Health and metrics over HTTP: `GET /healthz`, `/readyz` and `/metrics` at `http.listen`
//! (docs/metrics.md).
//!
//! ```text
//!   listen ─▶ at most 32 connections ─▶ one request each, within 10 s ─▶ an answer from the last observation
//! ```
//!
//! A request can do no harm. Answers are built from the last observed [`Status`] and the sizes of
//! files. The number of connections, the size of their heads and their time are bounded. If all
//! places are taken, the oldest connection is closed for a new one (`places`). If the last
//! observation says that the mirror is not ready, a fresh one is requested. So the end of the first
//! sweep is seen at once. An answer contains no id, no address, no key and no text from outside, so
//! a foreign `Host` header does no harm.
//!
//! The start fails if the address cannot be used, because an operator would notice missing
//! monitoring too late.
//!
//! These designs were rejected:
//! - Keep-alive connections. A scrape every 15 seconds gains nothing by them.
//! - Answers from the database. A scrape would wait for its lock.
//! - A password. An address on this machine or the mode of a socket is better, and a proxy can add
//!   a password.
//! - `axum::serve`. It limits neither the head nor the number of connections.

mod gauges;
mod places;
mod ready;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use gauges::Gauges;
use places::Places;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::listen::connection::{self, AFTER_NO_ROOM, LAST_ANSWERS};
use crate::daemon::listen::{BindError, Io, Socket};
use crate::daemon::status::{Status, StatusRequest};
use crate::heartbeat::Health;
use crate::{metrics, store};

/// LONGEST_CHECK controls how long the daemon may take between two checks of its loops before it
/// counts as stalled itself.
const LONGEST_CHECK: Duration = Duration::from_secs(180);

/// LONGEST_FRESH_STATUS controls how long an answer waits for a fresh status.
const LONGEST_FRESH_STATUS: Duration = Duration::from_millis(500);

/// TIDY_EVERY controls how often recorded values are sorted into their buckets: each is kept until
/// then.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The listening server; nothing if `http.listen` is not set.
pub struct HttpServer(Option<Listening>);

/// A server that listens.
struct Listening {
    socket: Socket,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// The sources of all answers.
struct Shared {
    statuses: watch::Receiver<Option<Arc<Status>>>,
    health: watch::Receiver<Health>,
    /// Requests a fresh status.
    status_requests: mpsc::Sender<StatusRequest>,
    clock: Arc<dyn Clock>,
    gauges: Gauges,
    recorder: metrics::MetricsRecorder,
}

impl HttpServer {
    /// Listens at `http.listen` and begins to record metrics. Requests are answered from
    /// [`HttpServer::serve_while`] on. An address that other machines can reach is logged as a
    /// warning.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn bind(
        config: &Config,
        statuses: watch::Receiver<Option<Arc<Status>>>,
        health: watch::Receiver<Health>,
        status_requests: mpsc::Sender<StatusRequest>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, BindError> {
        let Some(listen) = &config.http.listen else { return Ok(Self(None)) };
        let socket = Socket::bind("http.listen", listen)?;
        if listen.is_public() {
            tracing::warn!(
                "http.listen = \"{listen}\": any client that reaches this address can read health and metrics without a password"
            );
        }
        let gauges = Gauges::new(config);
        let recorder = metrics::MetricsRecorder::install(store::sqlite_version());
        let started = clock.now().as_second() - i64::try_from(clock.elapsed().as_secs()).unwrap_or(0);
        metrics::set(metrics::START_TIME, started as f64);
        let shared = Shared { statuses, health, status_requests, clock, gauges, recorder };
        tracing::info!("health and metrics at {}", socket.shown());
        Ok(Self(Some(Listening { socket, shared: Arc::new(shared), stop })))
    }

    /// Runs `work` and answers requests until `work` ends or the daemon stops.
    pub async fn serve_while<T>(self, work: impl Future<Output = T>) -> T {
        let Some(listening) = self.0 else { return work.await };
        let quit = listening.stop.child_token();
        // In a separate task, so that the server answers while the work is blocked, for example by
        // another program's lock.
        let tasks = TaskTracker::new();
        tasks.spawn(listening.serve(quit.clone()));
        let value = work.await;
        quit.cancel();
        tasks.close();
        tasks.wait().await;
        value
    }
}

impl Listening {
    /// Serves connections until `quit`, then waits briefly for answers in progress.
    async fn serve(self, quit: CancellationToken) {
        let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let mut places = Places::default();
        let clock = &*self.shared.clock;
        let mut tidying = pin!(self.shared.keep_tidy());
        loop {
            tokio::select! {
                biased;
                () = quit.cancelled() => break,
                never = &mut tidying => match never {},
                Some(_) = connections.join_next() => {}
                accepted = self.next(places.wait(clock.elapsed())) => match accepted {
                    Ok(io) => {
                        let task = connections.spawn(self.connection(io, &graceful));
                        places.take(clock.elapsed(), task);
                    }
                    // The client has closed the connection, or no file handle is left. Neither ends
                    // the server.
                    Err(e) => {
                        tracing::warn!("cannot accept a connection on http.listen: {e}");
                        clock.sleep(AFTER_NO_ROOM).await;
                    }
                },
            }
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = clock.sleep(LAST_ANSWERS) => {}
        }
    }

    /// Accepts the next connection, after `wait`.
    async fn next(&self, wait: Duration) -> std::io::Result<Io> {
        if !wait.is_zero() {
            self.shared.clock.sleep(wait).await;
        }
        self.socket.accept().await
    }

    /// Serves one request, and ignores errors of the connection.
    fn connection(&self, io: Io, graceful: &GracefulShutdown) -> impl Future<Output = ()> + use<> {
        connection::serve(io, router(Arc::clone(&self.shared)), graceful, Arc::clone(&self.shared.clock))
    }
}

impl Shared {
    /// Tidies the recorder again and again, so that its memory stays small.
    async fn keep_tidy(&self) -> Infallible {
        loop {
            self.clock.sleep(TIDY_EVERY).await;
            self.recorder.tidy();
        }
    }

    /// Returns why the mirror cannot be relied on now. If the last status has a reason, this waits
    /// for a fresh one.
    async fn reasons(&self) -> Vec<String> {
        let reasons = self.last_reasons();
        let (answer, done) = oneshot::channel();
        if reasons.is_empty() || self.status_requests.try_send(answer).is_err() {
            return reasons;
        }
        tokio::select! {
            _ = done => {}
            () = self.clock.sleep(LONGEST_FRESH_STATUS) => {}
        }
        self.last_reasons()
    }

    /// Returns the reasons in the last status.
    fn last_reasons(&self) -> Vec<String> {
        ready::reasons(self.statuses.borrow().as_deref(), self.clock.elapsed())
    }
}

/// Returns the routes.
fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(other_method)
        .fallback(other_path)
        .with_state(shared)
}

/// Answers `/healthz`.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match stalled(*shared.health.borrow(), shared.clock.elapsed()) {
        None => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(stalled) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{stalled}\n")),
    }
}

/// Returns what has stalled: one of the daemon's loops, or the watchdog that checks them.
fn stalled((checked_at, stalled): Health, now: Duration) -> Option<String> {
    let ago = now.saturating_sub(checked_at);
    match stalled {
        Some(stalled) => Some(stalled.to_string()),
        None if ago > LONGEST_CHECK => {
            Some(format!("the daemon has not checked its loops for {} s", ago.as_secs()))
        }
        None => None,
    }
}

/// Answers `/readyz`.
async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    let reasons = shared.reasons().await;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    answer(status, "application/json", format!("{body}\n"))
}

/// Answers `/metrics`.
async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let is_ready = shared.reasons().await.is_empty();
    let (status, now) = (shared.statuses.borrow().clone(), shared.clock.now());
    // Reading the sizes of files may wait for a disk.
    let work = Arc::clone(&shared);
    let rendered = tokio::task::spawn_blocking(move || {
        work.gauges.set(status.as_deref(), is_ready, now);
        work.recorder.render()
    });
    match rendered.await {
        Ok(text) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        // The runtime shuts down.
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the daemon is stopping\n".to_owned()),
    }
}

/// Answers any other path.
async fn other_path() -> Response {
    let text = "unknown path; use /healthz, /readyz or /metrics\n";
    answer(StatusCode::NOT_FOUND, TEXT, text.to_owned())
}

/// Answers any other method.
async fn other_method() -> Response {
    let text = "method not allowed; use GET or HEAD\n";
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, text.to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The content type of plain text.
const TEXT: &str = "text/plain; charset=utf-8";

/// Returns an answer that browsers neither cache nor interpret.
fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Stalled;

    #[test]
    fn stalled_loop_and_missing_check_are_unhealthy() {
        let now = Duration::from_secs(1000);
        assert_eq!(stalled((now, None), now), None);
        assert_eq!(stalled((now, None), now + LONGEST_CHECK), None);
        assert!(stalled((now, None), now + LONGEST_CHECK + Duration::from_secs(1)).is_some());
        let pushing = Stalled { name: "pushing intents", stalled: Duration::from_secs(130) };
        assert_eq!(
            stalled((now, Some(pushing)), now).as_deref(),
            Some("pushing intents has made no progress for 130 s")
        );
    }
}
