//! The environment of the daemon: its directory, its process, and the local KOMOJU.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use komoju_sandbox::{Sandbox, WorldGuard};
use komoju_sync::store::Reader;
use komoju_testkit::in_process::mirror;
use komoju_testkit::{signal, sql};
use rand::Rng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::doors::Dropper;
use crate::ledger::Ledger;

/// A daemon with its directory and the local KOMOJU.
pub struct Installation {
    sandbox: Sandbox,
    directory: TempDir,
    daemon: Option<Child>,
    /// A connection with an open read transaction, and when that ends.
    parked: Option<(Connection, Instant)>,
    backups: usize,
}

/// Lists the intents that are not settled, except those that wait for a parked one.
pub const OPEN: &str =
    "SELECT id || ' ' || state || ': ' || coalesce(reason, 'without a reason') FROM intents
    WHERE state IN ('queued', 'sending', 'waiting') AND coalesce(reason, '') NOT IN
        (SELECT 'waits for intent ' || id FROM intents WHERE state = 'parked')";

impl Installation {
    pub fn new(sandbox: Sandbox) -> Self {
        let directory = TempDir::new().unwrap();
        let harness = Self { sandbox, directory, daemon: None, parked: None, backups: 0 };
        let text = format!(
            "[api]\nbase_url = \"{}\"\nrequest_timeout_s = 5\n[rate_limit]\nrequests_per_second = 200\nburst = 20\n\
             [database]\npath = '{}'\n[inbound]\nsweep_cron = \"*/3 * * * * *\"\nprobe_cron = \"* * * * * *\"\nconsistency_s = 0\n\
             [outbound]\nspool_dir = '{}'\nhold_deletes_over = 1000000\n",
            harness.sandbox.base_url(),
            harness.database().display(),
            harness.path("spool").display(),
        );
        std::fs::write(harness.path("config.toml"), text).unwrap();
        harness
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("komoju.db")
    }

