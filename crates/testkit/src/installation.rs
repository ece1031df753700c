//! A local KOMOJU, a directory with a configuration, and two ways to run the product there: the
//! real binary, and a pass in this process. The clock of that pass moves when the pass waits, so
//! that ten tries with their waits take no time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use komoju_core::PassKind;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Fault, FaultEffect, FaultId, Options, Readings, Sandbox, World};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::config::Config;
use komoju_sync::remote::Http;
use komoju_sync::secret::SecretKey;
use komoju_sync::store::{Reader, Store};
use komoju_sync::tasks::pull::{Pull, Report, Settings};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::process::Process;
use crate::sql::Kept;
use crate::{in_process, process, sql};

/// The sandbox's key. No output may contain it.
pub const KEY: &str = "sk_test_4f1c0d5e7a9b";

/// The cadence without ticks during a test: passes run only at a test's request and at the start.
const QUIET: &str = "sweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"";

/// A local KOMOJU, a directory with a configuration that names it, and the real binary.
pub struct Installation {
    program: &'static str,
    /// Drives the local KOMOJU.
    pub runtime: Runtime,
    /// The local KOMOJU.
    pub sandbox: Sandbox,
    /// Holds the configuration, the database and the spool directory; removed at the end.
    pub directory: TempDir,
    key: String,
    extra: String,
    follows_events: bool,
    /// The output of all commands that `run` ran.
    pub said: Mutex<String>,
    kept_reader: Kept<Reader>,
}

