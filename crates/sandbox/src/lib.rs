//! A local KOMOJU: the customers API over HTTP, with a population, a clock, and faults on request.
//!
//! It shares no type and no constant with the client side, so that it cannot share its mistakes. What KOMOJU does not say
//! is played as [`Readings`] ask. What goes wrong is a [`Fault`]: which requests it hits, and what it does to them.
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
//! The API is below `/api/v1`. Below `/_sandbox/`, without a key, is all of this over HTTP; `GET /_sandbox/` lists it:
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
//! server ── a request arrives ──► world: log, faults fire, key, idempotency   (locked)
//!    │                              │
//!    │ delay, hold                  ▼                                          (not locked)
//!    └─────────────────────────► customers: takes effect ──► shape, drift      (locked)
//!                                   │
//!                                outcome: replaced, cut, dripped ──► wire
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;

mod account;
mod answer;
mod auth;
mod bomb;
mod cards;
mod clock;
mod connection;
mod control;
mod customers;
mod drift;
mod events;
mod fault;
mod form;
mod frozen;
mod idempotency;
mod imprecise;
mod limit;
mod listing;
mod lock;
mod ordered;
mod outcome;
mod population;
mod random;
mod request;
mod serial;
mod server;
mod shape;
mod trickle;
mod wire;
mod world;

/// One switch for each thing about KOMOJU's API that is not known.
pub mod readings;

pub use account::Account;
pub use auth::{OldKey, Refusal};
pub use fault::{Call, Drift, Echo, Effect, Ending, Fault, FaultId, Match, Payload, Region, Whither, Work};
pub use lock::WorldGuard;
pub use readings::{Readings, Repeated};
pub use request::Seen;
pub use world::World;

use server::Server;

/// How a sandbox starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The default account's key.
    pub key: String,
    /// The same seed gives the same customers.
    pub seed: u64,
    /// How many customers there are at the start.
    pub customers: u32,
    /// How to play what KOMOJU does not say.
    pub readings: Readings,
    /// A clock that stands still at this time; without it, one that runs with the system's.
    pub now: Option<Timestamp>,
    /// How long every request takes at least.
    pub latency: Duration,
    /// Whether each list request is answered for ever as it was answered first, from memory: for measuring. Neither keys nor
    /// changes nor faults reach what is answered so.
    pub frozen_lists: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: "sk_test_sandbox".to_owned(),
            seed: 1,
            customers: 100,
            readings: Readings::default(),
            now: None,
            latency: Duration::ZERO,
            frozen_lists: false,
        }
    }
}

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address cannot be listened on.
    #[error("the sandbox cannot listen on {listen}; choose another address, or port 0 for any free one")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

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
