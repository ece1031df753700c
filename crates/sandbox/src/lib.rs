//! A local KOMOJU: the customers API over HTTP, with a population, a clock, events, webhooks, and
//! faults on request.
//!
//! It shares no type and no constant with the product, so that it cannot share its mistakes.
//! [`Readings`] decide how it behaves where KOMOJU's documentation is silent. A [`Fault`] makes
//! chosen requests go wrong.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Options, Sandbox};
//!
//! let sandbox = Sandbox::start(Options::default()).await?;
//! let fault = Fault::new(FaultEffect::status(503)).call(FaultedCall::List).page(2).once();
//! let fault = sandbox.world().inject(fault);
//! // … point a client at sandbox.base_url() with sandbox.key() …
//! assert_eq!(sandbox.world().fired(fault), 1);
//! sandbox.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! The API is below `/api/v1`. The control calls are below `/_sandbox/` and need no key; they offer
//! the same over HTTP, and `GET /_sandbox/` lists them:
//!
//! | path | methods |
//! |---|---|
//! | `customers`, `customers/{id}` | GET the truth, POST (also raw, and to restore), PATCH, DELETE |
//! | `faults`, `faults/{id}` | GET with counters, POST, DELETE |
//! | `clock`, `readings`, `latency` | GET, POST or PATCH |
//! | `accounts`, `key`, `refusal` | POST: another account, a new key, refuse all keys |
//! | `events` | GET all of the list, POST: emit events without a change |
//! | `webhooks`, `webhooks/{id}` | GET, POST, DELETE |
//! | `deliveries`, `deliveries/settled` | GET with states, at once or once none is pending; DELETE |
//! | `requests`, `stats` | GET the logged requests and the counters; DELETE the log |
//! | `trickle` | POST: some plausible changes |
//!
//! ```text
//! server/connection ── routes ──► server
//!                                   │
//!                                   ▼
//!    world/arrival: log, faults, key, idempotency            (locked)
//!                                   │ delay, hold            (not locked)
//!                                   ▼
//!    api: runs the call ──► faults/shape, faults/drift       (locked)
//!                                   │
//!                                   ▼
//!    outcome: replaced, cut, dripped ──► HTTP
//!
//!    account/emit: an event ──► account/events: the list of events
//!                          └──► webhooks: queues ──► server/webhooks ──► HTTP to the receivers
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

mod account;
mod api;
mod clock;
mod control;
mod faults;
mod limit;
mod log;
mod options;
mod outcome;
mod population;
mod random;
mod request;
mod server;
mod webhooks;
mod wire;
mod world;

/// The switches for everything that KOMOJU does not document.
pub mod readings;

pub use account::{EventIds, SandboxAccount};
pub use api::keys::{KeyRefusal, OldKey};
pub use faults::{
    Drift, Echo, Ending, Fault, FaultEffect, FaultId, FaultedCall, FaultedWork, Match, Payload,
    RedirectTarget, Region,
};
pub use log::LoggedRequest;
pub use options::{Options, SandboxError};
pub use readings::{Readings, Repeated};
pub use server::WorldGuard;
pub use webhooks::{DeliveryState, SandboxWebhook, WebhookDelivery, WebhookError, WebhookId};
pub use world::World;

use server::{SandboxServer, connection, webhooks as deliveries};

/// A running sandbox. It stops when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    server: Arc<SandboxServer>,
    address: SocketAddr,
    key: String,
}

impl Sandbox {
    /// Starts a sandbox on the runtime of the caller. On return it listens.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        let listen = options.listen;
        let cannot = |source| SandboxError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let server = Arc::new(SandboxServer::new(World::new(&options), options.frozen_lists));
        server.tasks.spawn(connection::listen(Arc::clone(&server), listener));
        server.tasks.spawn(deliveries::attend(Arc::clone(&server)));
        Ok(Self { server, address, key: options.key })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the API's base URL, such as `http://127.0.0.1:PORT/api/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// Returns the key of the start. [`World::key`] returns the newest one.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Locks the state for reading and changing it. No request is processed meanwhile.
    ///
    /// # Panics
    /// This thread has locked it already: twice in one expression, or across an `await`.
    #[track_caller]
    pub fn world(&self) -> WorldGuard<'_> {
        self.server.world()
    }

    /// Registers a webhook of the default account. It gets a ping at once, and then the events of
    /// these types; all events if there is none.
    ///
    /// # Errors
    /// The URL is not a receiver on this machine; see [`SandboxWebhook::url`].
    ///
    /// # Panics
    /// As [`Sandbox::world`].
    #[track_caller]
    pub fn register_webhook(
        &self,
        url: &str,
        secret: &str,
        types: &[&str],
    ) -> Result<WebhookId, WebhookError> {
        let types = types.iter().map(|&kind| kind.to_owned()).collect();
        let webhook = SandboxWebhook { url: url.to_owned(), secret: secret.to_owned(), types };
        self.world().register_webhook(webhook)
    }

    /// Waits until no delivery of a webhook is pending.
    pub async fn until_deliveries_settle(&self) {
        self.until(World::deliveries_are_settled).await;
    }

    /// Waits until a condition holds. It is checked after each request, answer, removed fault,
    /// attempt of a delivery, and use of the readings.
    pub async fn until(&self, holds: impl FnMut(&World) -> bool) {
        self.server.until(holds).await;
    }

    /// Closes all connections and waits until all tasks have ended.
    pub async fn stop(self) {
        self.server.stop.cancel();
        self.server.tasks.close();
        self.server.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.stop.cancel();
    }
}