/// The result of a run of the binary.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; -1 if a signal ended the process.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Installation {
    /// Returns an account with this number of customers and no database. `program` is the path of
    /// the binary.
    pub fn with(program: &'static str, customers: u32) -> Self {
        Self::reading(program, customers, Readings::default())
    }

    /// Returns the same after one complete `sync`.
    pub fn swept(program: &'static str, customers: u32) -> Self {
        let harness = Self::with(program, customers);
        harness.expect(0, &["sync"]);
        harness
    }

    /// An account under these readings of what the API's documentation leaves open, and no
    /// database.
    pub fn reading(program: &'static str, customers: u32, readings: Readings) -> Self {
        let runtime = Runtime::new().unwrap();
        let options = Options { customers, readings, key: KEY.to_owned(), ..Options::default() };
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        let key = sandbox.key().to_owned();
        let (directory, extra) = (TempDir::new().unwrap(), QUIET.to_owned());
        let said = Mutex::default();
        let harness = Self {
            program,
            runtime,
            sandbox,
            directory,
            key,
            extra,
            follows_events: false,
            said,
            kept_reader: Kept::default(),
        };
        harness.configure();
        harness
    }

    /// Has the daemon read events each second. Without this it reads none, because most tests count
    /// requests or compare what a sweep finds.
    pub fn following_events(mut self) -> Self {
        self.follows_events = true;
        self.configure();
        self
    }

    /// Writes these lines below `[inbound]`, in place of the cadence without ticks.
    pub fn inbound(mut self, lines: &str) -> Self {
        self.extra = lines.to_owned();
        self.configure();
        self
    }

    /// Uses another key from now on.
    pub fn use_key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    /// Returns the path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration.
    fn configure(&self) {
        // Most tests do not wait for reads that lag.
        let lag = if self.extra.contains("consistency_s") { "" } else { "\nconsistency_s = 0" };
        let text = format!(
            "[api]\nbase_url = \"{}\"\nper_page = 10\n[rate_limit]\nrequests_per_second = 0\n[database]\npath = '{}'\n\
             [inbound]\n{}{lag}\n[events]\nenabled = {}\nfastest_s = 1\n[outbound]\nspool_dir = '{}'\n",
            self.sandbox.base_url(),
            self.path("komoju.db").display(),
            self.extra,
            self.follows_events,
            self.path("spool").display(),
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Appends lines below `[outbound]`, and whole tables after it.
    pub fn append_config(&self, lines: &str) {
        let text = std::fs::read_to_string(self.path("config.toml")).unwrap();
        std::fs::write(self.path("config.toml"), format!("{text}{lines}\n")).unwrap();
    }

    /// Replaces the first occurrence of a text in the configuration, which must contain it.
    pub fn replace_in_config(&self, from: &str, to: &str) {
        let file = self.path("config.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in the configuration: {text}");
        std::fs::write(file, text.replacen(from, to, 1)).unwrap();
    }

    /// Returns a command that is not started: the binary with this configuration, the key and these
    /// arguments. Closes the connection of the queries, because some commands need the database for
    /// themselves.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.kept_reader.close();
        let mut command = Command::new(self.program);
        command
            .env_clear()
            .env("KOMOJU_SECRET_KEY", &self.key)
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. The key must not be in its output.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!shown.contains(&self.key), "the key is printed: {shown}");
        self.said.lock().unwrap().push_str(&shown);
        ran
    }

    /// Runs a command to its end and expects this exit code.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}\n{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Starts a command; its output can be read.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Adds a fault to the local KOMOJU.
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.sandbox.world().inject(fault)
    }

    /// Adds an effect on every list.
    pub fn on_lists(&self, effect: FaultEffect) -> FaultId {
        self.inject(Fault::new(effect).call(komoju_sandbox::FaultedCall::List))
    }

    /// Waits until the condition holds of the local KOMOJU, for at most this time; returns whether
    /// it did.
    pub fn within(&self, time: Duration, holds: impl FnMut(&World) -> bool) -> bool {
        self.runtime.block_on(async { tokio::time::timeout(time, self.sandbox.until(holds)).await.is_ok() })
    }

    /// Waits until the condition holds of the local KOMOJU; panics after half a minute.
    pub fn until(&self, holds: impl FnMut(&World) -> bool) {
        let time = Duration::from_secs(30);
        assert!(self.within(time, holds), "the condition did not hold within {time:?}");
    }

    /// Returns how often a fault was met.
    pub fn fired(&self, fault: FaultId) -> u64 {
        self.sandbox.world().fired(fault)
    }

    /// Writes a hidden file into the spool directory, and renames it into place.
    pub fn drop_file(&self, name: &str, content: &str) {
        let spool = self.path("spool");
        let hidden = spool.join(format!(".{name}"));
        std::fs::write(&hidden, content).unwrap();
        std::fs::rename(hidden, spool.join(name)).unwrap();
    }

    /// Returns the path of the database. Closes the connection of the queries, because the caller
    /// may replace or damage the file.
    pub fn database(&self) -> PathBuf {
        self.kept_reader.close();
        self.path("komoju.db")
    }

    /// Runs queries on the connection that is kept for them.
    #[track_caller]
    fn query<T>(&self, work: impl FnOnce(&Reader) -> T) -> T {
        self.kept_reader.with(&self.path("komoju.db"), in_process::open_reader, work)
    }

    /// Opens a connection as another program does.
    pub fn writer(&self) -> Connection {
        sql::foreign(&self.database())
    }

    /// Sets up a state that only the program may write.
    pub fn sql(&self, statements: &str) {
        sql::own(&self.database()).execute_batch(statements).unwrap();
    }

    /// Queues an intent through the SQL door.
    pub fn intend(&self, id: &str, op: &str, customer: Option<&str>, body: Option<Value>) {
        sql::intend(&self.writer(), id, op, customer, body);
    }

    /// Opens a read-only connection of the program.
    pub fn reader(&self) -> Reader {
        in_process::open_reader(&self.database())
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

    /// Returns the kinds of the changes after `seq`, in their order.
    pub fn kinds_after(&self, seq: i64) -> Vec<String> {
        self.column(&format!("SELECT kind FROM changes WHERE seq > {seq} ORDER BY seq"))
    }

    /// Returns the `seq` of the last change.
    pub fn head(&self) -> i64 {
        self.one("SELECT head_seq FROM mirror_info").parse().unwrap()
    }

    /// Returns the bodies of the live customers by id.
    pub fn mirror(&self) -> BTreeMap<String, Value> {
        self.query(in_process::mirror)
    }

    /// Asserts that the mirror equals the account, and that the log proves it.
    pub fn assert_true(&self) {
        assert_eq!(self.mirror(), self.sandbox.world().truth());
        self.assert_proven();
    }

    /// Asserts that the log is whole and folds to the mirror.
    pub fn assert_proven(&self) {
        self.query(in_process::assert_proven);
    }

    /// Runs one pass in this process, by a clock that moves only as the pass waits.
    pub fn pass(&self, kind: PassKind) -> Report {
        process::allow_many_files();
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

    /// Runs one sweep in this process.
    pub fn sweep(&self) -> Report {
        self.pass(PassKind::Sweep)
    }
}
