//! A local KOMOJU: the customers API over HTTP, with a population, a clock, and faults on request.
//!
//! It shares no type and no constant with the client side, so that it cannot share its mistakes.
//! [`Readings`] decide how it behaves where KOMOJU's documents are silent. A [`Fault`] says which
//! requests go wrong, and how.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use komoju_sandbox::{Call, Effect, Fault, Options, Sandbox};
//!
//! let sandbox = Sandbox::start(Options::default()).await?;
//! let fault = Fault::new(Effect::status(503)).call(Call::List).page(2).once();
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
//! | `requests`, `stats` | GET what was asked and how often; DELETE |
//! | `trickle` | POST: some plausible changes |
//!
//! ```text
//! server/connection ── routes ──► server
//!                                   │
//!                                   ▼
//!    world/arrival: log, faults fire, key, idempotency       (locked)
//!                                   │ delay, hold            (not locked)
//!                                   ▼
//!    api: takes effect ──► faults/shape, faults/drift        (locked)
//!                                   │
//!                                   ▼
//!    outcome: replaced, cut, dripped ──► wire
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
mod wire;
mod world;

/// One switch for each thing about KOMOJU's API that is not known.
pub mod readings;

pub use account::Account;
pub use api::keys::{OldKey, Refusal};
pub use faults::{Call, Drift, Echo, Effect, Ending, Fault, FaultId, Match, Payload, Region, Whither, Work};
pub use log::Seen;
pub use options::{Options, SandboxError};
pub use readings::{Readings, Repeated};
pub use server::WorldGuard;
pub use world::World;

use server::{Server, connection};

/// A running sandbox. It stops when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    server: Arc<Server>,
    address: SocketAddr,
    key: String,
}

impl Sandbox {
    /// Starts on the runtime of the caller. On return it listens.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        let listen = options.listen;
        let cannot = |source| SandboxError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let server = Arc::new(Server::new(World::new(&options), options.frozen_lists));
        server.tasks.spawn(connection::listen(Arc::clone(&server), listener));
        Ok(Self { server, address, key: options.key })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The API's base URL, such as `http://127.0.0.1:PORT/api/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// The key it started with. [`World::key`] knows the newest.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it holds, to look at and to change. No request goes on meanwhile.
    ///
    /// # Panics
    ///
    /// When this thread has it already: twice in one expression, or kept across an `await`.
    #[track_caller]
    pub fn world(&self) -> WorldGuard<'_> {
        self.server.world()
    }

    /// Waits until something holds. It is looked at after each request, answer and removed fault.
    pub async fn until(&self, holds: impl FnMut(&World) -> bool) {
        self.server.until(holds).await;
    }

    /// Ends every connection and waits until nothing of it runs.
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
