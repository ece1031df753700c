//! Health and metrics over HTTP: `GET /healthz`, `/readyz` and `/metrics` at `http.listen` (docs/metrics.md).
//!
//! ```text
//!   listen ─▶ at most 32 connections ─▶ one request each, within 10 s ─▶ an answer out of what was observed last
//! ```
//!
//! A request can do no harm: answers are made from the last observed [`Standing`] and the sizes of files; connections, their heads
//! and their time are bounded; where all places are taken the oldest connection makes room (`places`). Only where the last
//! observation says that the mirror is not ready is the observer asked to look once more, so that the end of the first sweep is seen
//! at once. An answer reveals nothing about a customer: it holds no id, no address, no key and no text from elsewhere, so that
//! it does not matter by which name (`Host`) a browser was led here.
//!
//! An address that cannot be had ends the start: monitoring that is silently not there is noticed when it is too late.
//!
//! Rejected: keeping connections open (one scrape in 15 seconds gains nothing by it), answering from the database (a scrape would
//! wait for its lock), and a password (an address on this machine or a socket's mode does better, and a proxy can do the rest).

mod gauges;
mod listen;
mod places;
mod ready;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use gauges::Gauges;
use listen::{Io, Socket};
use places::Places;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::status::{LookRequest, Standing};
use crate::heartbeat::Health;
use crate::{metrics, store};

pub use listen::BindError;

/// How long the head of a request may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may take in all.
const ALL_WITHIN: Duration = Duration::from_secs(10);

/// How large the head of a request may be.
const LARGEST_HEAD: usize = 16 << 10;

/// How long a stop waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// How long the daemon may take from one look at its loops to the next before it hangs itself.
const LONGEST_LOOK: Duration = Duration::from_secs(180);

/// How long taking connections pauses when the system has nothing left for one.
const AFTER_NO_ROOM: Duration = Duration::from_millis(100);

/// LONGEST_FRESH_LOOK controls how long an answer waits for a fresh look.
const LONGEST_FRESH_LOOK: Duration = Duration::from_millis(500);

/// How long to the next look at the metrics' own memory where nothing was observed.
const TIDY_ANYWAY: Duration = Duration::from_secs(60);

/// Whoever listens, or nobody where `http.listen` is not set.
pub struct Server(Option<Listening>);

