//! Owns the options of a sandbox, and the error of a start that failed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use crate::readings::Readings;

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
