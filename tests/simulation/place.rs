//! The directory and the runtime of all worlds, one world after the other. The directory is in
//! memory if the machine has `/dev/shm`.
//!
//! The product never closes a database's file while its process lives, because that would drop
//! SQLite's locks. So the file is reused.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use komoju_sync::store::Store;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub struct Place {
    pub runtime: Runtime,
    directory: TempDir,
}

/// An empty database that also records each transition of an intent.
static EMPTY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("empty.db");
    Store::open(&path).unwrap().close();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "CREATE TABLE seen (n INTEGER PRIMARY KEY, position INTEGER, was TEXT, became TEXT);
         CREATE TRIGGER see AFTER UPDATE OF state ON intents WHEN OLD.state IS NOT NEW.state
         BEGIN INSERT INTO seen (position, was, became) VALUES (NEW.position, OLD.state, NEW.state); END;
         PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    drop(conn);
    fs::read(&path).unwrap()
});

impl Place {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => TempDir::new_in(memory).unwrap(),
            false => TempDir::new().unwrap(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("komoju.db")
    }

    pub fn spool(&self) -> PathBuf {
        self.path().join("intents")
    }

    /// Prepares a new world: an empty database, and no other file.
    pub fn clear(&self) {
        for entry in fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else if path != self.database() {
                remove_database(&path);
            }
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(self.database()).unwrap();
        file.write_all(&EMPTY).unwrap();
    }
}

/// Removes a database's file. Truncates it first, because the file is still open until the process
/// ends.
pub fn remove_database(path: &Path) {
    OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    fs::remove_file(path).unwrap();
}
