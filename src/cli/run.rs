//! `run`: the daemon.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ConfigFile, Exit, logging, signals};
use crate::app::{App, AppError};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::http;

/// How soon a start is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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
        let clock = SystemClock::shared();
        let Some(app) = started(&config, &clock, &stop).await? else { return Ok(Exit::Fine) };
        let http = http::Server::bind(&config, app.standings(), app.health(), clock, stop)?;
        let (database, api) = (config.database.path.display(), &config.api.base_url);
        tracing::info!(%database, %api, "started: mirrors {api} in {database}");
        http.beside(app.run(&config)).await?;
        tracing::info!("stopped");
        Ok(Exit::Fine)
    })
}

/// Starts as soon as nobody is in the way who will be gone by himself: a lock of another program, a dry run. None where it is told to
/// stop before.
async fn started(
    config: &Config,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<App>, AppError> {
    let mut is_said = false;
    loop {
        match App::start(config, "run", Arc::clone(clock), stop.clone()).await {
            Err(AppError::Store(e)) if e.will_pass() => {
                if !is_said {
                    tracing::warn!("not started yet: {e}; it is tried again until that is over");
                    is_said = true;
                }
            }
            ended => return ended.map(Some),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = clock.sleep(AGAIN_AFTER) => {}
        }
    }
}
