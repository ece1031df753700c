//! A local KOMOJU with a stopped clock, a database, and pulls and pushes in the process of the
//! test. The test moves the clock of the pulls and pushes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Fault, FaultEffect, FaultId, Options, Readings, Sandbox};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::config::Config;
use komoju_sync::remote::Http;
use komoju_sync::secret::SecretKey;
use komoju_sync::store::log::verify::verify;
use komoju_sync::store::{Reader, Store, read};
use komoju_sync::tasks::InFlightPushes;
use komoju_sync::tasks::events::{EventTail, TailMemory, TailReport, TailSettings};
use komoju_sync::tasks::pull::{DryRun, PlannedWrite, Pull, Report, Settings};
use komoju_sync::tasks::push::{DrainSummary, PushSettings, Pusher, Signals};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::sql::{self, Kept};

/// The most batches of hinted customers that a test requests.
const MOST_BATCHES: usize = 200;

/// The time at which each test starts.
pub const START: &str = "2026-06-01T00:00:00Z";

/// Pulls and pushes in this process, against a local KOMOJU.
pub struct InProcess {
    /// The local KOMOJU.
    pub sandbox: Arc<Sandbox>,
    /// Holds the database; removed at the end.
    pub directory: TempDir,
    /// The clock of the product.
    pub clock: Arc<ManualClock>,
    /// The pushes in flight, for passes.
    pub in_flight: Arc<InFlightPushes>,
    /// Wakes the pusher.
    pub signals: Arc<Signals>,
    /// The settings of each new pusher.
    pub settings: PushSettings,
    /// The secret key.
    pub key: String,
    /// The open database; `None` between two processes.
    pub store: Option<Arc<Store>>,
    kept_reader: Kept<Reader>,
    kept_writer: Kept<Connection>,
}

impl InProcess {
    /// Returns an account with this number of customers, after one complete sweep.
    pub async fn open(customers: u32) -> Self {
        Self::reading(customers, Readings::default()).await
    }

    /// Returns the same under these readings.
    pub async fn reading(customers: u32, readings: Readings) -> Self {
        crate::process::allow_many_files();
        let start: Timestamp = START.parse().unwrap();
        let options = Options { customers, readings, now: Some(start), ..Options::default() };
        let sandbox = Arc::new(Sandbox::start(options).await.unwrap());
        let directory = TempDir::new().unwrap();
        let key = sandbox.key().to_owned();
        let settings = PushSettings {
            enabled: true,
            max_concurrent_requests: 3,
            per_page: 10,
            hold_deletes_over: 20,
            park_after: SignedDuration::from_hours(72),
            reconcile_tag: None,
            consistency: Consistency::default(),
            seed: 1,
        };
        let store = Arc::new(Store::open(&directory.path().join("komoju.db")).unwrap());
        let mut harness = Self {
            sandbox,
            directory,
            clock: Arc::new(ManualClock::at(start)),
            in_flight: Arc::default(),
            signals: Arc::default(),
            settings,
            key,
            store: Some(store),
            kept_reader: Kept::default(),
            kept_writer: Kept::default(),
        };
        assert!(harness.sweep().await.failure.is_none());
        harness.sandbox.world().clear_requests();
        harness
    }

    /// Returns the path of the database.
    pub fn database(&self) -> PathBuf {
        self.directory.path().join("komoju.db")
    }

    /// Returns the open database.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    /// Simulates a restart of the process: only the files are kept.
    pub fn restart(&mut self) {
        self.store = None;
        self.in_flight = Arc::default();
        self.store = Some(Arc::new(Store::open(&self.database()).unwrap()));
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: SignedDuration) {
        let by = Duration::try_from(by).unwrap();
        self.clock.advance(by);
        self.sandbox.world().advance(by);
    }

    /// Returns a client of this address.
    pub fn remote_at(&self, base_url: &str) -> Http {
        let file = self.directory.path().join("config.toml");
        let text = format!("[api]\nbase_url = \"{base_url}\"\n[rate_limit]\nrequests_per_second = 0\n");
        std::fs::write(&file, text).unwrap();
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Http::new(&Config::load(&file).unwrap(), &SecretKey::parse(&self.key).unwrap(), clock).unwrap()
    }

    /// Returns a pusher to this address.
    pub fn pusher_at(&self, base_url: &str, stop: CancellationToken) -> Pusher<Http> {
        self.pusher_on(self.remote_at(base_url), stop)
    }

