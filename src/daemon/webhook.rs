//! The receiver of KOMOJU's webhooks: one POST path at `webhook.listen`.
//!
//! ```text
//!   listen ─▶ at most 16 connections ─▶ one request each, within 10 s ─▶ signature ─▶ hint ─▶ 200
//!                  └ the 17th: 503
//! ```
//!
//! A webhook is a hint: it names a customer, which the daemon then requests. A lost or repeated
//! webhook does no harm. A forged one is refused; if the secret leaked, it causes one request.
//!
//! Invariants:
//! - Nothing of a body is parsed before its signature is verified.
//! - An event is answered 200 only after its hint is committed. Where that is not possible now, the
//!   answer is 503 and KOMOJU delivers the event again. An event is recognized by its id.
//! - No answer has a body. No log line contains a secret or any text of a request.
//!
//! These designs were rejected:
//! - Closing the oldest connection for a new one, as for health and metrics. KOMOJU delivers again
//!   after a 503.
//! - TLS. A proxy has the certificate already.

mod hints;
mod limit;
mod notice;
mod request;
mod secret;

use std::sync::Arc;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use request::Shared;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::listen::connection::{self, AFTER_NO_ROOM, LAST_ANSWERS};
use crate::daemon::listen::{BindError, Socket};
use crate::secret::WebhookSecretError;

pub use hints::{HintSink, WorkInUse};
pub use secret::SecretInUse;

/// MOST_CONNECTIONS controls how many connections are served at once. One webhook takes
/// milliseconds, and KOMOJU delivers again after a 503.
const MOST_CONNECTIONS: usize = 16;

/// Why the receiver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// There is no usable secret.
    #[error(transparent)]
    Secret(#[from] WebhookSecretError),
    /// `webhook.listen` cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// The receiver; nothing if `webhook.listen` is not set.
pub struct WebhookReceiver(Option<Receiving>);

/// A receiver that listens.
struct Receiving {
    socket: Socket,
    shared: Arc<Shared>,
}

impl WebhookReceiver {
    /// Finds the secret and listens at `webhook.listen`. Requests are answered from
    /// [`WebhookReceiver::serve_while`] on.
    ///
    /// # Errors
    /// There is no usable secret, or the address cannot be used.
    pub fn bind(
        config: &Config,
        hints: HintSink,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Result<Self, ReceiverError> {
        let Some(listen) = &config.webhook.listen else { return Ok(Self(None)) };
        let secret = SecretInUse::find(&config.webhook)?;
        let socket = Socket::bind("webhook.listen", listen)?;
        tracing::info!("webhooks: POST {} at {}", config.webhook.path, socket.shown());
        let shared = Shared::new(config.webhook.path.clone(), secret, hints, clock, stop.child_token());
        Ok(Self(Some(Receiving { socket, shared: Arc::new(shared) })))
    }

    /// Returns the secret, for reading it again; none if `webhook.listen` is not set.
    pub fn secret(&self) -> Option<Arc<SecretInUse>> {
        self.0.as_ref().map(|receiving| Arc::clone(&receiving.shared.secret))
    }

    /// Runs `work` and answers requests until `work` ends or the daemon stops.
    pub async fn serve_while<T>(self, work: impl Future<Output = T>) -> T {
        let Some(receiving) = self.0 else { return work.await };
        let quit = receiving.shared.quit.clone();
        // In a separate task, so that it answers while the work is blocked.
        let tasks = TaskTracker::new();
        tasks.spawn(receiving.serve());
        let value = work.await;
        quit.cancel();
        tasks.close();
        tasks.wait().await;
        value
    }
}

impl Receiving {
    /// Serves connections until the stop, then waits briefly for answers in progress.
    async fn serve(self) {
        let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let mut refusals = JoinSet::new();
        let clock = Arc::clone(&self.shared.clock);
        loop {
            tokio::select! {
                biased;
                () = self.shared.quit.cancelled() => break,
                Some(_) = connections.join_next() => {}
                Some(_) = refusals.join_next() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok(io) if connections.len() < MOST_CONNECTIONS => {
                        let router = request::router(Arc::clone(&self.shared));
                        connections.spawn(connection::serve(io, router, &graceful, Arc::clone(&clock)));
                    }
                    Ok(io) => {
                        self.shared.note_busy("16 requests were in progress");
                        if refusals.len() < limit::MOST_REFUSALS {
                            refusals.spawn(limit::refuse(io, Arc::clone(&clock)));
                        }
                    }
                    Err(e) => {
                        tracing::warn!("cannot accept a connection on webhook.listen: {e}");
                        clock.sleep(AFTER_NO_ROOM).await;
                    }
                },
            }
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = clock.sleep(LAST_ANSWERS) => {}
        }
        // Each of them may hold the database open.
        connections.shutdown().await;
        refusals.shutdown().await;
    }
}
