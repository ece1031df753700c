//! The composition root: opens the database, finds the key, builds the remote, and drives the passes until told to stop.
//!
//! Order matters twice. At the start what cannot be used is said before anything is touched: the instance lock, then the
//! database, then the key. At the end the cadence stops first, then the pass at its next safe point, then the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, KeyError, SecretKey};
use crate::model::{PassKind, time};
use crate::reconcile::retry;
use crate::remote::Http;
use crate::remote::http::SetupError;
use crate::store::{Instance, Reader, Store, StoreError, copy, passes, read};
use crate::tasks::Echoes;
use crate::tasks::pull::{Failure, Progress, Pull, Report, Settings};
use crate::tasks::push::{Drained, PushSettings, Pusher, Signals};
use crate::tasks::spool::{Looked, Spool, SpoolSettings};
use crate::watch::{DirectoryWatch, LOOK_EVERY, News, Watch};

/// How long pushing pauses when somebody else keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// How long a commit may take from its last write until it can be read.
const SLOWEST_COMMIT: Duration = Duration::from_secs(10);

/// How often database and spool directory are looked at though nothing was told: a network file system tells nothing of others.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// How soon after a sweep that was made because an update met nobody another one is made for that reason.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);

/// How often a refused key is tried again.
const ASK_AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(15 * 60);

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The HTTP client.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The schedule.
    #[error("the schedule cannot be set up: {0}")]
    Schedule(#[from] JobSchedulerError),
    /// A directory for the dry run's copy.
    #[error("no temporary directory can be made for the dry run: {0}")]
    Temporary(std::io::Error),
}

/// Everything that works on one database, ready to make passes.
pub struct App {
    pull: Pull<Http>,
    pusher: Pusher<Http>,
    spool: Spool,
    spool_dir: PathBuf,
    signals: Arc<Signals>,
    database: PathBuf,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    _instance: Instance,
}

impl App {
    /// Takes the database for `command` and gets ready. `stop` ends whatever runs at its next safe point.
    pub async fn start(
        config: &Config,
        command: &str,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let instance = Instance::take(&config.database.path, command, clock.now())?;
        let store = Store::open(&config.database.path)?;
        Self::on(store, instance, config, clock, stop).await
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
        Self::on(Store::open(&copy)?, instance, config, clock, stop).await
    }

    async fn on(
        store: Store,
        instance: Instance,
        config: &Config,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, AppError> {
        let at = time::written(clock.now());
        let orphans = store.write(move |tx| passes::close_orphans(tx, &at)).await?;
        if orphans > 0 {
            tracing::warn!("the last process ended within a pass");
        }
        let (key, source) = SecretKey::find(&config.api, &|name| std::env::var_os(name))?;
        for warning in key.warnings(&source) {
            tracing::warn!("{warning}");
        }
        let remote = Arc::new(Http::new(config, &key, Arc::clone(&clock))?);
        let (_, throttled_until) = store.read(read::obstacles).await?;
        if let Some(until) = throttled_until.as_deref().and_then(time::read) {
            remote.pause(Duration::try_from(until.duration_since(clock.now())).unwrap_or_default());
        }
        let settings = Settings {
            per_page: config.api.per_page,
            max_concurrent_requests: config.api.max_concurrent_requests as usize,
            max_delete_count: config.inbound.max_delete_count,
            max_delete_percent: config.inbound.max_delete_percent,
            seed: rand::random(),
        };
        let push_settings = PushSettings {
            enabled: config.outbound.enabled,
            max_concurrent_requests: config.api.max_concurrent_requests as usize,
            per_page: config.api.per_page,
            hold_deletes_over: config.outbound.hold_deletes_over,
            park_after: SignedDuration::from_hours(config.outbound.park_after_h.into()),
            reconcile_tag: config.outbound.reconcile_tag.clone(),
            seed: rand::random(),
        };
        let (store, key) = (Arc::new(store), Arc::new(key));
        let (echoes, signals) = (Arc::<Echoes>::default(), Arc::<Signals>::default());
        let pull = Pull::new(
            Arc::clone(&store),
            Arc::clone(&remote),
            Arc::clone(&key),
            Arc::clone(&clock),
            settings,
            stop.clone(),
        )
        .with_echoes(Arc::clone(&echoes));
        let database = store.path().to_owned();
        let spool_dir = config.outbound.spool_dir.clone();
        let spool_settings = SpoolSettings { dir: spool_dir.clone(), enabled: config.outbound.enabled };
        let spool = Spool::new(Arc::clone(&store), Some(&key), Arc::clone(&clock), spool_settings);
        let pusher = Pusher::new(
            store,
            remote,
            key,
            Arc::clone(&clock),
            push_settings,
            stop.clone(),
            echoes,
            Arc::clone(&signals),
        );
        pusher.recover().await?;
        Ok(Self { pull, pusher, spool, spool_dir, signals, database, clock, stop, _instance: instance })
    }

    /// How far the pass that runs has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.pull.progress()
    }