    /// Returns a pusher that uses this remote.
    pub fn pusher_on<R: komoju_sync::remote::Remote + komoju_sync::remote::PushRemote>(
        &self,
        remote: R,
        stop: CancellationToken,
    ) -> Pusher<R> {
        Pusher::new(
            self.store(),
            Arc::new(remote),
            Arc::new(SecretKey::parse(&self.key).unwrap()),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            self.settings.clone(),
            stop,
            Arc::clone(&self.in_flight),
            Arc::clone(&self.signals),
        )
    }

    /// Drains the outbox once, as a new process.
    pub async fn drain(&mut self) -> DrainSummary {
        let base_url = self.sandbox.base_url();
        self.drain_at(&base_url).await
    }

    /// Drains the outbox once, to this address.
    pub async fn drain_at(&mut self, base_url: &str) -> DrainSummary {
        let pusher = self.pusher_at(base_url, CancellationToken::new());
        pusher.recover().await.unwrap();
        pusher.drain().await.unwrap()
    }

    /// Drains until no intent is open, for at most so many rounds; the clocks move by `every`
    /// between two rounds.
    pub async fn drain_on(&mut self, rounds: usize, every: SignedDuration) {
        for _ in 0..rounds {
            self.drain().await;
            if self
                .column("SELECT id FROM intents WHERE state IN ('queued', 'sending', 'waiting')")
                .is_empty()
            {
                return;
            }
            self.advance(every);
        }
    }

    fn pull_settings(&self) -> Settings {
        Settings {
            per_page: 10,
            max_concurrent_requests: 3,
            max_delete_count: 10,
            max_delete_percent: 5,
            consistency: self.settings.consistency,
            period: None,
            seed: 1,
        }
    }

    /// Runs one sweep as a dry run; returns its report and what it planned.
    pub async fn dry_sweep(&self) -> (Report, Vec<PlannedWrite>) {
        let (send, mut planned) = mpsc::channel(1);
        let dry_run = DryRun::open(&self.database(), send).unwrap();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let key = Arc::new(SecretKey::parse(&self.key).unwrap());
        let remote = Arc::new(self.remote_at(&self.sandbox.base_url()));
        let pull = Pull::dry(dry_run, remote, key, clock, self.pull_settings(), CancellationToken::new());
        let sweep = async move { pull.sweep().await.unwrap() };
        let collect = async {
            let mut writes = Vec::new();
            while let Some(write) = planned.recv().await {
                writes.push(write);
            }
            writes
        };
        tokio::join!(sweep, collect)
    }

    /// Returns a pull from the local KOMOJU.
    pub fn pull(&self) -> Pull<Http> {
        let settings = self.pull_settings();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let key = Arc::new(SecretKey::parse(&self.key).unwrap());
        let remote = Arc::new(self.remote_at(&self.sandbox.base_url()));
        Pull::new(self.store(), remote, key, clock, settings, CancellationToken::new())
            .with_in_flight(Arc::clone(&self.in_flight))
    }

    /// Runs one sweep.
    pub async fn sweep(&mut self) -> Report {
        self.pull().sweep().await.unwrap()
    }

    /// Returns an events tail of the local KOMOJU with this many events a page, and the waits of
    /// the default configuration.
    pub fn tail(&self, per_page: u32) -> EventTail<Http> {
        let settings =
            TailSettings { per_page, fastest: Duration::from_secs(10), slowest: Duration::from_secs(60) };
        let remote = Arc::new(self.remote_at(&self.sandbox.base_url()));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let key = Arc::new(SecretKey::parse(&self.key).unwrap());
        EventTail::new(self.store(), remote, key, clock, settings, CancellationToken::new())
    }

    /// Reads the event list once, as the first reading of a process: the whole overlap.
    pub async fn read_events(&self) -> TailReport {
        self.tail(10).read(&mut TailMemory::new(self.clock.elapsed())).await.unwrap()
    }

    /// Requests the hinted customers until none is due. Returns how long the next one waits.
    pub async fn read_hinted(&self) -> Option<Duration> {
        read_hinted(&self.pull()).await
    }

    /// Opens a connection as another program does.
    pub fn writer(&self) -> Connection {
        sql::foreign(&self.database())
    }

    /// Sets up a state that only the program may write.
    pub fn sql(&self, sql: &str) {
        sql::own(&self.database()).execute_batch(sql).unwrap();
    }

    /// Returns the error that the SQL door answers to a statement.
    pub fn refusal(&self, sql: &str) -> String {
        self.writer().execute_batch(sql).unwrap_err().to_string()
    }

    /// Queues an intent through the SQL door.
    pub fn intend(&self, id: &str, op: &str, customer: Option<&str>, body: Option<Value>) {
        let queue = |conn: &Connection| sql::intend(conn, id, op, customer, body);
        self.kept_writer.with(&self.database(), sql::foreign, queue);
    }

