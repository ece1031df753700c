//! The composition root: opens the database, finds the key, and builds the remote. It runs passes,
//! pushes and the loops that follow events until the stop.
//!
//! The order matters twice. The start checks what may be unusable before it changes anything: the
//! instance lock, then the database, then the key. The stop ends the ticks first, then the pass at
//! its next safe point, then the database.

pub mod alerts;
mod cadence;
mod error;
mod follow;
pub mod http;
pub mod listen;
mod pass_loop;
mod place;
mod reload;
pub mod setup;
pub mod status;
mod systemd;
mod trouble;
mod wake;
pub mod webhook;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use setup::{StoredPace, pull_settings, push_settings, tail_settings};
use trouble::Trouble;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::alerts::Alerts;
use crate::daemon::status::{Status, StatusRequest};
use crate::daemon::webhook::{HintSink, WorkInUse};
use crate::heartbeat::{Health, Heartbeat};
use crate::remote::Http;
use crate::secret::SecretKey;
use crate::store::file::continuity;
use crate::store::log::passes;
use crate::store::state::{clock as stored, slowed};
use crate::store::{Instance, Store, StoreError};
use crate::tasks::InFlightPushes;
use crate::tasks::events::EventTail;
use crate::tasks::pull::{PassProgress, Pull, Report};
use crate::tasks::push::{DrainSummary, Pusher, Signals};
use crate::tasks::spool::{ScanSummary, Spool, SpoolSettings};
use komoju_core::{PassKind, time};

pub use error::AppError;
pub use systemd::notify_waiting;

/// MOST_STATUS_REQUESTS controls how many requests for a fresh status wait. One observation answers
/// all of them.
const MOST_STATUS_REQUESTS: usize = 64;

/// Everything that works on one database with one key, ready to run passes.
pub struct App {
    store: Arc<Store>,
    remote: Arc<Http>,
    request_timeout: Duration,
    pull: Pull<Http>,
    pusher: Pusher<Http>,
    /// Reads the event list; none where `events.enabled` is false.
    tail: Option<EventTail<Http>>,
    spool: Spool,
    spool_dir: PathBuf,
    signals: Arc<Signals>,
    statuses: watch::Sender<Option<Arc<Status>>>,
    /// Requests a fresh status from [`App::publish_status`]; both ends of the channel.
    status_requests: (mpsc::Sender<StatusRequest>, Arc<Mutex<mpsc::Receiver<StatusRequest>>>),
    health: watch::Sender<Health>,
    /// Notified when the first pass has ended, however it ended.
    first_pass: Notify,
    /// The heartbeats of the loops that read the remote, push to it, take files, read events, and
    /// request the customers that events name.
    heartbeats: [Arc<Heartbeat>; 5],
    alerts: Option<Alerts>,
    database: PathBuf,
    /// The clock of all parts.
    clock: Arc<dyn Clock>,
    /// The key of all parts.
    key: Arc<SecretKey>,
    /// Ends the process.
    stop: CancellationToken,
    /// Ends the work with this key. A child of `stop`.
    round: CancellationToken,
    instance: Arc<Instance>,
    /// Why the database cannot be used now, if it cannot.
    trouble: watch::Sender<Option<Trouble>>,
    /// The parts that webhooks use, for [`App::hint_sink`].
    work_in_use: watch::Sender<WorkInUse>,
}

impl App {
    /// Locks the database for `command` and opens it. `stop` ends all work at its next safe point.
    ///
    /// # Errors
    /// The database is in use or cannot be used, or there is no usable key.
    pub async fn start(
        config: &Config,
        command: &str,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let instance = Arc::new(Instance::take(&config.database.path, command, clock.now())?);
        Self::start_with(&instance, config, clock, stop).await
    }

    /// Opens a database that the caller has locked. It stays locked if this fails.
    ///
    /// # Errors
    /// The database cannot be used, or there is no usable key.
    pub async fn start_with(
        instance: &Arc<Instance>,
        config: &Config,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let path = &config.database.path;
        continuity::check(path, instance)?;
        let store = Store::open(path)?;
        instance.lock_database_file()?;
        instance.note_log(store.read(continuity::mark).await?);
        Self::first(store, Arc::clone(instance), config, clock, stop).await
    }

