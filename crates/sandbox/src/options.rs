//! The options of a sandbox, and the errors of its start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use crate::readings::Readings;

/// The options of a sandbox.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 is any free port.
    pub listen: SocketAddr,
    /// The default account's key.
    pub key: String,
    /// The seed of the customers. The same seed gives the same customers.
    pub seed: u64,
    /// The number of customers at the start.
    pub customers: u32,
    /// The behaviour that KOMOJU does not document.
    pub readings: Readings,
    /// The time of a stopped clock; without it, the clock follows the system's.
    pub now: Option<Timestamp>,
    /// The least time that each request takes.
    pub latency: Duration,
    /// Whether each list is always answered with its first answer, from memory. This is for
    /// benchmarks: keys, changes and faults have no effect on these answers.
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

/// Why a sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address cannot be used.
    #[error("the sandbox cannot listen on {listen}; choose another address, or port 0 for any free one")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}
