//! The library that makes calls fail, built once, and one program under it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The library, compiled.
pub struct Library {
    directory: TempDir,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub place: Place,
    /// Letters of `calls.c`.
    pub kinds: &'static str,
    pub errno: i32,
    pub lasts: Lasts,
    /// Which of these calls, from 1; 0: none.
    pub nth: u64,
}

/// Whose disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Everywhere,
    Spool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    Once,
    FromThenOn,
}

/// What a program under the library did.
pub struct Calls {
    seen: File,
    lifted: PathBuf,
}

impl Library {
    pub fn build() -> Self {
        let directory = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/io_errors/calls.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(directory.path().join("calls.so"))
            .arg(source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { directory }
    }

    /// Puts `command` under the library: the database at `home`/komoju.db and the spool directory are watched.
    pub fn under(&self, command: &mut Command, home: &Path, trouble: Trouble) -> Calls {
        let home = home.canonicalize().unwrap();
        let (seen, lifted) = (home.join("calls"), home.join("lifted"));
        let _ = std::fs::remove_file(&lifted);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&seen).unwrap();
        file.set_len(24).unwrap();
        let (database, spool) = (home.join("komoju.db"), home.join("spool"));
        let under = match trouble.place {
            Place::Everywhere => format!("{}:{}", database.display(), spool.display()),
            Place::Spool => spool.display().to_string(),
        };
        command
            .env("LD_PRELOAD", self.directory.path().join("calls.so"))
            .env("CALLS_UNDER", under)
            .env("CALLS_HOME", &home)
            .env("CALLS_OF", trouble.kinds)
            .env("CALLS_NTH", trouble.nth.to_string())
            .env("CALLS_ERRNO", trouble.errno.to_string())
            .env("CALLS_SEEN", seen)
            .env("CALLS_LIFTED", &lifted);
        if trouble.lasts == Lasts::FromThenOn {
            command.env("CALLS_ON", "1");
        }
        Calls { seen: file, lifted }
    }
}

impl Calls {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.number(0)
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.number(8)
    }

    /// So many calls from now trouble begins, where none was named before.
    pub fn begin_after(&self, calls: u64) {
        self.seen.write_all_at(&(self.count() + calls).to_ne_bytes(), 16).unwrap();
    }

    /// Trouble begins again.
    pub fn strike(&self) {
        std::fs::remove_file(&self.lifted).unwrap();
    }

    /// From now on none fails.
    pub fn lift(&self) {
        File::create(&self.lifted).unwrap();
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.seen.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }
}
