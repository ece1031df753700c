//! The composition root: opens the database, finds the key, builds the remote, and drives the passes until told to stop.
//!
//! Order matters twice. At the start what cannot be used is said before anything is touched: the instance lock, then the
//! database, then the key. At the end the cadence stops first, then the pass at its next safe point, then the database.

pub mod alerts;
mod cadence;
mod error;
pub mod http;
mod pass_loop;
mod place;
mod reload;
pub mod status;
mod systemd;
mod trouble;
mod wake;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use trouble::Trouble;

use crate::clock::{Clock, Known, TrustedClock};
use crate::config::Config;
use crate::daemon::alerts::Alerts;
use crate::daemon::status::{LookRequest, Standing};
use crate::heartbeat::{Health, Heartbeat};
use crate::remote::Http;
use crate::secret::SecretKey;
use crate::store::file::{continuity, copy};
use crate::store::log::passes;
use crate::store::state::{clock as stored, slowed};
use crate::store::{Instance, Store, StoreError, read};
use crate::tasks::Echoes;
use crate::tasks::pull::{Progress, Pull, Report, Settings};
use crate::tasks::push::{Drained, PushSettings, Pusher, Signals};
use crate::tasks::spool::{Looked, Spool, SpoolSettings};
use komoju_core::plan::lag::Consistency;
use komoju_core::{PassKind, Slowed, time};

pub use error::AppError;
pub use systemd::tell_waiting;

/// LOOKS_AT_ONCE controls how many requests for a look wait; one look answers all of them.
const LOOKS_AT_ONCE: usize = 64;

/// Everything that works on one database, ready to make passes.
pub struct App {
    store: Arc<Store>,
    remote: Arc<Http>,
    request_timeout: Duration,
    pull: Pull<Http>,
    pusher: Pusher<Http>,
    spool: Spool,
    spool_dir: PathBuf,
    signals: Arc<Signals>,
    standings: watch::Sender<Option<Arc<Standing>>>,
    /// Asks [`App::observe`] to look now; and where it hears that.
    looks: (mpsc::Sender<LookRequest>, Arc<Mutex<mpsc::Receiver<LookRequest>>>),
    health: watch::Sender<Health>,
    /// Told when the first pass is over, however it ended.
    first_pass: Notify,
    /// Those of the loops that read the remote, push to it, and take files.
    pulses: [Arc<Heartbeat>; 3],
    alerts: Option<Alerts>,
    database: PathBuf,
    /// What everything goes by.
    clock: Arc<dyn Clock>,
    /// The key that everything here works with.
    key: Arc<SecretKey>,
    /// Ends the process.
    stop: CancellationToken,
    /// Ends the work with this key.
    round: CancellationToken,
    instance: Arc<Instance>,
    /// Why the database cannot be used for now.
    trouble: watch::Sender<Option<Trouble>>,
}

impl App {
    /// Takes the database for `command` and gets ready. `stop` ends whatever runs at its next safe point.
    pub async fn start(
        config: &Config,
        command: &str,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let instance = Arc::new(Instance::take(&config.database.path, command, clock.now())?);
        Self::start_with(&instance, config, clock, stop).await
    }

    /// The same with the database taken, so that it stays taken where this fails.
    pub async fn start_with(
        instance: &Arc<Instance>,
        config: &Config,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let path = &config.database.path;
        continuity::check(path, instance)?;
        let store = Store::open(path)?;
        instance.cover()?;
        instance.note_log(store.read(continuity::mark).await?);
        Self::first(store, Arc::clone(instance), config, clock, stop).await
    }

    /// The same on a copy that is thrown away: whatever passes do, the database stays as it is.
    pub async fn start_dry(
        config: &Config,
        directory: &Path,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let instance = Instance::share(&config.database.path)?;
        let copy = directory.join("dry-run.db");
        copy::to(&config.database.path, &copy)?;
        Self::first(Store::open(&copy)?, Arc::new(instance), config, clock, stop).await
    }