    /// One pass. A probe before the first complete sweep has nothing to do: `None`.
    pub async fn pass(&self, kind: PassKind) -> Result<Option<Report>, StoreError> {
        match kind {
            PassKind::Sweep => self.pull.sweep().await.map(Some),
            PassKind::Probe => self.pull.probe().await,
        }
    }

    /// Takes what lies in the spool directory, without sending it.
    pub async fn collect(&self) -> Result<Looked, StoreError> {
        self.spool.drain(&self.stop).await
    }

    /// Attempts each intent that is due, once.
    pub async fn drain(&self) -> Result<Drained, StoreError> {
        let drained = self.pusher.drain().await?;
        self.spool.tend_receipts().await?;
        Ok(drained)
    }

    /// The daemon: a sweep at once, then at each tick, until told to stop; pushes whatever comes in meanwhile. Only the database can
    /// end it otherwise.
    pub async fn run(&self, config: &Config) -> Result<(), AppError> {
        let (sweep_due, probe_due) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut cadence = JobScheduler::new().await?;
        // A tick only leaves a note; one that comes while a pass runs is answered once, after it.
        for (cron, due) in
            [(&config.inbound.sweep_cron, &sweep_due), (&config.inbound.probe_cron, &probe_due)]
        {
            let due = Arc::clone(due);
            cadence.add(Job::new(cron.text(), move |_, _| due.notify_one())?).await?;
        }
        cadence.start().await?;
        sweep_due.notify_one();
        let work = async {
            tokio::try_join!(self.answer_ticks(&sweep_due, &probe_due), self.push(), self.take_files())
        };
        let ended = tokio::select! {
            ended = work => ended.map(drop),
            ended = self.listen() => ended,
        };
        if let Err(e) = cadence.shutdown().await {
            tracing::debug!("the cadence did not stop cleanly: {e}");
        }
        Ok(ended?)
    }