struct Listening {
    socket: Socket,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// What answers are made of.
struct Shared {
    standings: watch::Receiver<Option<Arc<Standing>>>,
    health: watch::Receiver<Health>,
    /// Asks the observer to look now.
    looks: mpsc::Sender<LookRequest>,
    /// When the last of them came, by the steady clock.
    observed_at: Mutex<Option<Duration>>,
    clock: Arc<dyn Clock>,
    gauges: Gauges,
    recorder: metrics::Recorder,
}

impl Server {
    /// Listens at `http.listen`, and begins to count. Nothing is answered before [`Server::beside`]. An address that cannot be had is
    /// an error; an address that others can reach is served with a warning, for it was written down.
    pub fn bind(
        config: &Config,
        standings: watch::Receiver<Option<Arc<Standing>>>,
        health: watch::Receiver<Health>,
        looks: mpsc::Sender<LookRequest>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, BindError> {
        let Some(listen) = &config.http.listen else { return Ok(Self(None)) };
        let socket = Socket::bind(listen)?;
        let gauges = Gauges::new(config);
        let recorder = metrics::Recorder::install(store::sqlite_version());
        let started = clock.now().as_second() - i64::try_from(clock.elapsed().as_secs()).unwrap_or(0);
        metrics::set(metrics::START_TIME, started as f64);
        let observed_at = Mutex::new(None);
        let shared = Shared { standings, health, looks, observed_at, clock, gauges, recorder };
        tracing::info!("health and metrics at {}", socket.shown());
        Ok(Self(Some(Listening { socket, shared: Arc::new(shared), stop })))
    }

    /// Answers while `work` goes on and nobody says stop; ends with `work`.
    pub async fn beside<T>(self, work: impl Future<Output = T>) -> T {
        let Some(listening) = self.0 else { return work.await };
        let quit = listening.stop.child_token();
        // In a task of its own: it answers though the work should be stuck, in a lock that somebody else holds say.
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
    async fn serve(self, quit: CancellationToken) {
        let mut connections = FuturesUnordered::new();
        let mut places = Places::default();
        let clock = &*self.shared.clock;
        let mut observed = pin!(self.shared.keep_watching());
        loop {
            tokio::select! {
                biased;
                () = quit.cancelled() => break,
                never = &mut observed => match never {},
                Some(number) = connections.next() => places.leave(number),
                accepted = self.next(places.wait(clock.elapsed())) => match accepted {
                    Ok(io) => {
                        let (number, closed) = places.take(clock.elapsed());
                        let served = self.connection(io, &quit);
                        connections.push(async move {
                            closed.run_until_cancelled(served).await;
                            number
                        });
                    }
                    // A client that is gone already, or nothing left to serve one with; neither is a reason to end.
                    Err(e) => {
                        tracing::warn!("a connection to http.listen could not be taken: {e}");
                        clock.sleep(AFTER_NO_ROOM).await;
                    }
                },
            }
        }
        tokio::select! {
            () = async { while connections.next().await.is_some() {} } => {}
            () = clock.sleep(LAST_ANSWERS) => {}
        }
    }

    /// The next connection, not before `wait` has passed.
    async fn next(&self, wait: Duration) -> std::io::Result<Io> {
        if !wait.is_zero() {
            self.shared.clock.sleep(wait).await;
        }
        self.socket.accept().await
    }

    /// One connection, one request.
    async fn connection(&self, io: Io, quit: &CancellationToken) {
        let service = TowerToHyperService::new(router(Arc::clone(&self.shared)));
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(LARGEST_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(io), service)
        );
        let mut late = pin!(self.shared.clock.sleep(ALL_WITHIN));
        let mut quits = pin!(quit.cancelled());
        let mut quitting = false;
        loop {
            // However it ends, it is the client's affair.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = &mut late => return,
                () = &mut quits, if !quitting => {
                    quitting = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

impl Shared {
    /// Notes when it was last observed how things stand, and keeps the metrics' memory short.
    async fn keep_watching(&self) -> Infallible {
        let mut standings = self.standings.clone();
        loop {
            tokio::select! {
                changed = standings.changed() => match changed {
                    Ok(()) => self.note_observed(standings.borrow_and_update().is_some()),
                    // Nobody will tell any more.
                    Err(_) => std::future::pending().await,
                },
                () = self.clock.sleep(TIDY_ANYWAY) => {}
            }
            self.recorder.tidy();
        }
    }

    fn note_observed(&self, is_known: bool) {
        let at = is_known.then(|| self.clock.elapsed());
        *self.observed_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Why the mirror cannot be relied on, as of now: where the last look found a reason, another one is asked for.
    async fn reasons(&self) -> Vec<String> {
        let reasons = self.last_reasons();
        let (looked, done) = oneshot::channel();
        if reasons.is_empty() || self.looks.try_send(looked).is_err() {
            return reasons;
        }
        tokio::select! {
            _ = done => {}
            () = self.clock.sleep(LONGEST_FRESH_LOOK) => {}
        }
        self.last_reasons()
    }

    fn last_reasons(&self) -> Vec<String> {
        let standing = self.standings.borrow().clone();
        let observed_at = *self.observed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = observed_at.map(|at| self.clock.elapsed().saturating_sub(at));
        ready::reasons(standing.as_deref(), ago)
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(other_method)
        .fallback(other_path)
        .with_state(shared)
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match hang(*shared.health.borrow(), shared.clock.elapsed()) {
        None => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(hang) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{hang}\n")),
    }
}

/// What hangs: one of the daemon's loops, or all that looks after them.
fn hang((looked_at, stall): Health, now: Duration) -> Option<String> {
    let ago = now.saturating_sub(looked_at);
    match stall {
        Some(stall) => Some(stall.to_string()),
        None if ago > LONGEST_LOOK => Some(format!("nothing has got on for {} s", ago.as_secs())),
        None => None,
    }
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    let reasons = shared.reasons().await;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    answer(status, "application/json", format!("{body}\n"))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let is_ready = shared.reasons().await.is_empty();
    let (standing, now) = (shared.standings.borrow().clone(), shared.clock.now());
    // Looking at files may wait for a disk.
    let work = Arc::clone(&shared);
    let rendered = tokio::task::spawn_blocking(move || {
        work.gauges.set(standing.as_deref(), is_ready, now);
        work.recorder.render()
    });
    match rendered.await {
        Ok(text) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        // The program ends.
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the daemon stops\n".to_owned()),
    }
}

async fn other_path() -> Response {
    let text = "there is nothing here; try /healthz, /readyz or /metrics\n";
    answer(StatusCode::NOT_FOUND, TEXT, text.to_owned())
}

async fn other_method() -> Response {
    let text = "only GET and HEAD are answered here\n";
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, text.to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Stalled;

    #[test]
    fn a_loop_that_hangs_is_no_health_nor_is_a_daemon_that_does_not_look() {
        let now = Duration::from_secs(1000);
        assert_eq!(hang((now, None), now), None);
        assert_eq!(hang((now, None), now + LONGEST_LOOK), None);
        assert!(hang((now, None), now + LONGEST_LOOK + Duration::from_secs(1)).is_some());
        let stall = Stalled { name: "pushing intents", stalled: Duration::from_secs(130) };
        assert_eq!(
            hang((now, Some(stall)), now).as_deref(),
            Some("pushing intents has not got on for 130 s")
        );
    }
}