    async fn first(
        store: Store,
        instance: Arc<Instance>,
        config: &Config,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let known = store.read(stored::confirmed).await?.and_then(|confirmed| {
            let up = Duration::from_millis(u64::try_from(confirmed.boot_ms).ok()?);
            Some(Known { time: time::read(&confirmed.at)?, boot: confirmed.boot, up })
        });
        let clock: Arc<dyn Clock> = TrustedClock::over(clock, known.as_ref());
        let (key, source) =
            SecretKey::find(config.api.secret_key_file.as_deref(), &|name| std::env::var_os(name))?;
        for warning in key.warnings(&source) {
            tracing::warn!("{warning}");
        }
        let remote = Arc::new(Http::new(config, &key, Arc::clone(&clock))?);
        Self::on(Arc::new(store), instance, config, clock, Arc::new(key), remote, stop).await
    }

    /// Everything that works with `key`, which `remote` sends.
    async fn on(
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
            tracing::warn!("the last process ended within a pass");
        }
        let (_, throttled_until) = store.read(read::obstacles).await?;
        let now = clock.now();
        if let Some(until) = throttled_until.and_then(|until| time::pause_until(&until, now)) {
            remote.pause(Duration::try_from(until.duration_since(now)).unwrap_or_default());
        }
        if let Some(slowed) = store.read(slowed::get).await?.and_then(|text| Slowed::from_text(&text, now)) {
            remote.slow_down(&slowed);
        }
        let settings = Settings {
            per_page: config.api.per_page,
            max_concurrent_requests: config.api.max_concurrent_requests as usize,
            max_delete_count: config.inbound.max_delete_count,
            max_delete_percent: config.inbound.max_delete_percent,
            consistency: Consistency::seconds(config.inbound.consistency_s),
            period: config.inbound.sweep_cron.period_from(now),
            seed: rand::random(),
        };
        let push_settings = PushSettings {
            enabled: config.outbound.enabled,
            max_concurrent_requests: config.api.max_concurrent_requests as usize,
            per_page: config.api.per_page,
            hold_deletes_over: config.outbound.hold_deletes_over,
            park_after: SignedDuration::from_hours(config.outbound.park_after_h.into()),
            reconcile_tag: config.outbound.reconcile_tag.clone(),
            consistency: settings.consistency,
            seed: rand::random(),
        };
        let (echoes, signals) = (Arc::<Echoes>::default(), Arc::<Signals>::default());
        let pull = Pull::new(
            Arc::clone(&store),
            Arc::clone(&remote),
            Arc::clone(&key),
            Arc::clone(&clock),
            settings,
            round.clone(),
        )
        .with_echoes(Arc::clone(&echoes));
        let alerts = Alerts::new(config, Arc::clone(&store), &key, Arc::clone(&clock), round.clone());
        let database = store.path().to_owned();
        let spool_dir = config.outbound.spool_dir.clone();
        let spool_settings = SpoolSettings { dir: spool_dir.clone(), enabled: config.outbound.enabled };
        let spool = Spool::new(Arc::clone(&store), Some(&key), Arc::clone(&clock), spool_settings);
        let pusher = Pusher::new(
            Arc::clone(&store),
            Arc::clone(&remote),
            Arc::clone(&key),
            Arc::clone(&clock),
            push_settings,
            round.clone(),
            echoes,
            Arc::clone(&signals),
        );
        pusher.recover().await?;
        let standings = watch::Sender::new(None);
        let (ask, asked) = mpsc::channel(LOOKS_AT_ONCE);
        let pulses = ["reading KOMOJU's customers", "pushing intents", "taking files"].map(Heartbeat::of);
        Ok(Self {
            store,
            remote,
            request_timeout: config.api.request_timeout(),
            pull,
            pusher,
            spool,
            spool_dir,
            signals,
            standings,
            looks: (ask, Arc::new(Mutex::new(asked))),
            health: watch::Sender::new((Duration::ZERO, None)),
            first_pass: Notify::new(),
            pulses,
            alerts,
            database,
            clock,
            key,
            stop,
            round,
            instance,
            trouble: watch::Sender::new(None),
        })
    }

    /// How far the pass that runs has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.pull.progress()
    }

    /// The clock that everything goes by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// How things stand while [`App::run`] runs, a few seconds late; none until it was looked for.
    pub fn standings(&self) -> watch::Receiver<Option<Arc<Standing>>> {
        self.standings.subscribe()
    }

    /// Requests an observation of the state, while [`App::run`] runs.
    pub fn looks(&self) -> mpsc::Sender<LookRequest> {
        self.looks.0.clone()
    }

    /// Whether [`App::run`] gets on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// One pass. A probe before the first complete sweep has nothing to do: `None`.
    pub async fn pass(&self, kind: PassKind) -> Result<Option<Report>, StoreError> {
        self.keeping_rate(async {
            match kind {
                PassKind::Sweep => self.pull.sweep().await.map(Some),
                PassKind::Probe => self.pull.probe().await,
            }
        })
        .await
    }

    /// Takes what lies in the spool directory, without sending it.
    pub async fn collect(&self) -> Result<Looked, StoreError> {
        self.spool.drain(&self.stop).await
    }

    /// Attempts each intent that is due, once.
    pub async fn drain(&self) -> Result<Drained, StoreError> {
        let drained = self.keeping_rate(self.pusher.drain()).await?;
        self.spool.tend_receipts().await?;
        self.spool.expire_rejected().await?;
        Ok(drained)
    }

    /// Wipes what is left of tokens and erased data, and attempts no intent.
    pub async fn wipe(&self) -> Result<(), StoreError> {
        self.pusher.only_wipe().await
    }

    /// Does the work, and stores how much the requests are slowed down: after each refusal, and at the end.
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

    /// Stores how much the requests are slowed down. Without it the next process only learns it again, so an error ends nothing.
    async fn keep_rate(&self) {
        let text = self.remote.slowed().map(|slowed| slowed.to_text());
        if let Err(e) = self.store.write(move |tx| slowed::set(tx, text.as_deref())).await {
            tracing::warn!("the rate that the API accepts is not stored: {}", chain(&e));
        }
    }

    /// The daemon with one key: a sweep at once, then at each tick, until told to stop; pushes whatever comes in meanwhile. A
    /// condition of the database that can pass is waited for. Only one that cannot, and a path that leads elsewhere, end it otherwise.
    async fn run_with_key(&self, config: &Config) -> Result<(), AppError> {
        // Boxed, because the compiler limits how deeply futures nest.
        let running = Box::pin(async {
            tokio::select! {
                ended = self.work_through_trouble(config) => ended,
                () = self.tell_manager() => Ok(()),
                () = self.watch_pulses() => Ok(()),
            }
        });
        self.in_place(running).await
    }

    /// Everything that uses the database, until told to stop or until that fails. The first sweep begins after this time.
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
            let [pulling, pushing, files] = &self.pulses;
            tokio::try_join!(
                pulling.drive(self.answer_ticks(&sweep_due, &probe_due)),
                pushing.drive(self.push()),
                files.drive(self.take_files())
            )
        };
        let watching = async {
            tokio::select! {
                ended = self.listen() => ended,
                ended = self.observe(config) => ended,
                ended = self.tell_operator() => ended,
            }
        };
        tokio::select! {
            biased;
            ended = work => Ok(ended.map(drop)?),
            ended = watching => Ok(ended?),
            never = first_sweep => match never {},
            never = self.keep_cadence(config, &sweep_due, &probe_due) => match never {},
        }
    }

    /// Runs `alerts.command` where there is one; never ends but by an error.
    async fn tell_operator(&self) -> Result<(), StoreError> {
        match &self.alerts {
            Some(alerts) => alerts.serve(self.standings()).await.map(|never| match never {}),
            None => std::future::pending().await,
        }
    }

    async fn sleep_until(&self, at: Option<Duration>) {
        match at {
            Some(at) => self.clock.sleep(at.saturating_sub(self.clock.elapsed())).await,
            None => std::future::pending().await,
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}
