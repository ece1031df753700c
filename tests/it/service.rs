//! The daemon as a service: signals, systemd, cadence, health, metrics and alerts.

mod alerts;
mod cadence;
mod doors;
mod exposition;
mod http;
mod manager;
mod metrics;
mod signals;
mod stops;
mod wall_clock;

use std::time::Duration;

use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Process, signal};

/// Stops the daemon and returns the time that this took.
pub(crate) fn stop(mut daemon: Process) -> Duration {
    let since = SystemClock::new();
    signal("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    since.elapsed()
}
