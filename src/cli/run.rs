//! `run`: the daemon.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::input_can_pass;
use super::{ConfigFile, Exit, logging, print, signals};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::webhook::WebhookReceiver;
use crate::daemon::{self, App, AppError, http};
use crate::store::Instance;
use komoju_core::time;

/// AGAIN_AFTER controls how soon a start is retried.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Run the daemon in the foreground: a sweep at once, then at each tick.
///
/// `inbound.sweep_cron` and `inbound.probe_cron` set the ticks.
///
/// SIGTERM or SIGINT (Ctrl-C) stops it at its next safe point; a second signal more than a second
/// later stops it at once. SIGHUP reads `api.secret_key_file` and `webhook.secret_file` again. A
/// refused key does not end the daemon: `status` reports it, and the daemon tries the key again
/// every 15 minutes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync --config ./config.toml run")]
pub(super) struct RunArgs {}

pub(super) fn run(config: &ConfigFile, _: &RunArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    logging::start(&config.log);
    signals::until_stopped(Exit::Fine, |stop| async move {
        // From here on SIGHUP does not end the process. One that arrives during the start is
        // handled after it.
        let mut hangup = signal(SignalKind::hangup())?;
        let clock = SystemClock::shared();
        let Some(app) = started(&config, &clock, &stop).await? else { return Ok(Exit::Fine) };
        let http = http::HttpServer::bind(
            &config,
            app.statuses(),
            app.health(),
            app.status_requests(),
            app.clock(),
            stop.clone(),
        )?;
        let webhooks = WebhookReceiver::bind(&config, app.hint_sink(), app.clock(), &stop)?;
        let webhook_secret = webhooks.secret();
        let (database, api) = (config.database.path.display(), &config.api.base_url);
        tracing::info!(%database, %api, "started: mirrors {api} in {database}");
        let reload = async || {
            hangup.recv().await;
            webhook_secret.iter().for_each(|secret| secret.read_again());
        };
        // Boxed, because the compiler limits how deeply futures nest.
        let work = Box::pin(webhooks.serve_while(app.run(&config, reload)));
        http.serve_while(work).await?;
        tracing::info!("stopped");
        Ok(Exit::Fine)
    })
}

/// Starts the daemon, and retries while a condition that may end by itself prevents it. Such a
/// condition is a lock of another program, a restore that copies the database, or a full disk.
/// Returns none if the stop is first.
async fn started(
    config: &Config,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<App>, AppError> {
    let mut instance = None;
    let mut said = String::new();
    loop {
        let start = async {
            let taken = match &instance {
                Some(taken) => Arc::clone(taken),
                None => Arc::new(Instance::take(&config.database.path, "run", clock.now())?),
            };
            let taken = instance.insert(taken);
            App::start_with(taken, config, Arc::clone(clock), stop.clone()).await
        };
        let failed = match start.await {
            Err(AppError::Store(e)) if e.is_transient() => e.into(),
            Err(AppError::Key(e)) if input_can_pass(&e) => e.into(),
            ended => {
                instance.iter().for_each(|taken| taken.note_trouble(None));
                return ended.map(Some);
            }
        };
        let why = print::chain(&failed);
        if said != why {
            tracing::warn!("not started yet: {why}; retrying until it succeeds");
            let since = time::written(clock.now());
            instance.iter().for_each(|taken| taken.note_trouble(Some(format!("since {since}: {why}"))));
            said = why;
        }
        daemon::notify_waiting(&said);
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = clock.sleep(AGAIN_AFTER) => {}
        }
    }
}