    /// Builds the parts for the first key of this process.
    async fn first(
        store: Store,
        instance: Arc<Instance>,
        config: &Config,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let clock = setup::trusted_clock(clock, store.read(stored::confirmed).await?);
        let key = setup::find_key(config)?;
        let remote = Arc::new(Http::new(config, &key, Arc::clone(&clock))?);
        Self::with_key(Arc::new(store), instance, config, clock, Arc::new(key), remote, stop).await
    }

    /// Builds the parts that work with `key`, which `remote` sends, and recovers what the previous
    /// work left unfinished.
    async fn with_key(
        store: Arc<Store>,
        instance: Arc<Instance>,
        config: &Config,
        clock: Arc<dyn Clock>,
        key: Arc<SecretKey>,
        remote: Arc<Http>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let round = stop.child_token();
        let at = time::written(clock.now());
        let orphans = store.write(move |tx| passes::close_orphans(tx, &at)).await?;
        if orphans > 0 {
            tracing::warn!("the previous process ended during a pass");
        }
        store.read(StoredPace::read).await?.set(&remote, clock.now());
        let (in_flight, signals) = (Arc::<InFlightPushes>::default(), Arc::<Signals>::default());
        let pull = Pull::new(
            Arc::clone(&store),
            Arc::clone(&remote),
            Arc::clone(&key),
            Arc::clone(&clock),
            pull_settings(config, clock.now()),
            round.clone(),
        )
        .with_in_flight(Arc::clone(&in_flight));
        let pusher = Pusher::new(
            Arc::clone(&store),
            Arc::clone(&remote),
            Arc::clone(&key),
            Arc::clone(&clock),
            push_settings(config),
            round.clone(),
            in_flight,
            Arc::clone(&signals),
        );
        pusher.recover().await?;
        let spool_dir = config.outbound.spool_dir.clone();
        let spool_settings = SpoolSettings { dir: spool_dir.clone(), enabled: config.outbound.enabled };
        let (requests, requested) = mpsc::channel(MOST_STATUS_REQUESTS);
        Ok(Self {
            spool: Spool::new(Arc::clone(&store), Some(&key), Arc::clone(&clock), spool_settings),
            alerts: Alerts::new(config, Arc::clone(&store), &key, Arc::clone(&clock), round.clone()),
            tail: tail_settings(config).map(|settings| {
                EventTail::new(
                    Arc::clone(&store),
                    Arc::clone(&remote),
                    Arc::clone(&key),
                    Arc::clone(&clock),
                    settings,
                    round.clone(),
                )
            }),
            heartbeats: systemd::LOOPS.map(Heartbeat::of),
            request_timeout: config.api.request_timeout(),
            database: store.path().to_owned(),
            statuses: watch::Sender::new(None),
            status_requests: (requests, Arc::new(Mutex::new(requested))),
            health: watch::Sender::new((Duration::ZERO, None)),
            first_pass: Notify::new(),
            trouble: watch::Sender::new(None),
            work_in_use: watch::Sender::new(WorkInUse {
                signals: Arc::clone(&signals),
                remote: Arc::clone(&remote),
            }),
            store,
            remote,
            pull,
            pusher,
            spool_dir,
            signals,
            clock,
            key,
            stop,
            round,
            instance,
        })
    }

    /// Returns the progress of the running pass.
    pub fn progress(&self) -> watch::Receiver<PassProgress> {
        self.pull.progress()
    }

    /// Returns the clock of all parts.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Returns the status while [`App::run`] runs, a few seconds late; none before the first
    /// observation.
    pub fn statuses(&self) -> watch::Receiver<Option<Arc<Status>>> {
        self.statuses.subscribe()
    }

    /// Returns the sender that requests a fresh status while [`App::run`] runs.
    pub fn status_requests(&self) -> mpsc::Sender<StatusRequest> {
        self.status_requests.0.clone()
    }

    /// Returns whether the loops of [`App::run`] make progress.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Returns where webhooks store their hints, also after the key has changed.
    pub fn hint_sink(&self) -> HintSink {
        let (store, instance) = (Arc::clone(&self.store), Arc::clone(&self.instance));
        HintSink::new(store, instance, self.work_in_use.subscribe(), self.clock())
    }

