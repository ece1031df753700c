//! The second door, the spool directory: each file becomes intents once, or is refused with a
//! reason. No file is lost, and no secret is left.

mod accepted;
mod claims;
mod directories;
mod left;
mod order;
mod receipts;
mod refused;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use jiff::Timestamp;
use komoju_sync::clock::{Clock as _, ManualClock};
use komoju_sync::store::Store;
use komoju_sync::store::outbox::operator;
use komoju_sync::tasks::spool::{Overview, ScanSummary, Spool, SpoolSettings};
use rusqlite::Connection;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Waits until no process holds the lock of a spool directory. A process that another test starts
/// shares the lock of a `Spool` from its fork to its exec, also after the `Spool` is dropped.
fn until_unlocked(spool: &Path) {
    let Ok(directory) = fs::metadata(spool) else { return };
    let held = format!(":{} 0 EOF", directory.ino());
    komoju_testkit::eventually("the lock is released", || {
        !fs::read_to_string("/proc/locks").unwrap().contains(&held)
    });
}

const HOUR: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

const CREATE: &str = r#"{"op": "create", "body": {"email": "a@example.jp"}}"#;

struct SpoolHarness {
    home: TempDir,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    spool: Spool,
}

impl SpoolHarness {
    /// Opens a spool with a clock that is an hour ahead, so that every file counts as unchanged for
    /// long enough.
    async fn open() -> Self {
        let harness = Self::with(true);
        assert_eq!(harness.scan().await, ScanSummary::default(), "the scan only creates the directory");
        harness
    }

    fn with(enabled: bool) -> Self {
        start_log();
        let home = TempDir::new().unwrap();
        let store = Arc::new(Store::open(&home.path().join("komoju.db")).unwrap());
        let clock = Arc::new(ManualClock::at(touched(home.path()) + HOUR));
        let spool = door(&home, &store, &clock, enabled);
        Self { home, store, clock, spool }
    }

    /// Replaces the spool by a new one, as a restart does: its memory is lost.
    fn restart(&mut self) {
        self.spool = door(&self.home, &self.store, &self.clock, true);
        until_unlocked(&self.at(""));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join("intents").join(path)
    }

    fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn receipt(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(&format!("receipts/{name}.json"))).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if path.is_empty() {
            assert_eq!(names.remove(0), ".claimed");
        }
        names
    }

    /// The claimed files.
    fn claimed(&self) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.at(".claimed")).unwrap().map(|entry| entry.unwrap().path());
        let files =
            directories.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        files.collect()
    }

    async fn scan(&self) -> ScanSummary {
        self.spool.scan().await.unwrap()
    }

    /// The directory as `status` shows it.
    fn overview(&self) -> Overview {
        Overview::read(&self.at(""), &self.home.path().join("komoju.db"), Some(None))
    }

    fn sql(&self) -> Connection {
        Connection::open(self.home.path().join("komoju.db")).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let sql = self.sql();
        let mut ids = sql.prepare("SELECT id FROM intents ORDER BY position").unwrap();
        ids.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    async fn cancel(&self, id: &str) {
        let (id, at) = (id.to_owned(), komoju_core::time::written(self.clock.now()));
        self.store.write(move |tx| operator::cancel(tx, &id, &at, "tok_leaked")).await.unwrap();
    }

    /// Returns the reason why a file was left. Panics if it was not left.
    fn why(summary: &ScanSummary, name: &str) -> String {
        let left = summary.skipped.iter().find(|left| left.name == name);
        left.unwrap_or_else(|| panic!("{name} is not in {summary:?}")).why.clone()
    }
}

thread_local! {
    /// What this thread has logged since its test began.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A writer that keeps the log of each thread for the test that the thread runs.
struct ThreadLog;

impl std::io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // The log of a thread is gone while the thread ends.
        let _ = LOGGED.try_with(|logged| logged.borrow_mut().extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts this thread's log. One subscriber serves the process: tests of other modules log to it
/// too, each thread for itself. The subscriber is added once. Otherwise a log statement that one
/// thread reaches for the first time, while another thread adds a subscriber, can stay disabled.
fn start_log() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| ThreadLog).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    LOGGED.take();
}

/// Returns what this thread has logged.
fn logged() -> String {
    LOGGED.with(|logged| String::from_utf8(logged.borrow().clone()).unwrap())
}

fn door(home: &TempDir, store: &Arc<Store>, clock: &Arc<ManualClock>, enabled: bool) -> Spool {
    let settings = SpoolSettings { dir: home.path().join("intents"), enabled };
    Spool::new(Arc::clone(store), None, Arc::clone(clock) as Arc<_>, settings)
}

fn touched(path: &Path) -> Timestamp {
    let file = fs::metadata(path).unwrap();
    Timestamp::new(file.ctime(), i32::try_from(file.ctime_nsec()).unwrap()).unwrap()
}

fn digest(content: &str) -> String {
    Sha256::digest(content).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether any file below this directory contains this text.
fn holds(path: &Path, text: &str) -> bool {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn create(id: &str) -> String {
    format!("{{\"op\": \"create\", \"id\": \"{id}\", \"body\": {{\"email\": \"a\"}}}}\n")
}

impl SpoolHarness {
    /// Puts a file where a process leaves it that ends after the rename.
    fn claim_by_hand(&self, id: &str, name: &str, content: &str) {
        fs::create_dir_all(self.at(".claimed").join(id)).unwrap();
        fs::write(self.at(".claimed").join(id).join(name), content).unwrap();
    }

    /// Makes the receipt fail, so that the file is accepted and stays claimed, as after a crash
    /// before the removal.
    fn block_receipt(&self, name: &str) {
        fs::create_dir_all(self.at(&format!("receipts/{name}.json/in the way"))).unwrap();
    }

    fn unblock_receipt(&self, name: &str) {
        fs::remove_dir_all(self.at(&format!("receipts/{name}.json"))).unwrap();
    }

    /// Returns the ids in the copies in rejected/: refused files, and bytes that arrived too late.
    fn rejected_ids(&self) -> BTreeSet<String> {
        let copies = self.names("rejected").into_iter().filter(|name| !name.ends_with(".error"));
        let texts = copies.map(|name| self.read(&format!("rejected/{name}"))).collect::<Vec<_>>();
        let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Returns the size of all files in a directory.
fn size(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

async fn refused(content: &[u8]) -> (SpoolHarness, String) {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.jsonl", content);
    assert_eq!(harness.scan().await.refused, 1);
    assert_eq!(harness.names("rejected"), ["a.jsonl", "a.jsonl.error"]);
    let (kept, dropped) = (size(&harness.at("rejected")), content.len() as u64);
    assert!(kept <= dropped + 64 * 1024, "{kept} of {dropped}");
    let error = harness.read("rejected/a.jsonl.error");
    (harness, error)
}

const UPDATE: &str = r#"{"op": "update", "customer_id": "c", "body": {"email": "a@example.jp"}, "id": "ID"}"#;

fn update(id: &str) -> String {
    UPDATE.replace("ID", id)
}