    /// Pushes until told to stop.
    async fn push(&self) -> Result<(), StoreError> {
        loop {
            match self.pusher.serve().await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_busy() => {
                    tracing::error!("pushing paused: {e}: somebody else keeps it locked; it is tried again");
                    // What was under way is cut off; until that is written, nothing may begin.
                    loop {
                        tokio::select! {
                            () = self.stop.cancelled() => return Ok(()),
                            () = self.clock.sleep(AFTER_BUSY) => {}
                        }
                        match self.pusher.recover().await {
                            Ok(()) => break,
                            Err(e) if e.is_busy() => {}
                            Err(e) => return Err(e),
                        }
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes files as they are dropped, until told to stop.
    async fn take_files(&self) -> Result<(), StoreError> {
        self.look(None).await?;
        // The first look has made the directory; what came meanwhile is found by the next one.
        let mut watch = DirectoryWatch::on(&self.spool_dir)
            .map_err(|e| tracing::warn!("{}: it is looked at once a second instead", chain(&e)))
            .ok();
        // When all is looked at again; a look at some files alone puts it off for none of the others.
        let mut again_at = self.clock.elapsed();
        loop {
            let news = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                news = next_of(&mut watch) => news,
                () = self.signals.settled.notified() => {
                    unless_busy(self.spool.tend_receipts().await)?;
                    continue;
                }
                () = self.sleep_until(Some(again_at)) => vec![News::Other],
            };
            // A file may be told of twice, as renamed and as written: whoever renames before closing does so.
            let look_at_all = news.contains(&News::Other);
            let renamed: Vec<String> = news.into_iter().filter_map(News::renamed).collect();
            if !renamed.is_empty() {
                let again_in = self.look(Some(renamed)).await?;
                again_at = again_in.map_or(again_at, |wait| again_at.min(self.clock.elapsed() + wait));
            }
            if look_at_all {
                let again_in = self.look(None).await?;
                if watch.as_ref().is_none_or(|watch| !watch.is_on(&self.spool_dir)) {
                    watch = DirectoryWatch::on(&self.spool_dir).ok();
                }
                let anyway = if watch.is_some() { LOOK_ANYWAY } else { LOOK_EVERY };
                again_at = self.clock.elapsed() + again_in.unwrap_or(anyway);
            }
        }
    }

    /// Takes these files, or all that are ready; says when the next one can be.
    async fn look(&self, renamed: Option<Vec<String>>) -> Result<Option<Duration>, StoreError> {
        let looked = match &renamed {
            Some(names) => self.spool.take(names).await,
            None => self.spool.scan().await,
        };
        Ok(match unless_busy(looked)? {
            Some(looked) => looked.again_in,
            None => Some(AFTER_BUSY),
        })
    }

    /// Wakes the pusher whenever anybody commits; never ends but by an error.
    async fn listen(&self) -> Result<(), StoreError> {
        let mut watch = Watch::on(&self.database).unwrap_or_else(|e| {
            tracing::warn!("{}: it is looked at once a second instead", chain(&e));
            Watch::by_the_clock()
        });
        let reader = Reader::open(&self.database)?;
        let mut seen = reader.data_version()?;
        loop {
            let patience = tokio::select! {
                () = watch.told() => SLOWEST_COMMIT,
                // Nothing was written, as far as anybody told: one look will do.
                () = self.clock.sleep(LOOK_ANYWAY) => Duration::ZERO,
            };
            // What was written is told before it is durable, and it can be read only after that: so it is looked for until it can.
            let mut waited = Duration::ZERO;
            let mut now = reader.data_version()?;
            while now == seen && waited < patience {
                // Late by a quarter of what it took, at worst.
                let wait = (waited / 4).clamp(Duration::from_millis(1), Duration::from_millis(250));
                self.clock.sleep(wait).await;
                waited += wait;
                now = reader.data_version()?;
            }
            if now != seen {
                seen = now;
                self.signals.wake.notify_one();
            }
        }
    }

    async fn answer_ticks(&self, sweep_due: &Notify, probe_due: &Notify) -> Result<(), StoreError> {
        let mut failures = 0;
        let mut plan = Plan::Cadence;
        let mut looked_at: Option<Duration> = None;
        loop {
            let answers_ticks = !matches!(plan, Plan::Refused { .. });
            let kind = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = self.sleep_until(plan.again_at()) => PassKind::Sweep,
                () = sweep_due.notified(), if answers_ticks => PassKind::Sweep,
                () = self.signals.look.notified(), if answers_ticks => {
                    // Many at once are one, and a storm of them is no reason to read all the time.
                    let now = self.clock.elapsed();
                    if looked_at.is_some_and(|at| now.saturating_sub(at) < LOOK_AGAIN_AFTER) {
                        continue;
                    }
                    looked_at = Some(now);
                    PassKind::Sweep
                }
                () = probe_due.notified(), if answers_ticks => PassKind::Probe,
                () = self.signals.refused.notified() => {
                    plan = Plan::Refused { again_at: self.clock.elapsed() + ASK_AGAIN_AFTER_REFUSAL };
                    continue;
                }
            };
            let passed = self.pass(kind).await;
            // A key that was bound, or is accepted again, lets intents go.
            self.signals.wake.notify_one();
            let failed = match passed {
                Ok(None) => continue,
                Ok(Some(report)) => {
                    log(&report);
                    match report.failure {
                        Some(Failure::KeyRefused(_)) => {
                            plan = Plan::Refused { again_at: self.clock.elapsed() + ASK_AGAIN_AFTER_REFUSAL };
                            continue;
                        }
                        // A person decides about these; the next tick looks whether they have.
                        Some(Failure::Stopped | Failure::OtherAccount) | None => false,
                        Some(_) => true,
                    }
                }
                Err(e) if e.is_busy() => {
                    tracing::error!("{kind} failed: {e}: somebody else keeps it locked; it is tried again");
                    true
                }
                Err(e) => return Err(e),
            };
            plan = match (kind, failed) {
                (PassKind::Sweep, true) => {
                    failures += 1;
                    let wait = retry::pass_wait(failures, rand::random());
                    tracing::info!(wait_s = wait.as_secs(), "the sweep is tried again");
                    Plan::Again { at: self.clock.elapsed() + wait }
                }
                (PassKind::Sweep, false) => {
                    failures = 0;
                    Plan::Cadence
                }
                // The next probe comes soon enough.
                (PassKind::Probe, _) => plan,
            };
        }
    }

    async fn sleep_until(&self, at: Option<Duration>) {
        match at {
            Some(at) => self.clock.sleep(at.saturating_sub(self.clock.elapsed())).await,
            None => std::future::pending().await,
        }
    }
}

/// What the daemon waits for besides the cadence's ticks; moments are the steady clock's.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Nothing.
    Cadence,
    /// A failed sweep is made again then.
    Again { at: Duration },
    /// The key is refused: ticks are left out until then.
    Refused { again_at: Duration },
}

impl Plan {
    fn again_at(self) -> Option<Duration> {
        match self {
            Self::Cadence => None,
            Self::Again { at } | Self::Refused { again_at: at } => Some(at),
        }
    }
}

/// News of the directory; never, where it cannot be watched.
async fn next_of(watch: &mut Option<DirectoryWatch>) -> Vec<News> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

/// What somebody else's lock kept from being done is done another time.
fn unless_busy<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_busy() => {
            tracing::error!("files wait: {e}: somebody else keeps it locked; it is tried again");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// One line for what a person needs to know.
fn log(report: &Report) {
    let sentence = report.sentence();
    match &report.failure {
        Some(Failure::Stopped) => tracing::info!("{sentence}"),
        Some(_) => tracing::error!("{sentence}"),
        None if report.held > 0 && report.kind == PassKind::Sweep => tracing::warn!("{sentence}"),
        // What happens every minute and changes nothing is no news.
        None if report.kind == PassKind::Probe && report.tally.changes() == 0 => {
            tracing::debug!("{sentence}")
        }
        None => tracing::info!("{sentence}"),
    }
}