    /// Opens a read-only connection of the program.
    pub fn reader(&self) -> Reader {
        open_reader(&self.database())
    }

    /// Runs queries on the connection that is kept for them.
    #[track_caller]
    fn query<T>(&self, work: impl FnOnce(&Reader) -> T) -> T {
        self.kept_reader.with(&self.database(), open_reader, work)
    }

    /// Returns the first column of a query, as text.
    pub fn column(&self, sql: &str) -> Vec<String> {
        self.query(|reader| sql::column(reader, sql))
    }

    /// Returns the only value of a query, as text.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.query(|reader| sql::one(reader, sql))
    }

    /// Returns a column of the intent with this id.
    pub fn of(&self, id: &str, column: &str) -> String {
        self.one(&format!("SELECT {column} FROM intents WHERE id = '{id}'"))
    }

    /// Returns the state of the intent with this id.
    pub fn state(&self, id: &str) -> String {
        self.of(id, "state")
    }

    /// Returns `id state` of every intent, in their order.
    pub fn states(&self) -> Vec<String> {
        self.column("SELECT id || ' ' || state FROM intents ORDER BY position")
    }

    /// Returns the detail of the intent with this id.
    pub fn detail(&self, id: &str) -> Value {
        serde_json::from_str(&self.of(id, "detail")).unwrap()
    }

    /// Returns the `seq` of the last change.
    pub fn head(&self) -> i64 {
        self.one("SELECT head_seq FROM mirror_info").parse().unwrap()
    }

    /// Returns `kind origin intent` of the changes after this one.
    pub fn changes_after(&self, seq: i64) -> Vec<String> {
        self.column(&format!(
            "SELECT kind || ' ' || origin || coalesce(' ' || intent_id, '') FROM changes WHERE seq > {seq} ORDER BY seq"
        ))
    }

    /// Returns the id of a customer.
    pub fn some_id(&self) -> String {
        self.sandbox.world().ids()[0].clone()
    }

    /// Adds a fault to the local KOMOJU.
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.sandbox.world().inject(fault)
    }

    /// Adds an effect on every call of this kind.
    pub fn on(&self, call: komoju_sandbox::FaultedCall, effect: FaultEffect) -> FaultId {
        self.inject(Fault::new(effect).call(call))
    }

    /// Returns `METHOD path-end` of each request that arrived.
    pub fn calls(&self) -> Vec<String> {
        let world = self.sandbox.world();
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        world.requests().iter().map(|seen| format!("{} {}", seen.method, last(&seen.path))).collect()
    }

    /// Moves only the wall clock of the product.
    pub fn set_wall_by(&self, by: SignedDuration) {
        self.clock.set_wall(self.clock.now() + by);
    }

    /// Queues an update `u` that fails once and waits; returns the fault that fails it.
    pub async fn waiting(&mut self) -> FaultId {
        let id = self.some_id();
        self.intend("u", "update", Some(&id), Some(serde_json::json!({"email": "x"})));
        let fault = self.on(komoju_sandbox::FaultedCall::Update, FaultEffect::status(503));
        self.drain().await;
        assert_eq!(self.state("u"), "waiting");
        fault
    }

    /// Asserts that the mirror equals the account, and that the log proves it.
    pub fn assert_true(&self) {
        assert_eq!(self.query(mirror), self.sandbox.world().truth());
        self.query(assert_proven);
    }
}

/// Opens a read-only connection of the program.
pub(crate) fn open_reader(database: &Path) -> Reader {
    Reader::open(database).unwrap()
}

/// Requests hinted customers until none is due. Returns how long the next one waits.
pub async fn read_hinted(pull: &Pull<Http>) -> Option<Duration> {
    for _ in 0..MOST_BATCHES {
        let next = pull.read_hinted().await.unwrap().wait;
        if next != Some(Duration::ZERO) {
            return next;
        }
    }
    panic!("hints are due after {MOST_BATCHES} batches of requests");
}

/// Returns the bodies of the live customers by id.
pub fn mirror(reader: &Reader) -> BTreeMap<String, Value> {
    let mut bodies = BTreeMap::new();
    let visit = |record: read::Record| {
        bodies.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
        Ok(())
    };
    read::customers(reader, visit).unwrap();
    bodies
}

/// Asserts that the log is whole and folds to the mirror.
pub(crate) fn assert_proven(reader: &Reader) {
    assert_eq!(verify(reader, None).unwrap().findings, Vec::<String>::new());
}
