//! SIGINT and SIGTERM: the first ends the work at its next safe point, the second ends the process at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::print;

/// Turns signals into `stop` for as long as it is polled.
pub(super) async fn watch(stop: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut told = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if told {
            print::error(
                "stopped at once by a second signal; what was under way is done again at the next start",
            );
            std::process::exit(1);
        }
        told = true;
        stop.cancel();
    }
}