    /// Runs one pass. Returns none for a probe before the first complete sweep, which has nothing
    /// to do.
    pub async fn pass(&self, kind: PassKind) -> Result<Option<Report>, StoreError> {
        self.keeping_rate(async {
            match kind {
                PassKind::Sweep => self.pull.sweep().await.map(Some),
                PassKind::Probe => self.pull.probe().await,
            }
        })
        .await
    }

    /// Accepts the files in the spool directory, and sends nothing.
    pub async fn collect(&self) -> Result<ScanSummary, StoreError> {
        self.spool.drain(&self.stop).await
    }

    /// Attempts each intent that is due, once.
    pub async fn drain(&self) -> Result<DrainSummary, StoreError> {
        let drained = self.keeping_rate(self.pusher.drain()).await?;
        self.spool.update_receipts().await?;
        self.spool.expire_rejected().await?;
        Ok(drained)
    }

    /// Wipes the rest of tokens and erased data, and attempts no intent.
    pub async fn wipe(&self) -> Result<(), StoreError> {
        self.pusher.only_wipe().await
    }

    /// Does the work, and stores the reduced request rate after each refusal and at the end.
    async fn keeping_rate<T>(&self, work: impl Future<Output = T>) -> T {
        let mut refusals = self.remote.refusals();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.keep_rate().await;
                    return done;
                }
                // The sender lives as long as the remote.
                Ok(()) = refusals.changed() => self.keep_rate().await,
            }
        }
    }

    /// Stores the reduced request rate. An error only means that the next process must learn the
    /// rate again.
    async fn keep_rate(&self) {
        let text = self.remote.slowed().map(|slowed| slowed.to_text());
        if let Err(e) = self.store.write(move |tx| slowed::set(tx, text.as_deref())).await {
            tracing::warn!("the request rate that the API accepts was not stored: {}", chain(&e));
        }
    }

    /// Runs the daemon with one key until the stop: a sweep at once, then at each tick, and pushes
    /// meanwhile. It waits for conditions of the database that can pass.
    ///
    /// # Errors
    /// A condition of the database that cannot pass, or a database that was moved or replaced.
    async fn run_with_key(&self, config: &Config) -> Result<(), AppError> {
        // Boxed, because the compiler limits how deeply futures nest.
        let running = Box::pin(async {
            tokio::select! {
                ended = self.work_through_trouble(config) => ended,
                () = self.notify_manager() => Ok(()),
                () = self.check_heartbeats() => Ok(()),
            }
        });
        self.in_place(running).await
    }

    /// Runs everything that uses the database, until the stop or an error. The first sweep begins
    /// after `first_sweep_after`.
    async fn work(&self, config: &Config, first_sweep_after: Duration) -> Result<(), AppError> {
        let (sweep_due, probe_due) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let first_sweep = async {
            if !first_sweep_after.is_zero() {
                self.clock.sleep(first_sweep_after).await;
            }
            sweep_due.notify_one();
            std::future::pending::<Infallible>().await
        };
        let work = async {
            let [pulling, pushing, files, events, hints] = &self.heartbeats;
            tokio::try_join!(
                pulling.drive(self.run_passes(&sweep_due, &probe_due)),
                pushing.drive(self.push()),
                files.drive(self.take_files()),
                events.drive(self.follow_events()),
                hints.drive(self.read_hinted())
            )
        };
        let observers = async {
            tokio::select! {
                ended = self.wake_on_commit() => ended,
                ended = self.publish_status(config) => ended,
                ended = self.send_alerts() => ended,
            }
        };
        tokio::select! {
            biased;
            ended = work => Ok(ended.map(drop)?),
            ended = observers => Ok(ended?),
            never = first_sweep => match never {},
            never = self.keep_cadence(config, &sweep_due, &probe_due) => match never {},
        }
    }

    /// Runs `alerts.command` where it is configured. Ends only with an error.
    async fn send_alerts(&self) -> Result<(), StoreError> {
        match &self.alerts {
            Some(alerts) => alerts.serve(self.statuses()).await.map(|never| match never {}),
            None => std::future::pending().await,
        }
    }

    /// Sleeps until a moment of the steady clock, or without end if there is none.
    async fn sleep_until(&self, at: Option<Duration>) {
        match at {
            Some(at) => self.clock.sleep(at.saturating_sub(self.clock.elapsed())).await,
            None => std::future::pending().await,
        }
    }
}

/// Returns an error with its cause.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}
