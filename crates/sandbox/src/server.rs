//! Listening, and the life of a request.
//!
//! This is hyper without a framework on top: a fault may have to reset the very connection a request came by, which a
//! router does not know. A request is worked on in a task of its own and takes effect although the client has gone away,
//! as at a real server.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control;
use super::fault::Ending;
use super::frozen::{self, Frozen};
use super::lock::{Lock, WorldGuard};
use super::outcome::{Body, Hangup, Outcome};
use super::request::Request;
use super::wire::{Line, Wire};
use super::world::World;

/// Larger requests are refused.
const BODY_MOST: usize = 64 * 1024 * 1024;

/// What the tasks of a sandbox share.
#[derive(Debug)]
pub(super) struct Server {
    lock: Lock,
    frozen: Option<Frozen>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Server {
    pub(super) fn new(world: World, frozen_lists: bool) -> Self {
        let frozen = frozen_lists.then(|| Frozen::new(world.latency()));
        Self { lock: Lock::new(world), frozen, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    #[track_caller]
    pub(super) fn world(&self) -> WorldGuard<'_> {
        self.lock.lock()
    }

    /// Waits until something holds. It is looked at after each request, answer and removed fault.
    pub(super) async fn until(&self, mut holds: impl FnMut(&World) -> bool) {
        let mut changes = self.world().changes();
        while !holds(&self.world()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes connections until the stop.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    self.tasks.spawn(Arc::clone(&self).connection(stream));
                }
                // Out of file descriptors, as a rule; the connection stays in the backlog.
                Err(error) => {
                    tracing::warn!(%error, "the sandbox cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without this, small answers wait for acknowledgements. Where it cannot be set, they do.
        let _ = stream.set_nodelay(true);
        let line = Arc::new(Line::default());
        let wire = TokioIo::new(Wire::new(stream, Arc::clone(&line)));
        let service = service_fn(|request| self.answer(request, &line));
        let connection = http1::Builder::new().serve_connection(wire, service);
        // A connection ends as its client, a fault or the stop wants; none of these is news.
        let _ = self.stop.run_until_cancelled(connection).await;
    }

    async fn answer(
        self: &Arc<Self>,
        request: hyper::Request<Incoming>,
        line: &Arc<Line>,
    ) -> Result<Response<Body>, Hangup> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_MOST).collect().await else {
            return Err(Hangup);
        };
        let request = Request {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: body.to_bytes(),
        };
        if let Some(frozen) = &self.frozen
            && let Some(outcome) = frozen.thaw(&request).await
        {
            return outcome.respond(line);
        }
        let list = (self.frozen.is_some() && frozen::is_list(&request)).then(|| request.query.clone());
        let task = {
            let (server, stop) = (Arc::clone(self), self.stop.clone());
            async move { stop.run_until_cancelled_owned(server.work(request)).await }
        };
        let outcome = self.tasks.spawn(task).await.ok().flatten();
        let outcome = outcome.unwrap_or(Outcome::Hangup(Ending::Close));
        if let (Some(frozen), Some(query)) = (&self.frozen, list) {
            frozen.freeze(query, &outcome);
        }
        outcome.respond(line)
    }

    async fn work(self: Arc<Self>, request: Request) -> Outcome {
        if request.path.starts_with(control::BASE) {
            let mut world = self.world();
            let answer = control::answer(&mut world, &request);
            return Outcome::plain(answer, world.now());
        }
        let arrival = self.world().arrive(&request);
        if !arrival.wait.is_zero() {
            tokio::time::sleep(arrival.wait).await;
        }
        for &hold in &arrival.holds {
            self.until(|world| !world.is_armed(hold)).await;
        }
        self.world().complete(&request, arrival)
    }
}