    pub fn world(&self) -> WorldGuard<'_> {
        self.sandbox.world()
    }

    /// Keeps the files, and returns their directory.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_komoju-sync"));
        command
            .env("KOMOJU_SECRET_KEY", self.sandbox.key())
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals of the terminal must reach only the soak.
            .process_group(0);
        command
    }

    pub fn start(&mut self, ledger: &mut Ledger) {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        self.daemon = Some(self.command(&["run"]).stderr(log).spawn().unwrap());
        ledger.starts += 1;
    }

    pub fn daemon(&mut self) -> &mut Child {
        self.daemon.as_mut().unwrap()
    }

    /// Waits for the first complete sweep.
    pub fn until_first_sweep(&self) {
        let swept = "SELECT count(*) FROM mirror_info WHERE last_sweep_at IS NOT NULL";
        assert!(
            until(Duration::from_secs(120), || {
                Reader::open(&self.database())
                    .is_ok_and(|reader| reader.query_row(swept, [], |row| row.get(0)).unwrap_or(0) == 1)
            }),
            "no sweep was ever complete"
        );
    }

    /// Kills or stops the daemon, and starts it again.
    pub fn end_and_start(&mut self, dice: &mut StdRng, ledger: &mut Ledger) {
        ledger.note_memory(self.daemon().id());
        if dice.random_bool(0.75) {
            self.daemon().kill().unwrap();
            self.daemon().wait().unwrap();
            ledger.kills += 1;
        } else {
            self.stop(ledger);
        }
        self.start(ledger);
    }

    /// Sends SIGTERM when the daemon handles it. Before that the signal ends the process like any
    /// program, and there is no stop to measure.
    pub fn stop(&mut self, ledger: &mut Ledger) {
        let pid = self.daemon().id();
        if !until(Duration::from_secs(60), || catches_sigterm(pid)) {
            ledger.say_wrong("the daemon never listened for SIGTERM".to_owned());
        }
        let since = Instant::now();
        signal("TERM", pid);
        let ended = self.daemon().wait().unwrap();
        ledger.stopped(since.elapsed(), ended);
    }

    /// Opens a read transaction for some seconds, so that the write-ahead log cannot be emptied.
    pub fn park_a_reader(&mut self, dice: &mut StdRng, ledger: &mut Ledger) {
        if self.parked.is_none() {
            let conn = Connection::open(self.database()).unwrap();
            conn.execute_batch("BEGIN; SELECT count(*) FROM customers").unwrap();
            self.parked = Some((conn, Instant::now() + Duration::from_secs(dice.random_range(1..10))));
            ledger.parked_readers += 1;
        }
    }

    /// Ends the read transaction if its time is over.
    pub fn release_reader(&mut self) {
        self.parked.take_if(|(_, until)| *until <= Instant::now());
    }

    /// Runs a random command while the daemon runs.
    pub fn run_command(&mut self, dice: &mut StdRng, ledger: &mut Ledger) {
        self.backups += 1;
        let backup = self.path(&format!("backup-{}.db", self.backups % 2));
        let text = backup.display().to_string();
        let (arguments, expected): (&[&str], &[i32]) = match dice.random_range(0..5) {
            0 => (&["status"], &[0, 1, 3, 4]),
            1 => (&["verify"], &[0, 3]),
            2 => (&["doctor"], &[0, 1, 3, 4]),
            3 => {
                let _ = std::fs::remove_file(&backup);
                (&["backup", &text], &[0])
            }
            // There may be no hold to approve.
            _ => (&["deletions", "approve"], &[0, 1, 2, 3]),
        };
        let output = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        let code = output.status.code().unwrap_or(-1);
        ledger.asked += 1;
        if !expected.contains(&code) {
            let error = String::from_utf8_lossy(&output.stderr);
            ledger.say_wrong(format!("{arguments:?} exited with {code}: {error}"));
        }
    }

    /// Ends the faults. Waits until the outbox is empty and the spool taken, then reads the whole
    /// list once more.
    pub fn settle(&mut self, within: Duration, dropper: &Dropper, ledger: &mut Ledger) {
        ledger.note_faults(&self.world());
        self.world().clear_faults();
        self.parked = None;
        // A refused key is tried again after a quarter of an hour, or at the next start.
        self.stop(ledger);
        self.start(ledger);
        let settled = || self.waiting_files() == 0 && self.column(OPEN).is_empty();
        if !until(within, settled) {
            ledger.say_wrong(format!(
                "after {within:?} {} intents are open and {} files are in the spool, of {} dropped",
                self.column(OPEN).len(),
                self.waiting_files(),
                dropper.accepted()
            ));
        }
        ledger.look(self);
        self.stop(ledger);
        self.finish(&["sync"], ledger);
        // Approve the holds. Each of these customers must be gone when it is requested again.
        if self.number("SELECT count(*) FROM held_deletions WHERE state = 'held'") > 0 {
            self.finish(&["deletions", "approve"], ledger);
            self.finish(&["sync"], ledger);
        }
    }

    fn finish(&self, arguments: &[&str], ledger: &mut Ledger) {
        let output = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        // Exit code 3: parked intents wait for an operator.
        if !matches!(output.status.code(), Some(0 | 3)) {
            ledger.say_wrong(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }

    fn waiting_files(&self) -> usize {
        let entries = std::fs::read_dir(self.path("spool")).unwrap().map(Result::unwrap);
        entries
            .filter(|entry| entry.path().is_file() && !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.database()).unwrap()
    }

    pub fn number(&self, sql: &str) -> u64 {
        sql::one(&self.reader(), sql).parse().unwrap()
    }

    pub fn column(&self, sql: &str) -> Vec<String> {
        sql::column(&self.reader(), sql)
    }

    /// Returns the bodies of the live customers by id.
    pub fn mirror(&self) -> BTreeMap<String, Value> {
        mirror(&self.reader())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Whether a process handles SIGTERM, by its mask of caught signals (`proc(5)`). A process that has
/// ended handles no signal.
fn catches_sigterm(pid: u32) -> bool {
    const SIGTERM: u64 = 1 << (15 - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).unwrap() & SIGTERM != 0
}

pub fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Polls until a condition holds; returns whether it did. Another process gives no signal.
fn until(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if since.elapsed() > within {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
