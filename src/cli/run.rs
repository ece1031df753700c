//! `run`: the daemon.

use super::{ConfigFile, Exit, logging, signals};
use crate::app::App;
use crate::clock::SystemClock;

/// The daemon, in the foreground: a sweep at once, then at each tick of `inbound.sweep_cron` and `inbound.probe_cron`.
///
/// SIGTERM or SIGINT (Ctrl-C) stops it at its next safe point; a second one at once. A refused key does not end it: it says
/// so in `status` and tries again every 15 minutes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync --config ./config.toml run")]
pub(super) struct Args {}

pub(super) fn run(config: &ConfigFile, _: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    logging::start(&config.log);
    signals::until_stopped(Exit::Fine, |stop| async move {
        let app = App::start(&config, "run", SystemClock::shared(), stop).await?;
        tracing::info!(database = %config.database.path.display(), api = %config.api.base_url, "started");
        app.run(&config).await?;
        tracing::info!("stopped");
        Ok(Exit::Fine)
    })
}
