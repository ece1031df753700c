//! A disk that fails: a preloaded library (`preload/calls.c`) makes calls on files fail, for one
//! program that runs under it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The compiled library, in a directory of its own.
#[derive(Debug)]
pub struct Library {
    directory: TempDir,
}

/// The calls that fail, and their error.
#[derive(Clone, Copy, Debug)]
pub struct DiskFault {
    /// The files on the disk that fails.
    pub place: FaultPlace,
    /// The kinds of calls, as letters of `calls.c`.
    pub kinds: &'static str,
    /// The error.
    pub errno: i32,
    /// How many calls fail.
    pub lasts: FaultCount,
    /// The first of these calls that fails, from 1; 0: none.
    pub nth: u64,
}

/// The files on the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPlace {
    /// The database and the spool directory.
    Everywhere,
    /// The spool directory.
    Spool,
}

/// How many calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCount {
    /// One call.
    Once,
    /// That call and all that follow.
    FromThenOn,
}

/// The calls of a program that runs with the library.
#[derive(Debug)]
pub struct Calls {
    seen: File,
    lifted: PathBuf,
}

impl Library {
    /// Copies the library of the build to a path that `LD_PRELOAD` accepts.
    pub fn load() -> Self {
        let directory = TempDir::new().unwrap();
        let library = Path::new(env!("OUT_DIR")).join("calls.so");
        std::fs::copy(library, directory.path().join("calls.so")).unwrap();
        Self { directory }
    }

    /// Puts `command` under the library: the database at `home`/komoju.db and the spool directory
    /// are watched.
    pub fn under(&self, command: &mut Command, home: &Path, fault: DiskFault) -> Calls {
        let home = home.canonicalize().unwrap();
        let (seen, lifted) = (home.join("calls"), home.join("lifted"));
        let _ = std::fs::remove_file(&lifted);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&seen).unwrap();
        file.set_len(24).unwrap();
        let (database, spool) = (home.join("komoju.db"), home.join("spool"));
        let under = match fault.place {
            FaultPlace::Everywhere => format!("{}:{}", database.display(), spool.display()),
            FaultPlace::Spool => spool.display().to_string(),
        };
        command
            .env("LD_PRELOAD", self.directory.path().join("calls.so"))
            .env("CALLS_UNDER", under)
            .env("CALLS_HOME", &home)
            .env("CALLS_OF", fault.kinds)
            .env("CALLS_NTH", fault.nth.to_string())
            .env("CALLS_ERRNO", fault.errno.to_string())
            .env("CALLS_SEEN", seen)
            .env("CALLS_LIFTED", &lifted);
        if fault.lasts == FaultCount::FromThenOn {
            command.env("CALLS_ON", "1");
        }
        Calls { seen: file, lifted }
    }
}

impl Calls {
    /// Returns how many calls there were.
    pub fn count(&self) -> u64 {
        self.number(0)
    }

    /// Returns how many calls failed.
    pub fn failed(&self) -> u64 {
        self.number(8)
    }

    /// Makes the disk fail after this number of further calls, if `nth` was 0.
    pub fn begin_after(&self, calls: u64) {
        self.seen.write_all_at(&(self.count() + calls).to_ne_bytes(), 16).unwrap();
    }

    /// Makes the disk fail again.
    pub fn strike(&self) {
        std::fs::remove_file(&self.lifted).unwrap();
    }

    /// Repairs the disk: from now on no call fails.
    pub fn lift(&self) {
        File::create(&self.lifted).unwrap();
    }

    /// Reads a number of the shared file.
    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.seen.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }
}
