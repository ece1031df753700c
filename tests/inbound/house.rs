//! A local KOMOJU, a directory with a configuration, and two ways to work there: the real binary, and a pass in this process
//! whose clock moves by itself (so that ten tries with their waits take no time).

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use komoju_core::PassKind;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Effect, Fault, FaultId, Options, Readings, Sandbox};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::config::Config;
use komoju_sync::remote::Http;
use komoju_sync::secret::SecretKey;
use komoju_sync::store::log::verify::verify;
use komoju_sync::store::{Reader, Store, read};
use komoju_sync::tasks::pull::{Pull, Report, Settings};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The sandbox's key: no part of any text that may be printed.
pub const KEY: &str = "sk_test_4f1c0d5e7a9b";

/// Passes at no time of the day: only those that a test asks for, and the daemon's first.
const QUIET: &str = "sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"";

pub struct House {
    pub runtime: Runtime,
    pub sandbox: Sandbox,
    pub directory: TempDir,
    key: String,
    extra: String,
    /// What the commands that ran to their end have said.
    pub said: Mutex<String>,
}

/// A process that does not outlive its test, also where that fails.
pub struct Process(Option<Child>);

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self(Some(child))
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    pub fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().unwrap().wait_with_output()
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a run of the binary left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A connection that the schema takes for one of the program: it may set up any state.
pub fn own(database: &Path) -> Connection {
    let conn = Connection::open(database).unwrap();
    komoju_sync::store::file::own::sign(&conn).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn
}

impl House {
    pub fn with(customers: u32) -> Self {
        Self::reading(customers, Readings::default())
    }

    pub fn reading(customers: u32, readings: Readings) -> Self {
        let runtime = Runtime::new().unwrap();
        let options = Options { customers, readings, key: KEY.to_owned(), ..Options::default() };
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        let key = sandbox.key().to_owned();
        let (directory, extra) = (TempDir::new().unwrap(), QUIET.to_owned());
        let house = Self { runtime, sandbox, directory, key, extra, said: Mutex::default() };
        house.configure();
        house
    }

    /// Writes these lines below `[inbound]`, in place of a cadence that rests.
    pub fn inbound(mut self, lines: &str) -> Self {
        self.extra = lines.to_owned();
        self.configure();
        self
    }

    /// Uses another key from now on.
    pub fn use_key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self) {
        // Most tests have no patience for reads that lag.
        let lag = if self.extra.contains("consistency_s") { "" } else { "\nconsistency_s = 0" };
        let text = format!(
            "[api]\nbase_url = \"{}\"\nper_page = 10\n[rate_limit]\nrequests_per_second = 0\n[database]\npath = '{}'\n\
             [inbound]\n{}{lag}\n[outbound]\nspool_dir = '{}'\n",
            self.sandbox.base_url(),
            self.path("komoju.db").display(),
            self.extra,
            self.path("spool").display(),
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_komoju-sync"));
        command
            .env_clear()
            .env("KOMOJU_SECRET_KEY", &self.key)
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!shown.contains(&self.key), "the key is printed: {shown}");
        self.said.lock().unwrap().push_str(&shown);
        ran
    }

    /// Runs and expects this exit code.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}\n{}{}", ran.stdout, ran.stderr);
        ran
    }

    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    pub fn inject(&self, fault: Fault) -> FaultId {
        self.sandbox.world().inject(fault)
    }

    /// An effect on every list.
    pub fn on_lists(&self, effect: Effect) -> FaultId {
        self.inject(Fault::new(effect).call(komoju_sandbox::Call::List))
    }

    pub fn fired(&self, fault: FaultId) -> u64 {
        self.sandbox.world().fired(fault)
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.path("komoju.db")).unwrap()
    }

    /// One column of a query, as text.
    pub fn column(&self, sql: &str) -> Vec<String> {
        let reader = self.reader();
        let mut statement = reader.prepare(sql).unwrap();
        let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        statement.query_map([], text).unwrap().map(|value| shown(value.unwrap())).collect()
    }

    pub fn one(&self, sql: &str) -> String {
        let column = self.column(sql);
        assert_eq!(column.len(), 1, "{sql}: {column:?}");
        column[0].clone()
    }

    /// The kinds of the changes after `seq`, in their order.
    pub fn kinds_after(&self, seq: i64) -> Vec<String> {
        self.column(&format!("SELECT kind FROM changes WHERE seq > {seq} ORDER BY seq"))
    }

    pub fn head(&self) -> i64 {
        self.one("SELECT head_seq FROM mirror_info").parse().unwrap()
    }

    /// The live customers' bodies by id.
    pub fn mirror(&self) -> BTreeMap<String, Value> {
        let mut bodies = BTreeMap::new();
        let visit = |record: read::Record| {
            bodies.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
            Ok(())
        };
        read::customers(&self.reader(), visit).unwrap();
        bodies
    }

    /// Asserts that the mirror is the truth and the log proves it.
    pub fn assert_true(&self) {
        assert_eq!(self.mirror(), self.sandbox.world().truth());
        self.assert_proven();
    }

    /// Asserts that the log is whole and folds to the mirror.
    pub fn assert_proven(&self) {
        assert_eq!(verify(&self.reader(), None).unwrap().findings, Vec::<String>::new());
    }

    /// One pass in this process, by a clock that moves only as the pass waits.
    pub fn pass(&self, kind: PassKind) -> Report {
        let config = Config::load(&self.path("config.toml")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at("2026-06-01T00:00:00Z".parse().unwrap()));
        let key = SecretKey::parse(&self.key).unwrap();
        let remote = Arc::new(Http::new(&config, &key, Arc::clone(&clock)).unwrap());
        let settings = Settings {
            per_page: 10,
            max_concurrent_requests: 3,
            max_delete_count: 10,
            max_delete_percent: 5,
            consistency: Consistency::default(),
            period: None,
            seed: 1,
        };
        let store = Arc::new(Store::open(&config.database.path).unwrap());
        let pull = Pull::new(store, remote, Arc::new(key), clock, settings, CancellationToken::new());
        self.runtime.block_on(async {
            match kind {
                PassKind::Sweep => pull.sweep().await.unwrap(),
                PassKind::Probe => pull.probe().await.unwrap().unwrap(),
            }
        })
    }

    pub fn sweep(&self) -> Report {
        self.pass(PassKind::Sweep)
    }
}

fn shown(value: rusqlite::types::Value) -> String {
    use rusqlite::types::Value::{Blob, Integer, Null, Real, Text};
    match value {
        Null => "null".to_owned(),
        Integer(n) => n.to_string(),
        Real(n) => n.to_string(),
        Text(text) => text,
        Blob(_) => "blob".to_owned(),
    }
}
