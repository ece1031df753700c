//! A local KOMOJU whose clock stands still, a database, and a pusher in this process by a clock that moves with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Effect, Fault, FaultId, Options, Readings, Sandbox};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::config::Config;
use komoju_sync::remote::Http;
use komoju_sync::secret::SecretKey;
use komoju_sync::store::log::verify::verify;
use komoju_sync::store::{Reader, Store};
use komoju_sync::tasks::Echoes;
use komoju_sync::tasks::pull::{Pull, Report, Settings};
use komoju_sync::tasks::push::{Drained, PushSettings, Pusher, Signals};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const START: &str = "2026-06-01T00:00:00Z";

pub struct Desk {
    pub sandbox: Arc<Sandbox>,
    pub directory: TempDir,
    pub clock: Arc<ManualClock>,
    pub echoes: Arc<Echoes>,
    pub signals: Arc<Signals>,
    pub settings: PushSettings,
    pub key: String,
    pub store: Option<Arc<Store>>,
}

impl Desk {
    /// An account of so many customers, read once.
    pub async fn open(customers: u32) -> Self {
        Self::reading(customers, Readings::default()).await
    }

    pub async fn reading(customers: u32, readings: Readings) -> Self {
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
        let mut desk = Self {
            sandbox,
            directory,
            clock: Arc::new(ManualClock::at(start)),
            echoes: Arc::default(),
            signals: Arc::default(),
            settings,
            key,
            store: Some(store),
        };
        assert!(desk.sweep().await.failure.is_none());
        desk.sandbox.world().clear_requests();
        desk
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("komoju.db")
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    /// The process ends and another begins: nothing but the files is left.
    pub fn restart(&mut self) {
        self.store = None;
        self.echoes = Arc::default();
        self.store = Some(Arc::new(Store::open(&self.database()).unwrap()));
    }

    /// Both clocks move on.
    pub fn advance(&self, by: SignedDuration) {
        let by = Duration::try_from(by).unwrap();
        self.clock.advance(by);
        self.sandbox.world().advance(by);
    }

    pub fn remote_at(&self, base_url: &str) -> Http {
        let file = self.directory.path().join("config.toml");
        let text = format!("[api]\nbase_url = \"{base_url}\"\n[rate_limit]\nrequests_per_second = 0\n");
        std::fs::write(&file, text).unwrap();
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Http::new(&Config::load(&file).unwrap(), &SecretKey::parse(&self.key).unwrap(), clock).unwrap()
    }

    pub fn pusher_at(&self, base_url: &str, stop: CancellationToken) -> Pusher<Http> {
        self.pusher_on(self.remote_at(base_url), stop)
    }

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
            Arc::clone(&self.echoes),
            Arc::clone(&self.signals),
        )
    }

    /// One drain by a new process.
    pub async fn drain(&mut self) -> Drained {
        let base_url = self.sandbox.base_url();
        self.drain_at(&base_url).await
    }

    pub async fn drain_at(&mut self, base_url: &str) -> Drained {
        let pusher = self.pusher_at(base_url, CancellationToken::new());
        pusher.recover().await.unwrap();
        pusher.drain().await.unwrap()
    }

    /// Drains until nothing waits for its next attempt any more, for at most so many rounds of so long.
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

    pub fn pull(&self) -> Pull<Http> {
        let settings = Settings {
            per_page: 10,
            max_concurrent_requests: 3,
            max_delete_count: 10,
            max_delete_percent: 5,
            consistency: self.settings.consistency,
            period: None,
            seed: 1,
        };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let key = Arc::new(SecretKey::parse(&self.key).unwrap());
        let remote = Arc::new(self.remote_at(&self.sandbox.base_url()));
        Pull::new(self.store(), remote, key, clock, settings, CancellationToken::new())
            .with_echoes(Arc::clone(&self.echoes))
    }

    pub async fn sweep(&mut self) -> Report {
        self.pull().sweep().await.unwrap()
    }

    /// A writer of another program: SQLite as it comes.
    pub fn writer(&self) -> Connection {
        let conn = Connection::open(self.database()).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn
    }

    /// Sets up a state that only the program may write.
    pub fn sql(&self, sql: &str) {
        let conn = self.writer();
        komoju_sync::store::file::own::sign(&conn).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    /// What the door says to this statement.
    pub fn refusal(&self, sql: &str) -> String {
        self.writer().execute_batch(sql).unwrap_err().to_string()
    }

    /// Drops an intent by SQL.
    pub fn intend(&self, id: &str, op: &str, customer: Option<&str>, body: Option<Value>) {
        let body = body.map(|body| body.to_string());
        self.writer()
            .execute(
                "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
                rusqlite::params![id, op, customer, body],
            )
            .unwrap();
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.database()).unwrap()
    }

    /// One column of a query, as text.
    pub fn column(&self, sql: &str) -> Vec<String> {
        let reader = self.reader();
        let mut statement = reader.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Sql>(0)).unwrap();
        rows.map(|value| match value.unwrap() {
            Sql::Null => "null".to_owned(),
            Sql::Integer(n) => n.to_string(),
            Sql::Real(n) => n.to_string(),
            Sql::Text(text) => text,
            Sql::Blob(_) => "blob".to_owned(),
        })
        .collect()
    }

    pub fn one(&self, sql: &str) -> String {
        let column = self.column(sql);
        assert_eq!(column.len(), 1, "{sql}: {column:?}");
        column[0].clone()
    }

    /// A column of the intent with this id.
    pub fn of(&self, id: &str, column: &str) -> String {
        self.one(&format!("SELECT {column} FROM intents WHERE id = '{id}'"))
    }

    pub fn state(&self, id: &str) -> String {
        self.of(id, "state")
    }

    /// `id state` of every intent, in their order.
    pub fn states(&self) -> Vec<String> {
        self.column("SELECT id || ' ' || state FROM intents ORDER BY position")
    }

    pub fn detail(&self, id: &str) -> Value {
        serde_json::from_str(&self.of(id, "detail")).unwrap()
    }

    pub fn head(&self) -> i64 {
        self.one("SELECT head_seq FROM mirror_info").parse().unwrap()
    }

    /// `kind origin intent` of the changes after this one.
    pub fn changes_after(&self, seq: i64) -> Vec<String> {
        self.column(&format!(
            "SELECT kind || ' ' || origin || coalesce(' ' || intent_id, '') FROM changes WHERE seq > {seq} ORDER BY seq"
        ))
    }

    pub fn some_id(&self) -> String {
        self.sandbox.world().ids()[0].clone()
    }

    pub fn inject(&self, fault: Fault) -> FaultId {
        self.sandbox.world().inject(fault)
    }

    /// An effect on every push of this kind.
    pub fn on(&self, call: komoju_sandbox::Call, effect: Effect) -> FaultId {
        self.inject(Fault::new(effect).call(call))
    }

    /// `METHOD path-end` of what arrived.
    pub fn calls(&self) -> Vec<String> {
        let world = self.sandbox.world();
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        world.requests().iter().map(|seen| format!("{} {}", seen.method, last(&seen.path))).collect()
    }

    /// Asserts that mirror, log and remote say the same.
    pub fn assert_true(&self) {
        let mut bodies = std::collections::BTreeMap::new();
        komoju_sync::store::read::customers(&self.reader(), |record| {
            bodies.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(bodies, self.sandbox.world().truth());
        assert_eq!(verify(&self.reader(), None).unwrap().findings, Vec::<String>::new());
    }
}
